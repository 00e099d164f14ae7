"""Cross-entropy of class indices as a pass over a block of logits, in place.

With ``e = exp(x - max x)``, R the sum of e over the other classes and S the sum over all, the slope
``p - onehot`` is ``e / S``, and ``-R / S`` at the target: nothing cancels, and the division by S is
left to whoever uses the slope. The value is the distance to the largest logit plus ``log S``, where
a target that is the largest itself adds its 1 under ``log1p``.

Smoothing by s takes ``s / C`` from the slope of every class, and gives that share of all distances
to the value; a factor w of each class multiplies both. A z-loss of factor z adds ``z lse^2`` to the
value and ``2 z lse p`` to the slopes, with lse the log-sum-exp of the row.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lossmith.core.numerics import times
from lossmith.engines.eligible import by_triton
from lossmith.engines.exponential import exp_of
from lossmith.engines.row_passes import Options, Rows, Tensors
from lossmith.engines.rows.head import Head
from lossmith.engines.rows.probabilities import Against
from lossmith.engines.rows.targets import ByKernels


class _Lowered(NamedTuple):
    """What stays of logits that e was written over, with 0 at the target; each ``(n, 1)``.

    Attributes:
        top: The largest logit.
        depth: How far the target is below it.
        own: e of the target.
        others: Sum of the other e.
        below: Sum of all logits less the largest, each times its factor; None without smoothing.
        certain: Whether the largest is infinite; None where that was looked at.
    """

    top: Tensor
    depth: Tensor
    own: Tensor
    others: Tensor
    below: Tensor | None
    certain: Tensor | None


def class_rows(
    logits: Tensors, rest: Tensors, options: Options, needs: Sequence[bool]
) -> Rows | None:
    """Values, and slopes written over the logits.

    None for target probabilities, for options besides class weight, smoothing, z-loss, a scale and,
    by Triton's kernels, a soft cap, and on the CPU for infinite logits; the logits are lost then.
    On a GPU, where labels are not looked at, one that is outside makes its own row NaN.
    """
    if by_triton(logits[0]):
        return _by_kernels(logits[0], rest[0], options, needs[0])
    named = dict(options)
    weight, smoothing = named.pop("weight", None), named.pop("label_smoothing", 0.0)
    z_loss, sharpness = named.pop("z_loss", 0.0), named.pop("logit_scale", 1.0)
    named.pop("ignore_index", None)  # absent rows have the weight 0
    (scores,), (target,) = logits, rest
    on_cpu = scores.device.type == "cpu"
    if target.is_floating_point() or any(named.values()):
        return None
    if weight is not None and smoothing and not on_cpu:  # 0 * inf, which only a look can tell
        return None
    out, classes = scores.detach(), scores.shape[1]
    if sharpness != 1:
        out.mul_(sharpness)
    inside = None if on_cpu else ((target >= 0) & (target < classes)).unsqueeze(1)
    place = target.unsqueeze(1)
    place = place if inside is None else torch.where(inside, place, 0)
    by_class = None if weight is None else weight.to(out)
    lowered = _lower(out, place, by_class if smoothing else None, smoothing > 0)
    if lowered is None:
        return None
    top, depth, own, others, below, certain = lowered

    total = own + others
    log_total = total.log()
    value = depth + torch.where(depth == 0, others.log1p(), log_total)
    if certain is not None:
        value = torch.where(certain & (depth > 0), math.inf, value)
    factor = None if by_class is None else by_class[place]
    pull = torch.full_like(total, 1 - smoothing)
    pull = pull if factor is None else pull * factor
    value = times(pull, value)
    share = smoothing / classes
    every = torch.zeros_like(total)  # factor of p in all slopes besides that of the target's cost
    if below is not None:
        mass = classes if by_class is None else by_class.sum()
        value = value + share * (mass * log_total - below)
        every += share * mass
    if z_loss:
        lse = top + log_total
        value = value + z_loss * lse * lse
        every += 2 * z_loss * lse
    if inside is not None:
        value = torch.where(inside, value, math.nan)
    found = Rows(
        value.squeeze(1), (None,), normaliser=None if factor is None else factor.squeeze(1)
    )
    if not needs[0]:
        return found

    ratio = pull + every  # the slope is ratio * e / S - pull * onehot - share * w
    if z_loss:  # lse may be negative, and where the sum vanishes the rest must not be lost with it
        ratio = torch.where(ratio == 0, 1e-20, ratio)
    unit = torch.where(ratio == 0, 1.0, ratio)
    if below is not None:
        each = share * total / unit
        out.sub_(each) if by_class is None else out.addr_(each.squeeze(1), by_class, alpha=-1)
    out.scatter_add_(1, place, (every * own - pull * others) / unit)
    scale = sharpness * ratio / total
    scale = scale if inside is None else torch.where(inside, scale, math.nan)
    return found._replace(slopes=(out,), factor=scale.squeeze(1))


def _by_kernels(scores: Tensor, target: Tensor, options: Options, need: bool) -> Rows | None:
    """With every option, for class indices."""
    named = dict(options)
    weight, smoothing = named.pop("weight", None), named.pop("label_smoothing", 0.0)
    head = Head(named.pop("logit_scale", 1.0), named.pop("softcap", None))
    z_loss, ignore = named.pop("z_loss", 0.0), named.pop("ignore_index", -100)
    if target.is_floating_point() or scores.dtype is torch.float64 or any(named.values()):
        return None
    given = ByKernels(Against(None, weight, smoothing, z_loss, head, ignore), target)
    grid = scores.T.unsqueeze(0)
    (value, mass), numbers = given.values(grid)
    if need:
        given.slopes(grid, numbers, value.new_ones(()), None, grid)
    normaliser = None if weight is None else mass
    return Rows(value, (scores if need else None,), normaliser=normaliser)


def _lower(logits: Tensor, place: Tensor, by_class: Tensor | None, smooth: bool) -> _Lowered | None:
    out = logits.detach()
    top, certain = out.amax(1, keepdim=True), None
    if out.device.type != "cpu":
        certain, largest = top == math.inf, torch.finfo(out.dtype).max / 4
        out.clamp_(max=largest)
        top = top.clamp(max=largest)
    elif not math.isfinite(top.sum().item()):
        return None
    out.sub_(top)
    depth, below = -out.gather(1, place), None
    if smooth:
        below = (out.sum(1) if by_class is None else out @ by_class).unsqueeze(1)
        if out.device.type == "cpu" and not math.isfinite(below.sum().item()):
            return None
    if out.is_cpu:
        exp_of(out, out)
    else:
        out.exp_()
    own = out.gather(1, place)
    out.scatter_(1, place, 0.0)
    return _Lowered(top, depth, own, out.sum(1, keepdim=True), below, certain)
