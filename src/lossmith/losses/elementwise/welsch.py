"""Welsch (Leclerc): squared error near the target, a constant far away."""

from torch import Tensor

from lossmith.core.card import Card, Point
from lossmith.core.domain import POSITIVE, REAL
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.numerics import expm1
from lossmith.core.reduction import Reduction
from lossmith.core.signature import elementwise


@loss(
    Card(
        task="regression",
        coupling="element",
        formula=r"1-\exp\left(-\tfrac12(r/c)^2\right)",
        signatures=elementwise(input=REAL, target=REAL),
        options={"scale": POSITIVE},
        variants=({"scale": 0.25}, {"scale": 3.0}),
        exact=lambda mp, x, y, scale=1.0: -mp.expm1(-(((x - y) / mp.mpf(scale)) ** 2) / 2),
        points=(
            # by hand: 1 - exp(-1/2), gradient exp(-1/2)
            Point(1.0, 0.0, value=0.3934693402873666, gradient=0.6065306597126334),
            # by hand: 1 - exp(-2), gradient -4 exp(-2)
            Point(-1.0, 0.0, value=0.8646647167633873, gradient=-0.5413411329464508, scale=0.5),
            Point(1e-6, 0.0, value=5e-13, gradient=1e-6),  # r^2 / 2, which 1 - exp loses
            Point(1e30, 0.0, value=1.0, gradient=0.0),  # extreme
        ),
        symmetric=True,
        zero_at_target=True,
        robust=True,
        elicits="mode",
        link="identity",
        aliases=("welsch", "leclerc"),
        use_when="gross errors should not count at all, and the start is already close",
        avoid_when="the start is far off: beyond a few scales there is no gradient left",
        source="Dennis and Welsch 1978, doi:10.1080/03610917808812083; Leclerc 1989, "
        "doi:10.1007/BF00054839",
    )
)
def welsch_loss(
    input: Tensor,
    target: Tensor,
    *,
    scale: float = 1.0,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Squared error near the target, the constant 1 far away.

    The pull is strongest at ``scale`` and gone beyond about 4 of them. Some texts multiply
    by ``scale^2``, so that the loss begins as half the squared error.

    Args:
        input: Model output, ``(*)``, floating point, any real value.
        target: Observed values, ``(*)``, same shape as ``input``.
        scale: Size of ordinary errors, ``> 0``, in the unit of the target.
        sample_weight: Weight of each element, ``(*)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(*)`` for ``reduction="none"``, in [0, 1]; dtype of ``input``.

    Raises:
        ValueError: If the shapes differ, ``scale <= 0``, or ``reduction`` is unknown.
        TypeError: If a tensor is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> lm.welsch_loss(torch.tensor([1.0, 100.0]), torch.zeros(2), reduction="none")
        tensor([0.3935, 1.0000])
    """
    ratio = (input - target) / scale
    return -expm1(-0.5 * ratio * ratio)


class WelschLoss(Loss):
    """Module form of :func:`welsch_loss`."""

    scale: float = 1.0
    function = staticmethod(welsch_loss)
