"""The same on a GPU, where nothing may look at a value: the frame of a call, and divergences."""

import torch
from torch import Tensor

from lossmith.core.route import Call
from lossmith.engines.rows.engine import Done
from lossmith.engines.rows.frame import Frame, not_zero
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


def frame_on_device(call: Call, ignored: Tensor | None = None) -> Frame:
    """The frame of a call whose rows stand in one line, as :func:`rows_of` has them."""
    first = call.tensors[0]
    count = first.numel() // first.shape[1 if first.ndim > 1 else 0]
    if call.weight is not None:
        weight = call.weight.reshape(-1).float()
    else:
        weight = torch.ones(count, device=first.device)
    absent = weight == 0 if ignored is None else ignored | (weight == 0)
    weight = weight.masked_fill(absent, 0.0)
    return Frame(call, Layout(first), weight, absent, not_zero(weight.sum()), torch.float32)


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
    frame = frame_on_device(call)
    first, second = (rows_of(t) for t in call.tensors)
    value, numbers = kernels.divergence(first, second, kind, sharpness)

    def pull(
        grad: Tensor, needed: tuple[bool, bool], leaves: tuple[Tensor, ...], *kept: Tensor
    ) -> tuple[Tensor | None, ...]:
        numbers, scale = kept
        each = (scale * grad.reshape(-1)).contiguous()
        first, second = (rows_of(leaf) for leaf in leaves)
        found = kernels.divergence_slopes(first, second, numbers, each, kind, sharpness, needed)
        return tuple(
            None if slope is None else logits_of(slope, leaf.shape)
            for slope, leaf in zip(found, leaves, strict=True)
        )

    return Done(frame.reduce(value), (numbers, frame.scale), pull=pull)
