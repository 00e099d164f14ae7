"""ApproxNDCG: NDCG with ranks that are smooth in the scores."""

import math

import torch
from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.domain import GRADE, POSITIVE, REAL
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.reduction import Reduction, Terms
from lossmith.core.signature import Signature
from lossmith.losses.ranking.lists import (
    PRESENT,
    entries,
    gaps,
    ideal_ranks,
    per_list,
    shares,
)


@loss(
    Card(
        task="ranking",
        coupling="row",
        formula=r"1 - \frac{\sum_i (2^{y_i} - 1) / \log_2(1 + \hat r_i)}"
        r"{\max_\pi \sum_i (2^{y_i} - 1) / \log_2(1 + \pi_i)},"
        r"\quad \hat r_i = 1 + \sum_{j \ne i} \sigma((s_j - s_i) / \tau)",
        signatures=(Signature(scores=REAL("N L"), relevance=GRADE("N L"), out="N"),),
        options={"mask": PRESENT, "temperature": POSITIVE},
        variants=({"temperature": 1.0}, {"temperature": 0.5}),
        robust=True,
        elicits="order",
        aliases=("approx_ndcg", "approxndcg"),
        use_when="graded relevance and NDCG itself as the goal, from scores that are not random",
        avoid_when="at the start of training: scores far apart in a wrong order get no gradient",
        source="Qin, Liu and Li 2010, doi:10.1007/s10791-009-9124-x",
    )
)
def approx_ndcg_loss(
    scores: Tensor,
    relevance: Tensor,
    *,
    temperature: float = 0.1,
    mask: Tensor | None = None,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor | Terms:
    """One minus NDCG, with each rank counted by sigmoids of score differences.

    As the temperature falls it approaches ``1 - NDCG``, and its gradient vanishes wherever no two
    scores are close.

    Args:
        scores: Model output, ``(N, L)``: N lists of L entries; floating point, any real value.
        relevance: Degree of relevance, ``(N, L)``, ``>= 0``, any dtype.
        temperature: Width of the sigmoid in the unit of the scores, ``> 0``.
        mask: Which entries exist, ``(N, L)``, bool; whatever stands elsewhere is not looked at.
        sample_weight: Weight of each list, ``(N)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N)`` for ``reduction="none"``, in [0, 1]; dtype of ``scores``. A list without
        any relevant entry, where NDCG is undefined, gives 0.

    Raises:
        ValueError: If the shapes do not fit, a relevance is negative or not finite,
            ``temperature <= 0``, or ``reduction`` is unknown.
        TypeError: If ``scores`` is not floating point, or ``mask`` is not bool.

    Example:
        >>> import torch, lossmith as lm
        >>> scores, grades = torch.tensor([[0.0, 0.0]]), torch.tensor([[0, 1]])
        >>> lm.approx_ndcg_loss(scores, grades)
        tensor(0.2435)
    """
    shown, grades, present = entries(scores, relevance, mask, low=0.0)
    ideal = ideal_ranks(shown.detach(), grades, present)
    # The smooth rank minus the ideal one, from what each sigmoid lacks to its 0 or 1: a right order
    # then costs a small number, not the difference of two near 1.
    place = torch.arange(ideal.shape[1], device=ideal.device)
    other = present.unsqueeze(1) & (place.unsqueeze(1) != place)
    sign = torch.where(ideal.unsqueeze(2) > ideal.unsqueeze(1), -1.0, 1.0)
    lacking = torch.sigmoid(sign * gaps(shown) / -temperature)
    excess = torch.where(other, sign * lacking, 0.0).sum(2)
    # 1 / log2(1 + r) - 1 / log2(1 + r + e), r the ideal rank and e the excess
    start = 1.0 + ideal
    lost = torch.log1p(excess / start) / (torch.log(start) * torch.log(start + excess))
    return per_list((shares(grades, ideal) * lost).sum(1) * math.log(2.0), mask)


class ApproxNDCGLoss(Loss):
    """Module form of :func:`approx_ndcg_loss`; pass ``mask`` at the call."""

    temperature: float = 0.1
    mask: Tensor | None = None
    function = staticmethod(approx_ndcg_loss)
