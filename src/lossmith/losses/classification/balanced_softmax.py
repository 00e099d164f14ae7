"""Balanced softmax: cross-entropy of a softmax whose classes count as often as they occur."""

import torch
from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.domain import POSITIVE, Vector, Whole
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.reduction import Reduction
from lossmith.engines.rows.head import Head
from lossmith.engines.rows.probabilities import Against
from lossmith.engines.rows.targets import against
from lossmith.losses.classification.rows import (
    BY_INDEX,
    BY_PROBABILITIES,
    over_classes,
    target_cost,
)


def _against(class_counts: Tensor | None = None, ignore_index: int = -100) -> Against:
    shift = None if class_counts is None else class_counts.double().log()
    return Against(head=Head(shift=shift), ignore_index=ignore_index)


@loss(
    Card(
        task=("multiclass", "segmentation"),
        coupling="row",
        formula=r"-\log \frac{n_y e^{x_y}}{\sum_c n_c e^{x_c}}",
        signatures=(*BY_INDEX, *BY_PROBABILITIES),
        options={"class_counts": Vector(within=POSITIVE), "ignore_index": Whole()},
        variants=(
            {"class_counts": torch.tensor([900.0, 60.0, 30.0, 10.0])},
            {"class_counts": torch.tensor([9, 1, 1, 4])},
        ),
        convex=True,
        gradient_bound=1.0,
        elicits="class-balanced distribution",
        link="softmax",
        aliases=("balanced_softmax", "balanced_meta_softmax"),
        use_when="a few classes hold most samples, and the test set is balanced",
        avoid_when="the data to be predicted are as imbalanced as the training data",
        source="Ren 2020, arXiv:2007.10740",
    ),
    engine=against(_against),
)
def balanced_softmax_loss(
    input: Tensor,
    target: Tensor,
    *,
    class_counts: Tensor | None = None,
    ignore_index: int = -100,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross-entropy with each class weighted in the softmax by its number of samples.

    Predictions take the plain softmax, which then fits balanced data. It is
    :func:`logit_adjusted_loss` at ``temperature`` 1 with the counts as prior.

    Args:
        input: Logits, ``(N, C, *)`` or ``(C)``, floating point, any real value.
        target: Class indices in [0, C-1], ``(N, *)`` or ``()``, integers; or probabilities in
            [0, 1] with the shape of ``input``, floating point.
        class_counts: Training samples of each class, ``(C)``, ``> 0``, integers or floating point.
            None: all the same, which is cross-entropy.
        ignore_index: Targets with this value are absent; any integer, inside or outside [0, C-1].
        sample_weight: Weight of each sample, ``(N, *)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N, *)`` for ``reduction="none"``; dtype of ``input``.

    Raises:
        ValueError: If shapes do not fit, a class is outside [0, C-1], a probability is outside
            [0, 1], or an option is out of range.
        TypeError: If ``input`` is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> counts = torch.tensor([90, 10])
        >>> lm.balanced_softmax_loss(torch.zeros(2, 2), torch.tensor([0, 1]), class_counts=counts,
        ...     reduction="none")
        tensor([0.1054, 2.3026])
    """
    if class_counts is not None:
        input = input + over_classes(class_counts.to(input).log(), input)
    return target_cost(input, target, lambda nll: nll)


class BalancedSoftmaxLoss(Loss):
    """Module form of :func:`balanced_softmax_loss`; ``class_counts`` is a buffer."""

    class_counts: Tensor | None = None
    ignore_index: int = -100
    function = staticmethod(balanced_softmax_loss)
