"""Matthews' correlation of prediction and mask: the background counts as the region does."""

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

FORMULA = (
    r"1 - \frac{T_p T_n - F_p F_n}"
    r"{\sqrt{(T_p + F_p)(T_p + F_n)(T_n + F_p)(T_n + F_n)}}"
)
SOURCE = "Abhishek 2020, arXiv:2010.13454"


@loss(
    Card(
        task="segmentation",
        coupling="statistics",
        formula=rf"\operatorname{{mean}}_c \left( {FORMULA} \right)",
        signatures=BY_CLASS,
        options={
            "weight": Vector(within=NONNEGATIVE),
            "include_background": FLAG,
            "ignore_index": Whole(),
            "batch": FLAG,
        },
        variants=(
            {"ignore_index": 1},
            {
                "include_background": False,
                "weight": torch.tensor([1.0, 0.5, 0.0, 2.0]),
                "batch": True,
            },
        ),
        elicits="region of largest correlation",
        link="softmax",
        aliases=("mcc", "soft_mcc", "matthews_loss", "phi_coefficient"),
        use_when="regions of very uneven size, and wrongly called background matters as well",
        avoid_when="probabilities have to be calibrated, or many images lack the region",
        source=SOURCE,
    ),
    engine=REGIONS,
)
def mcc_loss(
    input: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    include_background: bool = True,
    ignore_index: int = -100,
    batch: bool = False,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """One minus Matthews' correlation of softmax probabilities, mean over classes.

    The counts of the confusion matrix are soft: sums of ``p t``, ``(1-p) (1-t)``, ``p (1-t)`` and
    ``(1-p) t``. A class that is absent from a sample, or fills it, has no correlation: its loss is
    1, without a gradient. For one logit per position see :func:`binary_mcc_loss`.

    Args:
        input: Logits, ``(N, C, *)`` with two or more classes, floating point, any real value.
        target: Label map, class indices in [0, C-1], ``(N, *)``, integers; or memberships in
            [0, 1] with the shape of ``input``, floating point.
        weight: Factor of each class in the mean over classes, ``(C)``, ``>= 0``.
        include_background: Whether class 0 counts in the mean over classes.
        ignore_index: Positions of a label map with this value count nowhere; any integer.
        batch: Whether the sums run over all samples of the batch together, as over one.
        sample_weight: Weight of each sample, ``(N)``, ``>= 0``; 0 means absent. With
            ``batch`` one number, ``()``.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N)`` for ``reduction="none"`` without ``batch``, in [0, 2]; in the dtype of
        ``input``.

    Raises:
        ValueError: If shapes do not fit, there is one class only, a label is outside [0, C-1], a
            membership is outside [0, 1], or an option is out of range.
        TypeError: If ``input`` is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> logits = torch.tensor([[[99.0, 0.0], [0.0, 0.0]]])  # sure of the first position
        >>> lm.mcc_loss(logits, torch.tensor([[0, 1]]))
        tensor(0.4226)
    """
    sums = RegionStatistics.from_logits(input, target, ignore_index=ignore_index, batch=batch)
    return over_classes(sums.mcc_loss(), weight, include_background, batch=batch)


class MCCLoss(Loss):
    """Module form of :func:`mcc_loss`; ``weight`` is a buffer."""

    weight: Tensor | None = None
    include_background: bool = True
    ignore_index: int = -100
    batch: bool = False
    function = staticmethod(mcc_loss)


@loss(
    Card(
        task=("segmentation", "binary", "multilabel"),
        coupling="statistics",
        formula=FORMULA,
        signatures=BY_MASK,
        options={"batch": FLAG},
        variants=({"batch": True},),
        elicits="region of largest correlation",
        link="logit",
        aliases=("binary_mcc",),
        use_when="one mask per sample of any size, and wrongly called background matters as well",
        avoid_when="probabilities have to be calibrated, or many masks are empty",
        source=SOURCE,
    ),
    engine=REGIONS,
)
def binary_mcc_loss(
    input: Tensor,
    target: Tensor,
    *,
    batch: bool = False,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """One minus Matthews' correlation of sigmoid probabilities, one mask per sample.

    All dimensions after the first are one mask. An empty or a full mask has no correlation: its
    loss is 1, without a gradient. Of several masks per sample pass each as a sample:
    ``input.flatten(0, 1)``.

    Args:
        input: Logits, ``(N, *)``, floating point, any real value.
        target: Masks in [0, 1], ``(N, *)``, same shape as ``input``, any real dtype or bool.
        batch: Whether the sums run over all samples of the batch together, as over one.
        sample_weight: Weight of each sample, ``(N)``, ``>= 0``; 0 means absent. With
            ``batch`` one number, ``()``.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N)`` for ``reduction="none"`` without ``batch``, in [0, 2]; in the dtype of
        ``input``.

    Raises:
        ValueError: If the shapes differ, a target is outside [0, 1], or ``reduction`` is unknown.
        TypeError: If ``input`` is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> logits = torch.tensor([[0.0, 0.0, -99.0]])  # probabilities 1/2, 1/2 and 0
        >>> lm.binary_mcc_loss(logits, torch.tensor([[1, 0, 0]]))
        tensor(0.7500)
    """
    sums = RegionStatistics.from_mask_logits(input, target, batch=batch)
    return over_classes(sums.mcc_loss(), batch=batch)


class BinaryMCCLoss(Loss):
    """Module form of :func:`binary_mcc_loss`."""

    batch: bool = False
    function = staticmethod(binary_mcc_loss)
