"""All alignments of label sequences: their probability, and the posterior of every symbol.

Graves et al. 2006 walk through a lattice of steps and states, once forwards and once backwards. A
walk backwards is a walk forwards through the reversed lattice, so one recursion takes both side by
side, with three kernels per step. The first of two forms multiplies probabilities: no exponential
is left in the loop. Every few steps the row of a sample is divided by its largest number, and a
bound tells whether anything that matters fell under the smallest number of float64. The second form
adds logarithms, and loses nothing.

The arguments of both are

- ``emit``: log-probability of the blank, and of each symbol, at each step, ``(T, N, 1 + S)``,
  float64;
- ``differs``: whether a symbol differs from the one before it, ``(N, S)``;
- ``steps`` and ``symbols``: those of each sample, ``(N)``;
- ``posterior``: whether the second result is wanted.

Both return the negative log-likelihood of each sample ``(N)``, infinite where no alignment fits,
and the posterior probability of the blank and of each symbol at each step, ``(T, N, 1 + S)``: 0
behind the end of a sample, and everywhere if its loss is infinite.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor

PERIOD = 8  # steps between two divisions; a row grows at most threefold per step
# The best beginning times the best end may be so much likelier than all that fits together, in
# logarithms: products under 1e-290 may vanish, rows may have grown since their last division, and
# the losses of a million states must not show in the 17th digit.
ROOM = math.log(1e290) - 2 * (PERIOD + 1) * math.log(3.0) - math.log(1e6 * 1e17)
NOTHING = 1e-300  # divides a row of zeros
Done = tuple[Tensor, Tensor | None]


def multiplied(
    emit: Tensor, differs: Tensor, steps: Tensor, symbols: Tensor, *, posterior: bool
) -> Done | None:
    """By multiplication of probabilities; None if digits may have been lost.

    On the CPU only: elsewhere the look at what was lost would stall the device.
    """
    if emit.device.type != "cpu":
        return None
    count = len(emit)
    top = emit.amax(2, keepdim=True).clamp_(min=-1e300)
    outside = (torch.arange(count).unsqueeze(1) >= steps).unsqueeze(2)
    ragged = bool(outside.any())
    if ragged:
        top.masked_fill_(outside, 0.0)
    factor = emit.sub(top).exp_()
    if ragged:
        factor.masked_fill_(outside, 0.0)
    lattice, skip = _lattice(factor, differs, symbols, outside if ragged else None)
    sizes: list[Tensor] = []
    with torch.inference_mode():  # its kernels are called faster
        here, one, two = _lines(lattice)
        arrived, mask = torch.empty_like(here[0]), skip.view(-1)
        for step in range(count):
            torch.add(here[step], one[step], out=arrived)
            here[step + 1].mul_(arrived.addcmul_(two[step], mask))
            if (step + 1) % PERIOD == 0:
                row = lattice[step + 1]
                sizes.append(row.amax(2, keepdim=True).clamp_(min=NOTHING))
                row.div_(sizes[-1])

    scale = emit.new_zeros(len(sizes) + 1, *lattice.shape[1:3])
    if sizes:
        torch.cumsum(torch.stack(sizes).squeeze(3).log_(), 0, out=scale[1:])
    found = lattice[count, 1, :, -2:].sum(1).log_() + scale[-1, 1]
    block = torch.arange(count + 1) // PERIOD
    best = scale[block, 0] + scale[block.flip(0), 1]
    trusted = best.amax(0) - found <= ROOM
    if not trusted.all():
        inside = torch.arange(differs.shape[1]) < symbols.unsqueeze(1)
        impossible = symbols + (~differs & inside).sum(1) > steps
        if not (trusted | impossible).all():
            return None
    value = -(found + top.sum((0, 2)))
    if not posterior:
        return value, None
    # forwards up to a step, that step included, and backwards from behind it
    behind = lattice[:-1, 1, :, 2:] + lattice[:-1, 1, :, 1:-1]
    behind.addcmul_(lattice[:-1, 1, :, :-2], skip[1, :, 2:])
    share = _by_symbol(behind.flip(0, 2).mul_(lattice[1:, 0, :, 2:]))
    return value, share.div_(share.sum(2, keepdim=True).clamp_(min=NOTHING))


def in_logarithms(
    emit: Tensor, differs: Tensor, steps: Tensor, symbols: Tensor, *, posterior: bool
) -> Done:
    """By addition of logarithms, on any device, without synchronisation."""
    count = len(emit)
    outside = (torch.arange(count, device=emit.device).unsqueeze(1) >= steps).unsqueeze(2)
    factor = emit.masked_fill(outside, -math.inf)
    lattice, skip = _lattice(factor, differs, symbols, outside, nothing=-math.inf)
    skip = skip[..., 2:].log()
    for row, after in pairwise(lattice):
        arrived = torch.logaddexp(row[..., 2:], row[..., 1:-1])
        after[..., 2:].add_(torch.logaddexp(arrived, row[..., :-2] + skip))
    found = torch.logsumexp(lattice[count, 1, :, -2:], 1)
    if not posterior:
        return -found, None
    behind = torch.logaddexp(lattice[:-1, 1, :, 2:], lattice[:-1, 1, :, 1:-1])
    behind = torch.logaddexp(behind, lattice[:-1, 1, :, :-2] + skip[1])
    share = behind.flip(0, 2).add_(lattice[1:, 0, :, 2:])
    whole = torch.logsumexp(share, 2, keepdim=True)
    share.sub_(whole.masked_fill_(whole == -math.inf, 0.0)).exp_()
    return -found, _by_symbol(share)


def _lattice(
    factor: Tensor,
    differs: Tensor,
    symbols: Tensor,
    outside: Tensor | None,
    *,
    nothing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """What every state ``(T + 1, 2, N, 2 + L)`` multiplies by, and which may be skipped to.

    ``factor`` has nothing in it where a sample has ended, which is ``outside``.
    The states of a sample are b s1 b s2 b ...: blanks around every symbol, all ``L = 2 S + 1`` of
    them behind two columns where nothing is. Before the first step a walk stands at the first
    blank; the reversed one stands at the blank behind the last symbol.
    """
    count, batch, width = len(factor), factor.shape[1], 2 * factor.shape[2] - 1
    begin = factor.new_full((2, batch, width), nothing)
    certain = 1.0 if nothing == 0.0 else 0.0
    begin[0, :, 0] = certain
    begin[1].scatter_(1, (width - 1 - 2 * symbols).unsqueeze(1), certain)
    whole = factor.new_empty(2 + (count + 1) * 2 * batch * (width + 2))
    whole[:2] = nothing
    lattice = whole[2:].view(count + 1, 2, batch, width + 2)
    lattice[..., :2] = nothing
    states = lattice[..., 2:]
    states[0] = begin
    for side, each in enumerate((factor, factor.flip(0))):
        states[1:, side, :, ::2] = each[..., :1]
        states[1:, side, :, 1::2] = each[..., 1:] if side == 0 else each[..., 1:].flip(2)
    if outside is not None:
        # a short sample, reversed, waits where it begins until its steps come
        states[1:, 1] = torch.where(outside.flip(0), begin[1], states[1:, 1])
    skip = factor.new_zeros(2, batch, width + 2)
    skip[0, :, 3::2] = differs
    skip[1, :, 5::2] = differs[:, 1:].flip(1)
    return lattice, skip


def _lines(lattice: Tensor) -> tuple[tuple[Tensor, ...], ...]:
    """Per step, in one dimension: the states, those one before each, those two before each.

    What is before the first state of a sample are its two columns where nothing is, and these
    multiply whatever is before them, the states of another sample, by nothing.
    """
    size = lattice[0].numel()
    return tuple(
        lattice.as_strided((len(lattice), size), (size, 1), 2 - back).unbind(0) for back in range(3)
    )


def _by_symbol(share: Tensor) -> Tensor:
    """The states of the blank added up, then those of the symbols."""
    return torch.cat([share[..., ::2].sum(2, keepdim=True), share[..., 1::2]], 2)
