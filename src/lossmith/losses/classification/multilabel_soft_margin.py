"""Multi-label soft margin: the mean over classes of binary cross-entropy from logits."""

from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.domain import NONNEGATIVE, REAL, UNIT, Vector
from lossmith.core.loss import NATIVE_REDUCTION, loss
from lossmith.core.module import Loss
from lossmith.core.numerics import logistic_nll, times
from lossmith.core.reduction import Reduction
from lossmith.core.signature import Signature
from lossmith.losses.classification.binary_cross_entropy import one_pass


def _one_pass(
    input: Tensor, target: Tensor, reduction: int, weight: Tensor | None = None
) -> Tensor | None:
    if weight is not None or input.ndim == 0:
        return None
    if reduction == NATIVE_REDUCTION["mean"]:  # all rows have the same length
        return one_pass(input, target, reduction)
    each = one_pass(input, target, NATIVE_REDUCTION["none"])
    if each is None:
        return None
    rows = each.mean(-1)
    return rows.sum() if reduction == NATIVE_REDUCTION["sum"] else rows


@loss(
    Card(
        task="multilabel",
        coupling="row",
        formula=r"\frac1C \sum_c w_c \left[ y_c \log(1 + e^{-x_c})"
        r" + (1 - y_c) \log(1 + e^{x_c}) \right]",
        signatures=(Signature(input=REAL("* C"), target=UNIT("* C"), out="*"),),
        options={"weight": Vector(within=NONNEGATIVE)},
        convex=True,
        same_as="torch.nn.functional.multilabel_soft_margin_loss",
        elicits="distribution",
        link="logit",
        use_when="several classes may be true at once, and samples count alike",
        avoid_when="classes need weights of their own sign: take binary cross-entropy",
        source="Good 1952, doi:10.1111/j.2517-6161.1952.tb00104.x",
    ),
    native=_one_pass,
    native_checks=True,
)
def multilabel_soft_margin_loss(
    input: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Binary cross-entropy from logits, averaged over the classes of a sample.

    Args:
        input: Logits, ``(*, C)``, floating point, any real value.
        target: Labels or probabilities in [0, 1], ``(*, C)``, same shape as ``input``.
        weight: Factor of each class, ``(C)``, ``>= 0``; the mean still divides by C.
        sample_weight: Weight of each sample, ``(*)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(*)`` for ``reduction="none"``; dtype of ``input``.

    Raises:
        ValueError: If the shapes differ, or a target is outside [0, 1].
        TypeError: If a tensor is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> logits, labels = torch.tensor([[0.3, 0.7, 0.8]]), torch.tensor([[0.0, 1.0, 1.0]])
        >>> lm.multilabel_soft_margin_loss(logits, labels)
        tensor(0.5429)
    """
    value = logistic_nll(input, target)
    if weight is not None:
        value = times(weight.to(input), value)
    return value.sum(-1) / max(input.shape[-1], 1)


class MultiLabelSoftMarginLoss(Loss):
    """Module form of :func:`multilabel_soft_margin_loss`; ``weight`` is a buffer."""

    weight: Tensor | None = None
    function = staticmethod(multilabel_soft_margin_loss)
