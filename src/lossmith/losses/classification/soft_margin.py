"""Soft margin: the logistic loss of a score and a label of -1 or 1."""

import torch
from torch import Tensor

from lossmith.core.card import Card, Point
from lossmith.core.domain import REAL, SIGN
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.numerics import softplus
from lossmith.core.reduction import Reduction
from lossmith.core.signature import elementwise
from lossmith.engines.element import one_pass_softplus
from lossmith.engines.eligible import eager


def _plain(input: Tensor, target: Tensor) -> Tensor:
    return softplus(-target * input)


def _native(input: Tensor, target: Tensor, reduction: int) -> Tensor | None:
    """On large tensors the slope is worked out in place beside the value, without a graph."""
    if target.requires_grad or not input.is_cpu or not eager(input, target):
        return None
    low, high = torch.aminmax(target.abs())
    if low.item() != 1 or high.item() != 1:
        return None
    return one_pass_softplus(input, -target, reduction)


@loss(
    Card(
        task=("binary", "multilabel"),
        coupling="element",
        formula=r"\log(1 + e^{-y x})",
        signatures=elementwise(input=REAL, target=SIGN),
        exact=lambda mp, x, y: mp.log(1 + mp.exp(-y * x)),
        points=(
            Point(0.0, 1.0, value=0.6931471805599453, gradient=-0.5),  # log 2
            Point(-1e4, 1.0, value=1e4, gradient=-1.0),  # linear far on the wrong side
            Point(15.0, 1.0, value=3.059022974e-07, gradient=-3.059022269e-07),  # log1p(e^-15)
        ),
        convex=True,
        gradient_bound=1.0,
        same_as="torch.nn.functional.soft_margin_loss",
        elicits="distribution",
        link="logit",
        aliases=("logistic_loss",),
        use_when="labels are -1 and 1, and the probability matters",
        avoid_when="labels are probabilities: take binary cross-entropy",
        source="Cox 1958, doi:10.1111/j.2517-6161.1958.tb00292.x",
    ),
    native=_native,
    native_checks=True,
)
def soft_margin_loss(
    input: Tensor,
    target: Tensor,
    *,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Logistic loss of a score, for labels -1 and 1.

    Equal to binary cross-entropy with logits for labels (1 + target) / 2.

    Args:
        input: Logits, ``(*)``, floating point, any real value.
        target: Labels, -1 or 1, ``(*)``, same shape as ``input``.
        sample_weight: Weight of each element, ``(*)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(*)`` for ``reduction="none"``; dtype of ``input``.

    Raises:
        ValueError: If the shapes differ, or a label is neither -1 nor 1 ({0, 1} are refused).
        TypeError: If ``input`` is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> scores, labels = torch.tensor([0.3, -1e4]), torch.tensor([-1.0, 1.0])
        >>> lm.soft_margin_loss(scores, labels, reduction="none")
        tensor([8.5436e-01, 1.0000e+04])
    """
    return _plain(input, target)


class SoftMarginLoss(Loss):
    """Module form of :func:`soft_margin_loss`."""

    function = staticmethod(soft_margin_loss)
