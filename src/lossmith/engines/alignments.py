"""All alignments of label sequences: their probability, and the posterior of every symbol.

Graves et al. 2006 walk through a lattice of steps and states, once forwards and once backwards. A
sample has ``L = 2 S + 1`` states b s1 b s2 b ...: blanks around every symbol. Two forms of the walk
take both directions side by side: one multiplies probabilities, with three kernels per step and no
exponential among them, and knows when it may have lost digits; one adds logarithms, and loses
nothing.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor

# Between two divisions of the states of a sample by the largest of them, in logarithms, no state
# that may be reached falls further, and none grows further
FALL, GROWTH = 150.0, 33.0
# The best beginning times the best end may be so much likelier than all that fits together, in
# logarithms: what float64 loses of one is under 1e-307 of what a division left, and losses of a
# million states must not show in the 17th digit.
ROOM = math.log(1e307) - GROWTH - math.log(1e6 * 1e17)
NOTHING = 1e-300  # divides a row of zeros


def multiplied(
    chance: Tensor, low: float, high: float, differs: Tensor, left: Tensor, symbols: Tensor
) -> tuple[Tensor, Tensor] | None:
    """By multiplication, in float64, on the CPU; None if digits may have been lost.

    Args:
        chance: Of each state at each step, two columns of zeros before them, ``(T, N, 2 + L)``.
            Those of one step of one sample may have any factor in common.
        low: The lowest of them, without the zeros.
        high: The highest.
        differs: Whether a symbol differs from the one before it, ``(N, S - 1)``.
        left: Steps that follow a step, negative behind the end of a sample, ``(T, N)``.
        symbols: Of each sample, ``(N)``.

    Returns:
        The logarithm of the sum of all alignments ``(N)``, -inf where none fits, and of every state
        at each step the sum of those that pass it, ``(T, N, 2 + L)``, up to a factor per step and
        sample; behind the end of a sample is anything finite.
    """
    if not (math.exp(-FALL) <= low and high <= math.exp(GROWTH) / 3):
        return None
    period = int(min(FALL / -math.log(min(low, 0.5)), GROWTH / math.log(3 * max(high, 1.0))))
    count, batch, width = chance.shape
    size, sample = batch * width, torch.arange(batch, device="cpu")
    first = sample * width + 2
    last = first + 2 * symbols
    steps, behind = left[0] + 1, left.clamp(min=0)
    turned = (behind * batch + sample).view(-1)
    lattice = chance.new_empty(2, count + 1, batch, width)
    ahead, back = (side.view(-1, width) for side in lattice[:, 1:])
    torch.index_select(ahead.copy_(chance.view(-1, width)), 0, turned, out=back)
    skip = chance.new_zeros(2, batch, width)
    skip[0, :, 5::2] = differs
    skip[1, :, 3:-2:2] = differs
    # A walk has emitted nothing at its first blank, and one backwards nothing at its last
    buffer = chance.new_zeros(2 * size + 4)
    buffer[2:].index_fill_(0, torch.cat([first, last + size]), 1.0)
    sizes = _walk(lattice.view(2, count + 1, size), buffer, skip.view(2, size), batch, period)
    found = lattice[0].view(-1).take(steps * size + last).log_()
    if sizes:  # else no state can have vanished
        scale = chance.new_zeros(len(sizes) + 1, 2, batch)
        torch.cumsum(torch.stack(sizes).squeeze(3).log_(), 0, out=scale[1:])
        ahead, back = scale.unbind(1)
        found += ahead.gather(0, (steps // period).unsqueeze(0)).squeeze(0)
        best = ahead[torch.arange(count, device="cpu") // period]
        best += back.gather(0, behind // period)
        best = best.masked_fill_(left < 0, -math.inf).amax(0)
        # where nothing fits, nothing was lost
        inside = torch.arange(1, differs.shape[1] + 1, device="cpu") < symbols.unsqueeze(1)
        impossible = symbols + (~differs & inside).sum(1) > steps
        if not (impossible | (best - found <= ROOM)).all():
            return None
    share = lattice[1].view(-1, width).index_select(0, turned).view(count, batch, width)
    return found, share.mul_(lattice[0, :-1]).mul_(chance)


def _walk(lattice: Tensor, buffer: Tensor, skip: Tensor, batch: int, period: int) -> list[Tensor]:
    """From chances ``(2, 1 + T, N (2 + L))`` to the sums of all that arrives at a state, in place.

    Returns what the rows of each sample were divided by after every ``period`` of steps.

    The two columns of zeros, multiplied by anything, keep samples apart. Backwards the states are
    entered from behind, so the two sides of a view are further apart, or nearer, than the sides
    themselves.
    """
    size = lattice.shape[2]
    here, one, two = (buffer.as_strided((2, size), (size + 2 * n, 1), 2 - n) for n in range(3))
    begin, *lines = lattice.unbind(1)
    before = torch.addcmul(here, two, skip, out=begin).add_(one)
    sizes: list[Tensor] = []
    for step, line in enumerate(lines, 1):
        torch.mul(before, line, out=here)
        before = torch.addcmul(here, two, skip, out=line).add_(one)
        if step % period == 0:
            row = line.view(2, batch, -1)
            sizes.append(row.amax(2, keepdim=True).clamp_(min=NOTHING))
            row.div_(sizes[-1])
    return sizes


def in_logarithms(
    emit: Tensor, differs: Tensor, steps: Tensor, symbols: Tensor, *, posterior: bool
) -> tuple[Tensor, Tensor | None]:
    """By addition of logarithms, on any device, without synchronisation.

    Args:
        emit: Log-probability of the blank, and of each symbol, at each step, ``(T, N, 1 + S)``,
            float64.
        differs: Whether a symbol differs from the one before it, ``(N, S)``.
        steps: Of each sample, ``(N)``.
        symbols: Of each sample, ``(N)``.
        posterior: Whether the second result is wanted.

    Returns:
        The negative log-likelihood of each sample ``(N)``, infinite where no alignment fits, and
        the posterior probability of the blank and of each symbol at each step, ``(T, N, 1 + S)``:
        0 behind the end of a sample, and everywhere if its loss is infinite.
    """
    count = len(emit)
    outside = (torch.arange(count, device=emit.device).unsqueeze(1) >= steps).unsqueeze(2)
    lattice, skip = _lattice(emit.masked_fill(outside, -math.inf), differs, symbols, outside)
    for row, after in pairwise(lattice):
        arrived = torch.logaddexp(row[..., 2:], row[..., 1:-1])
        after[..., 2:].add_(torch.logaddexp(arrived, row[..., :-2] + skip))
    found = torch.logsumexp(lattice[count, 1, :, -2:], 1)
    if not posterior:
        return -found, None
    # forwards up to a step, that step included, and backwards from behind it
    behind = torch.logaddexp(lattice[:-1, 1, :, 2:], lattice[:-1, 1, :, 1:-1])
    behind = torch.logaddexp(behind, lattice[:-1, 1, :, :-2] + skip[1])
    share = behind.flip(0, 2).add_(lattice[1:, 0, :, 2:])
    whole = torch.logsumexp(share, 2, keepdim=True)
    share.sub_(whole.masked_fill_(whole == -math.inf, 0.0)).exp_()
    return -found, torch.cat([share[..., ::2].sum(2, keepdim=True), share[..., 1::2]], 2)


def _lattice(
    emit: Tensor, differs: Tensor, symbols: Tensor, outside: Tensor
) -> tuple[Tensor, Tensor]:
    """What every state ``(T + 1, 2, N, 2 + L)`` adds, and which of ``(2, N, L)`` may be skipped to.

    ``emit`` is -inf where a sample has ended, which is ``outside``.
    The states of a sample are behind two columns where nothing is. Before the first step a walk
    stands at the first blank; the reversed one stands at the blank behind the last symbol.
    """
    count, batch, width = len(emit), emit.shape[1], 2 * emit.shape[2] - 1
    begin = emit.new_full((2, batch, width), -math.inf)
    begin[0, :, 0] = 0.0
    begin[1].scatter_(1, (width - 1 - 2 * symbols).unsqueeze(1), 0.0)
    lattice = emit.new_full((count + 1, 2, batch, width + 2), -math.inf)
    states = lattice[..., 2:]
    states[0] = begin
    for side, each in enumerate((emit, emit.flip(0))):
        states[1:, side, :, ::2] = each[..., :1]
        states[1:, side, :, 1::2] = each[..., 1:] if side == 0 else each[..., 1:].flip(2)
    # a short sample, reversed, waits where it begins until its steps come
    states[1:, 1] = torch.where(outside.flip(0), begin[1], states[1:, 1])
    skip = emit.new_full((2, batch, width), -math.inf)
    skip[0, :, 1::2].masked_fill_(differs, 0.0)
    skip[1, :, 3::2].masked_fill_(differs[:, 1:].flip(1), 0.0)
    return lattice, skip
