"""Both passes over softmax and class indices by hand: in place, in buffers that fit the cache.

On the CPU only.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lossmith.core.signature import HALF
from lossmith.engines.passes import (
    COLUMNS,
    COST,
    FALSE_ALARM,
    GAP,
    HIT,
    MISS,
    POSITIONS,
    SIZE,
    Measure,
    pieces,
)


class LabelMaps(NamedTuple):
    """Softmax and class indices, by hand: in place, in buffers that stay in the cache."""

    measure: Measure

    def sums(self, logits: Tensor, target: Tensor) -> Tensor:
        """The sums, ``(N, C, COLUMNS)``, in float64."""
        total = logits.new_zeros((*logits.shape[:2], COLUMNS), dtype=torch.float64)
        room = _Room(logits)
        for rows, columns in pieces(logits):
            part = room.split(logits[rows, :, columns], target[rows, columns], self.measure)
            into = total[rows]
            into[..., HIT] += part.spare.sum(2)
            into[..., FALSE_ALARM] += part.others.sum(2)
            into[..., MISS] += part.of_labels(part.rest)
            size = part.mark.sum(2)
            into[..., SIZE] += size
            into[..., POSITIONS] += size.sum(1, keepdim=True)
            if self.measure.gamma is not None:
                cost = part.nll()
                if self.measure.gamma:
                    cost.mul_(part.rest.pow(self.measure.gamma))
                into[..., COST] += part.of_labels(cost)
            if self.measure.squared:
                into[..., GAP] += part.of_labels(part.rest.square())
                into[..., GAP] += part.others.square_().sum(2)
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
        slopes, room = torch.empty_like(logits), _Room(logits)
        by = pull.to(room.work).unsqueeze(2).unbind(-1)  # (N, C, 1) each
        by_label = by[MISS] - by[HIT]
        for rows, columns in pieces(logits):
            part = room.split(logits[rows, :, columns], target[rows, columns], self.measure)
            spare, others, rest = part.spare, part.others, part.rest
            shift = part.look_up(by_label[rows])
            if self.measure.squared:
                shift = shift + 2 * rest * part.look_up(by[GAP][rows])
            certainty = self._certainty(part, by[COST][rows])
            alarm = by[FALSE_ALARM][rows]
            if self.measure.squared:
                alarm = torch.mul(others, 2 * by[GAP][rows], out=room.more()).add_(alarm)
            mean = torch.mul(others, alarm, out=spare).sum(1, keepdim=True).addcmul_(rest, shift)
            own = mean.mul(part.own).addcmul_(rest, certainty).neg_()
            place = slopes[rows, :, columns]
            found = place if place.dtype is room.work else spare
            torch.add(alarm, mean.neg_().add_(shift).add_(certainty), out=found)
            found.mul_(others).addcmul_(part.mark, own)
            if found is not place:
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
        rest = part.rest
        # p log p is 0 where p is; nll / rest is 1 where the rest is 0
        share = torch.where(part.own > torch.finfo(rest.dtype).tiny, part.own * part.nll(), 0.0)
        ratio = torch.where(rest == 0, 1.0, share / rest)
        return certainty * rest.pow(gamma) * (1 + gamma * ratio)


class _Part(NamedTuple):
    """A piece of softmax probabilities, ``(samples, classes, positions)``; 0 where ignored.

    Attributes:
        logits: The piece of the logits.
        label: Class indices, as numbers of the working dtype.
        mark: 1 at the label, otherwise 0.
        spare: The label's probability at the label, 0 elsewhere; free to be overwritten.
        others: Probabilities of the other classes, 0 at the label.
        own: The label's probability, one number per position; 1 where ignored.
        rest: ``1 - own``, as the sum of the others.
    """

    logits: Tensor
    label: Tensor
    mark: Tensor
    spare: Tensor
    others: Tensor
    own: Tensor
    rest: Tensor

    def of_labels(self, values: Tensor) -> Tensor:
        """Sum over the positions of each label, ``(samples, classes)``; overwrites ``spare``."""
        return torch.mul(self.mark, values, out=self.spare).sum(2)

    def look_up(self, table: Tensor) -> Tensor:
        """The entry of ``(samples, classes, 1)`` at each label; overwrites ``spare``."""
        if table.device.type == "cpu" and bool((table == table[:, :1]).all()):
            return table[:, :1]
        return torch.mul(self.mark, table, out=self.spare).sum(1, keepdim=True)

    def nll(self) -> Tensor:
        """``-log own``; where that vanishes, the distance to the largest logit is most of it."""
        value = (self.rest / self.own).log1p_()
        tiny = torch.finfo(value.dtype).tiny
        if value.device.type == "cpu" and bool((self.own <= tiny).any()):
            logits = self.logits.to(value.dtype)
            top, at = logits.max(1, keepdim=True)
            label = self.label.long().clamp_(0, logits.shape[1] - 1)
            far = top - logits.gather(1, label) - self.others.gather(1, at).log_()
            value = torch.where(self.own > tiny, value, far)
        return value


class _Room:
    """Buffers for pieces: a fresh megabyte costs more than the arithmetic on it."""

    def __init__(self, logits: Tensor) -> None:
        self.work = torch.float32 if logits.dtype in HALF else logits.dtype
        first = next(pieces(logits), None)
        piece = logits[first[0], :, first[1]] if first else logits
        self._shape = piece.shape
        self._buffers = logits.new_empty((3, piece.numel()), dtype=self.work)
        self._label = logits.new_empty(piece.numel(), dtype=self.work)
        self._classes = torch.arange(logits.shape[1], dtype=self.work).unsqueeze(1)

    def more(self) -> Tensor:
        """One further buffer, of the shape of the latest piece."""
        return self._buffers.new_empty(self._shape)

    def split(self, logits: Tensor, target: Tensor, measure: Measure) -> _Part:
        """Softmax of a piece, taken apart by the labels."""
        shape = self._shape = logits.shape
        spare, others, mark = (b[: logits.numel()].view(shape) for b in self._buffers)
        torch.softmax(spare.copy_(logits), 1, out=others)
        label = self._label[: target.numel()].view(shape[0], 1, shape[2])
        label.copy_(target.unsqueeze(1))
        torch.eq(label, self._classes, out=mark)
        present = label != measure.ignore_index
        absent = not bool(present.all())
        if absent:
            # the bits of it, since NaN times 0 is NaN
            whole = torch.int64 if self.work is torch.float64 else torch.int32
            bits = present.to(whole).neg_()
            others.view(whole).bitwise_and_(bits)
            mark.view(whole).bitwise_and_(bits)
        own = torch.mul(others, mark, out=spare).sum(1, keepdim=True)
        rest = others.sub_(spare).sum(1, keepdim=True)
        if absent:
            own.add_(~present)
        return _Part(logits, label, mark, spare, others, own, rest)
