"""Cauchy (Lorentzian): the logarithm of the squared error in the tails."""

import math

from torch import Tensor

from lossmith.core.card import Card, Point
from lossmith.core.domain import POSITIVE, REAL
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.numerics import log1p_square
from lossmith.core.reduction import Reduction
from lossmith.core.signature import elementwise


@loss(
    Card(
        task="regression",
        coupling="element",
        formula=r"\log\left(1+\tfrac12(r/c)^2\right)",
        signatures=elementwise(input=REAL, target=REAL),
        options={"scale": POSITIVE},
        variants=({"scale": 0.25}, {"scale": 3.0}),
        exact=lambda mp, x, y, scale=1.0: mp.log1p(((x - y) / mp.mpf(scale)) ** 2 / 2),
        points=(
            Point(2.0, 0.0, value=1.0986122886681098, gradient=2 / 3),  # by hand: log 3
            # by hand: log(1 + 8) with r / c = -4
            Point(-2.0, 0.0, value=2.1972245773362196, gradient=-8 / 9, scale=0.5),
            Point(1e-6, 0.0, value=5e-13, gradient=1e-6),  # r^2 / 2, which log(1 + small) loses
            # extreme, 60 log 10 - log 2: the square overflows float32
            Point(1e30, 0.0, value=137.46195840088304, gradient=2e-30),
        ),
        symmetric=True,
        zero_at_target=True,
        robust=True,
        elicits="mode",
        link="identity",
        aliases=("cauchy", "lorentzian"),
        use_when="heavy tails: errors far beyond the scale should hardly count",
        avoid_when="the start is far off: the pull fades with distance, and the loss is not convex",
        source="Black and Anandan 1996, doi:10.1006/cviu.1996.0006; Barron 2019, arXiv:1701.03077",
    )
)
def cauchy_loss(
    input: Tensor,
    target: Tensor,
    *,
    scale: float = 1.0,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Half the squared error near the target, its logarithm in the tails.

    The pull is strongest at ``sqrt(2) scale`` and fades as 2/r beyond. Some texts write
    ``scale^2/2 log(1 + (r/scale)^2)``: that is ``scale^2/2`` times this at ``scale/sqrt(2)``.

    Args:
        input: Model output, ``(*)``, floating point, any real value.
        target: Observed values, ``(*)``, same shape as ``input``.
        scale: Size of ordinary errors, ``> 0``, in the unit of the target.
        sample_weight: Weight of each element, ``(*)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(*)`` for ``reduction="none"``, without unit; dtype of ``input``.

    Raises:
        ValueError: If the shapes differ, ``scale <= 0``, or ``reduction`` is unknown.
        TypeError: If a tensor is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> lm.cauchy_loss(torch.tensor([2.0, 100.0]), torch.zeros(2), reduction="none")
        tensor([1.0986, 8.5174])
    """
    return log1p_square((input - target) / (math.sqrt(2.0) * scale))


class CauchyLoss(Loss):
    """Module form of :func:`cauchy_loss`."""

    scale: float = 1.0
    function = staticmethod(cauchy_loss)
