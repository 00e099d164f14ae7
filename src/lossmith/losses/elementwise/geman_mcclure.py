"""Geman-McClure: squared error near the target, a constant far away."""

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
        formula=r"\frac{2(r/c)^2}{(r/c)^2+4}",
        signatures=elementwise(input=REAL, target=REAL),
        options={"scale": POSITIVE},
        variants=({"scale": 0.25}, {"scale": 3.0}),
        exact=lambda mp, x, y, scale=1.0: (
            2 * (x - y) ** 2 / ((x - y) ** 2 + 4 * mp.mpf(scale) ** 2)
        ),
        points=(
            Point(1.0, 0.0, value=0.4, gradient=0.64),  # by hand: 2/5, 16/25
            Point(-4.0, 0.0, value=1.6, gradient=-0.16),  # by hand: 32/20, 64/400
            Point(2.0, 0.0, value=1.6, gradient=0.32, scale=0.5),  # the same at half the scale
            Point(1e30, 0.0, value=2.0, gradient=0.0),  # extreme: the square overflows float32
        ),
        symmetric=True,
        zero_at_target=True,
        robust=True,
        elicits="mode",
        link="identity",
        aliases=("geman_mcclure",),
        use_when="gross errors should hardly count, and the start is close enough",
        avoid_when="the start is far off: the pull fades with the third power of the distance",
        source="Geman and McClure 1985, Bayesian image analysis (ASA Statistical Computing "
        "Section); Barron 2019, arXiv:1701.03077",
    )
)
def geman_mcclure_loss(
    input: Tensor,
    target: Tensor,
    *,
    scale: float = 1.0,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Squared error near the target, the constant 2 far away.

    It begins as half the square of ``r/scale``, and is half of its largest value at
    ``2 scale``. Some texts write ``r^2/(r^2 + s^2)``: that is half of this with ``s = 2 scale``.

    Args:
        input: Model output, ``(*)``, floating point, any real value.
        target: Observed values, ``(*)``, same shape as ``input``.
        scale: Size of ordinary errors, ``> 0``, in the unit of the target.
        sample_weight: Weight of each element, ``(*)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(*)`` for ``reduction="none"``, in [0, 2]; dtype of ``input``.

    Raises:
        ValueError: If the shapes differ, ``scale <= 0``, or ``reduction`` is unknown.
        TypeError: If a tensor is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> lm.geman_mcclure_loss(torch.tensor([1.0, 100.0]), torch.zeros(2), reduction="none")
        tensor([0.4000, 1.9992])
    """
    ratio = (input - target) / scale
    square = ratio * ratio
    # the quotient keeps the digits of a small ratio, the difference those of a large one's gradient
    near = square < 1
    inner = torch.where(near, square, 0.0)
    return torch.where(near, 2 * inner / (inner + 4), 2 - 8 / (square + 4))


class GemanMcClureLoss(Loss):
    """Module form of :func:`geman_mcclure_loss`."""

    scale: float = 1.0
    function = staticmethod(geman_mcclure_loss)
