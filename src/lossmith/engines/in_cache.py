"""Losses whose value and slope are written by hand, worked out block by block in the cache.

A chain of torch's kernels over a large tensor waits for memory at each of them, and for fresh
pages at each result. Here the whole chain works on one block, in buffers that stay in the cache,
before the next block is touched: the arguments are read once, the gradient is written once.
On the CPU only. ``benchmarks/results/torch_losses.json`` has the times against torch's own kernels.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lossmith.core.loss import NATIVE_REDUCTION
from lossmith.engines.pages import in_huge_pages
from lossmith.engines.pull import SMALL, is_one, with_pull

# Elements of a block per thread: half a dozen float32 buffers of them fill a second-level cache,
# and the calls per block no longer count.
BLOCK = 1 << 16
# In rows of fewer classes torch's vector kernels do not get going.
NARROW = 8
_NONE, _MEAN = NATIVE_REDUCTION["none"], NATIVE_REDUCTION["mean"]


def _always(input: Tensor, target: Tensor) -> bool:
    return True


class Formula(NamedTuple):
    """A loss of an input and a target, with its derivative by the input.

    Attributes:
        plain: The unreduced loss as plain torch.
        value: ``value(input, target, out, slope, *spare)`` writes the loss of a block into ``out``.
            The three other buffers, of the shape of the input, are there for what it works out on
            the way. What is not finite says that the plain function has to look.
        slope: ``slope(input, target, out, slope, *spare)`` writes the derivative into ``slope``. It
            comes straight after ``value`` and finds these three as they were left; ``out`` is
            free.
        fits: Whether the rest may serve a block, for the values that are in it.
        few: ``few(input, target, reduction)`` is the reduced loss in as few of torch's kernels as
            it takes, for small tensors. None where it does not fit the values; what is not finite
            says so too.
        by_row: The loss is one number per row of an input ``(N, C)``.
    """

    plain: Callable[[Tensor, Tensor], Tensor]
    value: Callable[..., Any]
    slope: Callable[..., Any]
    fits: Callable[[Tensor, Tensor], bool] = _always
    few: Callable[[Tensor, Tensor, int], Tensor | None] | None = None
    by_row: bool = False


def zeros_and_ones(label: Tensor) -> bool:
    """Whether every label is 0 or 1. On the CPU only."""
    return torch.equal(label.relu().sign(), label)


def rows_are_worth_it(input: Tensor) -> bool:
    """Whether blocks of rows beat a kernel that torch has for them."""
    return input.numel() > SMALL and input.shape[-1] >= NARROW


def in_cache(formula: Formula, input: Tensor, target: Tensor, reduction: int) -> Tensor | None:
    """The reduced loss, its slope known already; None if the plain function has to serve.

    On the CPU only, where a look at the values is free, and for targets without a gradient.
    """
    if target.requires_grad or not input.is_cpu:
        return None
    if formula.few is not None and input.numel() <= SMALL:
        value = formula.few(input, target, reduction)
        if value is None:
            return None
        finite = math.isfinite((value if value.ndim == 0 else value.detach().sum()).item())
        return value if finite else None
    x, y = input.detach().contiguous(), target.contiguous()
    if formula.by_row:
        x = x.view(-1, x.shape[-1])
        y = y.view(x.shape if y.shape == input.shape else -1)
    else:
        x, y = x.view(-1), y.view(-1)
    shape = input.shape[:-1] if formula.by_row else input.shape
    result = x.new_empty(shape if reduction == _NONE else ())
    values = result.view(-1) if reduction == _NONE else None
    slopes = (
        in_huge_pages(torch.empty_like(x))
        if input.requires_grad and torch.is_grad_enabled()
        else None
    )
    with torch.inference_mode():  # its kernels are called faster
        total = _fill(formula, x, y, values, slopes, 1 / len(x) if reduction == _MEAN else 1.0)
    if not math.isfinite(total):
        return None
    if values is None:
        result.fill_(total)
    if slopes is None:
        return result
    kept, leaves, others = (slopes.view_as(input),), (input,), (target,)
    return with_pull(
        result, reduction, _pull, formula.plain, leaves=leaves, others=others, kept=kept, done=True
    )


def _fill(
    formula: Formula,
    x: Tensor,
    y: Tensor,
    values: Tensor | None,
    slopes: Tensor | None,
    share: float,
) -> float:
    """Fill ``values`` and ``slopes`` where they are wanted; the sum of the values, times ``share``.

    NaN if the formula does not fit.
    """
    step = max(1, BLOCK * torch.get_num_threads() * len(x) // x.numel())
    like = x if len(x) <= step else x[:step]
    row, buffers = x.new_empty(len(like)), [torch.empty_like(like) for _ in range(3)]
    into = None if values is None else _pieces(values, step)
    down = None if slopes is None else _pieces(slopes, step)
    total = 0.0
    for i, (xs, ys) in enumerate(zip(_pieces(x, step), _pieces(y, step), strict=True)):
        if not formula.fits(xs, ys):
            return math.nan
        count = len(xs)
        out, *spare = (row, *buffers) if count == step else [b[:count] for b in (row, *buffers)]
        value = out if into is None else into[i]
        if down is not None:
            spare[0] = down[i]
        formula.value(xs, ys, value, *spare)
        total += value.sum().item()
        if down is not None:
            formula.slope(xs, ys, out, *spare)
            if share != 1:
                spare[0].mul_(share)
    return total * share


def _pieces(tensor: Tensor, step: int) -> tuple[Tensor, ...]:
    """Blocks of ``step``; a small tensor is one, and cutting it would take as long as a kernel."""
    return (tensor,) if len(tensor) <= step else tensor.split(step)


def _pull(grad: Tensor, needed: Any, leaves: Any, slope: Tensor) -> tuple[Tensor]:
    if is_one(grad):
        return (slope,)
    return (slope * (grad.unsqueeze(-1) if grad.ndim < slope.ndim and grad.ndim else grad),)
