"""Pairs of embeddings: alike ones together, others beyond a margin."""

import torch
from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.domain import BINARY, POSITIVE, REAL
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.numerics import safe_norm
from lossmith.core.reduction import Reduction
from lossmith.core.signature import Signature


@loss(
    Card(
        task="embedding",
        coupling="row",
        formula=r"\tfrac12 y\, d^2 + \tfrac12 (1 - y) \max(0,\; m - d)^2,"
        r"\quad d = \lVert x_1 - x_2 \rVert_2",
        signatures=(
            Signature(input1=REAL("N D"), input2=REAL("N D"), target=BINARY("N"), out="N"),
            Signature(input1=REAL("D"), input2=REAL("D"), target=BINARY(""), out=""),
        ),
        options={"margin": POSITIVE},
        variants=({"margin": 3.0}, {"margin": 12.0}),
        symmetric=True,
        aliases=("contrastive", "siamese_loss"),
        use_when="pairs of embeddings known to be alike or not, whose distance is used later",
        avoid_when="batches hold many negatives: compare with all of them at once instead",
        source="Hadsell, Chopra and LeCun 2006, doi:10.1109/CVPR.2006.100",
    )
)
def contrastive_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    *,
    margin: float = 1.0,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Half the squared distance of similar pairs (target 1); a hinge for others (0).

    The paper calls similar pairs 0; here 1 means similar. Dissimilar pairs at the same point
    cost half the squared margin and, having no direction to part in, get no gradient.

    Args:
        input1: First embeddings, ``(N, D)`` or ``(D)``, floating point, any real value.
        input2: Second embeddings, same shape as ``input1``.
        target: 1 for similar pairs, 0 for dissimilar ones; ``(N)``, or ``()`` for one pair.
        margin: Distance from which a dissimilar pair costs nothing, ``> 0``.
        sample_weight: Weight of each pair, ``(N)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N)`` for ``reduction="none"``; dtype of ``input1``.

    Raises:
        ValueError: If the shapes do not fit, a target is neither 0 nor 1, ``margin <= 0``, or
            ``reduction`` is unknown.
        TypeError: If ``input1`` or ``input2`` is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> first, second = torch.zeros(2, 2), torch.tensor([[0.3, 0.4]] * 2)
        >>> lm.contrastive_loss(first, second, torch.tensor([1, 0]), reduction="none")
        tensor([0.1250, 0.1250])
    """
    difference = input1 - input2
    together = 0.5 * difference.square().sum(-1)
    apart = 0.5 * (margin - safe_norm(difference)).clamp(min=0).square()
    return torch.where(target > 0, together, apart)


class ContrastiveLoss(Loss):
    """Module form of :func:`contrastive_loss`."""

    margin: float = 1.0
    function = staticmethod(contrastive_loss)
