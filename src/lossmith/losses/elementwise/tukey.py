"""Tukey's biweight: squared error near the target, exactly constant beyond a cut-off."""

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
        formula=r"\begin{cases}\tfrac{c^2}{6}\left(1-(1-(r/c)^2)^3\right) & |r|\le c\\"
        r" \tfrac{c^2}{6} & |r|>c\end{cases}",
        signatures=elementwise(input=REAL, target=REAL),
        options={"scale": POSITIVE},
        variants=({"scale": 1.0}, {"scale": 9.0}),
        exact=lambda mp, x, y, scale=4.685: (
            mp.mpf(scale) ** 2 / 6 * (1 - (1 - min(((x - y) / mp.mpf(scale)) ** 2, 1)) ** 3)
        ),
        points=(
            Point(1.0, 0.0, value=37 / 96, gradient=9 / 16, scale=2.0),  # by hand: 1 - (3/4)^3
            Point(-3.0, 0.0, value=2 / 3, gradient=0.0, scale=2.0),  # by hand: 4/6 beyond the end
            Point(1e-6, 0.0, value=5e-13, gradient=1e-6),  # r^2 / 2, which 1 - (1 - s)^3 loses
            Point(1e30, 0.0, value=4.685**2 / 6, gradient=0.0),  # extreme
        ),
        symmetric=True,
        zero_at_target=True,
        robust=True,
        elicits="mode",
        link="identity",
        aliases=("tukey", "biweight", "bisquare"),
        use_when="gross errors should not count at all, and a robust scale is known",
        avoid_when="the start is far off: beyond the cut-off there is no gradient at all",
        source="Beaton and Tukey 1974, doi:10.1080/00401706.1974.10489171",
    )
)
def tukey_loss(
    input: Tensor,
    target: Tensor,
    *,
    scale: float = 4.685,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Squared error near the target, exactly constant beyond a cut-off.

    Its gradient is ``r (1 - (r/scale)^2)^2`` inside and 0 outside. At 4.685 standard
    deviations it has 95 % of the efficiency of the mean under normal errors.

    Args:
        input: Model output, ``(*)``, floating point, any real value.
        target: Observed values, ``(*)``, same shape as ``input``.
        scale: Error size from which on errors do not count, ``> 0``, in the unit of the target.
        sample_weight: Weight of each element, ``(*)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(*)`` for ``reduction="none"``, in the squared unit of the target; dtype of
        ``input``.

    Raises:
        ValueError: If the shapes differ, ``scale <= 0``, or ``reduction`` is unknown.
        TypeError: If a tensor is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> lm.tukey_loss(torch.tensor([1.0, 3.0]), torch.zeros(2), scale=2.0, reduction="none")
        tensor([0.3854, 0.6667])
    """
    ratio = (input - target) / scale
    square = ratio * ratio
    # 1 - (1 - s)^3 = s (3 - 3s + s^2): the right side keeps the digits of a small s, the left side
    # those of the gradient near the cut-off
    near = square < 0.25
    inner = torch.where(near, square, 0.0)
    rest = (1 - square).clamp(min=0)
    share = torch.where(near, inner * (3 - 3 * inner + inner * inner), 1 - rest * rest * rest)
    return scale * scale / 6 * share


class TukeyLoss(Loss):
    """Module form of :func:`tukey_loss`."""

    scale: float = 4.685
    function = staticmethod(tukey_loss)
