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
        mark: 1 at the label, otherwise 0.
        others: Probabilities of the other classes, 0 at the label.
        own: The label's probability, one number per position; 1 where ignored.
        rest: ``1 - own``, as the sum of the others.
    """

    mark: Tensor
    others: Tensor
    own: Tensor
    rest: Tensor

    def look_up(self, table: Tensor) -> Tensor:
        """The entry of ``(samples, classes)`` at each label."""
        return table.unsqueeze(1) @ self.mark


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
            elif place is not None:  # what else there is of an image would be too much to keep
                place.addcmul_(part.mark, part.own)
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
            others, own, rest = part.others, part.own, part.rest
            shift, alarm = part.look_up(by_label[rows]), by_alarm[rows]
            if self.measure.squared:
                shift.addcmul_(rest, part.look_up(by_gap[rows]))
                alarm = others * by_gap[rows].unsqueeze(2) + alarm
                mean = (others * alarm).sum(1, keepdim=True)
            else:
                mean = alarm.mT @ others
            mean.addcmul_(rest, shift)
            at_label = own * mean
            if self.measure.gamma is not None:
                certainty = self._certainty(part, part.look_up(by[COST][rows]))
                at_label.addcmul_(rest, certainty)
                shift.add_(certainty)
            others.mul_(alarm + shift.sub_(mean)).addcmul_(part.mark, at_label, value=-1)
            if others.dtype is not slopes.dtype:
                place.copy_(others)
        return (slopes,)

    def _split(self, logits: Tensor, target: Tensor, out: Tensor | None) -> _Part:
        """Softmax of a piece, in ``out`` or in memory of its own, taken apart by the labels."""
        return self._take_apart(torch.softmax(logits.to(_work(logits)), 1, out=out), target)

    def _take_apart(self, tile: Tensor, target: Tensor) -> _Part:
        """The probabilities of the labels are taken out of all."""
        classes = torch.arange(tile.shape[1], dtype=tile.dtype).unsqueeze(1)
        mark = torch.eq(target.unsqueeze(1), classes, out=torch.empty_like(tile))
        label, ignore, absent = target.unsqueeze(1).long(), self.measure.ignore_index, None
        # a look at one end of the numbers costs less than a comparison of all
        inside = 0 <= ignore < tile.shape[1]
        if inside or (target.min() if ignore < 0 else target.max()).item() == ignore:
            absent = label == ignore
            label = label.masked_fill(absent, 0)
            mark.masked_fill_(absent, 0.0)
            tile.masked_fill_(absent, 0.0)
        own = tile.gather(1, label)
        # what is taken off is the number itself: exactly 0 is left
        others = tile.addcmul_(mark, own, value=-1)
        if absent is not None:
            own.masked_fill_(absent, 1.0)  # which costs nothing, where 0 would cost a second look
        return _Part(mark, others, own, others.sum(1, keepdim=True))

    def _added_up(self, part: _Part, logits: Tensor, target: Tensor) -> Tensor:
        """The sums of a piece, ``(samples, classes, COLUMNS)``."""
        mark, others, own, rest = part
        gamma = self.measure.gamma
        numbers = [own, rest, torch.ones_like(own)]
        if gamma is not None:
            cost = _cost(own, rest, logits, target)
            numbers.append(cost * rest.pow(gamma) if gamma else cost)
        if self.measure.squared:
            numbers.append(rest.square())
        # sums over the positions of each label
        hit, miss, size, *more = (mark @ torch.cat(numbers, 1).mT).unbind(2)
        columns = dict.fromkeys(range(COLUMNS), torch.zeros_like(hit))
        columns |= {HIT: hit, MISS: miss, SIZE: size, FALSE_ALARM: others.sum(2)}
        columns[POSITIONS] = size.sum(1, keepdim=True).expand_as(size)
        if gamma is not None:
            columns[COST] = more[0]
        if self.measure.squared:
            columns[GAP] = others.square().sum(2).add_(more[-1])
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


def _cost(own: Tensor, rest: Tensor, logits: Tensor, target: Tensor) -> Tensor:
    """``-log own``."""
    cost, tiny = (rest / own).log1p_(), torch.finfo(own.dtype).tiny
    if own.amin().item() > tiny:
        return cost
    # where it vanishes, the log-sum-exp less the logit has its digits
    label = target.long().clamp(0, logits.shape[1] - 1).unsqueeze(1)
    far = torch.log_softmax(logits.to(own.dtype), 1).gather(1, label).neg_()
    return torch.where(own > tiny, cost, far)


def _work(logits: Tensor) -> torch.dtype:
    return torch.float32 if logits.dtype in HALF else logits.dtype
