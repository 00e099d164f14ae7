"""ListNet: the probability of coming first, by score and by relevance."""

import math

import torch
from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.domain import GRADE, REAL
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.numerics import accurate_log_softmax, times
from lossmith.core.reduction import Reduction, Terms
from lossmith.core.signature import Signature
from lossmith.losses.ranking.lists import PRESENT, entries, per_list


@loss(
    Card(
        task="ranking",
        coupling="row",
        formula=r"-\sum_i \operatorname{softmax}(y)_i \log \operatorname{softmax}(s)_i",
        signatures=(Signature(scores=REAL("N L"), relevance=GRADE("N L"), out="N"),),
        options={"mask": PRESENT},
        convex=True,
        gradient_bound=1.0,
        elicits="relevance up to a constant",
        aliases=("listnet", "softmax_ranking_loss"),
        use_when="lists with graded relevance whose top entry matters most",
        avoid_when="grades are so far apart that their softmax sees only the best entry",
        source="Cao, Qin, Liu, Tsai and Li 2007, doi:10.1145/1273496.1273513",
    )
)
def listnet_loss(
    scores: Tensor,
    relevance: Tensor,
    *,
    mask: Tensor | None = None,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor | Terms:
    """Cross-entropy between two chances to come first: by relevance and by score.

    This is the top-one form of the paper. Its gradient is the softmax of the scores minus that of
    the relevance. The smallest value is the entropy of the latter, not 0.

    Args:
        scores: Model output, ``(N, L)``: N lists of L entries; floating point, any real value.
        relevance: Degree of relevance on the scale of a score, ``(N, L)``, any finite number.
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
        >>> lm.listnet_loss(scores, grades)
        tensor(1.0434)
    """
    shown, grades, present = entries(scores, relevance, mask, low=-math.inf)
    lowest = {each.dtype: torch.finfo(each.dtype).min / 4 for each in (shown, grades)}
    wanted = torch.softmax(torch.where(present, grades, lowest[grades.dtype]), 1)
    wanted = torch.where(present, wanted, 0.0)  # a list without entries wants nothing
    log_share = accurate_log_softmax(torch.where(present, shown, lowest[shown.dtype]), dim=1)
    return per_list(-times(wanted, log_share).sum(1), mask)


class ListNetLoss(Loss):
    """Module form of :func:`listnet_loss`; pass ``mask`` at the call."""

    mask: Tensor | None = None
    function = staticmethod(listnet_loss)
