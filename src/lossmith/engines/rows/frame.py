"""Around the rows: which count and how much, what the mean divides by, and the walk over blocks."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lossmith.core.numerics import times
from lossmith.core.route import Call
from lossmith.engines.rows.engine import Done
from lossmith.engines.rows.layout import Layout, Piece, Work

One = Callable[[Tensor, Piece, Tensor, Work], Tensor | None]


class Frame(NamedTuple):
    """What holds for all rows of a call.

    Attributes:
        call: The call.
        layout: How its logits are cut.
        weight: Weight of each row, 0 where it is absent; None for 1 everywhere.
        absent: Where a row is absent; None for nowhere.
        divisor: What the mean divides by.
        dtype: What is computed in.
    """

    call: Call
    layout: Layout
    weight: Tensor | None
    absent: Tensor | None
    divisor: Tensor
    dtype: torch.dtype

    def divided_by(self, factor: Tensor) -> "Frame":
        """The same, but the mean divides by the sum of these."""
        given = factor if self.weight is None else factor * self.weight
        return self._replace(divisor=_not_zero(given.sum()))

    @property
    def later(self) -> bool:
        """Whether slopes are divided in the backward pass: float16 would lose small numbers."""
        return self.call.reduction == "mean" and self.call.tensors[0].dtype is torch.float16

    @property
    def scale(self) -> Tensor:
        """Factor of the slopes of each row, one number if all have the same."""
        weight = torch.ones((), dtype=self.dtype) if self.weight is None else self.weight
        return weight / self.divisor if self.call.reduction == "mean" and not self.later else weight

    def evaluate(self, grid: Tensor, one: One, need: bool) -> Done | None:
        """Value and slopes of the call.

        Args:
            grid: The logits.
            one: ``one(logits, piece, out, work)`` returns the unweighted values of a piece and
                leaves the slopes in ``out``; None where it cannot tell.
            need: Whether slopes are wanted.
        """
        slope, out = self.layout.empty(self.call.tensors[0]) if need else (None, None)
        shape = (grid.shape[0], *grid.shape[2:])
        values = torch.empty(shape, dtype=self.dtype)
        work = Work(self.dtype)
        for piece in self.layout.pieces(grid):
            part = piece.logits(grid)
            end = None if out is None else piece.logits(out)
            direct = end is not None and end.dtype is self.dtype and not piece.turned
            block = end if end is not None and direct else work.like(part, 0)
            found = one(part, piece, block, work)
            if found is None:
                return None
            piece.numbers(values).copy_(found)
            if end is not None and not direct:
                end.copy_(block)
        return Done(self.reduce(values), (slope,), self.divisor if self.later else None)

    def reduce(self, values: Tensor) -> Tensor:
        """Weigh and reduce the values of all rows."""
        if self.absent is not None:
            values = values.masked_fill(self.absent, 0.0)
        if self.weight is not None:
            values = times(self.weight, values)
        if self.call.reduction == "none":
            shape = self.layout.shape
            return values.view(shape[:1] + shape[2:] if len(shape) > 1 else ())
        total = values.sum()
        return total / self.divisor if self.call.reduction == "mean" else total


def frame_of(call: Call, layout: Layout, ignored: Tensor | None = None) -> Frame:
    """The frame of a call; ``ignored`` says which rows its labels take out."""
    first = call.tensors[0]
    dtype = torch.float64 if first.dtype is torch.float64 else torch.float32
    weight = None if call.weight is None else layout.line(call.weight).to(dtype)
    absent = ignored
    if weight is not None:
        absent = weight == 0 if absent is None else absent | (weight == 0)
    if absent is not None and absent.any():
        ones = torch.ones_like(absent, dtype=dtype) if weight is None else weight
        weight = ones.masked_fill(absent, 0.0)
    else:
        absent = None
    rows = torch.tensor(first.numel() / first.shape[1 if first.ndim > 1 else 0], dtype=dtype)
    divisor = rows if weight is None else _not_zero(weight.sum())
    return Frame(call, layout, weight, absent, divisor, dtype)


def _not_zero(total: Tensor) -> Tensor:
    return torch.where(total == 0, 1.0, total)
