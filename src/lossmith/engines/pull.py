"""A value that comes with its gradient, for losses whose derivative is cheap once they are known.

torch records one node per kernel and runs them backwards again; a loss that knows its derivative
keeps what that needs and answers in one node. Asked for a graph of the gradient, or for a batch of
gradients at once, it differentiates the plain function instead, so derivatives of any order are
those of the plain function.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch._C._functorch as functorch
from torch import Tensor

from lossmith.core.autocast import without_autocast
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


class _Record(NamedTuple):
    """What the backward pass needs besides the saved tensors."""

    pull: Pull
    plain: Callable[..., Tensor]
    reduction: int
    divisor: int
    leaves: int
    others: int


class _Known(torch.autograd.Function):
    # One record in place of its parts: every argument of ``apply`` costs as much as a small kernel

    @staticmethod
    def forward(
        ctx: Any,
        result: tuple[Tensor],  # as an argument itself it would come out as a view
        record: _Record,
        saved: tuple[Tensor, ...],
        *leaves: Tensor,
    ) -> Tensor:
        # torch keeps no tensor of inference mode, as features or labels may be
        ctx.save_for_backward(*[t.clone() if t.is_inference() else t for t in (*leaves, *saved)])
        ctx.record = record
        return result[0]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, None, *_slopes(grads[0], ctx)


@without_autocast  # torch turns it off for no backward pass
def _slopes(grad: Tensor, ctx: Any) -> tuple[Tensor | None, ...]:
    """The gradients of the leaves."""
    record, tensors = ctx.record, ctx.saved_tensors
    needed, leaves = ctx.needs_input_grad[3:], tensors[: record.leaves]
    graph = torch.is_grad_enabled()  # create_graph
    if graph or functorch.is_legacy_batchedtensor(grad):  # is_grads_batched
        with torch.enable_grad():
            # views stand for the leaves, which may depend on one another or be one tensor
            leaves = tuple([leaf.view_as(leaf) for leaf in leaves])
            wanted = [leaf for leaf, need in zip(leaves, needed, strict=True) if need]
            others = tensors[record.leaves : record.leaves + record.others]
            value = reduced(record.plain(*leaves, *others), record.reduction)
        slopes = iter(torch.autograd.grad(value, wanted, grad, create_graph=graph))
        return tuple([next(slopes) if need else None for need in needed])
    if record.divisor != 1:
        grad = grad / record.divisor
    kept = tensors[record.leaves + record.others :]
    return record.pull(grad, needed, leaves, *kept)


def with_pull(
    value: Tensor,
    reduction: int,
    pull: Pull,
    plain: Callable[..., Tensor],
    *,
    leaves: tuple[Tensor, ...],
    others: tuple[Tensor, ...] = (),
    kept: tuple[Tensor, ...] = (),
    done: bool = False,
) -> Tensor:
    """Connect a ``value``, computed without a graph, to its ``leaves``, and reduce it.

    Args:
        value: The unreduced loss.
        reduction: torch's number of the reduction.
        pull: ``pull(grad, needed, leaves, *kept)`` returns one gradient per leaf, None if it is not
            needed; ``grad`` is a single number, or one per value if nothing is reduced.
        plain: ``plain(*leaves, *others)`` is the same unreduced value as plain torch.
        leaves: The tensors that gradients flow to.
        others: What ``plain`` takes besides: labels, which torch then guards against changes.
        kept: What ``pull`` needs besides.
        done: ``value`` is reduced already, by a kernel whose backward pass knows of it: ``pull``
            gets the gradient of the reduced value as it is.
    """
    divisor = value.numel() if reduction == _MEAN and not done else 1
    record = _Record(pull, plain, reduction, divisor, len(leaves), len(others))
    result = value if done else reduced(value, reduction)
    return _Known.apply((result,), record, (*others, *kept), *leaves)  # type: ignore[no-any-return]


def is_one(grad: Tensor) -> bool:
    """Whether a gradient is the number 1: to multiply by it would cost a pass over memory.

    On the CPU only, where a look is free.
    """
    return grad.ndim == 0 and grad.is_cpu and grad.item() == 1


def squares_fit(*lengths: Tensor) -> bool:
    """Whether rows of these lengths have squares, and products, that neither vanish nor overflow.

    On the CPU only: elsewhere the look would stall the device, and the answer is no.
    """
    if not lengths[0].is_cpu:
        return False
    info = torch.finfo(lengths[0].dtype)
    every = torch.cat(lengths)
    low, high = (end.item() for end in torch.aminmax(every))
    if math.isnan(low):  # such a row is NaN on any path: let the others decide
        low, high = (end.item() for end in torch.aminmax(every.nan_to_num(1.0)))
    return low > math.sqrt(info.tiny) / info.eps and high < math.sqrt(info.max)
