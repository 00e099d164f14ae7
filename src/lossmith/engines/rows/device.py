"""Divergences on a GPU, where nothing may look at a value, and the way to rows and back."""

import torch
from torch import Tensor

from lossmith.core.numerics import times
from lossmith.core.route import Call
from lossmith.engines.rows.engine import Done
from lossmith.engines.rows.frame import not_zero
from lossmith.engines.rows.layout import Layout


def rows_of(logits: Tensor) -> Tensor:
    """Logits as ``(rows, C)``; a copy where the classes are not last in memory."""
    if logits.ndim == 1:
        return logits.unsqueeze(0)
    return logits if logits.ndim == 2 else logits.movedim(1, -1).flatten(0, -2)


def logits_of(rows: Tensor, shape: torch.Size) -> Tensor:
    """The way back."""
    if len(shape) <= 2:
        return rows.view(shape)
    return rows.view(shape[0], *shape[2:], shape[1]).movedim(-1, 1)


def reduce_on_device(call: Call, value: Tensor) -> tuple[Tensor, Tensor]:
    """The values of a call's rows weighed and reduced, and the factor of their slopes."""
    one = value.new_ones(1) if call.weight is None else call.weight.reshape(-1).to(value.dtype)
    value = value if call.weight is None else times(one, value)
    if call.reduction == "none":
        return value.view(Layout(call.tensors[0]).out), one
    if call.reduction == "sum":
        return value.sum(), one
    divisor = len(value) if call.weight is None else not_zero(one.sum())
    return value.sum() / divisor, one / divisor


def apart_on_device(name: str, call: Call, needs: tuple[bool, ...]) -> Done:
    """A divergence of two tensors of logits."""
    from lossmith.engines.triton import divergences as kernels

    kind = {
        "forward": kernels.FORWARD,
        "reverse": kernels.REVERSE,
        "jensen_shannon": kernels.JENSEN_SHANNON,
        "total_variation": kernels.TOTAL_VARIATION,
    }[name]
    sharpness = 1 / call.options.get("temperature", 1.0)
    first, second = (rows_of(t) for t in call.tensors)
    value, numbers = kernels.divergence(first, second, kind, sharpness, needs)
    reduced, scale = reduce_on_device(call, value)

    def pull(
        grad: Tensor, needed: tuple[bool, bool], leaves: tuple[Tensor, ...], *kept: Tensor
    ) -> tuple[Tensor | None, ...]:
        numbers, scale = kept
        each = scale * grad.reshape(-1)
        first, second = (rows_of(leaf) for leaf in leaves)
        found = kernels.divergence_slopes(first, second, numbers, each, kind, sharpness, needed)
        return tuple(
            None if slope is None else logits_of(slope, leaf.shape)
            for slope, leaf in zip(found, leaves, strict=True)
        )

    return Done(reduced, (numbers, scale), pull=pull)
