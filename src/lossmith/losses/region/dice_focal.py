"""Dice and focal loss of the same image in one go: small regions in a sea of background."""

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

SOURCE = "Zhu 2018, arXiv:1808.05238"


@loss(
    Card(
        task="segmentation",
        coupling="statistics",
        formula=(
            r"\lambda_D\, \mathrm{Dice}"
            r" - \lambda_F \operatorname{mean}_i w_{t_i} (1 - p_{i t_i})^\gamma \log p_{i t_i}"
        ),
        signatures=BY_CLASS,
        options={
            "lambda_dice": NONNEGATIVE,
            "lambda_focal": NONNEGATIVE,
            "gamma": NONNEGATIVE,
            "smooth": NONNEGATIVE,
            "squared": FLAG,
            "weight": Vector(within=NONNEGATIVE),
            "include_background": FLAG,
            "ignore_index": Whole(),
            "batch": FLAG,
        },
        variants=(
            {"smooth": 0.0, "ignore_index": 1, "lambda_focal": 0.5, "gamma": 0.5},
            {"smooth": 1e-5, "squared": True, "lambda_dice": 2.0, "gamma": 3.0},
            {
                "include_background": False,
                "weight": torch.tensor([1.0, 0.5, 0.0, 2.0]),
                "batch": True,
            },
        ),
        elicits="between region of largest overlap and mode",
        link="softmax",
        aliases=("dice_focal",),
        use_when="small regions that easy background positions would drown",
        avoid_when="probabilities have to be calibrated: focusing bends them",
        source=SOURCE,
    ),
    engine=REGIONS,
)
def dice_focal_loss(
    input: Tensor,
    target: Tensor,
    *,
    lambda_dice: float = 1.0,
    lambda_focal: float = 1.0,
    gamma: float = 2.0,
    smooth: float = 1.0,
    squared: bool = False,
    weight: Tensor | None = None,
    include_background: bool = True,
    ignore_index: int = -100,
    batch: bool = False,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Dice loss plus focal loss, from one softmax.

    The overlap says what is scored, the focal loss keeps the gradient of single positions
    alive. Both come out of the same two passes over the logits.

    Args:
        input: Logits, ``(N, C, *)`` with two or more classes, floating point, any real value.
        target: Label map, class indices in [0, C-1], ``(N, *)``, integers; or memberships in
            [0, 1] with the shape of ``input``, floating point.
        lambda_dice: Factor of the Dice loss, ``>= 0``.
        lambda_focal: Factor of the focal loss, ``>= 0``.
        gamma: Power of the fading of easy positions, ``>= 0``; 0 is cross-entropy.
        smooth: Added to numerator and denominator of Dice, ``>= 0``, in positions.
        squared: Sum squares of probabilities and memberships in the denominator of Dice.
        weight: Factor of each class, ``(C)``, ``>= 0``: in the mean of Dice over classes, and in
            the mean of the focal loss over positions, which divides by those of the targets.
        include_background: Whether class 0 counts in the mean of Dice over classes.
        ignore_index: Positions of a label map with this value count nowhere; any integer.
        batch: Whether the sums run over all samples of the batch together, as over one.
        sample_weight: Weight of each sample, ``(N)``, ``>= 0``; 0 means absent. With
            ``batch`` one number, ``()``.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N)`` for ``reduction="none"`` without ``batch``; in the dtype of ``input``.

    Raises:
        ValueError: If shapes do not fit, there is one class only, a label is outside [0, C-1], a
            membership is outside [0, 1], or an option is out of range.
        TypeError: If ``input`` is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> logits = torch.tensor([[[9.0, 0.0], [0.0, 0.0]]])  # sure of the first position
        >>> lm.dice_focal_loss(logits, torch.tensor([[0, 1]]), smooth=0.0)
        tensor(0.3534)
    """
    sums = RegionStatistics.from_logits(
        input, target, ignore_index=ignore_index, squared=squared, gamma=gamma, batch=batch
    )
    dice = sums.dice_loss(smooth=smooth, squared=squared)
    cost = sums.cost(weight=weight)
    overlap = over_classes(dice, weight, include_background, batch=batch)
    return lambda_dice * overlap + lambda_focal * (cost.squeeze(0) if batch else cost)


class DiceFocalLoss(Loss):
    """Module form of :func:`dice_focal_loss`; ``weight`` is a buffer."""

    lambda_dice: float = 1.0
    lambda_focal: float = 1.0
    gamma: float = 2.0
    smooth: float = 1.0
    squared: bool = False
    weight: Tensor | None = None
    include_background: bool = True
    ignore_index: int = -100
    batch: bool = False
    function = staticmethod(dice_focal_loss)


@loss(
    Card(
        task=("segmentation", "binary", "multilabel"),
        coupling="statistics",
        formula=(
            r"\lambda_D\, \mathrm{Dice} - \lambda_F \operatorname{mean}_i \left("
            r"t_i (1 - p_i)^\gamma \log p_i + (1 - t_i) p_i^\gamma \log (1 - p_i)\right)"
        ),
        signatures=BY_MASK,
        options={
            "lambda_dice": NONNEGATIVE,
            "lambda_focal": NONNEGATIVE,
            "gamma": NONNEGATIVE,
            "smooth": NONNEGATIVE,
            "squared": FLAG,
            "batch": FLAG,
        },
        variants=(
            {"smooth": 0.0, "lambda_focal": 0.5, "gamma": 0.5},
            {"smooth": 1e-5, "squared": True, "lambda_dice": 2.0, "batch": True, "gamma": 3.0},
        ),
        elicits="between region of largest overlap and mode",
        link="logit",
        aliases=("binary_dice_focal",),
        use_when="one small mask per sample that easy background would drown",
        avoid_when="probabilities have to be calibrated: focusing bends them",
        source=SOURCE,
    ),
    engine=REGIONS,
)
def binary_dice_focal_loss(
    input: Tensor,
    target: Tensor,
    *,
    lambda_dice: float = 1.0,
    lambda_focal: float = 1.0,
    gamma: float = 2.0,
    smooth: float = 1.0,
    squared: bool = False,
    batch: bool = False,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Dice loss plus binary focal loss of one mask per sample, from one sigmoid.

    All dimensions after the first are one mask. Of several masks per sample pass each as a sample:
    ``input.flatten(0, 1)``.

    Args:
        input: Logits, ``(N, *)``, floating point, any real value. A position of -inf with target
            0 costs nothing.
        target: Masks in [0, 1], ``(N, *)``, same shape as ``input``, any real dtype or bool.
        lambda_dice: Factor of the Dice loss, ``>= 0``.
        lambda_focal: Factor of the focal loss, ``>= 0``.
        gamma: Power of the fading of easy positions, ``>= 0``; 0 is cross-entropy.
        smooth: Added to numerator and denominator of Dice, ``>= 0``, in positions.
        squared: Sum squares of probabilities and masks in the denominator of Dice.
        batch: Whether the sums run over all samples of the batch together, as over one.
        sample_weight: Weight of each sample, ``(N)``, ``>= 0``; 0 means absent. With
            ``batch`` one number, ``()``.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N)`` for ``reduction="none"`` without ``batch``; in the dtype of ``input``.

    Raises:
        ValueError: If the shapes differ, a target is outside [0, 1], or an option is out of range.
        TypeError: If ``input`` is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> logits = torch.tensor([[0.0, 0.0, -99.0]])  # probabilities 1/2, 1/2 and 0
        >>> lm.binary_dice_focal_loss(logits, torch.tensor([[1, 0, 0]]), smooth=0.0)
        tensor(0.6155)
    """
    sums = RegionStatistics.from_mask_logits(
        input, target, squared=squared, gamma=gamma, batch=batch
    )
    overlap = over_classes(sums.dice_loss(smooth=smooth, squared=squared), batch=batch)
    cost = sums.cost()
    return lambda_dice * overlap + lambda_focal * (cost.squeeze(0) if batch else cost)


class BinaryDiceFocalLoss(Loss):
    """Module form of :func:`binary_dice_focal_loss`."""

    lambda_dice: float = 1.0
    lambda_focal: float = 1.0
    gamma: float = 2.0
    smooth: float = 1.0
    squared: bool = False
    batch: bool = False
    function = staticmethod(binary_dice_focal_loss)
