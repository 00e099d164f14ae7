"""A value that comes with its gradient, for losses whose derivative is cheap once they are known.

torch records one node per kernel and runs them backwards again; a loss that knows its derivative
keeps what that needs and answers in one node. Asked for a graph of the gradient, it differentiates
the plain function instead, so derivatives of any order are those of the plain function.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lossmith.core.loss import NATIVE_REDUCTION

Pull = Callable[..., tuple[Tensor | None, ...]]
_MEAN, _SUM = NATIVE_REDUCTION["mean"], NATIVE_REDUCTION["sum"]

# up to here a node per kernel costs less than one node written in Python (about 50 us)
SMALL = 1 << 15


def reduced(value: Tensor, reduction: int) -> Tensor:
    """The mean, the sum or the value itself, by torch's number of the reduction."""
    if reduction == _MEAN:
        return value.mean()
    return value.sum() if reduction == _SUM else value


class _Known(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        value: Tensor,
        reduction: int,
        done: bool,
        pull: Pull,
        plain: Callable[..., Tensor],
        leaves: int,
        *tensors: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(*tensors)
        ctx.pull, ctx.plain, ctx.leaves, ctx.reduction = pull, plain, leaves, reduction
        ctx.count = value.numel() if reduction == _MEAN and not done else 1
        return value if done else reduced(value, reduction)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        tensors, needed = ctx.saved_tensors, ctx.needs_input_grad[6 : 6 + ctx.leaves]
        leaves, kept = tensors[: ctx.leaves], tensors[ctx.leaves :]
        if torch.is_grad_enabled():  # create_graph
            wanted = [leaf for leaf, need in zip(leaves, needed, strict=True) if need]
            value = reduced(ctx.plain(*leaves), ctx.reduction)
            each = iter(torch.autograd.grad(value, wanted, grad, create_graph=True))
            pulls = tuple(next(each) if need else None for need in needed)
        else:
            pulls = ctx.pull(grad if ctx.count == 1 else grad / ctx.count, needed, leaves, *kept)
        return None, None, None, None, None, None, *pulls, *[None] * len(kept)


def with_pull(
    value: Tensor,
    reduction: int,
    pull: Pull,
    plain: Callable[..., Tensor],
    *,
    leaves: tuple[Tensor, ...],
    kept: tuple[Tensor, ...],
    done: bool = False,
) -> Tensor:
    """Connect a ``value``, computed without a graph, to its ``leaves``, and reduce it.

    Args:
        value: The unreduced loss.
        reduction: torch's number of the reduction.
        pull: ``pull(grad, needed, leaves, *kept)`` returns one gradient per leaf, None if it is not
            needed; ``grad`` is a single number, or one per value if nothing is reduced.
        plain: ``plain(*leaves)`` is the same unreduced value as plain torch.
        leaves: The tensors that gradients flow to.
        kept: What ``pull`` needs besides.
        done: ``value`` is reduced already, by a kernel whose backward pass knows of it: ``pull``
            gets the gradient of the reduced value as it is.
    """
    return _Known.apply(  # type: ignore[no-any-return]
        value, reduction, done, pull, plain, len(leaves), *leaves, *kept
    )


def squares_fit(*lengths: Tensor) -> bool:
    """Whether rows of these lengths have squares, and products, that neither vanish nor overflow.

    On the CPU only: elsewhere the look would stall the device, and the answer is no.
    """
    if lengths[0].device.type != "cpu":
        return False
    info = torch.finfo(lengths[0].dtype)
    every = torch.cat(lengths)
    low, high = (end.item() for end in torch.aminmax(every))
    if math.isnan(low):  # such a row is NaN on any path: let the others decide
        low, high = (end.item() for end in torch.aminmax(every.nan_to_num(1.0)))
    return low > math.sqrt(info.tiny) / info.eps and high < math.sqrt(info.max)
