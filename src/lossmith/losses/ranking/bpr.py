"""Bayesian personalised ranking: a liked item above one that is not."""

from torch import Tensor

from lossmith.core.card import Card, Point
from lossmith.core.domain import REAL
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.numerics import softplus
from lossmith.core.reduction import Reduction
from lossmith.core.signature import elementwise


@loss(
    Card(
        task="ranking",
        coupling="element",
        formula=r"-\log \sigma(s^+ - s^-)",
        signatures=elementwise(positive=REAL, negative=REAL),
        exact=lambda mp, x, y: mp.log1p(mp.exp(y - x)),
        points=(
            Point(1.0, 1.0, value=0.6931471805599453, gradient=-0.5),  # log 2 at equal scores
            Point(0.0, 100.0, value=100.0, gradient=-1.0),  # where a plain log(sigmoid) is flat
            Point(40.0, 0.0, value=4.248354255291589e-18, gradient=-4.248354255291589e-18),  # e^-40
            Point(-1e30, 0.0, value=1e30, gradient=-1.0),  # extreme
        ),
        convex=True,
        gradient_bound=1.0,
        robust=True,
        elicits="order",
        aliases=("bpr", "bayesian_personalized_ranking"),
        use_when="implicit feedback: scores of items chosen and of items drawn at random",
        avoid_when="grades of relevance are known, or the top of the list matters most",
        source="Rendle, Freudenthaler, Gantner and Schmidt-Thieme 2009, arXiv:1205.2618",
    )
)
def bpr_loss(
    positive: Tensor,
    negative: Tensor,
    *,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Negative log-probability that the positive item beats the negative one.

    The pull is the probability of the wrong order: nearly 1 for a pair far on the wrong side,
    never 0. The penalty on the parameters in the paper is left to the optimiser.

    Args:
        positive: Scores of items that were chosen, ``(*)``, floating point, any real value.
        negative: Scores of items that were not, ``(*)``, same shape as ``positive``.
        sample_weight: Weight of each pair, ``(*)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(*)`` for ``reduction="none"``, in nats; dtype of ``positive``.

    Raises:
        ValueError: If the shapes differ or ``reduction`` is unknown.
        TypeError: If a tensor is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> lm.bpr_loss(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 100.0]), reduction="none")
        tensor([  0.6931, 100.0000])
    """
    return softplus(negative - positive)


class BPRLoss(Loss):
    """Module form of :func:`bpr_loss`."""

    function = staticmethod(bpr_loss)
