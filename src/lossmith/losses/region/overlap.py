"""Predictions against masks, position by position, and what is made of them in one place.

Nothing here subtracts sums. ``1 - 2 I / (P + T)`` loses its digits as the overlap becomes good;
the same number as wrong / (wrong + right) does not.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from lossmith.core.checks import fail
from lossmith.core.domain import LABEL_MAP, REAL, UNIT
from lossmith.core.numerics import (
    accurate_log_softmax,
    class_margin,
    faded,
    is_number,
    logistic_sides,
    times,
)
from lossmith.core.signature import HALF, Signature
from lossmith.engines.statistics import positions

SOFT_MASK = replace(UNIT, floating=None, as_is=True)
EACH, ALL = {"batch": False}, {"batch": True}

BY_CLASS = (
    Signature(input=REAL("N C *"), target=LABEL_MAP("N *"), out="N", when=EACH),
    Signature(input=REAL("N C *"), target=UNIT("N C *"), out="N", when=EACH),
    Signature(input=REAL("N C *"), target=LABEL_MAP("N *"), out="", when=ALL),
    Signature(input=REAL("N C *"), target=UNIT("N C *"), out="", when=ALL),
)
BY_MASK = (
    Signature(input=REAL("N *"), target=SOFT_MASK("N *"), out="N", when=EACH),
    Signature(input=REAL("N *"), target=SOFT_MASK("N *"), out="", when=ALL),
)


class Pixels(NamedTuple):
    """Positions along the last dimension; everything is 0 where a position is ignored.

    Attributes:
        inside: Probability p that the position belongs to the region.
        outside: 1 - p, with its own digits where p is close to 1; only right where t is not 0.
        mask: Target t in [0, 1].
        number: Number of positions that count, in all or by sample, ``(N, 1)``.
        cost: ``-t (1 - p)^gamma log p``, for a sigmoid with its like for ``1 - t``; or None.
    """

    inside: Tensor
    outside: Tensor
    mask: Tensor
    number: Tensor | int
    cost: Tensor | None = None


def class_pixels(
    input: Tensor, target: Tensor, ignore_index: int, gamma: float | None = None
) -> Pixels:
    """Softmax over dimension 1; every member is ``(N, C, positions)``."""
    if input.shape[1] < 2:
        rule = "have two or more classes in dimension 1 (for one logit per position: binary_...)"
        fail("input", rule, input.shape[1])
    logits = _wide(positions(input, 2))
    if target.is_floating_point():
        inside, mask = logits.softmax(1), _wide(positions(target, 2))
        outside = _complement(inside)
        cost = None
        if gamma is not None:
            # an absent class may cost infinitely much
            nll = torch.where(mask == 0, 0.0, -accurate_log_softmax(logits, dim=1))
            cost = mask * _power(outside, gamma) * nll
        return Pixels(inside, outside, mask, mask.shape[-1], cost)
    label = positions(target, 1).unsqueeze(1).long()
    present = label != ignore_index
    if label.device.type != "cpu":  # labels go unchecked there: one outside is NaN in its sample
        outside = present & ((label < 0) | (label >= input.shape[1]))
        logits = torch.where(outside, math.nan, logits)
        label = label.clamp(0, input.shape[1] - 1)
    label = torch.where(present, label, 0)
    logits = torch.where(present, logits, 0.0)
    inside = logits.softmax(1)
    rest = inside.scatter(1, label, 0.0).sum(1, keepdim=True)  # 1 - p of the labelled class
    cost = None
    if gamma is not None:
        margin = class_margin(logits, label.squeeze(1)).unsqueeze(1)
        nll, odds, wrong, _ = logistic_sides(margin)  # -log p and -log(1 - p)
        nll = torch.where(present, faded(nll, wrong, odds, gamma), 0.0)
        cost = torch.zeros_like(inside).scatter(1, label, nll)
    return Pixels(
        inside=torch.where(present, inside, 0.0),
        outside=torch.where(present, rest, 0.0).expand_as(inside),
        mask=torch.zeros_like(inside).scatter(1, label, present.to(inside.dtype)),
        number=present.sum(-1).to(inside.dtype),
        cost=cost,
    )


def mask_pixels(input: Tensor, target: Tensor, gamma: float | None = None) -> Pixels:
    """Sigmoid; every member is ``(N, 1, positions)``."""
    logits = _wide(positions(input, 1).unsqueeze(1))
    mask = _wide(positions(target, 1).unsqueeze(1)).to(logits.dtype)
    inside, outside = logits.sigmoid(), (-logits).sigmoid()
    cost = None
    if gamma is not None:
        against, toward, *_ = logistic_sides(logits)  # -log(1 - p) and -log p
        cost = times(mask, faded(toward, outside, against, gamma))
        cost = cost + times(1 - mask, faded(against, inside, toward, gamma))
    return Pixels(inside, outside, mask, mask.shape[-1], cost)


def share(wrong: Tensor, right: Tensor, smooth: float | Tensor) -> Tensor:
    """``wrong / (wrong + right + smooth)``; 0 where there is nothing to get wrong.

    Through the smaller over the larger part: the derivative of the plain fraction by ``wrong`` is
    a difference of two numbers that agree to all digits where nearly everything is wrong.
    """
    right = right + smooth
    mostly_wrong = wrong > right
    less = torch.where(mostly_wrong, right, wrong)
    more = torch.where(mostly_wrong, wrong, right)
    tiny = torch.finfo(more.dtype).tiny
    if isinstance(smooth, Tensor) or smooth < tiny:
        # below the smallest normal number there is nothing: 1 / more would overflow
        nothing = less + more < tiny  # not of NaN on either side
        mostly_wrong = mostly_wrong & ~nothing
        less, more = torch.where(nothing, 0.0, less), torch.where(nothing, 1.0, more)
    odds = less / more
    return torch.where(mostly_wrong, 1.0, odds) / (1 + odds)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in HALF else tensor


def _power(rest: Tensor, gamma: float) -> Tensor:
    """``rest^gamma``, without its infinite slope at 0."""
    if is_number(gamma, 0):
        return torch.ones_like(rest)
    certain = rest == 0
    return torch.where(certain, 0.0, torch.where(certain, 1.0, rest).pow(gamma))


def _complement(probability: Tensor) -> Tensor:
    """``1 - p``: of the likeliest class, which alone can be near 1, as the sum of the others."""
    top = probability.argmax(1, keepdim=True)
    others = probability.scatter(1, top, 0.0).sum(1, keepdim=True)
    return (1 - probability).scatter(1, top, others)
