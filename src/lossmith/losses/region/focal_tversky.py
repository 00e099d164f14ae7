"""Focal Tversky: a root of the Tversky loss, which keeps pulling on nearly solved regions."""

import torch
from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.domain import FLAG, NONNEGATIVE, POSITIVE, Vector, Whole
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.reduction import Reduction
from lossmith.engines.statistics import REGIONS
from lossmith.losses.region.overlap import BY_CLASS, BY_MASK
from lossmith.losses.region.statistics import RegionStatistics, over_classes

FORMULA = (
    r"\left(1 - \frac{\sum_i p_i t_i + s}"
    r"{\sum_i p_i t_i + \alpha \sum_i p_i (1 - t_i) + \beta \sum_i (1 - p_i) t_i + s}"
    r"\right)^{1/\gamma}"
)
SOURCE = "Abraham 2018, arXiv:1810.07842"


@loss(
    Card(
        task="segmentation",
        coupling="statistics",
        formula=rf"\operatorname{{mean}}_c {FORMULA}",
        signatures=BY_CLASS,
        options={
            "alpha": POSITIVE,
            "beta": POSITIVE,
            "gamma": POSITIVE,
            "smooth": NONNEGATIVE,
            "weight": Vector(within=NONNEGATIVE),
            "include_background": FLAG,
            "ignore_index": Whole(),
            "batch": FLAG,
        },
        variants=(
            {"alpha": 0.5, "beta": 0.5, "gamma": 0.75, "smooth": 0.0, "ignore_index": 1},
            {
                "alpha": 2.0,
                "beta": 0.1,
                "gamma": 3.0,
                "smooth": 1e-5,
                "include_background": False,
                "weight": torch.tensor([1.0, 0.5, 0.0, 2.0]),
                "batch": True,
            },
        ),
        elicits="region of largest weighted overlap",
        link="softmax",
        aliases=("focal_tversky",),
        use_when="small regions, some of them hard, and misses cost more than false alarms",
        avoid_when="probabilities have to be calibrated, or many images lack the region",
        source=SOURCE,
    ),
    engine=REGIONS,
)
def focal_tversky_loss(
    input: Tensor,
    target: Tensor,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    gamma: float = 4 / 3,
    smooth: float = 1.0,
    weight: Tensor | None = None,
    include_background: bool = True,
    ignore_index: int = -100,
    batch: bool = False,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """The Tversky loss of each class to the power 1/gamma, mean over classes.

    With ``gamma > 1`` nearly solved classes keep a strong gradient, with ``gamma < 1`` the hard
    ones get it. The paper sums over classes and calls the price of a miss alpha; here it is beta,
    as in :func:`tversky_loss`.

    Args:
        input: Logits, ``(N, C, *)`` with two or more classes, floating point, any real value.
        target: Label map, class indices in [0, C-1], ``(N, *)``, integers; or memberships in
            [0, 1] with the shape of ``input``, floating point.
        alpha: Price of a false alarm, ``> 0``; a hit counts 1.
        beta: Price of a miss, ``> 0``.
        gamma: The exponent is 1/gamma, ``> 0``; 1 is the Tversky loss.
        smooth: Added to numerator and denominator, ``>= 0``, in positions. With 0 a class that is
            absent from a sample has loss 1 and no gradient, however much of it is predicted.
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
        >>> logits = torch.tensor([[[99.0, 0.0], [0.0, 0.0]]])  # sure of the first position
        >>> lm.focal_tversky_loss(logits, torch.tensor([[0, 1]]), gamma=2.0, smooth=0.0)
        tensor(0.5014)
    """
    sums = RegionStatistics.from_logits(input, target, ignore_index=ignore_index, batch=batch)
    value = sums.focal_tversky_loss(alpha=alpha, beta=beta, gamma=gamma, smooth=smooth)
    return over_classes(value, weight, include_background, batch=batch)


class FocalTverskyLoss(Loss):
    """Module form of :func:`focal_tversky_loss`; ``weight`` is a buffer."""

    alpha: float = 0.3
    beta: float = 0.7
    gamma: float = 4 / 3
    smooth: float = 1.0
    weight: Tensor | None = None
    include_background: bool = True
    ignore_index: int = -100
    batch: bool = False
    function = staticmethod(focal_tversky_loss)


@loss(
    Card(
        task=("segmentation", "binary", "multilabel"),
        coupling="statistics",
        formula=FORMULA,
        signatures=BY_MASK,
        options={
            "alpha": POSITIVE,
            "beta": POSITIVE,
            "gamma": POSITIVE,
            "smooth": NONNEGATIVE,
            "batch": FLAG,
        },
        variants=(
            {"alpha": 0.5, "beta": 0.5, "gamma": 0.75, "smooth": 0.0},
            {"alpha": 2.0, "beta": 0.1, "gamma": 3.0, "smooth": 1e-5, "batch": True},
        ),
        elicits="region of largest weighted overlap",
        link="logit",
        aliases=("binary_focal_tversky",),
        use_when="one small mask per sample, some hard, and misses cost more than false alarms",
        avoid_when="probabilities have to be calibrated, or many masks are empty",
        source=SOURCE,
    ),
    engine=REGIONS,
)
def binary_focal_tversky_loss(
    input: Tensor,
    target: Tensor,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    gamma: float = 4 / 3,
    smooth: float = 1.0,
    batch: bool = False,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """The Tversky loss of one mask per sample, from sigmoid, to the power 1/gamma.

    All dimensions after the first are one mask; an empty prediction of an empty mask is perfect
    (0). Of several masks per sample pass each as a sample: ``input.flatten(0, 1)``.

    Args:
        input: Logits, ``(N, *)``, floating point, any real value. A position of -inf with target
            0 counts nowhere.
        target: Masks in [0, 1], ``(N, *)``, same shape as ``input``, any real dtype or bool.
        alpha: Price of a false alarm, ``> 0``; a hit counts 1.
        beta: Price of a miss, ``> 0``.
        gamma: The exponent is 1/gamma, ``> 0``; 1 is the Tversky loss.
        smooth: Added to numerator and denominator, ``>= 0``, in positions. With 0 an empty mask
            has loss 1 and no gradient, however much is predicted.
        batch: Whether the sums run over all samples of the batch together, as over one.
        sample_weight: Weight of each sample, ``(N)``, ``>= 0``; 0 means absent. With
            ``batch`` one number, ``()``.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N)`` for ``reduction="none"`` without ``batch``, in [0, 1]; in the dtype of
        ``input``.

    Raises:
        ValueError: If the shapes differ, a target is outside [0, 1], or an option is out of range.
        TypeError: If ``input`` is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> logits = torch.tensor([[0.0, 0.0, -99.0]])  # probabilities 1/2, 1/2 and 0
        >>> target = torch.tensor([[1, 0, 0]])
        >>> lm.binary_focal_tversky_loss(logits, target, gamma=2.0, smooth=0.0)
        tensor(0.7071)
    """
    sums = RegionStatistics.from_mask_logits(input, target, batch=batch)
    value = sums.focal_tversky_loss(alpha=alpha, beta=beta, gamma=gamma, smooth=smooth)
    return over_classes(value, batch=batch)


class BinaryFocalTverskyLoss(Loss):
    """Module form of :func:`binary_focal_tversky_loss`."""

    alpha: float = 0.3
    beta: float = 0.7
    gamma: float = 4 / 3
    smooth: float = 1.0
    batch: bool = False
    function = staticmethod(binary_focal_tversky_loss)
