"""Autocast rounds products to half precision: right in a layer, wrong in a loss."""

import functools
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
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


class _Thread(threading.local):
    """Whether this thread is inside :func:`in_float32`."""

    wide = False


_thread = _Thread()


@contextmanager
def in_float32() -> Generator[None]:
    """Leave the values of half precision in float32, as torch's own losses do under autocast."""
    before, _thread.wide = _thread.wide, True
    try:
        yield
    finally:
        _thread.wide = before


def rounded(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The value of a loss in the dtype of its first tensor, or float32 for half under autocast.

    In half precision a sum may be beyond the largest number, or a mean times a scaler's factor.
    """
    dtype = like.dtype
    if dtype in (torch.float16, torch.bfloat16) and (_thread.wide or autocasts(like)):
        dtype = torch.float32
    return value if value.dtype is dtype else value.to(dtype)


def without_autocast(function: F) -> F:
    """The function with autocast off for the device of its first argument, a tensor."""

    @functools.wraps(function)
    def exact(first: torch.Tensor, *others: Any, **options: Any) -> Any:
        if not autocasts(first):
            return function(first, *others, **options)
        with torch.autocast(first.device.type, enabled=False):
            return function(first, *others, **options)

    return cast(F, exact)
