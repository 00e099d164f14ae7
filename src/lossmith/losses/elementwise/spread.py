"""What losses with a predicted spread (a variance, a scale) share."""

from typing import Any

import torch
from torch import Tensor

from lossmith.core.checks import eager, require_all
from lossmith.core.numerics import not_below


def to_shape_of_input(input: Any, target: Any, spread: Any) -> tuple[Any, ...]:
    """Give the spread the shape of ``input``, where it has one of the shapes that torch allows.

    These are: a float; one dimension fewer (the last); one dimension of size 1 for a larger one.
    """
    if not isinstance(input, Tensor):
        return input, target, spread
    if isinstance(spread, float):
        return input, target, torch.full_like(input, spread)
    if not isinstance(spread, Tensor) or spread.shape == input.shape:
        return input, target, spread
    if spread.shape == input.shape[:-1]:
        return input, target, spread.unsqueeze(-1).expand_as(input)
    if spread.ndim == input.ndim:
        differing = [s for s, n in zip(spread.shape, input.shape, strict=True) if s != n]
        if differing == [1]:
            spread = spread.expand_as(input)
    return input, target, spread


def floored(name: str, spread: Tensor, eps: float) -> Tensor:
    """At least ``eps``, with the gradient of an unfloored spread, so that it can grow again."""
    if eps == 0:
        require_all(name, "be > 0 if eps is 0", spread > 0, spread)
        return spread
    if eager(spread) and spread.is_cpu and spread.numel():
        smallest = spread.detach().amin()
        if smallest >= eps:  # one look instead of four kernels and their gradients
            return spread
    return not_below(spread, eps)
