"""Predictions against masks: the sums over positions that region losses are functions of.

Nothing here subtracts sums. ``1 - 2 I / (P + T)`` loses its digits as the overlap becomes good;
the same number as wrong / (wrong + right) does not.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from lossmith.core.checks import fail
from lossmith.core.domain import CLASS, REAL, UNIT
from lossmith.core.signature import Signature

SOFT_MASK = replace(UNIT, floating=None)

BY_CLASS = (
    Signature(input=REAL("N C *"), target=CLASS("N *"), out="N"),
    Signature(input=REAL("N C *"), target=UNIT("N C *"), out="N"),
)
BY_MASK = (Signature(input=REAL("N *"), target=SOFT_MASK("N *"), out="N"),)


class Pixels(NamedTuple):
    """Positions along the last dimension; all three are 0 where a position is ignored.

    Attributes:
        inside: Probability p that the position belongs to the region.
        outside: 1 - p, with its own digits where p is close to 1; only right where t is not 0.
        mask: Target t in [0, 1].
    """

    inside: Tensor
    outside: Tensor
    mask: Tensor


class Overlap(NamedTuple):
    """Soft counts of positions.

    Attributes:
        hit: Sum of p t, the intersection.
        false_alarm: Sum of p (1 - t).
        miss: Sum of (1 - p) t.
    """

    hit: Tensor
    false_alarm: Tensor
    miss: Tensor


def class_pixels(input: Tensor, target: Tensor, ignore_index: int) -> Pixels:
    """Softmax over dimension 1; every member is ``(N, C, positions)``."""
    if input.shape[1] < 2:
        rule = "have two or more classes in dimension 1 (for one logit per position: binary_...)"
        fail("input", rule, input.shape[1])
    logits = positions(input, 2)
    if target.is_floating_point():
        inside = logits.softmax(1)
        return Pixels(inside, _complement(inside), positions(target, 2))
    label = positions(target, 1).unsqueeze(1).long()
    present = label != ignore_index
    if label.device.type != "cpu":  # labels go unchecked there: one outside is NaN in its sample
        outside = present & ((label < 0) | (label >= input.shape[1]))
        logits = torch.where(outside, math.nan, logits)
        label = label.clamp(0, input.shape[1] - 1)
    label = torch.where(present, label, 0)
    inside = torch.where(present, logits, 0.0).softmax(1)
    rest = inside.scatter(1, label, 0.0).sum(1, keepdim=True)  # 1 - p of the labelled class
    return Pixels(
        inside=torch.where(present, inside, 0.0),
        outside=torch.where(present, rest, 0.0).expand_as(inside),
        mask=torch.zeros_like(inside).scatter(1, label, present.to(inside.dtype)),
    )


def mask_pixels(input: Tensor, target: Tensor) -> Pixels:
    """Sigmoid; every member is ``(N, positions)``."""
    logits = positions(input, 1)
    return Pixels(logits.sigmoid(), (-logits).sigmoid(), positions(target, 1))


def overlap(pixels: Pixels) -> Overlap:
    """Sum over the positions."""
    inside, outside, mask = pixels
    return Overlap(
        hit=(inside * mask).sum(-1),
        false_alarm=(inside * (1 - mask)).sum(-1),
        miss=(outside * mask).sum(-1),
    )


def share(wrong: Tensor, right: Tensor, smooth: float) -> Tensor:
    """``wrong / (wrong + right + smooth)``; 0 where there is nothing to get wrong.

    Through the smaller over the larger part: the derivative of the plain fraction by ``wrong`` is
    a difference of two numbers that agree to all digits where nearly everything is wrong.
    """
    right = right + smooth
    mostly_wrong = wrong > right
    less = torch.where(mostly_wrong, right, wrong)
    more = torch.where(mostly_wrong, wrong, right)
    # below the smallest normal number there is nothing: 1 / more would overflow
    nothing = more < torch.finfo(more.dtype).tiny
    odds = torch.where(nothing, 0.0, less) / torch.where(nothing, 1.0, more)
    return torch.where(mostly_wrong & ~nothing, 1.0, odds) / (1 + odds)


def over_classes(value: Tensor, weight: Tensor | None, include_background: bool) -> Tensor:
    """Mean over the classes, ``(N, C)`` to ``(N)``, with weights where they are given."""
    factor = torch.ones_like(value[0:1]) if weight is None else weight.to(value).unsqueeze(0)
    if not include_background:
        value, factor = value[:, 1:], factor[:, 1:]
    total = factor.sum()
    return (value * factor).sum(1) / torch.where(total == 0, 1.0, total)


def positions(tensor: Tensor, start: int) -> Tensor:
    """All dimensions from ``start`` on as one; a new one if there are none."""
    return tensor.flatten(start) if tensor.ndim > start else tensor.unsqueeze(-1)


def _complement(probability: Tensor) -> Tensor:
    """``1 - p``: of the likeliest class, which alone can be near 1, as the sum of the others."""
    top = probability.argmax(1, keepdim=True)
    others = probability.scatter(1, top, 0.0).sum(1, keepdim=True)
    return (1 - probability).scatter(1, top, others)
