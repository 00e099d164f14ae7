"""From logits to exponentials, by way of a scale, a soft cap and a shift of each class."""

from typing import NamedTuple

import torch
from torch import Tensor

from lossmith.core.numerics import softcapped
from lossmith.engines.rows.layout import Piece, Work


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

    def plain(self, piece: Tensor) -> Tensor:
        """The transformed logits of a piece."""
        bent = softcapped(piece, self.scale, self.softcap)
        return bent if self.shift is None else bent + by_class(self.shift, bent)

    def exponentials(
        self,
        logits: Tensor,
        piece: Piece,
        out: Tensor,
        work: Work,
        *,
        deep: bool = False,
        weight: Tensor | None = None,
    ) -> Lowered:
        """Write numbers proportional to the softmax to ``out``, at most 1.

        Args:
            logits: Those of the piece.
            piece: Where it lies.
            out: Memory for the result.
            work: Memory for the slope of a soft cap, under number -1.
            deep: Whether ``top`` and ``below`` are wanted.
            weight: Factor of each class in ``below``.
        """
        same = logits.dtype is out.dtype and not piece.turned
        # of a part of the positions it would copy; after a conversion separate steps take 0.8 of it
        if self.bare and not deep and same and (logits.ndim == 2 or logits.is_contiguous()):
            torch.softmax(logits, 1, out=out)  # goes row by row, and so once through the cache
            return Lowered()
        top, bend = self.lower(logits, piece, out, work)
        below = -total(out, weight) if deep else None
        out.exp_()
        return Lowered(top, below, bend)

    def lower(
        self, logits: Tensor, piece: Piece, out: Tensor, work: Work
    ) -> tuple[Tensor, Tensor | None]:
        """Write the transformed logits less the largest of their row to ``out``.

        Returns:
            The largest of each row, and the slope of the soft cap.
        """
        bend = None
        if self.bare and logits.dtype is out.dtype and not piece.turned:
            top = logits.amax(1, keepdim=True)
            torch.sub(logits, top, out=out)
            return top, None
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
        top = out.amax(1, keepdim=True)
        out.sub_(top)
        return top, bend


def by_class(numbers: Tensor, piece: Tensor) -> Tensor:
    """A number per class, made to broadcast against a piece, in its dtype."""
    numbers = numbers.to(piece.dtype)
    return numbers if piece.ndim == 2 else numbers.unsqueeze(1)


def total(piece: Tensor, weight: Tensor | None) -> Tensor:
    """Sum over the classes, with a factor for each."""
    if weight is None:
        return piece.sum(1, keepdim=True)
    return (weight @ piece if piece.ndim == 3 else piece @ weight).unsqueeze(1)
