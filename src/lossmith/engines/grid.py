"""How likely each move of a path through a grid is: what gradients are made of, without a graph."""

import torch
from torch import Tensor

from lossmith.core.grid import IMPOSSIBLE, Walk, slanted, upright


def walk_with_shares(down: Tensor, across: Tensor, diagonal: Tensor | None = None) -> Walk:
    """:func:`lossmith.core.grid.walk` with few kernels per line, and with the shares."""
    height, width = down.shape[1:]
    moves = [slanted(grid) for grid in (down, across, diagonal) if grid is not None]
    first = torch.arange(width, device=down.device) == 0
    line = torch.full_like(moves[0][0], IMPOSSIBLE).masked_fill_(first, 0.0)
    found = Walk([line], [torch.zeros_like(line[:, :1])], [])
    above = None
    for step in range(1, height + width - 1):
        ways = line.new_full((len(moves), *line.shape), IMPOSSIBLE)
        torch.add(line, moves[0][step - 1], out=ways[0])
        torch.add(line[:, :-1], moves[1][step - 1][:, :-1], out=ways[1, :, 1:])
        total = torch.logaddexp(ways[0], ways[1])
        if diagonal is not None and above is not None:
            torch.add(above[:, :-1], moves[2][step - 2][:, :-1], out=ways[2, :, 1:])
            total = torch.logaddexp(total, ways[2])
        top = total.amax(1, keepdim=True)
        found.shares.append(ways.sub_(total).exp_())
        above, line = line - top, total.sub_(top)
        found.lines.append(line)
        found.levels.append(found.levels[-1] + top)
    return found


def visits(walk: Walk, rows: Tensor, columns: Tensor, height: int) -> tuple[Tensor, ...]:
    """Probability that a path comes through each node, and that it comes there by each move.

    Backwards from one last node of each sample, a path came from each side with the share that this
    side has of all paths up to there.

    Args:
        walk: All paths, with their shares.
        rows: Row of the last node, ``(N)``.
        columns: Column of the last node, ``(N)``.
        height: Rows of the grid.

    Returns:
        Each ``(N, I, J)``: the nodes; the moves down, across, and the diagonal ones if there are.
    """
    first = walk.lines[0]
    place = torch.arange(first.shape[1], device=first.device)
    last = (place == columns.unsqueeze(1)).to(first.dtype)
    none = torch.zeros_like(walk.shares[0]) if walk.shares else first.new_zeros(2, *first.shape)
    ends = rows + columns
    moves = further = none
    found: list[tuple[Tensor, ...]] = []
    for step in range(len(walk.lines) - 1, -1, -1):
        nodes = torch.where((ends == step).unsqueeze(1), last, 0.0).add_(moves[0])
        nodes[:, :-1] += moves[1, :, 1:]
        if len(further) == 3:
            nodes[:, :-1] += further[2, :, 1:]
        moves, further = (walk.shares[step - 1] * nodes if step else none), moves
        found.append((nodes, *moves.unbind(0)))
    return tuple(upright(list(lines), height) for lines in zip(*reversed(found), strict=True))
