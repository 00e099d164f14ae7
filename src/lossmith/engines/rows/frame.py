"""Around the rows: which count and how much, what the mean divides by, and the walk over blocks."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lossmith.core.numerics import times
from lossmith.core.route import Call
from lossmith.engines.rows.engine import Done
from lossmith.engines.rows.layout import Layout, Piece, Work

One = Callable[[Piece, tuple[Tensor, ...], Work], Tensor | None]


class Frame(NamedTuple):
    """What holds for all rows of a call.

    Attributes:
        call: The call.
        layout: How its logits are cut.
        weight: Weight of each row, 0 where it is absent; None for 1 everywhere.
        absent: Where a row is absent; None for nowhere.
        divisor: What the mean divides by.
        dtype: What is computed in.
        place: The memory of the logits, where slopes may take it; else None.
    """

    call: Call
    layout: Layout
    weight: Tensor | None
    absent: Tensor | None
    divisor: Tensor
    dtype: torch.dtype
    place: Tensor | None = None

    def over(self, grid: Tensor) -> "Frame":
        """The same with slopes in the place of the logits.

        On the CPU only, and if nothing in them could make the kernel decline when some are lost
        already.
        """
        logits = self.call.tensors[0]
        largest = max(abs(end.item()) for end in torch.aminmax(logits))
        tame = largest < torch.finfo(self.dtype).max ** 0.5  # NaN is not
        view = grid.data_ptr() == logits.data_ptr()  # a copy would not do
        return self._replace(place=grid) if tame and view else self

    def divided_by(self, factor: Tensor) -> "Frame":
        """The same, but the mean divides by the sum of these."""
        given = factor if self.weight is None else factor * self.weight
        return self._replace(divisor=not_zero(given.sum()))

    @property
    def later(self) -> bool:
        """Whether slopes are divided in the backward pass: float16 would lose small numbers."""
        return self.call.reduction == "mean" and self.call.tensors[0].dtype is torch.float16

    @property
    def scale(self) -> Tensor:
        """Factor of the slopes of each row, one number if all have the same."""
        one = torch.ones((), dtype=self.dtype, device="cpu")
        weight = one if self.weight is None else self.weight
        return weight / self.divisor if self.call.reduction == "mean" and not self.later else weight

    def evaluate(
        self,
        grid: Tensor,
        one: One,
        needs: tuple[bool, ...],
        buffers: int = 1,
        finish: Callable[[Tensor], Tensor | None] = lambda values: values,
    ) -> Done | None:
        """Value and slopes of the call.

        Args:
            grid: The first logits.
            one: ``one(piece, outs, work)`` returns the unweighted values of a piece and leaves the
                slopes in ``outs``, one for each of ``needs``; None where it cannot tell.
            needs: Which slopes are wanted; the others' memory is free to be written as well.
            buffers: By what number pieces are to be smaller than usual.
            finish: Makes the values from what ``one`` returns, for all rows at once; as ``one``.
        """
        first = self.call.tensors[0]
        made: list[tuple[Tensor, Tensor] | None] = [
            self.layout.empty(first) if need else None for need in needs
        ]
        if self.place is not None:
            made = [(first, self.place)]
        values = torch.empty(self.layout.out, dtype=self.dtype, device="cpu")
        line = self.layout.line(values)
        with torch.inference_mode():  # its kernels are called faster
            if not self._fill(grid, one, line, made, buffers):
                return None
        slopes = tuple(None if pair is None else pair[0] for pair in made)
        finished = finish(values)
        if finished is None:
            return None
        return Done(self.reduce(finished), slopes, self.divisor if self.later else None)

    def _fill(
        self,
        grid: Tensor,
        one: One,
        line: Tensor,
        made: list[tuple[Tensor, Tensor] | None],
        buffers: int,
    ) -> bool:
        """Write all values and slopes, piece by piece; False where ``one`` cannot tell."""
        work = Work(self.dtype)
        for piece in self.layout.pieces(grid, buffers):
            ends = [None if pair is None else piece.logits(pair[1]) for pair in made]
            outs: list[Tensor] = []
            for number, end in enumerate(ends):
                direct = end is not None and end.dtype is self.dtype
                direct = direct and self.place is None  # the kernel may want the logits again
                spare = work.like(piece.logits(grid), number)
                outs.append(end if end is not None and direct else spare)
            found = one(piece, tuple(outs), work)
            if found is None:
                return False
            piece.numbers(line).copy_(found)
            for end, out in zip(ends, outs, strict=True):
                if end is not None and end is not out:
                    end.copy_(out)
        return True

    def reduce(self, values: Tensor) -> Tensor:
        """Weigh and reduce the values of all rows."""
        shape = self.layout.out
        if values.shape != shape:
            values = values.view(shape)
        if self.absent is not None:
            values = values.masked_fill(self.absent.view(shape), 0.0)
        if self.weight is not None:
            values = times(self.weight.view(shape), values)
        if self.call.reduction == "none":
            return values
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
    rows = first.new_tensor(first.numel() / first.shape[1 if first.ndim > 1 else 0], dtype=dtype)
    divisor = rows if weight is None else not_zero(weight.sum())
    return Frame(call, layout, weight, absent, divisor, dtype)


def not_zero(total: Tensor) -> Tensor:
    """What to divide by: the mean over nothing is 0."""
    return torch.where(total == 0, 1.0, total)
