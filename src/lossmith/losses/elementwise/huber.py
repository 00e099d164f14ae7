"""Huber: squared error near the target, absolute error in the tails."""

from dataclasses import replace

import torch._C._nn as kernels
from torch import Tensor

from lossmith.core.card import Card, Point
from lossmith.core.domain import POSITIVE, REAL
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.reduction import Reduction
from lossmith.core.signature import elementwise


@loss(
    Card(
        task="regression",
        coupling="element",
        formula=r"\begin{cases}\tfrac12 r^2 & |r|\le\delta\\"
        r" \delta(|r|-\tfrac12\delta) & |r|>\delta\end{cases}",
        signatures=elementwise(input=REAL, target=REAL),
        options={"delta": replace(POSITIVE, endless=True)},
        variants=({"delta": 0.25}, {"delta": 3.0}),
        exact=lambda mp, x, y, delta=1.0: (
            (x - y) ** 2 / 2 if abs(x - y) <= delta else delta * (abs(x - y) - mp.mpf(delta) / 2)
        ),
        points=(
            Point(0.5, 0.0, value=0.125, gradient=0.5),  # by hand, quadratic side
            Point(3.0, 0.0, value=2.5, gradient=1.0),  # by hand, linear side
            Point(1e20, 0.0, value=1e20, gradient=1.0),  # the half is below the last digit
        ),
        convex=True,
        symmetric=True,
        zero_at_target=True,
        gradient_bound="delta",
        robust=True,
        same_as="torch.nn.functional.huber_loss",
        elicits="between median and mean",
        link="identity",
        use_when="regression targets with occasional outliers",
        avoid_when="the outliers are the signal",
        source="Huber 1964, doi:10.1214/aoms/1177703732",
    ),
    native=lambda input, target, reduction, delta=1.0: kernels.huber_loss(
        input, target, reduction, delta
    ),
)
def huber_loss(
    input: Tensor,
    target: Tensor,
    *,
    delta: float = 1.0,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Squared error near the target, absolute error in the tails.

    The gradient is the residual clipped to [-delta, delta], so no single element can
    pull harder than delta.

    Args:
        input: Model output, ``(*)``, floating point, any real value.
        target: Observed values, ``(*)``, same shape as ``input``.
        delta: Error size where squared turns into absolute, ``> 0``, in the unit of the target;
            ``float("inf")`` squares all.
        sample_weight: Weight of each element, ``(*)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(*)`` for ``reduction="none"``; dtype of ``input``.

    Raises:
        ValueError: If the shapes differ, ``delta <= 0``, or ``reduction`` is unknown.
        TypeError: If a tensor is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> lm.huber_loss(torch.tensor([0.5, 3.0]), torch.zeros(2), reduction="none")
        tensor([0.1250, 2.5000])
    """
    residual = input - target
    pull = residual.clamp(-delta, delta)
    return pull * (residual - 0.5 * pull)


class HuberLoss(Loss):
    """Module form of :func:`huber_loss`."""

    delta: float = 1.0
    function = staticmethod(huber_loss)
