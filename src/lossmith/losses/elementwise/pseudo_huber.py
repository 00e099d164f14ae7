"""Pseudo-Huber: Huber without the corner in its second derivative."""

import torch
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
        formula=r"\delta^2\left(\sqrt{1+(r/\delta)^2}-1\right)",
        signatures=elementwise(input=REAL, target=REAL),
        options={"delta": POSITIVE},
        variants=({"delta": 0.25}, {"delta": 3.0}),
        exact=lambda mp, x, y, delta=1.0: (
            mp.mpf(delta) ** 2 * (mp.sqrt(1 + ((x - y) / mp.mpf(delta)) ** 2) - 1)
        ),
        points=(
            Point(0.75, 0.0, value=0.25, gradient=0.6),  # by hand: sqrt(1 + 9/16) = 5/4
            Point(-4.0, 0.0, value=6.0, gradient=-2.4, delta=3.0),  # by hand: sqrt(1 + 16/9) = 5/3
            Point(1e-6, 0.0, value=5e-13, gradient=1e-6),  # r^2 / 2, which the plain form loses
            Point(1e30, 0.0, value=1e30, gradient=1.0),  # extreme: the square overflows float32
        ),
        convex=True,
        symmetric=True,
        zero_at_target=True,
        gradient_bound="delta",
        robust=True,
        elicits="between median and mean",
        link="identity",
        aliases=("pseudo_huber",),
        use_when="occasional outliers, and second derivatives are needed everywhere",
        avoid_when="the outliers are the signal",
        source="Charbonnier et al. 1994, doi:10.1109/ICIP.1994.413553",
    )
)
def pseudo_huber_loss(
    input: Tensor,
    target: Tensor,
    *,
    delta: float = 1.0,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Huber without the corner in its second derivative.

    About half the squared error below ``delta`` and ``delta`` times the absolute error
    above; no element pulls harder than ``delta``.

    Args:
        input: Model output, ``(*)``, floating point, any real value.
        target: Observed values, ``(*)``, same shape as ``input``.
        delta: Error size around which squared turns into absolute, ``> 0``, in the unit of the
            target.
        sample_weight: Weight of each element, ``(*)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(*)`` for ``reduction="none"``, in the squared unit of the target; dtype of
        ``input``.

    Raises:
        ValueError: If the shapes differ, ``delta <= 0``, or ``reduction`` is unknown.
        TypeError: If a tensor is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> lm.pseudo_huber_loss(torch.tensor([0.75, 100.0]), torch.zeros(2), reduction="none")
        tensor([ 0.2500, 99.0050])
    """
    residual = input - target
    # sqrt(1 + u^2) - 1 = u^2 / (1 + sqrt(1 + u^2)); the left side loses the digits of a small u
    slant = torch.hypot(residual, delta * residual.new_ones(()))
    return delta * residual * (residual / (delta + slant))


class PseudoHuberLoss(Loss):
    """Module form of :func:`pseudo_huber_loss`."""

    delta: float = 1.0
    function = staticmethod(pseudo_huber_loss)
