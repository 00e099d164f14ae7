"""Sums over positions, then the gradient from the sums: two passes over logits, no mask built.

A region loss is a function of a few sums for each class. The first pass adds them up, the second
needs no more than the derivatives of the loss by them. Both work on pieces that fit the cache, so
that neither probabilities nor masks of a whole image ever exist.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lossmith.core import route
from lossmith.core.loss import NATIVE_REDUCTION
from lossmith.engines import generated_label_maps as generated
from lossmith.engines.eligible import eager, undefined
from lossmith.engines.label_maps import LabelMaps
from lossmith.engines.one_pass import Path, missing_compiler
from lossmith.engines.passes import COLUMNS, Measure, Passes, pieces
from lossmith.engines.pull import with_pull

_last: Path | None = None
_generating: bool | None = False  # None: plan to, and leave it at that
_failed: dict[Any, str] = {}


@contextmanager
def generating(*, asked: bool = False) -> Generator[None]:
    """Let sums be made by generated kernels in here, where a compiler is at hand.

    ``asked`` is for who wants to know the plan, and not to wait for the compiler.
    """
    global _generating
    before, _generating = _generating, None if asked else True
    try:
        yield
    finally:
        _generating = before


def plan(input: Tensor, target: Tensor, measure: Measure) -> Path:
    """How the sums of a call are computed, and why."""
    elements, device = input.numel(), input.device.type
    if elements <= route.SMALL:
        few = f"{elements} elements, and up to {route.SMALL} an engine gains nothing"
        return Path("plain", few)
    if not eager(input, target):
        return Path("plain", "a transform, forward-mode AD, a compiler or a subclass is at work")
    if device == "cpu":
        blocks = Path("blocks", "sums piece by piece, then the gradient from the sums")
        if _generating is False or not _fills_pieces(input, target, measure):
            return blocks
        lacking = missing_compiler(device) or _failed.get(_key(input, measure), "")
        return Path("blocks", lacking) if lacking else Path("compiled", "a kernel for each pass")
    if device != "cuda":
        return Path("plain", f"there is no kernel for {device}")
    if measure.by_class and target.is_floating_point():
        return Path("plain", "there is no kernel for memberships")
    lacking = missing_compiler(device)
    return Path("plain", lacking) if lacking else Path("triton", "a kernel for each pass")


def last_path() -> Path | None:
    """How the latest sums were computed."""
    return _last


def region_sums(input: Tensor, target: Tensor, measure: Measure) -> Tensor:
    """Sums of each sample and class, ``(N, C, COLUMNS)``; in float64 if the engine made them.

    Args:
        input: Logits, ``(N, C, *)``, or ``(N, *)`` for a sigmoid; any floating dtype.
        target: Label map ``(N, *)`` of any integer dtype, or memberships with the shape of
            ``input``.
        measure: Which sums.
    """
    global _last
    path = _last = plan(input, target, measure)
    if path.how == "plain":
        return measure.plain(input, target)
    by_hand = path.how == "blocks" or _generating is None
    passes = _passes("blocks" if by_hand else path.how, target, measure)

    def flat(input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        if not measure.by_class:
            return positions(input, 1).unsqueeze(1), positions(target, 1).unsqueeze(1)
        return positions(input, 2), positions(target, 1 + (target.ndim == input.ndim))

    try:
        value = passes.sums(*flat(input.detach(), target.detach()))
    except Exception as error:  # whatever a compiler may raise; the next call takes blocks
        if path.how != "compiled":
            raise
        _failed[_key(input, measure)] = f"the compiler failed ({type(error).__name__})"
        return region_sums(input, target, measure)
    if value.device.type == "cpu" and undefined(value):
        _last = Path("plain", "the logits are NaN or infinite")
        return measure.plain(input, target)
    learns = target.is_floating_point()

    def pull(grad: Tensor, needed: Any, leaves: Any, *kept: Tensor) -> tuple[Tensor | None, ...]:
        both = (*leaves, *kept)
        try:
            found = passes.slopes(*flat(*both), grad, needed)
        except Exception:
            if path.how != "compiled":
                raise
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


def _fills_pieces(input: Tensor, target: Tensor, measure: Measure) -> bool:
    """Whether the generated kernels, which are of one size, suit an image."""
    labels = measure.by_class and not target.is_floating_point()
    classes = input.shape[1]
    return labels and classes <= generated.MOST_CLASSES and input[:1, :1].numel() >= generated.PIECE


def _key(input: Tensor, measure: Measure) -> Any:
    return input.shape[1], input.dtype, measure[1:]


def _passes(how: str, target: Tensor, measure: Measure) -> Passes:
    if how == "triton":
        from lossmith.engines.triton.statistics import Kernels

        return Kernels(measure)
    if how == "compiled":
        return generated.GeneratedLabelMaps(measure)
    labels = measure.by_class and not target.is_floating_point()
    return LabelMaps(measure) if labels else _Memberships(measure)


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
