"""Charbonnier: absolute error with a rounded tip."""

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
        formula=r"\sqrt{r^2+\varepsilon^2}",
        signatures=elementwise(input=REAL, target=REAL),
        options={"eps": POSITIVE},
        variants=({"eps": 0.05}, {"eps": 2.0}),
        exact=lambda mp, x, y, eps=1e-3: mp.sqrt((x - y) ** 2 + mp.mpf(eps) ** 2),
        points=(
            Point(3.0, 0.0, value=5.0, gradient=0.6, eps=4.0),  # by hand: 3, 4, 5
            Point(-1.5, 0.0, value=2.5, gradient=-0.6, eps=2.0),  # by hand: 1.5, 2, 2.5
            Point(0.0, 0.0, value=1e-3, gradient=0.0),  # at the target it is eps, not 0
            Point(1e30, 0.0, value=1e30, gradient=1.0),  # extreme: the square overflows float32
        ),
        convex=True,
        symmetric=True,
        gradient_bound=1.0,
        robust=True,
        elicits="between median and mean",
        link="identity",
        aliases=("charbonnier", "l1_charbonnier"),
        use_when="images or other dense outputs judged by absolute error",
        avoid_when="the value at a perfect fit must be 0",
        source="Charbonnier et al. 1994, doi:10.1109/ICIP.1994.413553; Lai 2017, arXiv:1704.03915",
    )
)
def charbonnier_loss(
    input: Tensor,
    target: Tensor,
    *,
    eps: float = 1e-3,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Absolute error with a rounded tip.

    A residual well above ``eps`` costs its size, a perfect one costs ``eps``. Shifted to 0
    and scaled by ``eps`` it is the pseudo-Huber loss with ``delta=eps``.

    Args:
        input: Model output, ``(*)``, floating point, any real value.
        target: Observed values, ``(*)``, same shape as ``input``.
        eps: Radius of the tip, ``> 0``, in the unit of the target; it enters as its square.
        sample_weight: Weight of each element, ``(*)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(*)`` for ``reduction="none"``, in the unit of the target; dtype of ``input``.

    Raises:
        ValueError: If the shapes differ, ``eps <= 0``, or ``reduction`` is unknown.
        TypeError: If a tensor is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> lm.charbonnier_loss(torch.tensor([0.0, 3.0]), torch.zeros(2), eps=4.0, reduction="none")
        tensor([4., 5.])
    """
    residual = input - target
    return torch.hypot(residual, eps * residual.new_ones(()))


class CharbonnierLoss(Loss):
    """Module form of :func:`charbonnier_loss`."""

    eps: float = 1e-3
    function = staticmethod(charbonnier_loss)
