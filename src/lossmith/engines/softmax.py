"""A softmax along the last dimension, in the dtype of its scores, that keeps its digits."""

from typing import NamedTuple

import torch
from torch import Tensor


class Softmax(NamedTuple):
    """Probabilities of which none is lost where a class has nearly all.

    Attributes:
        others: Probabilities with 0 for the likeliest class, ``(*, C)``.
        own: Probability of the likeliest class, ``(*, 1)``; rounding may leave the sum off 1.
        top: The likeliest class.
        rest: Sum of the others.
    """

    others: Tensor
    own: Tensor
    top: Tensor
    rest: Tensor

    @classmethod
    def of(cls, scores: Tensor) -> "Softmax":
        """Along the last dimension."""
        share = torch.softmax(scores, -1)
        own, top = share.max(-1, keepdim=True)
        others = share.scatter_(-1, top, 0.0)
        return cls(others, own, top, others.sum(-1, keepdim=True))

    def normaliser(self, scores: Tensor) -> Tensor:
        """Logarithm of the sum of the exponentials, in float64."""
        return scores.gather(-1, self.top) + torch.log1p(self.rest.double() / self.own)

    def minus(self, posterior: Tensor, index: Tensor, whole: Tensor | float) -> Tensor:
        """``whole`` times the probabilities, minus the posteriors of some classes.

        The posteriors of a row add up to ``whole``, so the difference of the likeliest class is the
        negative sum of the others, where nothing cancels. Written in the place of ``others``.
        """
        places = index.expand_as(posterior)
        total = self.own + self.rest
        apart = torch.where(places == self.top, 0.0, posterior).sum(-1, keepdim=True)
        slope = self.others.mul_((whole / total).to(total.dtype))
        slope.scatter_add_(-1, places, posterior.neg().to(slope.dtype))
        return slope.scatter_(-1, self.top, (apart - whole * (self.rest / total)).to(slope.dtype))
