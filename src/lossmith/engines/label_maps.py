"""Both passes over softmax and class indices by hand, in pieces that stay in the cache.

The first pass leaves the probabilities in the memory of the gradient, where the second finds them
and writes the gradient over them: no exponential is taken twice, and nothing more is kept.
On the CPU only.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lossmith.core.signature import HALF
from lossmith.engines.pages import in_huge_pages
from lossmith.engines.passes import (
    COLUMNS,
    COST,
    FALSE_ALARM,
    GAP,
    HIT,
    MISS,
    POSITIONS,
    SIZE,
    Keeping,
    Measure,
    pieces,
)


class _Part(NamedTuple):
    """A piece of softmax probabilities, ``(samples, classes, positions)``; 0 where ignored.

    Attributes:
        others: Probabilities of the other classes, 0 at the label.
        own: The label's probability, one number per position; 1 where ignored.
        rest: ``1 - own``, as the sum of the others.
        absent: Whether a position is ignored; None if none is.
    """

    others: Tensor
    own: Tensor
    rest: Tensor
    absent: Tensor | None


class LabelMaps(Keeping):
    """The two passes, piece by piece."""

    def __init__(self, measure: Measure, *, keep: bool = False) -> None:
        super().__init__(measure, keep=keep)
        self._part: _Part | None = None

    def sums(self, logits: Tensor, target: Tensor) -> Tensor:
        """The sums, ``(N, C, COLUMNS)``, in float64."""
        total = logits.new_zeros((*logits.shape[:2], COLUMNS), dtype=torch.float64)
        if self.keep and logits.dtype not in HALF:  # half precision would not hold them
            self._kept = in_huge_pages(torch.empty_like(logits))
        for rows, span in pieces(logits):
            piece, labels = logits[rows, :, span], target[rows, span]
            place = None if self._kept is None else self._kept[rows, :, span]
            part = self._split(piece, labels, place)
            total[rows] += self._added_up(part, piece, labels)
            if place is not None and place.shape == logits.shape:
                self._part = part
            elif place is not None:  # two numbers per position of an image would be too many
                place.scatter_(1, _indices(labels, part.absent).unsqueeze(1), part.own)
        return total

    def slopes(
        self, logits: Tensor, target: Tensor, pull: Tensor, needed: tuple[bool, ...]
    ) -> tuple[Tensor | None, ...]:
        """Gradient of the logits, from that of the sums.

        The slope s_c of the loss by each probability is measured from that of the label, which
        changes nothing for a softmax. Then the label gets ``-p m`` and every other class
        ``p_c (s_c - m)``, where m, the mean of s, is a sum over the others: nothing cancels where
        the label is likely.
        """
        kept, whole, self._part = self._take(), self._part, None
        slopes = in_huge_pages(torch.empty_like(logits)) if kept is None else kept
        by = pull.to(_work(logits)).unbind(-1)  # (N, C) each
        by_label, by_alarm, by_gap = by[MISS] - by[HIT], by[FALSE_ALARM].unsqueeze(2), 2 * by[GAP]
        for rows, span in pieces(logits):
            labels, place = target[rows, span], slopes[rows, :, span]
            if kept is None:
                out = None if logits.dtype in HALF else place
                part = self._split(logits[rows, :, span], labels, out)
            else:
                part = whole or self._take_apart(place, labels)
            label = _indices(labels, part.absent)
            others, own, rest = part.others, part.own, part.rest
            shift, alarm = by_label[rows].gather(1, label).unsqueeze(1), by_alarm[rows]
            if self.measure.squared:
                shift.addcmul_(rest, by_gap[rows].gather(1, label).unsqueeze(1))
                alarm = others * by_gap[rows].unsqueeze(2) + alarm
                mean = (others * alarm).sum(1, keepdim=True)
            else:
                mean = alarm.mT @ others
            mean.addcmul_(rest, shift)
            at_label = own * mean
            if self.measure.gamma is not None:
                certainty = self._certainty(part, by[COST][rows].gather(1, label).unsqueeze(1))
                at_label.addcmul_(rest, certainty)
                shift.add_(certainty)
            others.mul_(alarm + shift.sub_(mean)).scatter_(1, label.unsqueeze(1), at_label.neg_())
            if others.dtype is not slopes.dtype:
                place.copy_(others)
        return (slopes,)

    def _split(self, logits: Tensor, target: Tensor, out: Tensor | None) -> _Part:
        """Softmax of a piece, in ``out`` or in memory of its own, taken apart by the labels."""
        return self._take_apart(torch.softmax(logits.to(_work(logits)), 1, out=out), target)

    def _take_apart(self, tile: Tensor, target: Tensor) -> _Part:
        """The probabilities of the labels are taken out of all."""
        ignore, absent = self.measure.ignore_index, None
        # a look at one end of the numbers costs less than a comparison of all, and torch looks for
        # ends of float32 20 times as fast as for those of int64
        coarse = target.to(tile.dtype)
        inside = 0 <= ignore < tile.shape[1]
        if inside or (coarse.amin() if ignore < 0 else coarse.amax()).item() == ignore:
            absent = (target == ignore).unsqueeze(1)
            tile.masked_fill_(absent, 0.0)
        label = _indices(target, absent).unsqueeze(1)
        own = tile.gather(1, label)
        # the kernel that takes a number in place of zeros needs twice as long
        others = tile.scatter_(1, label, torch.zeros_like(own))
        if absent is not None:
            own.masked_fill_(absent, 1.0)  # which costs nothing, where 0 would cost a second look
        return _Part(others, own, others.sum(1, keepdim=True), absent)

    def _added_up(self, part: _Part, logits: Tensor, target: Tensor) -> Tensor:
        """The sums of a piece, ``(samples, classes, COLUMNS)``."""
        others, own, rest, absent = part
        label, gamma = _indices(target, absent).unsqueeze(1), self.measure.gamma
        present = torch.ones_like(own)
        if absent is not None:
            present.masked_fill_(absent, 0.0)
        numbers = [own, rest, present]
        if gamma is not None:
            cost = _cost(own, rest, logits, label)
            numbers.append(cost * rest.pow(gamma) if gamma else cost)
        if self.measure.squared:
            numbers.append(rest.square())
        mark = torch.zeros_like(others).scatter_(1, label, present)
        # sums over the positions of each label
        hit, miss, size, *more = (mark @ torch.cat(numbers, 1).mT).unbind(2)
        columns = dict.fromkeys(range(COLUMNS), torch.zeros_like(hit))
        columns |= {HIT: hit, MISS: miss, SIZE: size, FALSE_ALARM: others.sum(2)}
        columns[POSITIONS] = size.sum(1, keepdim=True).expand_as(size)
        if gamma is not None:
            columns[COST] = more[0]
        if self.measure.squared:
            columns[GAP] = torch.mul(others, others, out=mark).sum(2).add_(more[-1])
        return torch.stack(tuple(columns.values()), -1)

    def _certainty(self, part: _Part, by_cost: Tensor) -> Tensor:
        """Minus the derivative of the cost by the label's log-probability."""
        gamma = self.measure.gamma
        if not gamma:
            return by_cost
        own, rest = part.own, part.rest
        # p log p is 0 where p is; -log p / rest is 1 where the rest is 0
        share = torch.where(own > torch.finfo(own.dtype).tiny, own * (rest / own).log1p(), 0.0)
        ratio = torch.where(rest == 0, 1.0, share / rest)
        return by_cost * rest.pow(gamma) * (1 + gamma * ratio)


def _cost(own: Tensor, rest: Tensor, logits: Tensor, label: Tensor) -> Tensor:
    """``-log own``."""
    cost, tiny = (rest / own).log1p_(), torch.finfo(own.dtype).tiny
    if own.amin().item() > tiny:
        return cost
    # where it vanishes, the log-sum-exp less the logit has its digits
    far = torch.log_softmax(logits.to(own.dtype), 1).gather(1, label).neg_()
    return torch.where(own > tiny, cost, far)


def _indices(target: Tensor, absent: Tensor | None) -> Tensor:
    """The labels as a kernel wants them, 0 where ignored."""
    label = target.long()
    return label if absent is None else label.masked_fill(absent.squeeze(1), 0)


def _work(logits: Tensor) -> torch.dtype:
    return torch.float32 if logits.dtype in HALF else logits.dtype
