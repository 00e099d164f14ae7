"""Two rows of logits: how far their softmaxes p and q are apart, no log-probability kept in memory.

With ``u = log p - log q``, ``p - q = (p + q) tanh(u / 2)`` and ``log(2 p / (p + q)) =
log1p(tanh |u / 2|) + min(u, 0)``. Written so, an error common to all u, as that of the two
log-sum-exps is, cancels: near equality the divergences keep their digits. Total variation, which is
no sum of squares, does without.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lossmith.core.route import Call
from lossmith.engines.exponential import better_lowered, exp_of, lowered_exp
from lossmith.engines.rows.device import apart_on_device
from lossmith.engines.rows.engine import Done, Rows
from lossmith.engines.rows.frame import frame_of
from lossmith.engines.rows.head import in_range
from lossmith.engines.rows.layout import Layout, Piece, Work, total

# How far apart the largest logits of two rows may be for one of them to lower both. It cancels in
# their difference, which then is taken of the logits as they are, and keeps all its digits.
_NEAR = 8.0


class Both(NamedTuple):
    """A piece of both sides, to be overwritten.

    ``p`` and ``q`` are ``factor`` times the probabilities, as the slopes need them. The slopes go
    to ``outs`` in the end; until then these are free for anything else, so that fewer buffers
    compete for the cache.
    """

    p: Tensor
    q: Tensor
    u: Tensor
    outs: tuple[Tensor, ...]
    factor: float

    def mean(self, share: Tensor, of: Tensor, free: Tensor) -> Tensor:
        """Sum over the classes of ``share * of``, without the factor."""
        return self.total(torch.mul(share, of, out=free))

    def total(self, piece: Tensor) -> Tensor:
        """Sum over the classes, without the factor."""
        return total(piece).div_(self.factor)

    def half(self, free: Tensor) -> Tensor:
        """``tanh(u / 2)``."""
        return torch.mul(self.u, 0.5, out=free).tanh_()


Divergence = Callable[[Both, tuple[bool, ...]], Tensor]


def forward(both: Both, needs: tuple[bool, ...]) -> Tensor:
    """KL(q || p), the sum of ``(p - q) - q u``."""
    p, q, u, (to_input, to_target), _ = both
    drift = both.mean(q, u, to_input)
    gap = both.half(to_input).mul_(p.add_(q))
    if needs[1]:
        torch.mul(q, u.sub_(drift), out=to_target).neg_()
    return both.total(gap) - drift


def reverse(both: Both, needs: tuple[bool, ...]) -> Tensor:
    """KL(p || q), the sum of ``p u - (p - q)``."""
    p, q, u, (to_input, to_target), _ = both
    drift = both.mean(p, u, to_target)
    gap = both.half(to_target).mul_(q.add_(p))
    value = drift - both.total(gap)
    if needs[0]:
        torch.mul(p, u.sub_(drift), out=to_input)
    if needs[1]:
        gap.neg_()
    return value


def jensen_shannon(both: Both, needs: tuple[bool, ...]) -> Tensor:
    """The mean of KL(p || m) and KL(q || m), m the mean of p and q."""
    p, q, u, (to_input, to_target), _ = both
    near = both.half(to_target).abs_().log1p_()
    # each from u itself: their difference is u, and would swallow them where u is large
    over_q = torch.sub(near, torch.clamp(u, min=0, out=to_input), out=to_input)  # log(q / m)
    over_p = u.clamp_(max=0).add_(near)  # log(p / m)
    one, other = both.mean(p, over_p, to_target), both.mean(q, over_q, to_target)
    if needs[1]:
        torch.mul(q, over_q.sub_(other), out=to_target)
    if needs[0]:
        torch.mul(p, over_p.sub_(one), out=to_input)
    return 0.5 * (one + other)


def total_variation(both: Both, needs: tuple[bool, ...]) -> Tensor:
    """Half the sum of ``|p - q|``.

    The sum of ``p - q`` is 0, or the error that all p have in common, which then is taken out.
    """
    p, q, u, (to_input, to_target), _ = both
    side = u.sign_()
    other = both.mean(q, side, to_target)
    gap = torch.sub(p, q, out=to_target)
    drift = both.total(gap)
    apart = both.total(gap.abs_())
    if needs[1]:
        torch.mul(q, torch.sub(side, other, out=to_target), out=to_target).neg_()
    if needs[0]:
        torch.mul(p, side.sub_(other + apart), out=to_input)
    return 0.5 * (apart - drift * other)


def between(divergence: Divergence, part: float = 1.0) -> Rows:
    """The engine of a divergence of two tensors of logits, both divided by a ``temperature``.

    Args:
        divergence: Leaves slopes that are in proportion to ``p`` and ``q``.
        part: The factor of that proportion, which then costs no step of its own.
    """
    # a difference of shares keeps no more digits than they have, and a depth may cost them some
    lowered = divergence is not total_variation

    def kernel(call: Call, needs: tuple[bool, ...]) -> Done | None:
        """By blocks of rows. On the CPU only."""
        layout = Layout(call.tensors[0])
        first, second = (layout.grid(t) for t in call.tensors)
        frame = frame_of(call, layout)
        sharpness = 1 / call.options.get("temperature", 1.0)
        scale = frame.scale * sharpness * part
        shared = scale.ndim == 0  # then it goes into the exponentials, and costs nothing
        factor = scale.item() if shared else 1.0

        def one(piece: Piece, outs: tuple[Tensor, ...], work: Work) -> Tensor | None:
            p, q, u = work.like(outs[0], -1), work.like(outs[0], -2), work.like(outs[0], -3)
            sides: list[Tensor] = []
            for grid, out in ((first, u), (second, outs[1])):
                side = piece.logits(grid)
                if side.dtype is not out.dtype:
                    side = out.copy_(side)
                if sharpness != 1:  # only now: half precision would round the product
                    side = torch.mul(side, sharpness, out=out)
                sides.append(side)
            x, y = sides
            wholes = None
            if not (work.lowers or (lowered and better_lowered(p))):
                wholes = total(torch.exp(x, out=p)), total(torch.exp(y, out=q))
            if wholes is None or not all(map(in_range, wholes)):
                work.lowers = True
                top, other = x.amax(1, keepdim=True), y.amax(1, keepdim=True)
                if torch.sub(top, other).abs_().max().item() < _NEAR:
                    wholes = total(lowered_exp(x, top, p)), total(lowered_exp(y, top, q))
                else:
                    x, y = torch.sub(x, top, out=u), torch.sub(y, other, out=outs[1])
                    wholes = total(exp_of(x, p)), total(exp_of(y, q))
            for e, whole in zip((p, q), wholes, strict=True):
                e.mul_(factor / whole)
            depths = [whole.double().log_() for whole in wholes]  # next to each other
            torch.sub(x, y, out=u).sub_(depths[0].sub_(depths[1]).to(u.dtype))
            value = divergence(Both(p, q, u, outs, factor), needs)
            if not shared:
                for out, need in zip(outs, needs, strict=True):
                    if need:
                        out.mul_(piece.numbers(scale))
            return value

        return frame.evaluate(first, one, needs, buffers=4, finish=_bounded)  # two logits, slopes

    return Rows(kernel, functools.partial(apart_on_device, divergence.__name__), logits=2)


def _bounded(values: Tensor) -> Tensor | None:
    """None if one is not finite; rounding may lead below 0. On the CPU only."""
    return values.clamp(min=0.0) if math.isfinite(values.sum().item()) else None
