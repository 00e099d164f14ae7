"""Linear-chain CRF with its gradient, posteriors minus counts, without a graph of the steps."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lossmith.core.checks import eager
from lossmith.engines.pull import with_pull


class Chain(NamedTuple):
    """What a loss is asked of.

    Attributes:
        input: Scores of each class at each step, ``(N, T, C)``.
        transitions: Score of a class (column) after another (row), ``(C, C)``.
        start: Score of the first class, ``(C)``.
        end: Score of the last class, ``(C)``.
        target: Class of each step, ``(N, T)``; what stands behind the end is a class, too.
        lengths: Steps of each sample, at least 1, ``(N)``.
    """

    input: Tensor
    transitions: Tensor
    start: Tensor
    end: Tensor
    target: Tensor
    lengths: Tensor

    def wide(self) -> "Chain":
        """The same in float64."""
        scores = (self.input, self.transitions, self.start, self.end)
        input, transitions, start, end = (score.double() for score in scores)
        return Chain(input, transitions, start, end, self.target, self.lengths)

    def inside(self) -> Tensor:
        """Where a sample has not ended, ``(N, T)``."""
        step = torch.arange(self.input.shape[1], device=self.input.device)
        return step < self.lengths.unsqueeze(1)

    def last(self) -> Tensor:
        """The last class of each sample, ``(N)``."""
        return self.target.gather(1, self.lengths.unsqueeze(1) - 1).squeeze(1)

    def score(self) -> Tensor:
        """Score of the targets, ``(N)``."""
        inside = self.inside()
        each = self.input.gather(2, self.target.unsqueeze(2)).squeeze(2)
        moves = self.transitions[self.target[:, :-1], self.target[:, 1:]]
        total = torch.where(inside, each, 0.0).sum(1) + torch.where(inside[:, 1:], moves, 0.0).sum(
            1
        )
        return total + self.start[self.target[:, 0]] + self.end[self.last()]


def one_pass_chain(chain: Chain, plain: Callable[..., Tensor]) -> Tensor | None:
    """The loss of each sample ``(N)`` in float64; None where a graph or transform is at work.

    Args:
        chain: The question.
        plain: ``plain(*chain)`` is the same as plain torch.
    """
    if not (chain.input.numel() and eager(*chain[:4])):
        return None
    wide = Chain(*(tensor.detach() for tensor in chain)).wide()
    before, behind, level = _both_ways(wide)
    joint = before[:, 0] + wide.input[:, 0] + behind[:, 0]
    value = torch.logsumexp(joint, 1) + level.sum(1) - wide.score()
    leaves, others = tuple(chain[:4]), tuple(chain[4:])
    kept = (before, behind, level, *others)
    return with_pull(value, 0, _pull, plain, leaves=leaves, others=others, kept=kept)


def _both_ways(chain: Chain) -> tuple[Tensor, Tensor, Tensor]:
    """Sums over the paths up to each step and behind it, without the step itself, in logarithms.

    Both are taken side by side, ``(N, T, C)`` each, and relative to the largest of a step, so that
    they keep their digits. The third result is what was taken off the second, ``(N, T)``.
    """
    count = chain.input.shape[1]
    emit = torch.stack([chain.input, chain.input.flip(1)])
    pairs = torch.stack([chain.transitions, chain.transitions.T]).unsqueeze(1)
    inside = chain.inside()[:, 1:]
    follows = torch.stack([inside, inside.flip(1)]).unsqueeze(3)
    line = torch.stack([chain.start, chain.end]).unsqueeze(1).expand(2, len(chain.input), -1)
    lines, tops = [line], [line.new_zeros(2, len(chain.input), 1)]
    for step in range(count - 1):
        moved = torch.logsumexp((line + emit[:, :, step]).unsqueeze(3) + pairs, 2)
        top = moved.amax(2, keepdim=True)
        # a short sample has not begun where the reversed walk comes from
        here = follows[:, :, step]
        line = torch.where(here, moved - top, line)
        lines.append(line)
        tops.append(torch.where(here, top, 0.0))
    before, behind = torch.stack(lines, 2)
    return before, behind.flip(1), torch.stack(tops, 2)[1].flip(1).squeeze(2)


def _pull(
    grad: Tensor, needed: tuple[bool, ...], leaves: tuple[Tensor, ...], *kept: Tensor
) -> tuple[Tensor | None, ...]:
    """Posteriors minus counts, in float64."""
    before, behind, level, target, lengths = kept
    chain = Chain(*leaves, *kept[3:]).wide()
    inside, last = chain.inside().unsqueeze(2), chain.last()
    each = grad.double().unsqueeze(1)
    joint = before + chain.input + behind
    whole = torch.logsumexp(joint, 2, keepdim=True)
    found = torch.where(inside, (joint - whole).exp(), 0.0)
    counted = torch.where(inside, 1.0, torch.zeros_like(whole))
    slope = found.scatter_add(2, target.unsqueeze(2), -counted) * each.unsqueeze(2)
    final = found.gather(1, (lengths - 1).view(-1, 1, 1).expand_as(found[:, :1])).squeeze(1)
    ends = (found[:, 0], target[:, 0]), (final, last)
    start, end = (
        (share.scatter_add(1, own.unsqueeze(1), -torch.ones_like(each)) * each).sum(0)
        for share, own in ends
    )
    moves = torch.zeros_like(chain.transitions)
    if needed[1]:
        from_here, to_here = before + chain.input, behind + chain.input
        for step in range(chain.input.shape[1] - 1):
            pair = from_here[:, step].unsqueeze(2) + to_here[:, step + 1].unsqueeze(1)
            scale = (level + whole.squeeze(2))[:, step].view(-1, 1, 1)
            share = (pair + chain.transitions - scale).exp() * each.unsqueeze(2)
            moves += torch.where(inside[:, step + 1].unsqueeze(2), share, 0.0).sum(0)
        counts = torch.where(inside[:, 1:, 0], each, 0.0)
        moves = moves.index_put((target[:, :-1], target[:, 1:]), -counts, accumulate=True)
    pulls = (slope, moves, start, end)
    return tuple(
        pull.to(leaf.dtype) if need else None
        for pull, leaf, need in zip(pulls, leaves, needed, strict=True)
    )
