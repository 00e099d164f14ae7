"""Autocast rounds products to half precision: right in a layer, wrong in a loss."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch

F = TypeVar("F", bound=Callable[..., Any])
# Devices that torch's autocast knows; it refuses to be asked about any other
_KNOWN = frozenset(filter(torch.amp.is_autocast_available, ("cpu", "cuda", "xpu", "mps")))


# Whether it is on for any device: what a small call has time to ask
autocast_on: Callable[[], bool] = torch._C._is_any_autocast_enabled


def autocasts(tensor: torch.Tensor) -> bool:
    """Whether autocast is on for the device of a tensor."""
    device = tensor.device.type
    return device in _KNOWN and torch.is_autocast_enabled(device)


def without_autocast(function: F) -> F:
    """The function with autocast off for the device of its first argument, a tensor."""

    @functools.wraps(function)
    def exact(first: torch.Tensor, *others: Any, **options: Any) -> Any:
        if not autocasts(first):
            return function(first, *others, **options)
        with torch.autocast(first.device.type, enabled=False):
            return function(first, *others, **options)

    return cast(F, exact)
