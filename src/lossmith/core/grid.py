"""Sums over all monotone paths through a grid: plain torch, differentiable any number of times.

All nodes of an anti-diagonal are computed together, so there are ``I + J - 1`` steps. A line holds
the nodes ``(d - j, j)`` in column ``j``, relative to its largest: so small numbers keep their
digits, however long the paths are.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

# Stands for log 0: with -inf, differences of two impossible paths would be NaN. Added once per
# move it stays finite, and no real path gets here.
IMPOSSIBLE = -1e300


class Walk(NamedTuple):
    """The sums over all paths from node (0, 0), in logarithms.

    Attributes:
        lines: One tensor ``(N, J)`` per anti-diagonal.
        levels: What was subtracted from each, ``(N, 1)``.
        shares: Of the paths that end in a node, the shares of those that came from above, from the
            left, and diagonally if there are such moves: one tensor ``(2 or 3, N, J)`` per line but
            the first. Empty unless an engine took the walk.
    """

    lines: list[Tensor]
    levels: list[Tensor]
    shares: list[Tensor]

    def to(self, rows: Tensor, columns: Tensor) -> Tensor:
        """The sum over all paths that end in one node of each sample, ``(N)``."""
        step = (rows + columns).unsqueeze(1)
        node = step * self.lines[0].shape[1] + columns.unsqueeze(1)
        value = torch.cat(self.lines, 1).gather(1, node)
        return (value + torch.cat(self.levels, 1).gather(1, step)).squeeze(1)

    def to_corner(self) -> Tensor:
        """The sum over all paths that end in the last node, ``(N)``."""
        return self.lines[-1][:, -1] + self.levels[-1][:, 0]


def walk(down: Tensor, across: Tensor, diagonal: Tensor | None = None) -> Walk:
    """Take all paths at once.

    Args:
        down: Log-weight of the move from ``(i, j)`` to ``(i + 1, j)``, ``(N, I, J)``.
        across: That of the move to ``(i, j + 1)``.
        diagonal: That of the move to ``(i + 1, j + 1)``, if there is one.
    """
    height, width = down.shape[1:]
    moves = [slanted(grid) for grid in (down, across, diagonal) if grid is not None]
    first = torch.arange(width, device=down.device) == 0
    line = torch.full_like(moves[0][0], IMPOSSIBLE).masked_fill(first, 0.0)
    found = Walk([line], [torch.zeros_like(line[:, :1])], [])
    above = None
    for step in range(1, height + width - 1):
        arrived = [line + moves[0][step - 1], _right(line + moves[1][step - 1])]
        if diagonal is not None and above is not None:
            arrived.append(_right(above + moves[2][step - 2]))
        elif diagonal is not None:
            arrived.append(torch.full_like(line, IMPOSSIBLE))
        # not logaddexp: its second derivative is NaN where the terms differ by more than 709
        total = torch.stack(arrived).logsumexp(0)
        top = total.detach().amax(1, keepdim=True)
        above, line = line - top, total - top
        found.lines.append(line)
        found.levels.append(found.levels[-1] + top)
    return found


def _right(line: Tensor) -> Tensor:
    """One column further."""
    return F.pad(line, (1, -1), value=IMPOSSIBLE)


def slanted(grid: Tensor) -> tuple[Tensor, ...]:
    """The anti-diagonals of a grid ``(N, I, J)``, each ``(N, J)``; impossible outside."""
    height, width = grid.shape[1:]
    column = torch.arange(width, device=grid.device)
    row = torch.arange(height + width - 1, device=grid.device).unsqueeze(1) - column
    lines = grid[:, row.clamp(0, height - 1), column]
    return lines.masked_fill((row < 0) | (row >= height), IMPOSSIBLE).unbind(1)


def upright(lines: list[Tensor], height: int) -> Tensor:
    """The grid ``(N, I, J)`` of all its anti-diagonals, each ``(N, J)``."""
    column = torch.arange(lines[0].shape[1], device=lines[0].device)
    step = torch.arange(height, device=lines[0].device).unsqueeze(1) + column
    return torch.stack(lines, 1)[:, step, column]
