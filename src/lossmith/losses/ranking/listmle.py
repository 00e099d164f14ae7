"""ListMLE: the likelihood of the right order under Plackett and Luce."""

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
from lossmith.losses.ranking.lists import PRESENT, entries, per_list


@loss(
    Card(
        task="ranking",
        coupling="row",
        formula=r"-\sum_i \log \frac{\exp(s_{\pi(i)})}{\sum_{k \ge i} \exp(s_{\pi(k)})},"
        r"\quad y_{\pi(1)} \ge y_{\pi(2)} \ge \dots",
        signatures=(Signature(scores=REAL("N L"), relevance=GRADE("N L"), out="N"),),
        options={"mask": PRESENT},
        convex=True,
        elicits="order",
        aliases=("listmle", "plackett_luce_loss"),
        use_when="the whole order of each list is known, with few ties",
        avoid_when="many entries are equally relevant: their order in the list would be learnt",
        source="Xia, Liu, Wang, Zhang and Li 2008, doi:10.1145/1390156.1390306",
    )
)
def listmle_loss(
    scores: Tensor,
    relevance: Tensor,
    *,
    mask: Tensor | None = None,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor | Terms:
    """Negative log-likelihood of the order by relevance, drawn from the top down.

    Each place is a softmax among the entries not yet placed (Plackett-Luce). Equally relevant
    entries count as ordered the way they come: shuffle a list whose order means nothing. Memory
    grows with the square of the length.

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
        >>> scores, grades = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([[2, 1, 0]])
        >>> lm.listmle_loss(scores, grades)
        tensor(0.7209)
    """
    shown, grades, present = entries(scores, relevance, mask, low=-math.inf)
    place = torch.arange(grades.shape[1], device=grades.device)
    tied = grades.unsqueeze(2) == grades.unsqueeze(1)
    after = (grades.unsqueeze(2) > grades.unsqueeze(1)) | (tied & (place.unsqueeze(1) < place))
    after = after & present.unsqueeze(1)
    # -log of its share among itself and all that come after it
    lowest = torch.finfo(shown.dtype).min / 4
    later = torch.logsumexp(torch.where(after, shown.unsqueeze(1), lowest), 2)
    costs = torch.where(present, softplus(later - shown), 0.0)
    return per_list(costs.sum(1), mask)


class ListMLELoss(Loss):
    """Module form of :func:`listmle_loss`; pass ``mask`` at the call."""

    mask: Tensor | None = None
    function = staticmethod(listmle_loss)
