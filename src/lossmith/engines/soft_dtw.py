"""Soft dynamic time warping with its gradient, without a graph through the grid."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from lossmith.core.checks import eager
from lossmith.core.grid import IMPOSSIBLE, Walk, walk
from lossmith.engines.grid import visits, walk_with_shares
from lossmith.engines.pull import with_pull


def soft_minimum(cost: Tensor, gamma: float, *, shares: bool = False) -> tuple[Tensor, Walk]:
    """Soft minimum over all paths from the first pair to the last ``(N)``, and the paths.

    Args:
        cost: Cost of each pair, ``(N, T, S)``.
        gamma: Strength of the smoothing.
        shares: Whether the paths keep their shares.
    """
    weight = cost / -gamma
    # the weight of a move is that of the pair it leads to
    down = F.pad(weight[:, 1:], (0, 0, 0, 1), value=IMPOSSIBLE)
    across = F.pad(weight[:, :, 1:], (0, 1), value=IMPOSSIBLE)
    diagonal = F.pad(weight[:, 1:, 1:], (0, 1, 0, 1), value=IMPOSSIBLE)
    take = walk_with_shares if shares else walk
    paths = take(down, across, diagonal)
    return cost[:, 0, 0] - gamma * paths.to_corner(), paths


def one_pass_soft_dtw(
    input: Tensor,
    target: Tensor,
    gamma: float,
    divergence: bool,
    plain: Callable[..., Tensor],
) -> Tensor | None:
    """The loss of each pair ``(N)`` in float64; None where a graph or transform is at work.

    Args:
        input: Time series ``(N, T, D)``.
        target: Time series ``(N, S, D)``.
        gamma: Strength of the smoothing.
        divergence: Whether the soft minima of each series with itself are taken off.
        plain: ``plain(input, target)`` is the same as plain torch.
    """
    numbers = isinstance(gamma, (int, float))
    if not (numbers and input.numel() and target.numel() and eager(input, target)):
        return None
    wanted = torch.is_grad_enabled() and (input.requires_grad or target.requires_grad)
    # shifted together, so that a common height of both costs no digits
    center = target.detach().double().mean(1, keepdim=True)
    left, right = input.detach().double() - center, target.detach().double() - center
    value, *pulls = _pair(left, right, gamma, wanted)
    if divergence:
        for place, series in enumerate((left, right)):
            own, *slopes = _pair(series, series, gamma, wanted)
            value = value - 0.5 * own
            if wanted:
                pulls[place] -= 0.5 * (slopes[0] + slopes[1])
    kept = tuple(pull.to(input.dtype) for pull in pulls)
    return with_pull(value, 0, _pull, plain, leaves=(input, target), kept=kept)


def _pair(left: Tensor, right: Tensor, gamma: float, wanted: bool) -> tuple[Tensor, ...]:
    """The soft minimum, and its gradients by both series if they are wanted."""
    cost = torch.cdist(left, right, compute_mode="donot_use_mm_for_euclid_dist").square_()
    value, paths = soft_minimum(cost, gamma, shares=wanted)
    if not wanted:
        return (value,)
    height, width = cost.shape[1:]
    count = torch.full_like(value, 1, dtype=torch.int64)
    share = visits(paths, count * (height - 1), count * (width - 1), height)[0]
    return (
        value,
        2 * (left * share.sum(2, keepdim=True) - share @ right),
        2 * (right * share.sum(1).unsqueeze(2) - share.mT @ left),
    )


def _pull(
    grad: Tensor, needed: tuple[bool, ...], leaves: tuple[Tensor, ...], *slopes: Tensor
) -> tuple[Tensor | None, ...]:
    each = grad.to(slopes[0].dtype).view(-1, 1, 1)
    return tuple(s * each if need else None for s, need in zip(slopes, needed, strict=True))
