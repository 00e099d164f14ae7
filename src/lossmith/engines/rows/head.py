"""From logits to exponentials, by way of a scale, a soft cap and a shift of each class."""

from typing import NamedTuple

import torch
from torch import Tensor

from lossmith.core.numerics import softcapped
from lossmith.engines.exponential import better_lowered, exp_of, glance, lowered_exp
from lossmith.engines.rows.layout import Work, total

# What the exponentials of a row may add up to without the largest logit taken off, which spares two
# of five passes: a class below the range of float32 has no part in such a sum, and its reciprocal
# keeps its digits
LEAST, MOST = 2.0**-10, 2.0**64
# Cost of a class from which its logit tells it, in place of the odds against the class, which may
# overflow
COSTLY = 28.0
# Size of logits beyond which no such sum is to be expected
TAME = 40.0


class Lowered(NamedTuple):
    """What is known of the rows of a piece besides their exponentials.

    Attributes:
        top: The largest transformed logit of each row; None if nobody asked for it.
        below: Sum of the distances to it, with the weights of the classes; None likewise.
        bend: Slope of the soft cap by element, or None.
    """

    top: Tensor | None = None
    below: Tensor | None = None
    bend: Tensor | None = None


class Head(NamedTuple):
    """``softcap tanh(scale x / softcap) + shift``.

    Attributes:
        scale: Factor of the logits.
        softcap: What their size is smoothly limited to, or None.
        shift: Added to each class, ``(C)``, or None.
    """

    scale: float = 1.0
    softcap: float | None = None
    shift: Tensor | None = None

    @property
    def bare(self) -> bool:
        """Whether nothing is done to the logits."""
        return self.scale == 1.0 and self.softcap is None and self.shift is None

    def at(self, logits: Tensor, place: Tensor, dtype: torch.dtype) -> Tensor:
        """The transformed logit of one class of each row of a piece."""
        bent = softcapped(logits.gather(1, place).to(dtype), self.scale, self.softcap)
        return bent if self.shift is None else bent + self.shift.to(dtype)[place]

    def exponentials(
        self,
        logits: Tensor,
        out: Tensor,
        work: Work,
        *,
        deep: bool = False,
        weight: Tensor | None = None,
    ) -> Lowered:
        """Write numbers proportional to the softmax to ``out``.

        Args:
            logits: Those of the piece.
            out: Memory for the result.
            work: Memory for the slope of a soft cap, under number -1; whether the largest logit of
                each row is to be taken off first.
            deep: Whether ``top`` and ``below`` are wanted, which takes it off.
            weight: Factor of each class in ``below``.
        """
        work.lowers = work.lowers or deep or better_lowered(out) or not tame(logits)
        if work.lowers and not deep and self._as_it_is(logits, out):
            top = logits.amax(1, keepdim=True)
            lowered_exp(logits, top, out)
            return Lowered(top)
        if work.lowers:
            top, bend = self.lower(logits, out, work)
            below = -_weighed(out, weight) if deep else None
            exp_of(out, out)
            return Lowered(top, below, bend)
        if self._as_it_is(logits, out):
            torch.exp(logits, out=out)
            return Lowered()
        bend = self._transform(logits, out, work)
        out.exp_()
        return Lowered(bend=bend)

    def lower(self, logits: Tensor, out: Tensor, work: Work) -> tuple[Tensor, Tensor | None]:
        """Write the transformed logits less the largest of their row to ``out``.

        Returns:
            The largest of each row, and the slope of the soft cap.
        """
        if self._as_it_is(logits, out):
            top = logits.amax(1, keepdim=True)
            torch.sub(logits, top, out=out)
            return top, None
        bend = self._transform(logits, out, work)
        top = out.amax(1, keepdim=True)
        out.sub_(top)
        return top, bend

    def _as_it_is(self, logits: Tensor, out: Tensor) -> bool:
        return self.bare and logits.dtype is out.dtype

    def _transform(self, logits: Tensor, out: Tensor, work: Work) -> Tensor | None:
        """Write the transformed logits to ``out``; the slope of the soft cap."""
        bend = None
        if self.softcap is not None:
            out.copy_(logits).mul_(self.scale / self.softcap).tanh_()
            bend = torch.mul(out, out, out=work.like(out, -1)).neg_().add_(1.0)
            out.mul_(self.softcap)
        else:
            out.copy_(logits)
            if self.scale != 1.0:
                out.mul_(self.scale)
        if self.shift is not None:
            out.add_(by_class(self.shift, out))
        return bend


def far_cost(whole: Tensor, top: Tensor | None, logit: Tensor) -> Tensor:
    """The log-sum-exp less the logit of a class.

    Args:
        whole: Sum of the exponentials of a row.
        top: The largest logit, where it was taken off.
        logit: That of the class.
    """
    lse = whole.log()
    return (lse if top is None else lse + top) - logit


def tame(logits: Tensor) -> bool:
    """Whether a glance shows logits that need not be lowered. On the CPU only."""
    return all(abs(end) < TAME for end in glance(logits))


def in_range(whole: Tensor) -> bool:
    """Whether sums of exponentials show that none overflowed and none that counts vanished.

    On the CPU only.
    """
    low, high = (end.item() for end in torch.aminmax(whole))
    return low >= LEAST and high <= MOST


def by_class(numbers: Tensor, piece: Tensor) -> Tensor:
    """A number per class, made to broadcast against a piece, in its dtype."""
    numbers = numbers.to(piece.dtype)
    return numbers if piece.ndim == 2 else numbers.unsqueeze(1)


def _weighed(piece: Tensor, weight: Tensor | None) -> Tensor:
    """Sum over the classes, with a factor for each."""
    if weight is None:
        return total(piece)
    return (weight @ piece if piece.ndim == 3 else piece @ weight).unsqueeze(1)
