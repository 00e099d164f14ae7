"""Both passes over softmax and class indices by hand: in place, in buffers that fit the cache.

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


class LabelMaps(Keeping):
    """Softmax and class indices, by hand: in place, in buffers that stay in the cache."""

    def sums(self, logits: Tensor, target: Tensor) -> Tensor:
        """The sums, ``(N, C, COLUMNS)``, in float64."""
        total = logits.new_zeros((*logits.shape[:2], COLUMNS), dtype=torch.float64)
        room = _Room(logits, self.measure)
        if self.keep and logits.dtype is room.work:  # half precision would not hold them
            self._kept = in_huge_pages(torch.empty_like(logits))
        gamma, squared = self.measure.gamma, self.measure.squared
        columns = [HIT, MISS, SIZE, *([COST] * (gamma is not None)), *([GAP] * squared)]
        for rows, span in pieces(logits):
            place = None if self._kept is None else self._kept[rows, :, span]
            part = room.split(logits[rows, :, span], target[rows, span], place)
            numbers = [part.own, part.rest, torch.ones_like(part.own)]
            if gamma is not None:
                numbers.append(part.nll * part.rest.pow(gamma) if gamma else part.nll)
            if squared:
                numbers.append(part.rest.square())
            found = part.mark @ torch.cat(numbers, 1).mT  # sums over the positions of each label
            into = total[rows]
            into[..., columns] += found
            into[..., POSITIONS] += found[..., 2].sum(1, keepdim=True, dtype=torch.float64)
            into[..., FALSE_ALARM] += part.others.sum(2)
            if squared:
                into[..., GAP] += torch.mul(part.others, part.others, out=part.spare).sum(2)
            if place is not None:
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
        kept = self._take()
        slopes, room = (
            in_huge_pages(torch.empty_like(logits)) if kept is None else kept,
            _Room(logits, self.measure),
        )
        by = pull.to(room.work).unsqueeze(2).unbind(-1)  # (N, C, 1) each
        by_label = by[MISS] - by[HIT]
        for rows, columns in pieces(logits):
            place, labels = slopes[rows, :, columns], target[rows, columns]
            if kept is None:
                part = room.split(logits[rows, :, columns], labels, None)
                if logits.dtype is room.work:  # as the first time, to the last digit
                    part = room.take_apart(part.others.addcmul_(part.mark, part.own), labels)
            else:
                part = room.take_apart(place, labels)
            spare, others, rest = part.spare, part.others, part.rest
            shift = part.look_up(by_label[rows])
            alarm = by[FALSE_ALARM][rows]
            if self.measure.squared:
                shift = shift + 2 * rest * part.look_up(by[GAP][rows])
                alarm = torch.mul(others, 2 * by[GAP][rows], out=room.more()).add_(alarm)
                mean = torch.mul(others, alarm, out=spare).sum(1, keepdim=True)
            else:
                mean = alarm.mT @ others
            certainty = self._certainty(part, by[COST][rows])
            mean.addcmul_(rest, shift)
            own = mean.mul(part.own).addcmul_(rest, certainty).neg_()
            torch.add(alarm, mean.neg_().add_(shift).add_(certainty), out=spare)
            found = others.mul_(spare).addcmul_(part.mark, own)
            if kept is None:
                place.copy_(found)
        return (slopes,)

    def _certainty(self, part: "_Part", by_cost: Tensor) -> Tensor:
        """Minus the derivative of the cost by the label's log-probability."""
        gamma = self.measure.gamma
        if gamma is None:
            return part.rest.new_zeros(())
        certainty = part.look_up(by_cost)
        if not gamma:
            return certainty
        own, rest = part.own, part.rest
        # p log p is 0 where p is; -log p / rest is 1 where the rest is 0
        share = torch.where(own > torch.finfo(own.dtype).tiny, own * (rest / own).log1p(), 0.0)
        ratio = torch.where(rest == 0, 1.0, share / rest)
        return certainty * rest.pow(gamma) * (1 + gamma * ratio)


class _Part(NamedTuple):
    """A piece of softmax probabilities, ``(samples, classes, positions)``; 0 where ignored.

    Attributes:
        mark: 1 at the label, otherwise 0.
        spare: Free to be overwritten.
        others: Probabilities of the other classes, 0 at the label.
        own: The label's probability, one number per position; 1 where ignored.
        rest: ``1 - own``, as the sum of the others.
        nll: ``-log own``; empty if nobody asked for it.
    """

    mark: Tensor
    spare: Tensor
    others: Tensor
    own: Tensor
    rest: Tensor
    nll: Tensor

    def look_up(self, table: Tensor) -> Tensor:
        """The entry of ``(samples, classes, 1)`` at each label."""
        if bool((table == table[:, :1]).all()):
            return table[:, :1]
        return table.mT @ self.mark


class _Room:
    """Buffers for pieces: a fresh megabyte costs more than the arithmetic on it."""

    def __init__(self, logits: Tensor, measure: Measure) -> None:
        self.work = torch.float32 if logits.dtype in HALF else logits.dtype
        self._measure = measure
        first = next(pieces(logits), None)
        piece = logits[first[0], :, first[1]] if first else logits
        self._shape = piece.shape
        self._buffers = logits.new_empty((3, piece.numel()), dtype=self.work)
        self._label = logits.new_empty(piece.numel(), dtype=self.work)
        self._classes = torch.arange(logits.shape[1], dtype=self.work).unsqueeze(1)

    def more(self) -> Tensor:
        """One further buffer, of the shape of the latest piece."""
        return self._buffers.new_empty(self._shape)

    def split(self, logits: Tensor, target: Tensor, out: Tensor | None) -> _Part:
        """Softmax of a piece, taken apart by the labels; the others go to ``out``."""
        others = self._buffers[2, : logits.numel()].view(logits.shape) if out is None else out
        top = logits.amax(1, keepdim=True)
        if logits.dtype is self.work:
            torch.sub(logits, top, out=others)
        else:
            others.copy_(logits).sub_(top)
        part = self.take_apart(others.exp_(), target)
        own, rest = part.own, part.rest
        whole = own + rest
        if self._measure.gamma is not None:
            nll = (rest / own).log1p_()
            if own.amin().item() <= torch.finfo(self.work).tiny:
                # where it vanishes, the distance to the largest logit is most of it
                label = target.long().clamp(0, logits.shape[1] - 1).unsqueeze(1)
                far = (top - logits.gather(1, label)).to(self.work) + whole.log()
                nll = torch.where(own > torch.finfo(self.work).tiny, nll, far)
            part = part._replace(nll=nll)
        inverse = whole.reciprocal_()
        others.mul_(inverse)
        own.mul_(inverse)
        rest.mul_(inverse)
        return part

    def take_apart(self, tile: Tensor, target: Tensor) -> _Part:
        """From numbers in proportion to a softmax those of the labels are taken out."""
        shape = self._shape = tile.shape
        spare, mark = (b[: tile.numel()].view(shape) for b in self._buffers[:2])
        label = self._label[: target.numel()].view(shape[0], 1, shape[2])
        label.copy_(target.unsqueeze(1))
        torch.eq(label, self._classes, out=mark)
        ignore, absent = self._measure.ignore_index, None
        # a look at one end of the numbers costs less than a comparison of all
        inside = 0 <= ignore < shape[1]
        if inside or (label.amin() if ignore < 0 else label.amax()).item() == ignore:
            absent = label == ignore
            tile.masked_fill_(absent, 0.0)
            mark.masked_fill_(absent, 0.0)
        own = torch.mul(tile, mark, out=spare).sum(1, keepdim=True)
        rest = tile.sub_(spare).sum(1, keepdim=True)
        if absent is not None:
            own.masked_fill_(absent, 1.0)
        return _Part(mark, spare, tile, own, rest, own)
