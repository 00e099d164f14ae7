"""What the passes over logits share: which sums there are, and the pieces they are taken in."""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from lossmith.core.signature import HALF

# With p the probability and t the target of a position, the sums of p t, p (1 - t), (1 - p) t,
# (p - t)^2, the cost of the target, t, and 1
HIT, FALSE_ALARM, MISS, GAP, COST, SIZE, POSITIONS = range(7)
COLUMNS = 7
# Elements per piece: it and its temporaries fit the last cache, and the calls per piece no longer
# count. Half as many take 4.1 ms in place of 3.5 for Dice at (1, 2, 64, 64, 64), which are then two
# pieces, and as long at (2, 4, 96, 96, 96), where twice as many take 43 in place of 41.
BLOCK = 1 << 19


class Measure(NamedTuple):
    """Which sums are wanted.

    Attributes:
        plain: The same in plain torch: ``plain(input, target)`` is ``(N, C, COLUMNS)``.
        by_class: A softmax over dimension 1; otherwise a sigmoid, and one class.
        ignore_index: Label of the positions that count nowhere.
        squared: Whether the column GAP is wanted; 0 otherwise.
        gamma: Power of the focusing in the column COST; None leaves that 0.
    """

    plain: Callable[[Tensor, Tensor], Tensor]
    by_class: bool
    ignore_index: int
    squared: bool
    gamma: float | None


class Passes(Protocol):
    """The two passes, over logits ``(N, C, positions)`` and a target with or without classes."""

    def sums(self, logits: Tensor, target: Tensor) -> Tensor:
        """The sums, ``(N, C, COLUMNS)``, in float64."""
        ...

    def slopes(
        self, logits: Tensor, target: Tensor, pull: Tensor, needed: tuple[bool, ...]
    ) -> tuple[Tensor | None, ...]:
        """Gradients of the logits and of the target, from those of the sums."""
        ...


class Keeping:
    """Passes of which the first can leave the probabilities for the second.

    Args:
        measure: Which sums are wanted.
        keep: Whether it shall.
    """

    def __init__(self, measure: Measure, *, keep: bool = False) -> None:
        self.measure, self.keep = measure, keep
        self._kept: Tensor | None = None

    def _take(self) -> Tensor | None:
        """What was left, which is then gone: a second time it has to be worked out again."""
        kept, self._kept = self._kept, None
        return kept


def pieces(logits: Tensor) -> Iterator[tuple[slice, slice]]:
    """Samples and positions of pieces of about BLOCK elements."""
    samples, classes, count = logits.shape
    width = max(1, BLOCK // max(classes, 1))
    height = max(1, width // max(count, 1))
    for row in range(0, samples, height):
        for column in range(0, count, width):
            yield slice(row, row + height), slice(column, column + width)


def computed_in(logits: Tensor) -> torch.dtype:
    """The dtype that logits are worked on in."""
    return torch.float32 if logits.dtype in HALF else logits.dtype
