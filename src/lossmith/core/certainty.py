"""Infinite logits mean certainty: the loss there is its limit, which may be infinite.

The formulas of the losses hold for any finite logits, and an infinite one would meet ``0 * inf`` or
``inf - inf`` in most of them. So it is computed as a very large one, whose gradient is the limit
of the gradients; and where the loss of that is very large, its limit is infinite.
"""

import math

import torch
from torch import Tensor

from lossmith.core.checks import bare, checkable
from lossmith.core.reduction import Terms
from lossmith.core.signature import HALF, Signature

# A loss may multiply what stands for infinity by a scale up to this.
ROOM = 256.0


def seen_finite(logits: Tensor) -> bool:
    """Whether a look shows that all are finite. On the CPU only.

    It costs a sum; elsewhere it would stall the device, and in a graph it is impossible.
    """
    if torch.compiler.is_compiling():
        return False
    plain = bare(logits).detach()
    if not plain.is_cpu or not checkable(plain):
        return False
    wide = torch.float32 if plain.dtype in HALF else None  # a sum of float16 soon overflows
    return math.isfinite(plain.sum(dtype=wide).item())


def tamed(logits: Tensor) -> Tensor | None:
    """The logits with very large ones for infinite ones; None if all are :func:`seen_finite`."""
    if seen_finite(logits):
        return None
    largest = torch.finfo(logits.dtype).max / ROOM
    # not nan_to_num, nor isinf below: generated code calls those number by number
    finite = torch.where(logits.detach() == math.inf, largest, logits.detach())
    finite = torch.where(finite == -math.inf, -largest, finite)
    result = logits.clone()
    result.detach().copy_(finite)  # behind autograd's back: the gradient passes as it is
    return result


def with_limit(
    result: Tensor | Terms, logits: Tensor, way: Signature, *, softmax: bool
) -> Tensor | Terms:
    """The unreduced loss of :func:`tamed` logits, infinite where its limit is.

    Args:
        result: What the loss says of the tamed logits.
        logits: The logits before.
        way: Says which logits belong to which loss.
        softmax: The logits of a row share one probability: if all are -inf, there is no limit.
    """
    loss = result.loss if isinstance(result, Terms) else result
    domain, logits = next(iter(way.tensors.values())), logits.detach()
    names, outer = way.expand(domain.dims, logits.ndim), way.expand(way.out, loss.ndim)
    inner = tuple(i for i, name in enumerate(names) if name not in outer)
    infinite = logits.abs() == math.inf
    infinite = infinite.any(inner) if inner else infinite
    far = infinite & (loss.detach() > math.sqrt(torch.finfo(logits.dtype).max))
    loss = loss + torch.where(far, math.inf, 0.0)
    if softmax and "C" in names:
        lost = (logits == -math.inf).all(names.index("C"), keepdim=True).expand_as(logits)
        loss = loss + torch.where(lost.any(inner), math.nan, 0.0)
    return result._replace(loss=loss) if isinstance(result, Terms) else loss
