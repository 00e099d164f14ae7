"""How likely each move of a path through a grid is: what gradients are made of, without a graph."""

import torch
from torch import Tensor
from torch.nn import functional as F

from lossmith.core.grid import Walk, upright


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
    moves = further = none
    found: list[tuple[Tensor, ...]] = []
    for step in range(len(walk.lines) - 1, -1, -1):
        nodes = torch.where((rows + columns == step).unsqueeze(1), last, 0.0)
        nodes = nodes + moves[0] + F.pad(moves[1], (-1, 1))
        if len(further) == 3:
            nodes = nodes + F.pad(further[2], (-1, 1))
        moves, further = (walk.shares[step - 1] * nodes if step else none), moves
        found.append((nodes, *moves))
    return tuple(upright(list(lines), height) for lines in zip(*reversed(found), strict=True))
