"""Pinball: absolute error with unequal prices for too low and too high."""

import torch
from torch import Tensor

from lossmith.core.card import Card, Point
from lossmith.core.domain import OPEN_UNIT, REAL
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.reduction import Reduction
from lossmith.core.signature import elementwise


@loss(
    Card(
        task="regression",
        coupling="element",
        formula=r"\max\bigl(\tau\,(y-x),\ (\tau-1)(y-x)\bigr)",
        signatures=elementwise(input=REAL, target=REAL),
        options={"quantile": OPEN_UNIT},
        variants=({"quantile": 0.1}, {"quantile": 0.999}),
        exact=lambda mp, x, y, quantile=0.5: max(
            quantile * (y - x), (mp.mpf(quantile) - 1) * (y - x)
        ),
        points=(
            Point(1.0, 3.0, value=1.8, gradient=-0.9, quantile=0.9),  # by hand, too low by 2
            Point(3.0, 1.0, value=0.2, gradient=0.1, quantile=0.9),  # by hand, too high by 2
            Point(1.0, 1.0, value=0.0, gradient=0.0, quantile=0.9),  # the subgradient at the kink
            Point(3.0, 1.0, value=1.0, gradient=0.5),  # identity: half the absolute error
            Point(-1e30, 0.0, value=5e29, gradient=-0.5),  # extreme
        ),
        kinks=(0.0,),
        convex=True,
        zero_at_target=True,
        robust=True,
        elicits="quantile",
        link="identity",
        aliases=("pinball", "quantile", "quantile_loss", "check_loss"),
        use_when="a chosen quantile is wanted: too low and too high have different prices",
        avoid_when="the mean is wanted and the errors are skewed",
        source="Koenker and Bassett 1978, doi:10.2307/1913643",
    )
)
def pinball_loss(
    input: Tensor,
    target: Tensor,
    *,
    quantile: float = 0.5,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Absolute error with unequal prices for too low and too high.

    An input below the target costs ``quantile`` per unit, one above it ``1 - quantile``; the
    best constant is that quantile of the targets. At 0.5 it is half the absolute error.

    Args:
        input: Predicted quantile, ``(*)``, floating point, any real value.
        target: Observed values, ``(*)``, same shape as ``input``.
        quantile: Level of the quantile, in (0, 1); 0.9 means that 90 % of the targets lie below.
        sample_weight: Weight of each element, ``(*)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(*)`` for ``reduction="none"``, in the unit of the target; dtype of ``input``.

    Raises:
        ValueError: If the shapes differ, ``quantile`` is outside (0, 1), or ``reduction`` is
            unknown.
        TypeError: If a tensor is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> input, target = torch.tensor([1.0, 3.0]), torch.tensor([3.0, 1.0])
        >>> lm.pinball_loss(input, target, quantile=0.9, reduction="none")
        tensor([1.8000, 0.2000])
    """
    # relu, not max of the two lines: its gradient at 0 is 0, which is a subgradient here
    too_low = torch.relu(target - input)
    too_high = torch.relu(input - target)
    return quantile * too_low + (1 - quantile) * too_high


class PinballLoss(Loss):
    """Module form of :func:`pinball_loss`."""

    quantile: float = 0.5
    function = staticmethod(pinball_loss)
