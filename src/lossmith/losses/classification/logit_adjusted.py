"""Logit adjustment: cross-entropy of logits shifted by how common each class is."""

import torch
from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.domain import NONNEGATIVE, POSITIVE, Vector, Whole
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


def _against(
    prior: Tensor | None = None, temperature: float = 1.0, ignore_index: int = -100
) -> Against:
    shift = None if prior is None else temperature * prior.double().log()
    return Against(head=Head(shift=shift), ignore_index=ignore_index)


@loss(
    Card(
        task=("multiclass", "segmentation"),
        coupling="row",
        formula=r"-\log \operatorname{softmax}(x + \tau \log \pi)_y",
        signatures=(*BY_INDEX, *BY_PROBABILITIES),
        options={
            "prior": Vector(within=POSITIVE),
            "temperature": NONNEGATIVE,
            "ignore_index": Whole(),
        },
        variants=(
            {"prior": torch.tensor([0.9, 0.06, 0.03, 0.01])},
            {"prior": torch.tensor([9.0, 1.0, 1.0, 4.0]), "temperature": 0.5},
            {"prior": torch.tensor([9.0, 1.0, 1.0, 4.0]), "temperature": 3.0},
        ),
        convex=True,
        gradient_bound=1.0,
        elicits="class-balanced distribution",
        link="softmax",
        aliases=("logit_adjustment",),
        use_when="classes are imbalanced, and each class shall count the same in the score",
        avoid_when="plain accuracy is scored on data as imbalanced as the training data",
        source="Menon 2020, arXiv:2007.07314",
    ),
    engine=against(_against),
)
def logit_adjusted_loss(
    input: Tensor,
    target: Tensor,
    *,
    prior: Tensor | None = None,
    temperature: float = 1.0,
    ignore_index: int = -100,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross-entropy in which rare classes must win by a margin.

    The shift is for training alone: predictions take the argmax of the unshifted logits, which
    then estimate log p(class given x) minus ``temperature`` log prior.

    Args:
        input: Logits, ``(N, C, *)`` or ``(C)``, floating point, any real value.
        target: Class indices in [0, C-1], ``(N, *)`` or ``()``, integers; or probabilities in
            [0, 1] with the shape of ``input``, floating point.
        prior: Share of each class in the training data, ``(C)``, ``> 0``; counts serve as well,
            for a common factor changes nothing. None: all the same, which is cross-entropy.
        temperature: Strength tau of the adjustment, ``>= 0``; 0 is cross-entropy.
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
        >>> prior = torch.tensor([0.9, 0.1])
        >>> lm.logit_adjusted_loss(torch.zeros(2, 2), torch.tensor([0, 1]), prior=prior,
        ...     reduction="none")
        tensor([0.1054, 2.3026])
    """
    if prior is not None:
        input = input + over_classes(temperature * prior.to(input).log(), input)
    return target_cost(input, target, lambda nll: nll)


class LogitAdjustedLoss(Loss):
    """Module form of :func:`logit_adjusted_loss`; ``prior`` is a buffer."""

    prior: Tensor | None = None
    temperature: float = 1.0
    ignore_index: int = -100
    function = staticmethod(logit_adjusted_loss)
