"""Logits in pieces that fit the cache, with the classes in dimension 1 of each.

``(N, C)`` is cut along the rows, ``(N, C, *)`` along the positions; channels-last memory is rows in
truth.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from lossmith.engines.pages import in_huge_pages

# Elements of a piece per thread: 4 MB in float32, more than a core's own cache, but each piece has
# its overhead. One thread, pieces of 128 Ki, 256 Ki, 512 Ki, 1 Mi and 2 Mi elements: cross-entropy
# of 4096 x 1000 takes 11.1, 9.9, 9.2, 9.5, 9.5 ms; of 512 x 32000 in bfloat16 73, 53, 52, 47, 53;
# focal loss of 16384 x 80 10.7, 8.2, 6.5, 5.3, 4.7.
PER_THREAD = 1 << 20
# Classes up to which rows are added up by a product: torch adds up each for itself, in 5, 1.3 and
# 0.4 ns per element of 2, 10 and 19 classes, against 1.7, 0.4 and 0.4
FEW = 16
# Positions that a piece of (N, C, *) has at least: a cache line of any dtype, several times.
LEAST = 64


class Piece(NamedTuple):
    """Where a piece lies: rows, or samples and positions."""

    rows: slice
    positions: slice | None = None

    def logits(self, whole: Tensor) -> Tensor:
        """Its part of a grid, ``(n, C)`` or ``(n, C, k)``, as a view."""
        part = whole[self.rows]
        return part if self.positions is None else part[:, :, self.positions]

    def numbers(self, whole: Tensor) -> Tensor:
        """Its part of a number per row, with a dimension for the classes."""
        part = whole[self.rows]
        return (part if self.positions is None else part[:, self.positions]).unsqueeze(1)


class Layout:
    """How logits of one shape are cut.

    Attributes:
        shape: That of the logits.
        out: That of a number per row.
        last: Whether memory has the classes last though the shape has not.
    """

    def __init__(self, input: Tensor) -> None:
        self.shape = input.shape
        self.out = input.shape[:1] + input.shape[2:] if input.ndim > 1 else torch.Size()
        self.last = input.ndim > 2 and input.movedim(1, -1).is_contiguous()

    def grid(self, logits: Tensor) -> Tensor:
        """``(rows, C)`` or ``(N, C, positions)``, a view if memory allows."""
        if logits.ndim == 1:
            return logits.unsqueeze(0)
        if self.last:
            return logits.movedim(1, -1).flatten(0, -2)
        return logits if logits.ndim == 2 else logits.flatten(2)

    def line(self, numbers: Tensor) -> Tensor:
        """A number per row, as :meth:`grid` has the rows."""
        flat = self.last or len(self.shape) <= 2
        return numbers.reshape(-1) if flat else numbers.flatten(1)

    @staticmethod
    def line_of(grid: Tensor) -> tuple[int, ...]:
        """The shape of a number per row of a grid."""
        return (grid.shape[0], *grid.shape[2:])

    def empty(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """New logits, and their grid, which shares the memory."""
        if self.last:
            samples, classes, *rest = self.shape
            whole = in_huge_pages(like.new_empty(samples, *rest, classes)).movedim(-1, 1)
        else:
            whole = in_huge_pages(like.new_empty(self.shape))
        return whole, self.grid(whole)

    def pieces(self, grid: Tensor, buffers: int = 1) -> Iterator[Piece]:
        """All pieces of a grid, in order; smaller ones for a kernel of several buffers."""
        elements = PER_THREAD * torch.get_num_threads() // buffers
        classes = max(1, grid.shape[1])
        if grid.ndim == 2:
            step = max(1, elements // classes)
            for start in range(0, grid.shape[0], step):
                yield Piece(slice(start, start + step))
            return
        samples, _, positions = grid.shape
        width = max(LEAST, elements // classes)
        step = max(1, width // max(1, positions))
        for start in range(0, samples, step):
            for left in range(0, positions, width):
                yield Piece(slice(start, start + step), slice(left, left + width))


def total(piece: Tensor) -> Tensor:
    """Sum over the classes of a piece."""
    if piece.ndim == 2 and piece.shape[1] <= FEW:
        return (piece @ piece.new_ones(piece.shape[1])).unsqueeze(1)
    return piece.sum(1, keepdim=True)


def apart(tile: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """What a piece holds at the class of each row, where it becomes 0, and the sum of the others.

    In place, since a fresh megabyte costs more than the arithmetic on it.
    """
    own = tile.gather(1, place)
    # the kernel that takes a number in place of zeros needs three times as long
    return own, total(tile.scatter_(1, place, torch.zeros_like(own)))


class Work:
    """Memory that every piece uses anew: a fresh megabyte costs more than the arithmetic on it.

    Attributes:
        dtype: Of that memory.
        lowers: Whether the largest logit of each row has to be taken off before exponentials.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype, self.lowers = dtype, False
        self._kept: dict[int, Tensor] = {}  # the first piece is the largest

    def like(self, part: Tensor, number: int) -> Tensor:
        """A contiguous tensor in the shape of ``part``, whose content is left over.

        Numbers from 0 up are those of the slopes; a kernel takes others for itself.
        """
        kept = self._kept.get(number)
        if kept is None:
            kept = self._kept[number] = part.new_empty(part.shape, dtype=self.dtype)
        if kept.shape == part.shape:
            return kept
        return kept.view(-1)[: part.numel()].view(part.shape)
