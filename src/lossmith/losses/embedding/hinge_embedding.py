"""Distances of similar pairs as they are, of dissimilar pairs through a hinge."""

import functools

import torch
from torch import Tensor

from lossmith.core.card import Card, Point
from lossmith.core.domain import REAL, SIGN
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.reduction import Reduction
from lossmith.core.signature import elementwise
from lossmith.engines.pull import with_pull

# Below this size the calls cost more than the passes over memory, and torch makes fewer of them.
SMALL = 1 << 11


def _cost(input: Tensor, target: Tensor, margin: float) -> Tensor:
    return torch.where(target > 0, input, (margin - input).clamp(min=0))


def _one_pass(input: Tensor, target: Tensor, reduction: int, margin: float = 1.0) -> Tensor | None:
    if input.numel() < SMALL:
        return torch.hinge_embedding_loss(input, target, margin, reduction)
    distance = input.detach()
    similar, short = target > 0, margin - distance
    force = target * (short >= 0).logical_or_(similar)
    value = torch.where(similar, distance, short.clamp_(min=0))

    plain, leaves, others = functools.partial(_cost, margin=margin), (input,), (target,)
    return with_pull(value, reduction, _pull, plain, leaves=leaves, others=others, kept=(force,))


def _pull(
    grad: Tensor, needed: tuple[bool, ...], leaves: tuple[Tensor, ...], force: Tensor
) -> tuple[Tensor | None, ...]:
    return (force * grad,)


@loss(
    Card(
        task="embedding",
        coupling="element",
        formula=r"\begin{cases} x & y = 1\\ \max(0,\; m - x) & y = -1\end{cases}",
        signatures=elementwise(input=REAL, target=SIGN),
        options={"margin": REAL},
        variants=({"margin": 0.25}, {"margin": 3.0}),
        exact=lambda mp, x, y, margin=1.0: x if y == 1 else max(mp.zero, mp.mpf(margin) - x),
        points=(
            Point(0.8, 1.0, value=0.8, gradient=1.0),  # by hand: similar
            Point(0.2, -1.0, value=0.8, gradient=-1.0),  # by hand: dissimilar and too close
            Point(1.5, -1.0, value=0.0, gradient=0.0),  # by hand: dissimilar and far enough
            Point(1e30, 1.0, value=1e30, gradient=1.0),  # extreme
        ),
        convex=True,
        nonnegative=False,
        gradient_bound=1.0,
        same_as="torch.nn.functional.hinge_embedding_loss",
        aliases=("hinge_embedding",),
        use_when="distances of pairs that are known to be similar or dissimilar",
        avoid_when="the input may be negative: a similar pair then pays less than nothing",
        source="Collobert, Kavukcuoglu and Farabet 2011, Torch7 (BigLearn, NIPS workshop)",
    ),
    native=_one_pass,
)
def hinge_embedding_loss(
    input: Tensor,
    target: Tensor,
    *,
    margin: float = 1.0,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """A distance that should be small (target 1) or beyond a margin (target -1).

    Similar pairs are pulled together with a constant force, dissimilar ones are pushed apart
    until their distance reaches the margin.

    Args:
        input: Distances, ``(*)``, floating point; any real value, by intention ``>= 0``.
        target: 1 for similar pairs, -1 for dissimilar ones; ``(*)``, same shape as ``input``.
        margin: Distance from which a dissimilar pair costs nothing, in the unit of ``input``.
        sample_weight: Weight of each pair, ``(*)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(*)`` for ``reduction="none"``, in the unit of ``input``; dtype of ``input``.

    Raises:
        ValueError: If the shapes differ, a target is neither -1 nor 1, or ``reduction`` is unknown.
        TypeError: If ``input`` is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> distance, target = torch.tensor([0.8, 0.2, 1.5]), torch.tensor([1.0, -1.0, -1.0])
        >>> lm.hinge_embedding_loss(distance, target, reduction="none")
        tensor([0.8000, 0.8000, 0.0000])
    """
    return _cost(input, target, margin)


class HingeEmbeddingLoss(Loss):
    """Module form of :func:`hinge_embedding_loss`."""

    margin: float = 1.0
    function = staticmethod(hinge_embedding_loss)
