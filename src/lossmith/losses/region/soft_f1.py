"""Soft F1: the score of each label over the batch, counted in probabilities."""

from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.domain import NONNEGATIVE, REAL
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.reduction import Reduction
from lossmith.core.signature import Signature
from lossmith.engines.statistics import REGIONS
from lossmith.losses.region.overlap import SOFT_MASK
from lossmith.losses.region.statistics import RegionStatistics


@loss(
    Card(
        task=("multilabel", "binary"),
        coupling="statistics",
        formula=r"\operatorname{mean}_l \left( 1 - \frac{2 \sum_n p_{nl} y_{nl} + s}"
        r"{\sum_n p_{nl} + \sum_n y_{nl} + s} \right)",
        signatures=(Signature(input=REAL("N L"), target=SOFT_MASK("N L"), out=""),),
        options={"smooth": NONNEGATIVE},
        variants=({"smooth": 1.0},),
        elicits="labels of largest expected F1",
        link="logit",
        aliases=("macro_soft_f1", "sigmoid_f1"),
        use_when="macro F1 is scored, and batches are large enough to hold each label",
        avoid_when="batches are small, or probabilities have to be calibrated",
        source="Benedict 2021, arXiv:2108.10566",
    ),
    engine=REGIONS,
)
def soft_f1_loss(
    input: Tensor,
    target: Tensor,
    *,
    smooth: float = 0.0,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """One minus the F1 score of each label over the batch, mean over labels.

    Hits, false alarms and misses are sums of sigmoid probabilities over the batch. The Dice loss is
    the same number over the positions of each sample instead.

    Args:
        input: Logits, ``(N, L)``, a column per label, floating point, any real value.
        target: Labels in [0, 1], ``(N, L)``, any real dtype or bool.
        smooth: Added to numerator and denominator, ``>= 0``, in samples. With 0 a label that the
            batch lacks has loss 1 and no gradient.
        sample_weight: Weight of the value, ``()``, ``>= 0``.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``: the value is one number.

    Returns:
        Scalar in [0, 1]; in the dtype of ``input``.

    Raises:
        ValueError: If the shapes differ, a target is outside [0, 1], ``smooth < 0``, or
            ``reduction`` is unknown.
        TypeError: If ``input`` is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> logits = torch.tensor([[0.0], [0.0], [-99.0]])  # probabilities 1/2, 1/2 and 0
        >>> lm.soft_f1_loss(logits, torch.tensor([[1], [0], [0]]))
        tensor(0.5000)
    """
    sums = RegionStatistics.from_mask_logits(input.mT, target.mT)  # each label is a mask
    value = sums.dice_loss(smooth=smooth)
    return value.sum() / max(value.numel(), 1)


class SoftF1Loss(Loss):
    """Module form of :func:`soft_f1_loss`."""

    smooth: float = 0.0
    function = staticmethod(soft_f1_loss)
