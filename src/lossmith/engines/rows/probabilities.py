"""Rows of logits against probabilities: cross-entropy; and of logits alone: entropy.

On the CPU only.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lossmith.core.route import Call
from lossmith.engines.exponential import better_lowered, exp_of, lowered_exp
from lossmith.engines.rows.engine import Done, Rows
from lossmith.engines.rows.frame import frame_of
from lossmith.engines.rows.head import Head, by_class, in_range
from lossmith.engines.rows.layout import Layout, Piece, Work, total

# Costs of a target from which they keep their digits as a difference of larger numbers
UNLIKELY = 0.5
_LOWEST = -1e4  # its exponential is 0 in every dtype, and 0 times it is 0


class Against(NamedTuple):
    """A loss of one row, as a function of the probability p of its class, and its additions.

    Attributes:
        cost: ``cost(-log p, p, 1 - p)`` returns it and its derivative by ``-log p``, from numbers
            that each have all their digits; None for cross-entropy, ``-log p`` itself.
        weight: Factor of each class, by which the mean over class indices divides.
        smoothing: Share of the target that is spread over all classes.
        z_loss: Factor of the squared log-sum-exp.
        head: What happens to the logits before.
        ignore_index: The label of absent rows.
        overwrite: Whether slopes may take the place of the logits.
    """

    cost: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]] | None = None
    weight: Tensor | None = None
    smoothing: float = 0.0
    z_loss: float = 0.0
    head: Head = Head()
    ignore_index: int = -100
    overwrite: bool = False


def log_total(exponentials: Tensor) -> tuple[Tensor, Tensor]:
    """Sum over the classes, of which the largest is 1, and its logarithm with all its digits."""
    whole = total(exponentials)
    if whole.min().item() > 1.5:
        return whole, whole.log()
    rest = total(exponentials.frac())  # of 1 there is nothing left, of any other all
    return whole, torch.where(whole > 1.5, whole.log(), rest.log1p_())


def by_probabilities(call: Call, loss: Against, need: bool) -> Done | None:
    """Cross-entropy of probabilities, ``(sum t) log sum exp x - sum t x``."""
    logits, target = call.tensors
    layout = Layout(logits)
    grid, shares = layout.grid(logits), layout.grid(target)
    frame = frame_of(call, layout)
    weight = None if loss.weight is None else loss.weight.to(frame.dtype)
    scale = frame.scale.expand(layout.line_of(grid))
    smooth = loss.smoothing / grid.shape[1]

    def one(piece: Piece, outs: tuple[Tensor, ...], work: Work) -> Tensor | None:
        (out,) = outs
        own, part = piece.logits(grid), piece.logits(shares)
        if not (part.amin().item() >= 0 and part.amax().item() <= 1):  # faster than aminmax
            return None
        same = own.dtype is part.dtype is out.dtype
        if not same or smooth or weight is not None:
            part = work.like(out, -2).copy_(part)
        if smooth:
            part.mul_(1 - loss.smoothing).add_(smooth)
        if weight is not None:
            part.mul_(by_class(weight, part))
        mass = total(part)
        each = piece.numbers(scale) * loss.head.scale
        if same and loss.head.bare and not loss.z_loss and not work.lowers:
            reach = total(torch.mul(part, own, out=out))
            if better_lowered(own):
                top = own.amax(1, keepdim=True)
                whole = total(lowered_exp(own, top, out))
                depth = whole.log() + top
            else:
                whole = total(torch.exp(own, out=out))
                depth = whole.log()
            value = mass * depth - reach
            least = depth.abs_().mul_(0.5).clamp_(min=1.0).mul_(UNLIKELY * mass)
            if in_range(whole) and (value > least).all():
                if need:
                    out.mul_(mass * each / whole).addcmul_(part, each, value=-1)
                return value
            work.lowers = True
        top, bend = loss.head.lower(own, out, work)
        reach = total(torch.mul(part, out, out=work.like(out, -3)))
        whole, depth = log_total(exp_of(out, out))
        value = mass * depth - reach
        if loss.z_loss:
            lse = top + depth
            value = value + loss.z_loss * lse * lse
            mass = mass + 2 * loss.z_loss * lse
        if not value.isfinite().all():
            return None
        if need:
            out.mul_(mass / whole).sub_(part).mul_(each)
            if bend is not None:
                out.mul_(bend)
        return value

    return frame.evaluate(grid, one, (need,))


def _entropy(call: Call, needs: tuple[bool, ...]) -> Done | None:
    """``log sum exp x - sum p x``, whose slope is ``-p (log p + H)``."""
    (logits,) = call.tensors
    layout = Layout(logits)
    grid = layout.grid(logits)
    frame = frame_of(call, layout)
    scale = frame.scale.expand(layout.line_of(grid))

    def one(piece: Piece, outs: tuple[Tensor, ...], work: Work) -> Tensor | None:
        (out,) = outs
        Head().lower(piece.logits(grid), out, work)
        depths = work.like(out, -1).copy_(out.clamp_(min=_LOWEST))
        whole, depth = log_total(exp_of(out, out))
        if whole.isnan().any():
            return None
        mean = total(torch.mul(out, depths, out=work.like(out, -2))) / whole
        if needs[0]:
            out.mul_(depths.sub_(mean)).mul_(-piece.numbers(scale) / whole)
        return depth - mean

    return frame.evaluate(grid, one, needs)


entropy_rows = Rows(_entropy)
