"""The exact value and gradient of a case, by mpmath at 60 digits from the given inputs."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from lossmith.contract.cases import Case

DIGITS = 60
Exact = list[Any]


@cache
def mp() -> Any:
    """A private mpmath context, so that the user's own precision is left alone."""
    try:
        from mpmath.ctx_mp import MPContext
    except ImportError as error:
        raise ImportError("the contract needs mpmath: pip install mpmath") from error
    context = MPContext()
    context.dps = DIGITS
    return context


def to_exact(tensor: Tensor) -> Any:
    """Nested lists of exact numbers; integers and flags stay what they are."""
    if tensor.ndim:
        return [to_exact(part) for part in tensor]
    value = tensor.item()
    return mp().mpf(value) if tensor.is_floating_point() else value


def flatten(nested: Any) -> list[Any]:
    """Nested lists, flat."""
    if isinstance(nested, (list, tuple)):
        return [leaf for part in nested for leaf in flatten(part)]
    return [nested]


def has_truth(case: Case) -> bool:
    """Whether the exact value is known."""
    return case.card.exact is not None or case.oracle is not None


def exact_values(case: Case, tensors: tuple[Tensor, ...]) -> list[Any]:
    """The unreduced loss as a flat list of exact numbers."""
    return _evaluate(case, [to_exact(t) for t in tensors])


def moved_values(
    case: Case, tensors: tuple[Tensor, ...], position: int, factors: list[Any]
) -> list[Any]:
    """The same with the elements of one argument multiplied by ``factors``."""
    arguments = [to_exact(t) for t in tensors]
    leaves = [x * f for x, f in zip(flatten(arguments[position]), factors, strict=True)]
    arguments[position] = _nest(leaves, tensors[position].shape)
    return _evaluate(case, arguments)


def _evaluate(case: Case, arguments: list[Any]) -> list[Any]:
    options = {k: to_exact(v) if isinstance(v, Tensor) else v for k, v in case.options.items()}
    if case.oracle is not None:
        return [mp().mpf(v) for v in flatten(case.oracle(*arguments, **options))]
    exact = case.card.exact
    assert exact is not None
    columns = [flatten(argument) for argument in arguments]
    return [mp().mpf(exact(mp(), *scalars, **options)) for scalars in zip(*columns, strict=True)]


def exact_gradient(case: Case, tensors: tuple[Tensor, ...], position: int) -> list[Any]:
    """Derivative of the summed loss by every element of one argument, by central differences.

    With 60 digits a step of 1e-25 leaves about 35 correct ones.
    """
    context = mp()
    arguments = [to_exact(t) for t in tensors]
    shape = tensors[position].shape
    leaves = flatten(arguments[position])
    if case.card.exact is not None and case.oracle is None:
        return [_slope(case, arguments, position, i) for i in range(len(leaves))]
    gradient: list[Any] = []
    for index, leaf in enumerate(leaves):
        step = (abs(leaf) + context.mpf(10) ** -5) * context.mpf(10) ** -25
        ends: list[Any] = []
        for moved in (leaf + step, leaf - step):
            changed = list(arguments)
            changed[position] = _nest([*leaves[:index], moved, *leaves[index + 1 :]], shape)
            ends.append(context.fsum(_evaluate(case, changed)))
        gradient.append((ends[0] - ends[1]) / (2 * step))
    return gradient


def _slope(case: Case, arguments: list[Any], position: int, index: int) -> Any:
    scalars = [flatten(argument)[index] for argument in arguments]
    return slope(scalar_function(case), scalars, position)


def scalar_function(case: Case) -> Callable[..., Any]:
    """The exact loss of one element."""
    exact, options = case.card.exact, case.options
    assert exact is not None
    return lambda *scalars: mp().mpf(exact(mp(), *scalars, **options))


def slope(function: Callable[..., Any], scalars: list[Any], position: int) -> Any:
    """Central difference of a scalar function in one argument."""
    context = mp()
    # Relative to the number, so that 1e-30 and 1e18 are both served.
    step = (abs(scalars[position]) or context.mpf(10) ** -30) * context.mpf(10) ** -25
    low, high = list(scalars), list(scalars)
    # Twice the digits: where a loss saturates, the two values agree in more than 60.
    with context.workdps(2 * DIGITS):
        low[position], high[position] = scalars[position] - step, scalars[position] + step
        return (function(*high) - function(*low)) / (2 * step)


def _nest(leaves: list[Any], shape: torch.Size) -> Any:
    if not shape:
        return leaves[0]
    width = len(leaves) // shape[0]
    return [_nest(leaves[i * width : (i + 1) * width], shape[1:]) for i in range(shape[0])]


def ulp(value: Any, dtype: torch.dtype) -> Any:
    """Distance to the next number of ``dtype`` at an exact value."""
    context, info = mp(), torch.finfo(dtype)
    magnitude = max(abs(value), context.mpf(info.tiny))
    exponent = context.floor(context.log(magnitude, 2))
    return context.mpf(2) ** exponent * context.mpf(info.eps)
