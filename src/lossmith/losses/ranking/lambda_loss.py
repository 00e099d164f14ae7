"""LambdaLoss: pairs weighted by what their order is worth in NDCG."""

import math

import torch
from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.domain import GRADE, NONNEGATIVE, REAL
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.numerics import softplus
from lossmith.core.reduction import Reduction, Terms
from lossmith.core.signature import Signature
from lossmith.losses.ranking.lists import (
    PRESENT,
    better_pairs,
    entries,
    gaps,
    ideal_ranks,
    per_list,
    ranks,
    shares,
)


@loss(
    Card(
        task="ranking",
        coupling="row",
        formula=r"\sum_{y_i > y_j} (\rho_{ij} + \mu\,\delta_{ij})\, |G_i - G_j|\,"
        r" \log_2(1 + e^{-(s_i - s_j)}),\quad \rho_{ij} = |\tfrac1{D(r_i)} - \tfrac1{D(r_j)}|,"
        r"\; \delta_{ij} = |\tfrac1{D(|r_i - r_j|)} - \tfrac1{D(|r_i - r_j| + 1)}|",
        signatures=(Signature(scores=REAL("N L"), relevance=GRADE("N L"), out="N"),),
        options={"mask": PRESENT, "mu": NONNEGATIVE},
        variants=({"mu": 0.0}, {"mu": 1.0}),
        elicits="order",
        aliases=("lambdaloss", "lambdarank", "lambda_rank_loss", "ndcg_loss2pp"),
        use_when="graded relevance, and the model is judged by NDCG",
        avoid_when="every wrong pair matters alike, wherever it stands",
        source="Wang, Li, Golbandi, Bendersky and Najork 2018, doi:10.1145/3269206.3271784",
    )
)
def lambda_loss(
    scores: Tensor,
    relevance: Tensor,
    *,
    mu: float = 10.0,
    mask: Tensor | None = None,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor | Terms:
    """Logistic loss of each pair, times what swapping it would change in NDCG.

    This is NDCG-Loss2++ of the paper; ``mu = 0`` is LambdaRank. G is the gain ``2^y - 1`` divided
    by the best DCG, D(k) = log2(1 + k), r the rank by the present scores, which is held constant.

    Args:
        scores: Model output, ``(N, L)``: N lists of L entries; floating point, any real value.
        relevance: Degree of relevance, ``(N, L)``, ``>= 0``, any dtype.
        mu: Weight of the bound on NDCG against the change by a swap, ``>= 0``.
        mask: Which entries exist, ``(N, L)``, bool; whatever stands elsewhere is not looked at.
        sample_weight: Weight of each list, ``(N)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N)`` for ``reduction="none"``; dtype of ``scores``. A list whose entries are
        equally relevant gives 0.

    Raises:
        ValueError: If the shapes do not fit, a relevance is negative or not finite, ``mu < 0``, or
            ``reduction`` is unknown.
        TypeError: If ``scores`` is not floating point, or ``mask`` is not bool.

    Example:
        >>> import torch, lossmith as lm
        >>> scores, grades = torch.tensor([[0.0, 0.0]]), torch.tensor([[0, 1]])
        >>> lm.lambda_loss(scores, grades, mu=0.0)
        tensor(0.3691)
    """
    shown, grades, present = entries(scores, relevance, mask, low=0.0)
    rank = ranks(shown.detach(), present)
    gain = shares(grades, ideal_ranks(shown.detach(), grades, present)).to(shown.dtype)
    discount = 1 / torch.log2(1.0 + rank)
    apart = (rank.unsqueeze(2) - rank.unsqueeze(1)).abs().clamp(min=1)
    bound = 1 / torch.log2(1.0 + apart) - 1 / torch.log2(2.0 + apart)
    change = gaps(discount).abs() + mu * bound
    # where i is better, its gain is larger; other pairs do not count
    weight = torch.where(better_pairs(grades, present), change * gaps(gain), 0.0)
    costs = weight * softplus(-gaps(shown)) / math.log(2.0)
    return per_list(costs.sum((1, 2)), mask)


class LambdaLoss(Loss):
    """Module form of :func:`lambda_loss`; pass ``mask`` at the call."""

    mu: float = 10.0
    mask: Tensor | None = None
    function = staticmethod(lambda_loss)
