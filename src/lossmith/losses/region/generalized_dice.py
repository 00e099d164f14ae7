"""Generalised Dice: one overlap of all classes, in which small regions count as much as large."""

from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.domain import FLAG, NONNEGATIVE, Whole
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.reduction import Reduction
from lossmith.engines.statistics import REGIONS
from lossmith.losses.region.overlap import BY_CLASS
from lossmith.losses.region.statistics import RegionStatistics


@loss(
    Card(
        task="segmentation",
        coupling="statistics",
        formula=r"1 - \frac{2 \sum_c w_c \sum_i p_{ic} t_{ic}}"
        r"{\sum_c w_c \sum_i (p_{ic} + t_{ic})},"
        r"\ w_c = \left(\sum_i t_{ic}\right)^{-k}",
        signatures=BY_CLASS,
        options={
            "power": NONNEGATIVE,
            "include_background": FLAG,
            "ignore_index": Whole(),
            "batch": FLAG,
        },
        variants=(
            {"power": 1.0, "ignore_index": 1},
            {"power": 0.0, "include_background": False},
            {"batch": True},
        ),
        elicits="region of largest overlap",
        link="softmax",
        aliases=("gdl", "generalised_dice", "generalized_dice"),
        use_when="regions differ in size by orders of magnitude, and all are scored alike",
        avoid_when="images often lack a class: its false alarms weigh as much as the rarest region",
        source="Sudre 2017, arXiv:1707.03237",
    ),
    engine=REGIONS,
)
def generalized_dice_loss(
    input: Tensor,
    target: Tensor,
    *,
    power: float = 2.0,
    include_background: bool = True,
    ignore_index: int = -100,
    batch: bool = False,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """One minus the Dice coefficient over all classes, each weighted by its size.

    The weight of a class is its number of positions to the power ``-power``. A class that is absent
    from a sample, whose weight would be infinite, weighs as much as the rarest that is present.

    Args:
        input: Logits, ``(N, C, *)`` with two or more classes, floating point, any real value.
        target: Label map, class indices in [0, C-1], ``(N, *)``, integers; or memberships in
            [0, 1] with the shape of ``input``, floating point.
        power: How strongly small regions are favoured, ``>= 0``: 2 in the paper; 1 counts each
            class alike, 0 each position.
        include_background: Whether class 0 counts.
        ignore_index: Positions of a label map with this value count nowhere; any integer.
        batch: Whether the sums run over all samples of the batch together, as over one.
        sample_weight: Weight of each sample, ``(N)``, ``>= 0``; 0 means absent. With
            ``batch`` one number, ``()``.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N)`` for ``reduction="none"`` without ``batch``, in [0, 1]; in the dtype of
        ``input``.

    Raises:
        ValueError: If shapes do not fit, there is one class only, a label is outside [0, C-1], a
            membership is outside [0, 1], or an option is out of range.
        TypeError: If ``input`` is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> logits = torch.tensor([[[99.0, 99.0, 0.0], [0.0, 0.0, 0.0]]])  # in doubt of the last
        >>> lm.generalized_dice_loss(logits, torch.tensor([[0, 0, 1]]))
        tensor(0.2381)
    """
    sums = RegionStatistics.from_logits(input, target, ignore_index=ignore_index, batch=batch)
    value = sums.generalized_dice_loss(power=power, include_background=include_background)
    return value.squeeze(0) if batch else value


class GeneralizedDiceLoss(Loss):
    """Module form of :func:`generalized_dice_loss`."""

    power: float = 2.0
    include_background: bool = True
    ignore_index: int = -100
    batch: bool = False
    function = staticmethod(generalized_dice_loss)
