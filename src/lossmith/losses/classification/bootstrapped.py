"""Bootstrapped cross-entropy: the label is mixed with what the model itself believes."""

from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.domain import UNIT, Whole
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.numerics import accurate_log_softmax, class_nll, times
from lossmith.core.reduction import Reduction
from lossmith.losses.classification.rows import (
    BY_INDEX,
    BY_PROBABILITIES,
    class_dim,
    target_cost,
)


@loss(
    Card(
        task=("multiclass", "segmentation"),
        coupling="row",
        formula=r"-\sum_c (\beta t_c + (1 - \beta) p_c) \log p_c",
        signatures=(*BY_INDEX, *BY_PROBABILITIES),
        options={"beta": UNIT, "ignore_index": Whole()},
        variants=({"beta": 0.5}, {"beta": 0.0}),
        elicits="mode",
        link="softmax",
        aliases=("soft_bootstrap",),
        use_when="some labels are wrong, and the model is already better than chance",
        avoid_when="training starts from scratch: the model would confirm its first guesses",
        source="Reed 2014, arXiv:1412.6596",
    )
)
def soft_bootstrapping_loss(
    input: Tensor,
    target: Tensor,
    *,
    beta: float = 0.95,
    ignore_index: int = -100,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross-entropy to a mixture of the label and the predicted probabilities.

    It is cross-entropy plus a reward for being sure: ``beta CE + (1 - beta) entropy(p)``. The
    gradient passes through the predicted probabilities on both sides.

    Args:
        input: Logits, ``(N, C, *)`` or ``(C)``, floating point, any real value.
        target: Class indices in [0, C-1], ``(N, *)`` or ``()``, integers; or probabilities in
            [0, 1] with the shape of ``input``, floating point.
        beta: Trust in the label, in [0, 1]; 1 is cross-entropy.
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
        >>> target = torch.tensor([0, 0])
        >>> lm.soft_bootstrapping_loss(logits, target, beta=0.5, reduction="none")
        tensor([ 0.6931, 25.0000])
    """
    log_p = accurate_log_softmax(input, dim=class_dim(input))
    entropy = -times(log_p.exp(), log_p).sum(class_dim(input))
    return beta * target_cost(input, target, lambda nll: nll) + (1 - beta) * entropy


class SoftBootstrappingLoss(Loss):
    """Module form of :func:`soft_bootstrapping_loss`."""

    beta: float = 0.95
    ignore_index: int = -100
    function = staticmethod(soft_bootstrapping_loss)


@loss(
    Card(
        task=("multiclass", "segmentation"),
        coupling="row",
        formula=r"-\sum_c (\beta t_c + (1 - \beta) [c = \arg\max_k p_k]) \log p_c",
        signatures=(*BY_INDEX, *BY_PROBABILITIES),
        options={"beta": UNIT, "ignore_index": Whole()},
        variants=({"beta": 0.5}, {"beta": 0.0}),
        elicits="mode",
        link="softmax",
        aliases=("hard_bootstrap",),
        use_when="some labels are wrong, and the model is already better than chance",
        avoid_when="training starts from scratch: the model would confirm its first guesses",
        source="Reed 2014, arXiv:1412.6596",
    )
)
def hard_bootstrapping_loss(
    input: Tensor,
    target: Tensor,
    *,
    beta: float = 0.8,
    ignore_index: int = -100,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross-entropy to a mixture of the label and the likeliest class.

    It is ``beta CE(label) + (1 - beta) CE(likeliest class)``; among equally likely classes the
    first counts. No gradient passes through the choice of that class.

    Args:
        input: Logits, ``(N, C, *)`` or ``(C)``, floating point, any real value.
        target: Class indices in [0, C-1], ``(N, *)`` or ``()``, integers; or probabilities in
            [0, 1] with the shape of ``input``, floating point.
        beta: Trust in the label, in [0, 1]; 1 is cross-entropy.
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
        >>> target = torch.tensor([0, 0])
        >>> lm.hard_bootstrapping_loss(logits, target, beta=0.5, reduction="none")
        tensor([ 0.6931, 25.0000])
    """
    dim = class_dim(input)
    surest = class_nll(input, input.argmax(dim), dim=dim)
    return beta * target_cost(input, target, lambda nll: nll) + (1 - beta) * surest


class HardBootstrappingLoss(Loss):
    """Module form of :func:`hard_bootstrapping_loss`."""

    beta: float = 0.8
    ignore_index: int = -100
    function = staticmethod(hard_bootstrapping_loss)
