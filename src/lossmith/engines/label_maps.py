"""Both passes over softmax and class indices by hand, in pieces that stay in the cache.

The first pass leaves the probabilities in the memory of the gradient, where the second finds them
and writes the gradient over them: no exponential is taken twice. An image of several pieces is
taken apart again there, and nothing more is kept of it; of a single piece everything is.
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
    Keeping,
    Measure,
    computed_in,
    pieces,
)


class _Part(NamedTuple):
    """A piece of softmax probabilities, ``(samples, classes, positions)``.

    Attributes:
        mark: 1 at the label, otherwise 0; 0 where ignored.
        others: Probabilities of the other classes, 0 at the label; 0 where ignored.
        own: The label's probability, one number per position; 1 where ignored.
        rest: ``1 - own``, as the sum of the others.
    """

    mark: Tensor
    others: Tensor
    own: Tensor
    rest: Tensor

    def look_up(self, *tables: Tensor) -> tuple[Tensor, ...]:
        """The entries of ``(samples, classes)`` at each label, ``(samples, 1, positions)``."""
        return (torch.stack(tables, 1) @ self.mark).split(1, 1)


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
            elif place is not None:  # parts of all pieces would be more than the logits
                place.addcmul_(part.mark, part.own)
        return total

    def slopes(
        self, logits: Tensor, target: Tensor, pull: Tensor, needed: tuple[bool, ...]
    ) -> tuple[Tensor | None, ...]:
        """Gradient of the logits, from that of the sums.

        With s_c the slope of the loss by each probability and m their mean, the gradient is
        ``p_c (s_c - m)``. Slopes are measured from that of the label where it is the likely class,
        which changes nothing for a softmax: m is then a sum over the others, and nothing cancels.
        Where it is unlikely its slope, which may be large, has to meet nothing but its probability.
        """
        kept, only, self._part = self._take(), self._part, None
        slopes = in_huge_pages(torch.empty_like(logits)) if kept is None else kept
        by = pull.to(computed_in(logits)).unbind(-1)  # (N, C) each
        gamma, squared = self.measure.gamma, self.measure.squared
        for rows, span in pieces(logits):
            labels, place = target[rows, span], slopes[rows, :, span]
            if kept is None:
                out = None if logits.dtype in HALF else place
                part = self._split(logits[rows, :, span], labels, out)
            else:
                part = only or self._take_apart(place, labels)
            others, own, rest = part.others, part.own, part.rest
            level, shift = part.look_up(by[HIT][rows], by[MISS][rows])
            alarm = by[FALSE_ALARM][rows].unsqueeze(2)
            if squared:
                (by_gap,) = part.look_up(by[GAP][rows])
                level = level - 2 * rest * by_gap
                alarm = torch.addcmul(alarm, others, by[GAP][rows].unsqueeze(2), value=2)
                mean = (others * alarm).sum(1, keepdim=True)
            else:
                mean = alarm.mT @ others
            likely = torch.where(own > rest, level, 0.0)
            level, shift = level - likely, shift - likely
            mean.addcmul_(rest, shift).addcmul_(own, level)
            at_label = own * level.sub_(mean)
            if gamma is not None:
                certainty = self._certainty(part, *part.look_up(by[COST][rows]))
                at_label.addcmul_(rest, certainty, value=-1)
                shift.add_(certainty)
            others.mul_(alarm + shift.sub_(mean)).addcmul_(part.mark, at_label)
            if others.dtype is not slopes.dtype:
                place.copy_(others)
        return (slopes,)

    def _split(self, logits: Tensor, target: Tensor, out: Tensor | None) -> _Part:
        """Softmax of a piece, in ``out`` or in memory of its own, taken apart by the labels."""
        return self._take_apart(torch.softmax(logits.to(computed_in(logits)), 1, out=out), target)

    def _take_apart(self, tile: Tensor, target: Tensor) -> _Part:
        """The probabilities of the labels are taken out of all."""
        classes = torch.arange(tile.shape[1], dtype=tile.dtype, device="cpu").unsqueeze(1)
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
        gamma, spare = self.measure.gamma, torch.empty_like(mark)

        def by_label(number: Tensor) -> Tensor:
            """Sums over the positions of each label; a product would lose digits of long ones."""
            return torch.mul(mark, number, out=spare).sum(2)

        size = mark.sum(2)
        gap = cost = torch.zeros_like(size)
        if gamma is not None:
            cost = _cost(own, rest, logits, target)
            cost = by_label(cost * rest.pow(gamma) if gamma else cost)
        if self.measure.squared:
            gap = by_label(rest.square()) + torch.mul(others, others, out=spare).sum(2)
        count = size.sum(1, keepdim=True).expand_as(size)
        # in the order of the columns
        columns = by_label(own), others.sum(2), by_label(rest), gap, cost, size, count
        return torch.stack(columns, 2)

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
