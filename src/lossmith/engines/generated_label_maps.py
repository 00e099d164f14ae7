"""Both passes over softmax and class indices as generated kernels of a fixed number of positions.

The classes are written out, so that one loop holds a position with all its classes and sums; a loop
over a dimension of classes would not fuse with one over positions. The size of a piece is part of
the kernel, so that it serves images of every size.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lossmith.core.signature import HALF
from lossmith.engines.one_pass import alone
from lossmith.engines.passes import (
    COLUMNS,
    COST,
    FALSE_ALARM,
    GAP,
    HIT,
    MISS,
    POSITIONS,
    SIZE,
    Measure,
)

# Positions per piece: rows of one accumulator each, so that float32 sums stay short
ROWS, LENGTH = 64, 1024
PIECE = ROWS * LENGTH
# Classes are written out, and the time to compile grows with them
MOST_CLASSES = 32
# Of further options of Inductor: one loop for all the sums
OPTIONS: dict[str, Any] = {"cpp.max_horizontal_fusion_size": 256, "max_fusion_size": 512}

_kernels: dict[Any, Callable[..., Any]] = {}


class _Split(NamedTuple):
    """Softmax of a piece, taken apart by the labels; a number per position each."""

    marks: list[Tensor]
    shares: list[Tensor]
    own: Tensor
    rest: Tensor
    nll: Tensor


def _split(logits: list[Tensor], label: Tensor, ignore: Tensor) -> _Split:
    info = torch.finfo(label.dtype)
    present = label != ignore
    each = [torch.where(present, one, 0.0) for one in logits]
    marks = [(label == c) & present for c in range(len(each))]
    top = each[0]
    for one in each[1:]:
        top = torch.maximum(top, one)
    powers = [torch.exp(one - top) for one in each]
    pairs = list(zip(marks, powers, strict=True))
    own = _total(torch.where(mark, power, 0.0) for mark, power in pairs)
    rest = _total(torch.where(mark, 0.0, power) for mark, power in pairs)
    logit = _total(torch.where(mark, one, 0.0) for mark, one in zip(marks, each, strict=True))
    whole = own + rest
    # -log p = log1p(rest / own); where own vanishes, the distance to the top is most of it
    vanishes = own <= info.tiny
    odds = torch.where(vanishes, whole - 1, rest / torch.where(vanishes, 1.0, own))
    nll = torch.where(vanishes, top - logit, 0.0) + torch.log1p(odds)
    inverse = torch.where(present, 1 / whole, 0.0)
    shares = [torch.where(mark, 0.0, power * inverse) for mark, power in pairs]
    return _Split(marks, shares, own * inverse, rest * inverse, nll)


def _total(terms: Any) -> Tensor:
    first, *others = terms
    for term in others:
        first = first + term
    return first


def _sums_of(measure: Measure) -> Callable[..., Any]:
    def sums(logits: list[Tensor], label: Tensor, ignore: Tensor) -> Tensor:
        split = _split(logits, label, ignore)
        zero = torch.zeros_like(split.own)
        cost = zero
        if measure.gamma is not None:
            cost = split.nll * split.rest.pow(measure.gamma) if measure.gamma else split.nll
        columns: list[Tensor] = []
        for mark, share in zip(split.marks, split.shares, strict=True):
            terms = [torch.where(mark, split.own, 0.0), share, torch.where(mark, split.rest, 0.0)]
            if measure.squared:
                terms.append(torch.where(mark, split.rest, share).square())
            if measure.gamma is not None:
                terms.append(torch.where(mark, cost, 0.0))
            terms.append(mark.to(zero.dtype))
            columns += [term.sum(-1) for term in terms]
        return torch.stack(columns)

    return sums


def _slopes_of(measure: Measure) -> Callable[..., Any]:
    def slopes(
        logits: list[Tensor], label: Tensor, ignore: Tensor, by: Tensor, out: list[Tensor]
    ) -> None:
        """As :meth:`LabelMaps.slopes` derives them."""
        split = _split(logits, label, ignore)
        own, rest = split.own, split.rest
        pairs = list(zip(split.marks, split.shares, strict=True))
        shift = _total(
            torch.where(mark, by[c, MISS] - by[c, HIT], 0.0) for c, mark in enumerate(split.marks)
        )
        alarms = [by[c, FALSE_ALARM] for c in range(len(pairs))]
        if measure.squared:
            by_gap = _total(torch.where(m, by[c, GAP], 0.0) for c, m in enumerate(split.marks))
            shift = shift + 2 * rest * by_gap
            alarms = [a + 2 * by[c, GAP] * pairs[c][1] for c, a in enumerate(alarms)]
        mean = rest * shift + _total(s * a for (_, s), a in zip(pairs, alarms, strict=True))
        certainty = torch.zeros_like(own)
        if measure.gamma is not None:
            certainty = _total(torch.where(m, by[c, COST], 0.0) for c, m in enumerate(split.marks))
        if measure.gamma:
            share = torch.where(own > torch.finfo(own.dtype).tiny, own * split.nll, 0.0)
            sure = rest == 0
            ratio = torch.where(sure, 1.0, share / torch.where(sure, 1.0, rest))
            certainty = certainty * rest.pow(measure.gamma) * (1 + measure.gamma * ratio)
        at_label = -(own * mean + rest * certainty)
        pull = shift + certainty - mean
        for (mark, share), alarm, place in zip(pairs, alarms, out, strict=True):
            place.copy_(torch.where(mark, at_label, share * (alarm + pull)))

    return slopes


class GeneratedLabelMaps(NamedTuple):
    """The two passes, piece by piece, over images that fill at least one."""

    measure: Measure

    def sums(self, logits: Tensor, target: Tensor) -> Tensor:
        """The sums, ``(N, C, COLUMNS)``, in float64."""
        total = logits.new_zeros((*logits.shape[:2], COLUMNS), dtype=torch.float64)
        kernel, ignore = self._kernel(_sums_of, logits), self._ignore(logits)
        columns = [HIT, FALSE_ALARM, MISS]
        columns += [GAP] * self.measure.squared + [COST] * (self.measure.gamma is not None)
        columns += [SIZE]
        for sample, _, part, label in self._parts(logits, target, once=True):
            found = kernel(part, label, ignore).sum(-1, dtype=torch.float64).view(-1, len(columns))
            total[sample, :, columns] += found
            total[sample, :, POSITIONS] += found[:, -1].sum()
        return total

    def slopes(
        self, logits: Tensor, target: Tensor, pull: Tensor, needed: tuple[bool, ...]
    ) -> tuple[Tensor | None, ...]:
        """Gradient of the logits, from that of the sums."""
        slopes = torch.empty_like(logits)
        kernel, ignore = self._kernel(_slopes_of, logits), self._ignore(logits)
        for sample, at, part, label in self._parts(logits, target, once=False):
            place = slopes[sample, :, at]
            # a compiler does not see that classes side by side in memory are apart
            out = place if slopes.stride(2) == 1 else place.contiguous()
            rows = [one.view(ROWS, LENGTH) for one in out.unbind(0)]
            kernel(part, label, ignore, pull[sample].to(label.dtype), rows)
            if out is not place:
                place.copy_(out)
        return (slopes,)

    def _parts(
        self, logits: Tensor, target: Tensor, *, once: bool
    ) -> Iterator[tuple[int, slice, list[Tensor], Tensor]]:
        """Pieces, a tensor per class. The last piece of an image overlaps the one before.

        What overlaps is marked as ignored where each position must count ``once``.
        """
        samples, classes, count = logits.shape
        dtype = torch.float32 if logits.dtype in HALF else logits.dtype
        ready = logits.dtype is dtype and logits.stride(2) == 1
        room = None if ready else logits.new_empty((classes, PIECE), dtype=dtype)
        label = logits.new_empty(PIECE, dtype=dtype)
        for sample in range(samples):
            for start in range(0, count, PIECE):
                first = min(start, count - PIECE)
                at = slice(first, first + PIECE)
                part = logits[sample, :, at] if room is None else room.copy_(logits[sample, :, at])
                label.copy_(target[sample, at])
                if once:
                    label[: start - first] = self.measure.ignore_index
                rows = [one.view(ROWS, LENGTH) for one in part.unbind(0)]
                yield sample, at, rows, label.view(ROWS, LENGTH)

    def _ignore(self, logits: Tensor) -> Tensor:
        """The label to ignore, for each row: one loop over rows then holds sums and all else."""
        dtype = torch.float32 if logits.dtype in HALF else logits.dtype
        return torch.full((ROWS, 1), self.measure.ignore_index, dtype=dtype)

    def _kernel(self, make: Callable[[Measure], Any], logits: Tensor) -> Callable[..., Tensor]:
        """A kernel of its own for each number of classes, dtype and setting."""
        key = make, logits.shape[1], logits.dtype, self.measure[1:]
        if key not in _kernels:
            _kernels[key] = torch.compile(
                alone(make(self.measure)), options=OPTIONS, fullgraph=True
            )
        return _kernels[key]
