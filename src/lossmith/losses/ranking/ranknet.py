"""RankNet: every pair of a list, the more relevant entry above the other."""

import math

import torch
from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.domain import GRADE, REAL
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.numerics import softplus
from lossmith.core.reduction import Reduction, Terms
from lossmith.core.signature import Signature
from lossmith.losses.ranking.lists import PRESENT, better_pairs, entries, gaps, per_list


@loss(
    Card(
        task="ranking",
        coupling="row",
        formula=r"\frac{1}{|P|} \sum_{(i, j) \in P} \log(1 + e^{-(s_i - s_j)}),"
        r"\quad P = \{(i, j) : y_i > y_j\}",
        signatures=(Signature(scores=REAL("N L"), relevance=GRADE("N L"), out="N"),),
        options={"mask": PRESENT},
        convex=True,
        robust=True,
        elicits="order",
        aliases=("ranknet", "pairwise_logistic_loss"),
        use_when="lists with graded relevance, where every wrong pair matters alike",
        avoid_when="the top of the list matters most, or lists are so long that pairs do not fit",
        source="Burges et al. 2005, doi:10.1145/1102351.1102363",
    )
)
def ranknet_loss(
    scores: Tensor,
    relevance: Tensor,
    *,
    mask: Tensor | None = None,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor | Terms:
    """Logistic loss of every pair of a list that differs in relevance.

    The value of a list is the mean over its pairs; a list whose entries are equally relevant has
    none and costs nothing. Memory grows with the square of the length.

    Args:
        scores: Model output, ``(N, L)``: N lists of L entries; floating point, any real value.
        relevance: Degree of relevance, ``(N, L)``, any finite number; only its order counts.
        mask: Which entries exist, ``(N, L)``, bool; whatever stands elsewhere is not looked at.
        sample_weight: Weight of each list, ``(N)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N)`` for ``reduction="none"``, in nats; dtype of ``scores``.

    Raises:
        ValueError: If the shapes do not fit, a relevance is not finite, or ``reduction`` is
            unknown.
        TypeError: If ``scores`` is not floating point, or ``mask`` is not bool.

    Example:
        >>> import torch, lossmith as lm
        >>> scores, grades = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([[1, 0, 0]])
        >>> lm.ranknet_loss(scores, grades)
        tensor(0.2201)
    """
    shown, grades, present = entries(scores, relevance, mask, low=-math.inf)
    pairs = better_pairs(grades, present)
    costs = torch.where(pairs, softplus(-gaps(shown)), 0.0)
    value = costs.sum((1, 2)) / pairs.sum((1, 2)).clamp(min=1)
    return per_list(value, mask)


class RankNetLoss(Loss):
    """Module form of :func:`ranknet_loss`; pass ``mask`` at the call."""

    mask: Tensor | None = None
    function = staticmethod(ranknet_loss)
