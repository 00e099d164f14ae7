"""Expectile: squared error with unequal prices for too low and too high."""

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
        formula=r"\bigl|\tau-\mathbf 1[x>y]\bigr|\,(x-y)^2",
        signatures=elementwise(input=REAL, target=REAL),
        options={"expectile": OPEN_UNIT},
        variants=({"expectile": 0.1}, {"expectile": 0.999}),
        exact=lambda mp, x, y, expectile=0.5: abs(mp.mpf(expectile) - int(x > y)) * (x - y) ** 2,
        points=(
            Point(1.0, 3.0, value=3.6, gradient=-3.6, expectile=0.9),  # by hand, too low by 2
            Point(3.0, 1.0, value=0.4, gradient=0.4, expectile=0.9),  # by hand, too high by 2
            Point(3.0, 1.0, value=2.0, gradient=2.0),  # identity: half the squared error
            Point(-1e18, 0.0, value=5e35, gradient=-1e18),  # extreme, still inside float32
        ),
        convex=True,
        zero_at_target=True,
        elicits="expectile",
        link="identity",
        aliases=("expectile", "asymmetric_squared_error"),
        use_when="a smooth relative of a quantile is wanted: every target counts, by its distance",
        avoid_when="the answer must be read as a share of cases: that is a quantile",
        source="Newey and Powell 1987, doi:10.2307/1911031",
    )
)
def expectile_loss(
    input: Tensor,
    target: Tensor,
    *,
    expectile: float = 0.5,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Squared error with unequal prices for too low and too high.

    The square of an input below the target counts ``expectile`` times, of one above it
    ``1 - expectile`` times. At 0.5 it is half the squared error, and elicits the mean.

    Args:
        input: Predicted expectile, ``(*)``, floating point, any real value.
        target: Observed values, ``(*)``, same shape as ``input``.
        expectile: Level of the expectile, in (0, 1); above 0.5 the answer lies above the mean.
        sample_weight: Weight of each element, ``(*)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(*)`` for ``reduction="none"``, in the squared unit of the target; dtype of
        ``input``.

    Raises:
        ValueError: If the shapes differ, ``expectile`` is outside (0, 1), or ``reduction`` is
            unknown.
        TypeError: If a tensor is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> input, target = torch.tensor([1.0, 3.0]), torch.tensor([3.0, 1.0])
        >>> lm.expectile_loss(input, target, expectile=0.9, reduction="none")
        tensor([3.6000, 0.4000])
    """
    too_low = torch.relu(target - input)
    too_high = torch.relu(input - target)
    return expectile * too_low * too_low + (1 - expectile) * too_high * too_high


class ExpectileLoss(Loss):
    """Module form of :func:`expectile_loss`."""

    expectile: float = 0.5
    function = staticmethod(expectile_loss)
