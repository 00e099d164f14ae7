"""Both passes over softmax and class indices as generated kernels.

The first pass adds the sums up and leaves the probabilities in the memory of the gradient; the
second finds them there and writes the gradient over them: no exponential is taken twice. The
classes are written out, so that one loop holds a position with all its classes and sums; a loop
over a dimension of classes would not fuse with one over positions. How many rows of positions
there are is left open, so that one kernel serves images of every size, in few calls: what comes
before a generated kernel starts costs as much as the arithmetic on 10 rows.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from lossmith.core.signature import HALF
from lossmith.engines.one_pass import alone
from lossmith.engines.pages import in_huge_pages
from lossmith.engines.passes import (
    COLUMNS,
    COST,
    FALSE_ALARM,
    GAP,
    HIT,
    MISS,
    POSITIONS,
    SIZE,
    Keeping,
    Measure,
    computed_in,
)

# Rows of one accumulator each, so that float32 sums stay short; as many as fit the cache where a
# piece is a copy, otherwise as many as there are
ROWS, LENGTH, MOST_ROWS = 64, 1024, 1024
PIECE = ROWS * LENGTH  # positions of an image from which it is worth it
# Classes are written out, and the time to compile grows with them
MOST_CLASSES = 32
# A label of no class, in every dtype that is read: it fills the rows that an image does not
NO_CLASS = 127
# Labels that generated code reads without falling back to one number at a time
READ = (torch.int64, torch.int32, torch.uint8)
# Of further options of Inductor: one loop for all the sums
OPTIONS: dict[str, Any] = {"cpp.max_horizontal_fusion_size": 256, "max_fusion_size": 512}

_kernels: dict[Any, Callable[..., Any]] = {}


def _columns(measure: Measure) -> list[int]:
    """The sums that the first kernel adds up, in its order."""
    squared, cost = [GAP] * measure.squared, [COST] * (measure.gamma is not None)
    return [HIT, FALSE_ALARM, MISS, *squared, *cost, SIZE]


def _total(terms: Any) -> Tensor:
    first, *others = terms
    for term in others:
        first = first + term
    return first


def _split(label: Tensor, each: list[Tensor]) -> tuple[list[Tensor], list[Tensor], Tensor, Tensor]:
    """Marks of the label, what is not the label's, what is, and the sum of what is not."""
    marks = [label == c for c in range(len(each))]
    own = _total(torch.where(m, one, 0.0) for m, one in zip(marks, each, strict=True))
    others = [torch.where(m, 0.0, one) for m, one in zip(marks, each, strict=True)]
    return marks, others, own, _total(others)


def _sums_of(measure: Measure) -> Callable[..., Any]:
    gamma, names = measure.gamma, _columns(measure)

    def sums(logits: list[Tensor], label: Tensor, ignore: Tensor, out: list[Tensor]) -> Tensor:
        """The sums of each row; the probabilities go to ``out``, 0 where ignored."""
        count = len(logits)
        label = label.to(logits[0].dtype)
        label = torch.where(label == ignore, NO_CLASS, label)
        present = label < count
        each = [torch.where(present, one, 0.0) for one in logits]
        top = each[0]
        for one in each[1:]:
            top = torch.maximum(top, one)
        marks, others, own, rest = _split(label, [torch.exp(one - top) for one in each])
        whole = own + rest
        inverse = torch.where(present, 1 / whole, 0.0)
        hit, miss = own * inverse, rest * inverse
        columns = {HIT: hit, MISS: miss, SIZE: torch.ones_like(own)}
        if gamma is not None:
            logit = _total(torch.where(m, one, 0.0) for m, one in zip(marks, each, strict=True))
            # the label's distance to the top, then log(whole) with what rounding took from it:
            # neither is negative, and where the label is the top the first is 0 and own is 1
            nll = (top - logit) + (whole.log() + ((own - whole) + rest) * inverse)
            columns[COST] = nll * miss.pow(gamma) if gamma else nll
        if measure.squared:
            columns[GAP] = miss.square()
        found: list[Tensor] = []
        for mark, other, place in zip(marks, others, out, strict=True):
            share = other * inverse
            place.copy_(torch.where(mark, hit, share))
            terms = {name: torch.where(mark, value, 0.0) for name, value in columns.items()}
            terms[FALSE_ALARM] = share
            if measure.squared:
                terms[GAP] = terms[GAP] + share.square()
            found += [terms[name].sum(-1) for name in names]
        return torch.stack(found)

    return sums


def _slopes_of(measure: Measure) -> Callable[..., Any]:
    gamma = measure.gamma

    def slopes(label: Tensor, by: Tensor, out: list[Tensor]) -> None:
        """From probabilities to slopes, as :meth:`LabelMaps.slopes` derives them.

        An ignored position stays 0: so are its probabilities.
        """
        marks, others, own, rest = _split(label.to(by.dtype), out)

        def of_label(values: Tensor) -> Tensor:
            return _total(torch.where(m, values[c], 0.0) for c, m in enumerate(marks))

        level, shift = of_label(by[:, HIT]), of_label(by[:, MISS])
        alarms = [by[c, FALSE_ALARM] for c in range(len(others))]
        if measure.squared:
            level = level - 2 * rest * of_label(by[:, GAP])
            alarms = [a + 2 * by[c, GAP] * others[c] for c, a in enumerate(alarms)]
        likely = torch.where(own > rest, level, 0.0)
        level, shift = level - likely, shift - likely
        mean = _total(s * a for s, a in zip(others, alarms, strict=True))
        mean = mean + rest * shift + own * level
        certainty = torch.zeros_like(own) if gamma is None else of_label(by[:, COST])
        if gamma:
            # p log p is 0 where p is; -log p / rest is 1 where the rest is 0
            vanishes, sure = own <= torch.finfo(own.dtype).tiny, rest == 0
            odds = rest / torch.where(vanishes, 1.0, own)
            share = torch.where(vanishes, 0.0, own * odds.log1p())
            ratio = torch.where(sure, 1.0, share / torch.where(sure, 1.0, rest))
            certainty = certainty * rest.pow(gamma) * (1 + gamma * ratio)
        at_label = own * (level - mean) - rest * certainty
        pull = shift + certainty - mean
        for mark, share, alarm, place in zip(marks, others, alarms, out, strict=True):
            place.copy_(torch.where(mark, at_label, share * (alarm + pull)))

    return slopes


class _Piece(NamedTuple):
    """Some positions of one sample, in rows.

    Attributes:
        sample: Which sample.
        at: Which positions.
        logits: A tensor of rows for each class.
        label: Rows of labels.
        ignore: The label to ignore, for each row: all that depends on it has rows, and shares a
            loop with the sums of rows.
        shares: A tensor of rows for each class, for probabilities and slopes.
        aside: The memory of ``shares`` if it is not that of the gradient, ``(C, positions)``.
    """

    sample: int
    at: slice
    logits: list[Tensor]
    label: Tensor
    ignore: Tensor
    shares: list[Tensor]
    aside: Tensor | None


class GeneratedLabelMaps(Keeping):
    """The two passes, piece by piece, over images that fill at least one."""

    @torch.no_grad()  # as a backward pass is: another mode would be another kernel
    def sums(self, logits: Tensor, target: Tensor) -> Tensor:
        """The sums, ``(N, C, COLUMNS)``, in float64."""
        total = logits.new_zeros((*logits.shape[:2], COLUMNS), dtype=torch.float64)
        if self.keep and _ready(logits):
            self._kept = in_huge_pages(logits.new_empty(logits.shape))
        columns, first = _columns(self.measure), self._kernel(_sums_of, logits)
        for piece in self._pieces(logits, target, self._kept):
            rows = first(piece.logits, piece.label, piece.ignore, piece.shares)
            found = rows.sum(-1, dtype=torch.float64).view(-1, len(columns))
            total[piece.sample, :, columns] += found
            total[piece.sample, :, POSITIONS] += found[:, -1].sum()
        return total

    def slopes(
        self, logits: Tensor, target: Tensor, pull: Tensor, needed: tuple[bool, ...]
    ) -> tuple[Tensor | None, ...]:
        """Gradient of the logits, from that of the sums."""
        kept = self._take()
        slopes = in_huge_pages(torch.empty_like(logits)) if kept is None else kept
        first, second = self._kernel(_sums_of, logits), self._kernel(_slopes_of, logits)
        by = pull.to(computed_in(logits))
        for piece in self._pieces(logits, target, slopes):
            if kept is None or piece.aside is not None:
                first(piece.logits, piece.label, piece.ignore, piece.shares)
            second(piece.label, by[piece.sample], piece.shares)
            if piece.aside is not None:
                place = slopes[piece.sample, :, piece.at]
                place.copy_(piece.aside[:, : place.shape[1]])
        return (slopes,)

    def _pieces(self, logits: Tensor, target: Tensor, out: Tensor | None) -> Iterator[_Piece]:
        """All positions, their shares in ``out`` where a kernel can write there.

        What does not fill its rows is copied into longer ones, and so is what is not ready.
        """
        samples, classes, count = logits.shape
        ignore = self.measure.ignore_index
        work, ready, placed = computed_in(logits), _ready(logits), out is not None and _ready(out)
        most = MOST_ROWS if ready and placed else ROWS
        calls = math.ceil(count // LENGTH / most)
        cuts = [count // LENGTH * call // calls * LENGTH for call in range(calls + 1)]
        cuts += [count] * (cuts[-1] < count)
        rows = 2 if ready and placed else ROWS
        # two memories, as those of logits and gradient are: another overlap is another kernel
        room, spare = (logits.new_empty((classes, rows * LENGTH), dtype=work) for _ in range(2))
        for sample in range(samples):
            for start, stop in itertools.pairwise(cuts):
                at, length = slice(start, stop), stop - start
                height = max(2, math.ceil(length / LENGTH))  # of 1 a compiler makes a constant
                missing = height * LENGTH - length
                part, label = logits[sample, :, at], target[sample, at]
                if not ready or missing:
                    room[:, :length] = part
                    part = room[:, : length + missing]
                if label.dtype not in READ:
                    label = label.int()
                if missing:
                    label = functional.pad(label, (0, missing), value=NO_CLASS)
                place = aside = spare[:, : length + missing]
                if out is not None and placed and not missing:
                    place, aside = out[sample, :, at], None
                yield _Piece(
                    sample,
                    at,
                    logits=[_rows(one) for one in part.unbind(0)],
                    label=_rows(label.contiguous()),
                    ignore=_rows(logits.new_full((height,), ignore, dtype=work), 1),
                    shares=[_rows(one) for one in place.unbind(0)],
                    aside=aside,
                )

    def _kernel(self, make: Callable[[Measure], Any], logits: Tensor) -> Callable[..., Any]:
        """A kernel of its own for each number of classes, dtype and setting."""
        key = make, logits.shape[1], logits.dtype, self.measure[1:]
        if key not in _kernels:
            _kernels[key] = torch.compile(
                alone(make(self.measure)), options=OPTIONS, fullgraph=True
            )
        return _kernels[key]


def _ready(tensor: Tensor) -> bool:
    """Whether a kernel can work in this memory, ``(N, C, positions)``.

    A compiler does not see that classes side by side in memory are apart.
    """
    return tensor.dtype not in HALF and tensor.stride(2) == 1


def _rows(tensor: Tensor, length: int | None = None) -> Tensor:
    """Rows of a flat tensor, their number left open.

    Not as a view, for which a compiler would look at the shape of the whole image too.
    """
    rows = tensor.view(-1, length or LENGTH).data
    torch._dynamo.maybe_mark_dynamic(rows, 0)
    return rows
