"""Sums over positions, then the gradient from the sums: two passes over logits, no mask built.

A region loss is a function of a few sums for each class. The first pass adds them up, the second
needs no more than the derivatives of the loss by them. Both work on pieces that fit the cache, so
that masks of an image larger than that never exist, and probabilities in the place of the gradient.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lossmith.core import route
from lossmith.core.autocast import rounded, without_autocast
from lossmith.core.checks import eager
from lossmith.core.loss import NATIVE_REDUCTION
from lossmith.core.reduction import reduce
from lossmith.core.route import Call
from lossmith.engines import generated_label_maps as generated
from lossmith.engines.eligible import by_triton, on_gpu, undefined
from lossmith.engines.label_maps import LabelMaps
from lossmith.engines.one_pass import Path, failure, missing_compiler, run
from lossmith.engines.passes import COLUMNS, Measure, Passes, pieces
from lossmith.engines.pull import with_pull

MOST_CLASSES = 1024  # of a kernel on a GPU, which holds all of a position at once
_failed: dict[Any, str] = {}


class Regions:
    """The engine of region losses, for calls with their tensors as they come.

    Half precision is widened and infinite logits are noticed piece by piece, where the plain
    function would begin with a copy of everything.
    """

    def plan(self, call: Call) -> Path:
        """How the sums of a call would be computed, and why."""
        input, target = call.tensors
        by_class, power = call.card.link == "softmax", call.options.get("gamma")
        return _plan(input, target, by_class, power, compiler=True)

    def __call__(self, call: Call) -> Tensor | None:
        """The value, connected to its arguments; None where logits are NaN or infinite."""
        input, target = call.tensors
        by_class, power = call.card.link == "softmax", call.options.get("gamma")
        path = _plan(input, target, by_class, power, compiler=False)
        if path.how == "plain":
            return None
        options, weight = call.options, call.weight
        if weight is not None:
            options = {**options, "sample_weight": weight}
            weight = weight.double()
        value = reduce(call.body(*call.tensors, **options), weight, call.reduction)
        if value.device.type == "cpu" and undefined(value):
            return None
        return rounded(value, input)


REGIONS = Regions()


def _plan(input: Tensor, target: Tensor, by_class: bool, power: Any, *, compiler: bool) -> Path:
    elements, device, gpu = input.numel(), input.device.type, on_gpu(input)
    if elements <= route.SMALL and not gpu:  # there it launches fewer kernels
        few = f"{elements} elements, and up to {route.SMALL} an engine gains nothing"
        return Path("plain", few)
    if not eager(input, target):
        return Path("plain", "a compiler, a transform, forward-mode AD or a subclass is at work")
    if isinstance(power, Tensor):
        return Path("plain", "a power that is a tensor may be learned")
    labels = by_class and not target.is_floating_point()
    if device == "cpu" and not gpu:
        blocks = Path("blocks", "sums piece by piece, then the gradient from the sums")
        few = input.shape[1] <= generated.MOST_CLASSES if labels else False
        if not (compiler and few and input[0, 0].numel() >= generated.PIECE):
            return blocks
        lacking = missing_compiler(device) or _failed.get((input.shape[1], input.dtype), "")
        return Path("blocks", lacking) if lacking else Path("compiled", "a kernel for each pass")
    if not gpu:
        return Path("plain", f"there is no kernel for {device}")
    if (by_class and not labels) or target.requires_grad:
        return Path("plain", "there is no kernel for memberships, or for the slope of a target")
    if by_class and input.shape[1] > MOST_CLASSES:
        return Path("plain", f"there is no kernel for more than {MOST_CLASSES} classes")
    if not by_triton(input):
        return Path("plain", "Triton is not installed")
    return Path("triton", "a kernel for each pass")


@without_autocast
def region_sums(input: Tensor, target: Tensor, measure: Measure) -> Tensor:
    """Sums of each sample and class, ``(N, C, COLUMNS)``; in float64 if the engine made them.

    Args:
        input: Logits, ``(N, C, *)``, or ``(N, *)`` for a sigmoid; any floating dtype.
        target: Label map ``(N, *)`` of any integer dtype, or memberships with the shape of
            ``input``.
        measure: Which sums.
    """
    chosen = route.chosen() is run
    path = _plan(input, target, measure.by_class, measure.gamma, compiler=chosen)
    if path.how == "plain":
        return measure.plain(input, target)
    learns = target.is_floating_point()
    wanted = input.requires_grad and torch.is_grad_enabled()
    passes = _passes(path.how, target, measure, wanted)

    def flat(input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        if not measure.by_class:
            return positions(input, 1).unsqueeze(1), positions(target, 1).unsqueeze(1)
        return positions(input, 2), positions(target, 1 + (target.ndim == input.ndim))

    def failing(error: Exception) -> None:
        """By hand from now on, whatever a compiler may raise; other errors are errors."""
        if path.how != "compiled":
            raise error
        _failed[input.shape[1], input.dtype] = failure(error)

    try:
        value = passes.sums(*flat(input.detach(), target.detach()))
    except Exception as error:
        failing(error)
        return region_sums(input, target, measure)

    def pull(grad: Tensor, needed: Any, leaves: Any, *kept: Tensor) -> tuple[Tensor | None, ...]:
        both = (*leaves, *kept)
        # sums too small for float32 have slopes too large for it: of probabilities that are 0 there
        most = torch.finfo(torch.promote_types(input.dtype, torch.float32)).max / 8
        grad = grad.clamp(-most, most)
        try:
            found = passes.slopes(*flat(*both), grad, needed)
        except Exception as error:
            failing(error)
            found = LabelMaps(measure).slopes(*flat(*both), grad, needed)
        pairs = zip(found, both, strict=False)
        return tuple(None if slope is None else slope.reshape(of.shape) for slope, of in pairs)

    return with_pull(
        value,
        NATIVE_REDUCTION["none"],
        pull,
        lambda *both: measure.plain(*both).to(value.dtype),
        leaves=(input, target) if learns else (input,),
        others=() if learns else (target,),
        kept=() if learns else (target,),
    )


def positions(tensor: Tensor, start: int) -> Tensor:
    """All dimensions from ``start`` on as one; a new one if there are none."""
    return tensor.flatten(start) if tensor.ndim > start else tensor.unsqueeze(-1)


def _passes(how: str, target: Tensor, measure: Measure, wanted: bool) -> Passes:
    if how == "triton":
        from lossmith.engines.triton.statistics import Kernels

        return Kernels(measure)
    if how == "compiled":
        return generated.GeneratedLabelMaps(measure, keep=wanted)
    labels = measure.by_class and not target.is_floating_point()
    return LabelMaps(measure, keep=wanted) if labels else _Memberships(measure)


class _Memberships(NamedTuple):
    """The plain function and its derivative on each piece: any target, any activation."""

    measure: Measure

    def _piece(self, tensor: Tensor, rows: slice, columns: slice) -> Tensor:
        piece = tensor[rows, :, columns]
        return piece if self.measure.by_class else piece.squeeze(1)

    def sums(self, logits: Tensor, target: Tensor) -> Tensor:
        total = logits.new_zeros((*logits.shape[:2], COLUMNS), dtype=torch.float64)
        for at in pieces(logits):
            piece = self.measure.plain(self._piece(logits, *at), self._piece(target, *at))
            total[at[0]] += piece
        return total

    def slopes(
        self, logits: Tensor, target: Tensor, pull: Tensor, needed: tuple[bool, ...]
    ) -> tuple[Tensor | None, ...]:
        both = (logits, target)
        slopes = [torch.empty_like(t) if n else None for t, n in zip(both, needed, strict=False)]
        for at in pieces(logits):
            parts = [self._piece(t, *at).detach() for t in both]
            places = [(i, slope) for i, slope in enumerate(slopes) if slope is not None]
            leaves = [parts[i].requires_grad_() for i, _ in places]
            with torch.enable_grad():
                value = self.measure.plain(*parts)
            found = torch.autograd.grad(value, leaves, pull[at[0]].to(value.dtype))
            for (_, slope), each in zip(places, found, strict=True):
                self._piece(slope, *at).copy_(each)
        return tuple(slopes)
