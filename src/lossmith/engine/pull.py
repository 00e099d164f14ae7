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

Pull = Callable[..., tuple[Tensor | None, ...]]
_REDUCED = (lambda value: value, torch.mean, torch.sum)


class _Known(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, value: Tensor, pull: Pull, plain: Callable[..., Tensor], count: int, *kept: Tensor
    ) -> Tensor:
        ctx.save_for_backward(*kept)
        ctx.pull, ctx.plain, ctx.count = pull, plain, count
        return value

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        count = ctx.count
        needed = ctx.needs_input_grad[4 : 4 + count]
        leaves, kept = ctx.saved_tensors[:count], ctx.saved_tensors[count:]
        if torch.is_grad_enabled():  # create_graph
            wanted = [leaf for leaf, need in zip(leaves, needed, strict=True) if need]
            found = torch.autograd.grad(ctx.plain(*leaves), wanted, *grads, create_graph=True)
            each = iter(found)
            pulls = tuple(next(each) if need else None for need in needed)
        else:
            pulls = ctx.pull(*grads, needed, *kept)
        return None, None, None, None, *pulls, *[None] * len(kept)


def with_pull(
    value: Tensor,
    reduction: int,
    pull: Pull,
    plain: Callable[..., Tensor],
    *,
    leaves: tuple[Tensor, ...],
    kept: tuple[Tensor, ...],
) -> Tensor:
    """Connect an unreduced ``value``, computed without a graph, to its ``leaves``, and reduce it.

    Args:
        value: The unreduced loss.
        reduction: torch's number of the reduction.
        pull: ``pull(grad, needed, *kept)`` returns one gradient per leaf, None if not needed.
        plain: ``plain(*leaves)`` is the same value as plain torch.
        leaves: The tensors that gradients flow to.
        kept: What ``pull`` needs.
    """
    connected = _Known.apply(value, pull, plain, len(leaves), *leaves, *kept)
    return _REDUCED[reduction](connected)  # type: ignore[no-any-return]


def squares_fit(*lengths: Tensor) -> bool:
    """Whether rows of these lengths have squares, and products, that neither vanish nor overflow.

    On the CPU only: elsewhere the look would stall the device, and the answer is no.
    """
    info = torch.finfo(lengths[0].dtype)
    if lengths[0].device.type != "cpu":
        return False
    low, high = (end.item() for end in torch.aminmax(torch.cat(lengths)))
    return low > math.sqrt(info.tiny) / info.eps and high < math.sqrt(info.max)
