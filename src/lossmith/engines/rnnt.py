"""RNN-T with the gradient of the joint logits, without a graph through the grid."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from lossmith.core.checks import eager
from lossmith.core.grid import IMPOSSIBLE
from lossmith.engines.grid import visits, walk_with_shares
from lossmith.engines.pull import with_pull
from lossmith.engines.softmax import Softmax


def beyond(like: Tensor, steps: Tensor, symbols: Tensor) -> Tensor:
    """The nodes behind the end of a sample, ``(N, T, S + 1)``, for logits of any further size."""
    step = torch.arange(like.shape[1], device=like.device).unsqueeze(1)
    symbol = torch.arange(like.shape[2], device=like.device)
    return (step >= steps.view(-1, 1, 1)) | (symbol > symbols.view(-1, 1, 1))


def moves(blanks: Tensor, labels: Tensor, outside: Tensor) -> tuple[Tensor, Tensor]:
    """Log-weights of the moves to the next step and to the next symbol, ``(N, T + 1, S + 1)``.

    The further row is where the blank of the last step leads. No symbol is read there.

    Args:
        blanks: Log-probability of the blank, ``(N, T, S + 1)``.
        labels: Log-probability of the next symbol, ``(N, T, S)``.
        outside: Where a sample has ended, ``(N, T, S + 1)``.
    """
    down = F.pad(blanks.masked_fill(outside, IMPOSSIBLE), (0, 0, 0, 1), value=IMPOSSIBLE)
    across = labels.masked_fill(outside[:, :, :-1], IMPOSSIBLE)
    return down, F.pad(across, (0, 1, 0, 1), value=IMPOSSIBLE)


def one_pass_rnnt(
    logits: Tensor,
    targets: Tensor,
    steps: Tensor,
    symbols: Tensor,
    blank: int,
    plain: Callable[..., Tensor],
) -> Tensor | None:
    """The loss of each sample ``(N)`` in float64; None where a graph or transform is at work.

    Args:
        logits: Scores of the joint network, ``(N, T, S + 1, C)``.
        targets: Class indices ``(N, S)``, also behind the end of a sample.
        steps: Steps of each sample, ``(N)``.
        symbols: Symbols of each sample, ``(N)``.
        blank: Class of the blank.
        plain: ``plain(logits, targets, steps, symbols)`` is the same as plain torch.
    """
    if not (logits.numel() and eager(logits)):
        return None
    wanted = logits.requires_grad and torch.is_grad_enabled()
    others = targets, steps, symbols
    value, *kept = _solve(logits.detach(), *others, blank, wanted)
    return with_pull(value, 0, _pull, plain, leaves=(logits,), others=others, kept=tuple(kept))


def _solve(
    logits: Tensor, targets: Tensor, steps: Tensor, symbols: Tensor, blank: int, wanted: bool
) -> tuple[Tensor, ...]:
    """The losses, and the gradient if it is wanted."""
    blanks = targets.new_full((len(targets), targets.shape[1] + 1), blank)
    # the blank and the next symbol at each node; there is none behind the last, so another blank
    index = torch.stack([blanks, F.pad(targets, (0, 1), value=blank)], 2).unsqueeze(1)
    places = index.expand(-1, logits.shape[1], -1, -1)
    soft = Softmax.of(logits)
    emit = logits.gather(3, places).double() - soft.normaliser(logits)
    outside = beyond(logits, steps, symbols)
    down, across = moves(emit[..., 0], emit[:, :, :-1, 1], outside)
    paths = walk_with_shares(down, across)
    total = paths.to(steps, symbols)
    if not wanted:
        return (-total,)
    _, blank_came, symbol_came = visits(paths, steps, symbols, down.shape[1])
    posterior = torch.stack([blank_came[:, 1:], F.pad(symbol_came[:, :-1, 1:], (0, 1))], 3)
    slope = soft.minus(posterior, places, posterior.sum(3, keepdim=True))
    # behind the end nothing has a gradient, whatever stands there
    return -total, slope.masked_fill_(outside.unsqueeze(3), 0.0)


def _pull(
    grad: Tensor, needed: tuple[bool, ...], leaves: tuple[Tensor, ...], slope: Tensor
) -> tuple[Tensor]:
    return (slope * grad.to(slope.dtype).view(-1, 1, 1, 1),)
