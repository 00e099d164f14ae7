"""Log-cosh: half the squared error near the target, absolute error in the tails."""

import math

import torch
from torch import Tensor

from lossmith.core.card import Card, Point
from lossmith.core.domain import REAL
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.numerics import softplus
from lossmith.core.reduction import Reduction
from lossmith.core.signature import elementwise


@loss(
    Card(
        task="regression",
        coupling="element",
        formula=r"\log\cosh r",
        signatures=elementwise(input=REAL, target=REAL),
        exact=lambda mp, x, y: abs(x - y) + mp.log1p(mp.exp(-2 * abs(x - y))) - mp.log(2),
        points=(
            # by hand: cosh(log 2) = 5/4, tanh(log 2) = 3/5
            Point(0.6931471805599453, 0.0, value=0.22314355131420976, gradient=0.6),
            Point(-1e-4, 0.0, value=5e-9, gradient=-1e-4),  # series: r^2 / 2 - r^4 / 12
            Point(1e30, 0.0, value=1e30, gradient=1.0),  # cosh itself overflows from 89 on
        ),
        convex=True,
        symmetric=True,
        zero_at_target=True,
        gradient_bound=1.0,
        robust=True,
        elicits="between median and mean",
        link="identity",
        aliases=("log_cosh", "logcosh"),
        use_when="occasional outliers, and second derivatives are needed everywhere",
        avoid_when="the bend should sit elsewhere than at one unit of the target",
        source="Green 1990, doi:10.1109/42.52985",
    )
)
def log_cosh_loss(
    input: Tensor,
    target: Tensor,
    *,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Half the squared error near the target, absolute error in the tails.

    Its gradient is the hyperbolic tangent of the residual. The bend lies at about one unit
    of the target, so scale the targets first.

    Args:
        input: Model output, ``(*)``, floating point, any real value.
        target: Observed values, ``(*)``, same shape as ``input``.
        sample_weight: Weight of each element, ``(*)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(*)`` for ``reduction="none"``; dtype of ``input``.

    Raises:
        ValueError: If the shapes differ or ``reduction`` is unknown.
        TypeError: If a tensor is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> lm.log_cosh_loss(torch.tensor([0.5, 100.0]), torch.zeros(2), reduction="none")
        tensor([ 0.1201, 99.3069])
    """
    residual = input - target
    size = residual.abs()
    near = size < 1
    # cosh r = 1 + 2 sinh(r/2)^2 keeps the digits of a small residual
    half_sinh = torch.sinh(0.5 * torch.where(near, residual, 0.0))
    return torch.where(
        near,
        torch.log1p(2 * half_sinh * half_sinh),
        size + softplus(-2 * size) - math.log(2.0),
    )


class LogCoshLoss(Loss):
    """Module form of :func:`log_cosh_loss`."""

    function = staticmethod(log_cosh_loss)
