"""Every complaint that lossmith makes about an argument is worded here, in one voice.

The voice is ``"{name} must {rule}, got {value}"``: ValueError for values, TypeError for types.
Checks of tensor *values* cost a pass over the tensor. On the CPU they always run. On other devices
they would synchronise, so they run there only inside :func:`debug`. Inside ``torch.compile`` they
become assertions of the graph, which cost no synchronisation.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
import torch._C._functorch as functorch
from torch import Tensor
from torch.autograd import forward_ad

_debugging = False


@contextmanager
def debug() -> Generator[None]:
    """Check tensor values on every device, at the price of a synchronisation per check.

    Example:
        >>> import torch, lossmith
        >>> with lossmith.debug():
        ...     lossmith.cross_entropy(torch.zeros(1, 3), torch.tensor([3]))
        Traceback (most recent call last):
            ...
        ValueError: target must be a class index in [0, 2], got 3
    """
    global _debugging
    before, _debugging = _debugging, True
    try:
        yield
    finally:
        _debugging = before


def describe(value: object) -> str:
    """Short, exact text for a value in an error message."""
    if isinstance(value, Tensor):
        if value.ndim == 0 and not transforming() and value.is_cpu:
            return repr(value.item())
        return f"a tensor of shape {tuple(value.shape)} and dtype {value.dtype}"
    return repr(value)


def fail(name: str, rule: str, got: object) -> NoReturn:
    """Refuse a value."""
    text = got if isinstance(got, str) and got.startswith("\0") else describe(got)
    raise ValueError(f"{name} must {rule}, got {text.lstrip(chr(0))}")


def fail_type(name: str, rule: str, got: object) -> NoReturn:
    """Refuse a type."""
    kind = str(got.dtype) if isinstance(got, Tensor) else type(got).__name__
    text = f" {got!r:.60}" if isinstance(got, (str, int, float)) else ""
    raise TypeError(f"{name} must {rule}, got {kind}{text}")


def require_beside(name: str, value: Tensor, first: Tensor) -> None:
    """Refuse a tensor on another device than the first argument."""
    if value.device != first.device:
        fail(name, f"be on {first.device} like the first argument", said(f"one on {value.device}"))


def of_python(value: Any) -> Any:
    """A number of NumPy, or an array without dimensions, as a number of Python."""
    if isinstance(value, Tensor) or getattr(value, "shape", None) != ():
        return value
    return value.item()


def said(text: str) -> str:
    """Mark ``text`` as ready wording for :func:`fail`, to be shown without quotes."""
    return "\0" + text


def transforming() -> bool:
    """Whether a ``torch.func`` transform (vmap, grad, jvp ...) is active."""
    # The one private probe of functorch; if torch renames it, every test of transforms turns red.
    return functorch.peek_interpreter_stack() is not None


def observed() -> bool:
    """Whether a ``torch.func`` transform, a forward-mode derivative or a trace is active.

    ``torch.autograd.Function`` under those would be refused or, for forward mode, silently lose the
    tangent. The level of forward mode is a private name of torch; the contract's law
    ``jvp_equals_vjp`` and gradcheck's forward mode watch over it.
    """
    deriving = forward_ad._current_level >= 0 or functorch.peek_interpreter_stack() is not None
    return deriving or traced()


def traced() -> bool:
    """Whether ``torch.jit.trace`` is active, to which a value that is looked at is a constant."""
    return torch._C._get_tracing_state() is not None


def plain(*tensors: Tensor) -> bool:
    """Whether tensors are torch's own, whose kernels do what they say."""
    for tensor in tensors:  # a loop: each call of a small loss waits for this
        if type(tensor) is not Tensor and type(tensor) is not torch.nn.Parameter:
            return False
    return True


def eager(*tensors: Tensor) -> bool:
    """Plain tensors, no compiler, no ``torch.func`` transform, no forward-mode derivative."""
    return not torch.compiler.is_compiling() and not observed() and plain(*tensors)


def bare(tensor: Tensor) -> Tensor:
    """The plain tensor under any ``torch.func`` wrappers: value checks look at that."""
    if torch.compiler.is_compiling():  # dynamo has unwrapped it already
        return tensor
    while functorch.is_functorch_wrapped_tensor(tensor):
        tensor = functorch.get_unwrapped(tensor)
    return tensor


def checkable(tensor: Tensor) -> bool:
    """Whether ``tensor`` has values that may be looked at now without stalling a device."""
    if traced() or not plain(tensor):  # a subclass may have none, or elsewhere
        return False
    return tensor.is_cpu or (_debugging and tensor.device.type != "meta")


def within(plain: Tensor, low: float, high: float) -> bool:
    """Whether all values lie in ``[low, high]``; NaN does not. On the CPU only, or under ``debug``.

    One pass, where comparing element by element would write two tensors of flags and read them.
    """
    smallest, largest = torch.aminmax(plain)
    return smallest.item() >= low and largest.item() <= high


def require_range(name: str, rule: str, tensor: Tensor, low: float, high: float) -> None:
    """Every element of ``tensor`` lies in ``[low, high]``; NaN does not."""
    if not torch.compiler.is_compiling():
        tensor = bare(tensor)
        if not checkable(tensor) or tensor.numel() == 0 or within(tensor.detach(), low, high):
            return
    require_all(name, rule, (tensor >= low) & (tensor <= high), tensor)


def require_all(name: str, rule: str, holds: Tensor, tensor: Tensor) -> None:
    """``holds`` is true everywhere; ``tensor`` (same shape) supplies the offending value."""
    if torch.compiler.is_compiling():
        torch._assert_async(holds.all(), f"{name} must {rule}")
        return
    holds = bare(holds)
    if checkable(holds) and not holds.all().item():
        tensor = bare(tensor)
        shown = tensor[~holds].flatten()[0] if tensor.shape == holds.shape else tensor
        fail(name, rule, shown)
