"""Dice: one minus twice the overlap of prediction and mask over the sum of their sizes."""

import torch
from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.domain import FLAG, NONNEGATIVE, Vector, Whole
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.reduction import Reduction
from lossmith.engines.statistics import REGIONS
from lossmith.losses.region.overlap import BY_CLASS, BY_MASK
from lossmith.losses.region.statistics import RegionStatistics, over_classes

FORMULA = r"1 - \frac{2 \sum_i p_i t_i + s}{\sum_i p_i + \sum_i t_i + s}"
SOURCE = "Milletari 2016, arXiv:1606.04797"


@loss(
    Card(
        task="segmentation",
        coupling="statistics",
        formula=rf"\operatorname{{mean}}_c \left( {FORMULA} \right)",
        signatures=BY_CLASS,
        options={
            "smooth": NONNEGATIVE,
            "squared": FLAG,
            "weight": Vector(within=NONNEGATIVE),
            "include_background": FLAG,
            "ignore_index": Whole(),
            "batch": FLAG,
        },
        variants=(
            {"smooth": 0.0, "ignore_index": 1},
            {"smooth": 1e-5, "squared": True},
            {
                "include_background": False,
                "weight": torch.tensor([1.0, 0.5, 0.0, 2.0]),
                "batch": True,
            },
        ),
        elicits="region of largest overlap",
        link="softmax",
        aliases=("dice", "soft_dice", "f1_loss"),
        use_when="regions are small against the image and overlap is what is scored",
        avoid_when="probabilities have to be calibrated, or many images lack the region",
        source=SOURCE,
    ),
    engine=REGIONS,
)
def dice_loss(
    input: Tensor,
    target: Tensor,
    *,
    smooth: float = 1.0,
    squared: bool = False,
    weight: Tensor | None = None,
    include_background: bool = True,
    ignore_index: int = -100,
    batch: bool = False,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """One minus the Dice coefficient of softmax probabilities, mean over classes.

    Each sample and class has its own coefficient. A class that is neither predicted nor present
    is perfect (0). For one logit per position see :func:`binary_dice_loss`.

    Args:
        input: Logits, ``(N, C, *)`` with two or more classes, floating point, any real value.
        target: Label map, class indices in [0, C-1], ``(N, *)``, integers; or memberships in
            [0, 1] with the shape of ``input``, floating point.
        smooth: Added to numerator and denominator, ``>= 0``, in positions. With 0 a class that is
            absent from a sample has loss 1 and no gradient, however much of it is predicted.
        squared: Sum squares of probabilities and memberships in the denominator.
        weight: Factor of each class in the mean over classes, ``(C)``, ``>= 0``.
        include_background: Whether class 0 counts in the mean over classes.
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
        >>> logits = torch.tensor([[[9.0, 0.0], [0.0, 0.0]]])  # sure of the first position
        >>> lm.dice_loss(logits, torch.tensor([[0, 1]]), smooth=0.0)
        tensor(0.2667)
    """
    sums = RegionStatistics.from_logits(
        input, target, ignore_index=ignore_index, squared=squared, batch=batch
    )
    value = sums.dice_loss(smooth=smooth, squared=squared)
    return over_classes(value, weight, include_background, batch=batch)


class DiceLoss(Loss):
    """Module form of :func:`dice_loss`; ``weight`` is a buffer."""

    smooth: float = 1.0
    squared: bool = False
    weight: Tensor | None = None
    include_background: bool = True
    ignore_index: int = -100
    batch: bool = False
    function = staticmethod(dice_loss)


@loss(
    Card(
        task=("segmentation", "binary", "multilabel"),
        coupling="statistics",
        formula=FORMULA,
        signatures=BY_MASK,
        options={"smooth": NONNEGATIVE, "squared": FLAG, "batch": FLAG},
        variants=({"smooth": 0.0}, {"smooth": 1e-5, "squared": True, "batch": True}),
        elicits="region of largest overlap",
        link="logit",
        aliases=("binary_dice", "sigmoid_dice"),
        use_when="one mask per sample, small against the image, scored by overlap",
        avoid_when="probabilities have to be calibrated, or many masks are empty",
        source=SOURCE,
    ),
    engine=REGIONS,
)
def binary_dice_loss(
    input: Tensor,
    target: Tensor,
    *,
    smooth: float = 1.0,
    squared: bool = False,
    batch: bool = False,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """One minus the Dice coefficient of sigmoid probabilities, one mask per sample.

    All dimensions after the first are one mask; an empty prediction of an empty mask is perfect
    (0). Of several masks per sample pass each as a sample: ``input.flatten(0, 1)``.

    Args:
        input: Logits, ``(N, *)``, floating point, any real value. A position of -inf with target
            0 counts nowhere.
        target: Masks in [0, 1], ``(N, *)``, same shape as ``input``, any real dtype or bool.
        smooth: Added to numerator and denominator, ``>= 0``, in positions. With 0 an empty mask
            has loss 1 and no gradient, however much is predicted.
        squared: Sum squares of probabilities and masks in the denominator.
        batch: Whether the sums run over all samples of the batch together, as over one.
        sample_weight: Weight of each sample, ``(N)``, ``>= 0``; 0 means absent. With
            ``batch`` one number, ``()``.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N)`` for ``reduction="none"`` without ``batch``, in [0, 1]; in the dtype of
        ``input``.

    Raises:
        ValueError: If the shapes differ, a target is outside [0, 1], ``smooth < 0``, or
            ``reduction`` is unknown.
        TypeError: If ``input`` is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> logits = torch.tensor([[0.0, 0.0, -99.0]])  # probabilities 1/2, 1/2 and 0
        >>> lm.binary_dice_loss(logits, torch.tensor([[1, 0, 0]]), smooth=0.0)
        tensor(0.5000)
    """
    sums = RegionStatistics.from_mask_logits(input, target, squared=squared, batch=batch)
    value = sums.dice_loss(smooth=smooth, squared=squared)
    return over_classes(value, batch=batch)


class BinaryDiceLoss(Loss):
    """Module form of :func:`binary_dice_loss`."""

    smooth: float = 1.0
    squared: bool = False
    batch: bool = False
    function = staticmethod(binary_dice_loss)
