"""Entropy of a predicted distribution, from logits or from probabilities."""

from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.domain import PROBABILITIES, REAL
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.numerics import accurate_log_softmax, times, xlogx
from lossmith.core.reduction import Reduction
from lossmith.core.signature import Signature
from lossmith.engines.rows.probabilities import entropy_rows

SOURCE = "Shannon 1948, doi:10.1002/j.1538-7305.1948.tb01338.x"


@loss(
    Card(
        task="distribution",
        coupling="row",
        formula=r"-\sum_c p_c \log p_c, \quad p = \operatorname{softmax}(x)",
        signatures=(
            Signature(input=REAL("N C *"), out="N *"),
            Signature(input=REAL("C"), out=""),
        ),
        elicits="a single class",
        link="softmax",
        use_when="unlabelled samples should be decided, or (subtracted) predictions kept open",
        avoid_when="it stands alone: any constant class is a perfect answer",
        source=f"{SOURCE}; Grandvalet & Bengio 2004, Semi-supervised learning by entropy"
        " minimization (NeurIPS)",
    ),
    engine=entropy_rows,
)
def entropy(
    input: Tensor,
    *,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Entropy of the softmax of each row of logits, in nats.

    From 0, one class certain, to ``log C``, all equal. Added to a loss it makes predictions
    decided, subtracted it keeps them open.

    Args:
        input: Logits, ``(N, C, *)`` or ``(C)``, floating point, any real value; -inf excludes a
            class.
        sample_weight: Weight of each row, ``(N, *)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N, *)`` for ``reduction="none"``; dtype of ``input``.

    Raises:
        ValueError: If the shape does not fit or ``reduction`` is unknown.
        TypeError: If ``input`` is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> lm.entropy(torch.tensor([[0.0, 0.0], [0.0, 9.0]]), reduction="none")
        tensor([0.6931, 0.0012])
    """
    dim = 1 if input.ndim > 1 else 0
    log_p = accurate_log_softmax(input, dim=dim)
    return -times(log_p.exp(), log_p).sum(dim)


class EntropyLoss(Loss):
    """Module form of :func:`entropy`."""

    function = staticmethod(entropy)


@loss(
    Card(
        task="distribution",
        coupling="row",
        formula=r"-\sum_c p_c \log p_c",
        signatures=(
            Signature(input=PROBABILITIES("N C *"), out="N *"),
            Signature(input=PROBABILITIES("C"), out=""),
        ),
        elicits="a single class",
        link="identity",
        use_when="the distribution is given as probabilities",
        avoid_when="logits are at hand: they keep the digits of a class that is nearly certain",
        source=SOURCE,
    )
)
def entropy_from_probabilities_loss(
    input: Tensor,
    *,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Entropy of each row of probabilities, in nats.

    Probability 0 adds 0, and no gradient flows to it (the true one is infinite).

    Args:
        input: Probabilities, ``(N, C, *)`` or ``(C)``, floating point, in [0, 1]; rows should add
            up to 1.
        sample_weight: Weight of each row, ``(N, *)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N, *)`` for ``reduction="none"``; dtype of ``input``.

    Raises:
        ValueError: If the shape does not fit, a probability is outside [0, 1], or ``reduction``
            is unknown.
        TypeError: If ``input`` is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> lm.entropy_from_probabilities_loss(torch.tensor([[0.5, 0.5], [0.0, 1.0]]))
        tensor(0.3466)
    """
    return -xlogx(input).sum(1 if input.ndim > 1 else 0)


class EntropyFromProbabilitiesLoss(Loss):
    """Module form of :func:`entropy_from_probabilities_loss`."""

    function = staticmethod(entropy_from_probabilities_loss)
