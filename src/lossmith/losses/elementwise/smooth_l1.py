"""Smooth L1: absolute error with a parabola at its tip."""

import torch
import torch._C._nn as kernels
from torch import Tensor

from lossmith.core.card import Card, Point
from lossmith.core.domain import NONNEGATIVE, REAL
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.numerics import is_number
from lossmith.core.reduction import Reduction
from lossmith.core.signature import elementwise


@loss(
    Card(
        task="regression",
        coupling="element",
        formula=r"\begin{cases}\tfrac{1}{2\beta} r^2 & |r|<\beta\\"
        r" |r|-\tfrac12\beta & |r|\ge\beta\end{cases}",
        signatures=elementwise(input=REAL, target=REAL),
        options={"beta": NONNEGATIVE},
        variants=({"beta": 0.25}, {"beta": 3.0}, {"beta": 0.0}),
        exact=lambda mp, x, y, beta=1.0: (
            (x - y) ** 2 / (2 * mp.mpf(beta))
            if abs(x - y) < beta
            else abs(x - y) - mp.mpf(beta) / 2
        ),
        points=(
            Point(0.5, 0.0, value=0.125, gradient=0.5),  # by hand, quadratic side
            Point(-3.0, 0.0, value=2.5, gradient=-1.0),  # by hand, linear side
            Point(1.0, 0.0, value=0.25, gradient=0.5, beta=2.0),  # by hand, 1 / (2 * 2)
            Point(0.0, 0.0, value=0.0, gradient=0.0, beta=0.0),  # the kink of |r|
            Point(1e20, 0.0, value=1e20, gradient=1.0),  # the half is below the last digit
        ),
        convex=True,
        symmetric=True,
        zero_at_target=True,
        gradient_bound=1.0,
        robust=True,
        same_as="torch.nn.functional.smooth_l1_loss",
        elicits="between median and mean",
        link="identity",
        aliases=("smooth_l1",),
        use_when="box coordinates, or absolute error that settles near the target",
        avoid_when="the slope of the tails should follow the bend: Huber scales it by its delta",
        source="Girshick 2015, arXiv:1504.08083",
    ),
    native=lambda input, target, reduction, beta=1.0: (
        kernels.smooth_l1_loss(input, target, reduction, beta) if beta else None
    ),
)
def smooth_l1_loss(
    input: Tensor,
    target: Tensor,
    *,
    beta: float = 1.0,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Absolute error with a parabola at its tip.

    The gradient is the residual over ``beta``, clipped to [-1, 1]. Huber with
    ``delta=beta`` is ``beta`` times this; ``beta=0`` is the absolute error.

    Args:
        input: Model output, ``(*)``, floating point, any real value.
        target: Observed values, ``(*)``, same shape as ``input``.
        beta: Error size where squared turns into absolute, ``>= 0``, in the unit of the target.
        sample_weight: Weight of each element, ``(*)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(*)`` for ``reduction="none"``, in the unit of the target; dtype of ``input``.

    Raises:
        ValueError: If the shapes differ, ``beta < 0``, or ``reduction`` is unknown.
        TypeError: If a tensor is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> lm.smooth_l1_loss(torch.tensor([0.5, -3.0]), torch.zeros(2), reduction="none")
        tensor([0.1250, 2.5000])
    """
    residual = input - target
    if is_number(beta, 0):
        return residual.abs()
    if isinstance(beta, Tensor):  # which may be 0
        outside = residual.abs() >= beta
        beta_inside = torch.where(outside, 1.0, beta)
        pull = torch.where(outside, residual.sign(), residual / beta_inside)
    else:
        pull = (residual / beta).clamp(-1, 1)
    return pull * (residual - 0.5 * beta * pull)


class SmoothL1Loss(Loss):
    """Module form of :func:`smooth_l1_loss`."""

    beta: float = 1.0
    function = staticmethod(smooth_l1_loss)
