"""Symmetric cross-entropy: cross-entropy plus its reverse, for wrong labels."""

import torch
from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.domain import NONNEGATIVE, Interval, Whole
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.numerics import accurate_log_softmax, class_nll, expm1, times
from lossmith.core.reduction import Reduction
from lossmith.losses.classification.rows import BY_INDEX, BY_PROBABILITIES, class_dim

NEGATIVE = Interval("negative", "be < 0", high=0.0, high_open=True)


@loss(
    Card(
        task=("multiclass", "segmentation"),
        coupling="row",
        formula=r"-\alpha \sum_c t_c \log p_c - \beta \sum_c p_c \max(\log t_c, A)",
        signatures=(*BY_INDEX, *BY_PROBABILITIES),
        options={
            "alpha": NONNEGATIVE,
            "beta": NONNEGATIVE,
            "log_zero": NEGATIVE,
            "ignore_index": Whole(),
        },
        variants=(
            {"alpha": 1.0, "beta": 0.5, "log_zero": -6.0},
            {"alpha": 0.0, "beta": 2.0, "log_zero": -1.0},
        ),
        elicits="mode",
        link="softmax",
        aliases=("sce", "symmetric_ce"),
        use_when="an unknown part of the class labels is wrong, and some classes are hard",
        avoid_when="the probabilities themselves are needed: the reverse part biases them",
        source="Wang 2019, arXiv:1908.06112",
    )
)
def symmetric_cross_entropy_loss(
    input: Tensor,
    target: Tensor,
    *,
    alpha: float = 0.1,
    beta: float = 1.0,
    log_zero: float = -4.0,
    ignore_index: int = -100,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross-entropy from target to prediction and from prediction to target.

    Under class indices the reverse part is ``-log_zero (1 - p)``: it pulls little on a sample that
    the model finds unlikely. With ``log_zero = -2`` it is the absolute error of the probabilities.

    Args:
        input: Logits, ``(N, C, *)`` or ``(C)``, floating point, any real value.
        target: Class indices in [0, C-1], ``(N, *)`` or ``()``, integers; or probabilities in
            [0, 1] with the shape of ``input``, floating point.
        alpha: Factor of cross-entropy, ``>= 0``.
        beta: Factor of reverse cross-entropy, ``>= 0``.
        log_zero: Stands for log 0 (A in the paper), ``< 0``; logarithms of target probabilities
            below it are raised to it.
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
        >>> logits = torch.tensor([[0.0, 0.0], [0.0, 50.0]])  # probabilities 1/2 and about 0
        >>> lm.symmetric_cross_entropy_loss(logits, torch.tensor([0, 0]), reduction="none")
        tensor([2.0693, 9.0000])
    """
    dim = class_dim(input)
    if not target.is_floating_point():
        nll = class_nll(input, target, dim=dim)
        return alpha * nll + beta * log_zero * expm1(-nll)
    log_p = accurate_log_softmax(input, dim=dim)
    none = target == 0
    log_t = torch.where(none, 1.0, target).log().clamp(min=log_zero)
    log_t = torch.where(none, log_zero, log_t)
    return -(alpha * times(target, log_p) + beta * log_p.exp() * log_t).sum(dim)


class SymmetricCrossEntropyLoss(Loss):
    """Module form of :func:`symmetric_cross_entropy_loss`."""

    alpha: float = 0.1
    beta: float = 1.0
    log_zero: float = -4.0
    ignore_index: int = -100
    function = staticmethod(symmetric_cross_entropy_loss)
