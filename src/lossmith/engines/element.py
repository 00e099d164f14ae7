"""The logistic loss of hard labels in one pass: value and slope from a single product."""

from typing import Any

from torch import Tensor

from lossmith.core.numerics import softplus
from lossmith.engines.pull import SMALL, reduced, with_pull


def _plain(input: Tensor, side: Tensor) -> Tensor:
    return softplus(side * input)


def one_pass_softplus(input: Tensor, side: Tensor, reduction: int) -> Tensor:
    """``softplus(side * input)`` for a ``side`` of -1 or 1 that needs no gradient."""
    if input.numel() <= SMALL:
        return reduced(_plain(input, side), reduction)
    # in place, since a fresh megabyte costs more than the arithmetic on it
    margin = side * input.detach()
    value = softplus(margin)
    slope = margin.sigmoid_().mul_(side)
    leaves, others = (input,), (side,)
    return with_pull(value, reduction, _pull, _plain, leaves=leaves, others=others, kept=(slope,))


def _pull(grad: Tensor, needed: Any, leaves: Any, slope: Tensor) -> tuple[Tensor]:
    return (slope * grad,)
