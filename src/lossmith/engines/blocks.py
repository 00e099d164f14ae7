"""A loss in pieces that fit the cache: torch's own kernels, without the way to memory between."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lossmith.core.reduction import Terms
from lossmith.core.route import Call
from lossmith.core.signature import HALF
from lossmith.engines.pages import in_huge_pages
from lossmith.engines.separate import shared

# Elements of the first tensor per piece: a dozen temporaries of them fit the last cache, and the
# calls per piece no longer count. Measured with Huber's plain function on 4 Mi elements, 2 threads:
# 16 Ki take 105 ms, 64 Ki 61, 256 Ki 39, 1 Mi 41.
BLOCK = 1 << 18


def in_blocks(
    call: Call, arguments: Sequence[Tensor], needs: tuple[int, ...]
) -> tuple[tuple[Tensor, ...], Tensor] | None:
    """Gradients of the arguments that need one, and the reduced value.

    Args:
        call: A divisible call.
        arguments: Its tensors, detached.
        needs: Positions of those that need a gradient.

    Returns:
        The gradients, in :func:`slope_dtype`, and the value; None if the mean is not simply that of
        the values, or what all samples share needs a gradient: an argument, or a tensor that the
        function brings along.
    """
    first, by_element = arguments[0], call.way.out == ("*",)
    split = [not each for each in shared(call)]
    if not all(split[i] for i in needs):
        return None
    flat = [t.reshape(-1) if s and by_element else t for t, s in zip(arguments, split, strict=True)]
    count = flat[0].shape[0]
    step = max(1, BLOCK * count // first.numel())
    divisor = _divisor(call, count)
    kinds = [slope_dtype(t) for t in flat]
    slopes = tuple(in_huge_pages(torch.empty_like(flat[i], dtype=kinds[i])) for i in needs)
    values: list[Tensor] = []
    for start in range(0, count, step):
        rows = slice(start, start + step)
        part = [t[rows] if s else t for t, s in zip(flat, split, strict=True)]
        if not start:
            one = [t[:1].clone() if s else t for t, s in zip(part, split, strict=True)]
            if _brings_leaves(call.over(one)):
                return None
        for i in needs:
            part[i] = part[i].to(kinds[i])
        leaves = [part[i].requires_grad_() for i in needs]
        with torch.enable_grad():
            value = _value(call.over(part))
            if value is None:
                return None
            value = value / divisor
            found = _slopes(value, leaves)
        for slope, each in zip(slopes, found, strict=True):
            slope[rows] = each
        values.append(value.detach())
    if call.reduction == "none":
        value = torch.cat(values).view(first.shape if by_element else (count,))
    else:
        value = torch.stack(values).sum()
        if call.weight is not None and call.reduction == "mean" and len(arguments) - 1 in needs:
            slopes[-1].sub_(value / divisor)  # the weight is the last; the mean divides by its sum
    whole = tuple(slope.view_as(arguments[i]) for i, slope in zip(needs, slopes, strict=True))
    return whole, value.to(first.dtype)


def slope_dtype(argument: Tensor) -> torch.dtype:
    """What slopes are kept in until the backward pass: a mean's are too small for float16."""
    return torch.float32 if argument.dtype == torch.float16 else argument.dtype


def _value(piece: Call) -> Tensor | None:
    """The values of a piece, or their sum; None if the mean of the whole is made otherwise."""
    simple = True

    def body(*tensors: Tensor, **options: object) -> Tensor | Terms:
        nonlocal simple
        result = piece.body(*tensors, **options)
        simple = not isinstance(result, Terms) or result[1:] == (None, None, False)
        return result

    word = "none" if piece.reduction == "none" else "sum"
    value = piece._replace(body=body, reduction=word).wide()
    return value if simple else None


def _brings_leaves(piece: Call) -> bool:
    """Whether the value of detached arguments wants a gradient: no published loss's does."""
    if piece.card.source or not torch.is_grad_enabled():
        return False
    value = _value(piece)
    return value is not None and value.requires_grad


def _slopes(value: Tensor, leaves: list[Tensor]) -> Sequence[Tensor]:
    """Gradients of the sum, 0 where nothing depends on a leaf."""
    if not leaves or not value.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    return torch.autograd.grad(value.sum(), leaves, allow_unused=True, materialize_grads=True)


def _divisor(call: Call, count: int) -> Tensor | int:
    if call.reduction != "mean":
        return 1
    if call.weight is None:
        return count
    dtype = call.tensors[0].dtype  # as Call.wide adds them up
    total = call.weight.detach().to(torch.float32 if dtype in HALF else dtype).sum()
    return torch.where(total == 0, 1.0, total)
