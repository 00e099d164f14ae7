"""Soft margin: the logistic loss of a score and a label of -1 or 1."""

from typing import Any, cast

import torch
import torch._C._nn as kernels
from torch import Tensor

from lossmith.core.card import Card, Point
from lossmith.core.domain import REAL, SIGN
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.numerics import softplus
from lossmith.core.reduction import Reduction
from lossmith.core.signature import elementwise
from lossmith.engines.in_cache import Formula, in_cache

soft_margin: Any = cast(Any, kernels).soft_margin_loss


def _plain(input: Tensor, target: Tensor) -> Tensor:
    return softplus(-target * input)


def _few(input: Tensor, target: Tensor, reduction: int) -> Tensor | None:
    return soft_margin(input, target, reduction) if _signs(input, target) else None


def _value(x: Tensor, y: Tensor, out: Tensor, slope: Tensor, margin: Tensor, tail: Tensor) -> None:
    """``max(m, 0) + log(1 + e^-|m|)`` of the margin ``m = -y x``."""
    torch.mul(x, y, out=margin).neg_()
    torch.abs(margin, out=tail).neg_().exp_()
    torch.log1p(tail, out=out).add_(torch.clamp(margin, min=0, out=tail))


def _slope(x: Tensor, y: Tensor, out: Tensor, slope: Tensor, margin: Tensor, tail: Tensor) -> None:
    torch.mul(margin.sigmoid_(), y, out=slope).neg_()


def _signs(score: Tensor, label: Tensor) -> bool:
    low, high = torch.aminmax(label.abs())
    return low.item() == 1 and high.item() == 1


FORMULA = Formula(_plain, _value, _slope, _signs, _few)


def _native(input: Tensor, target: Tensor, reduction: int) -> Tensor | None:
    return in_cache(FORMULA, input, target, reduction)


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
