"""Absolute error."""

import torch._C._nn as kernels
from torch import Tensor

from lossmith.core.card import Card, Point
from lossmith.core.domain import REAL
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.reduction import Reduction
from lossmith.core.signature import elementwise


@loss(
    Card(
        task="regression",
        coupling="element",
        formula="|r|",
        signatures=elementwise(input=REAL, target=REAL),
        exact=lambda mp, x, y: abs(x - y),
        points=(
            Point(3.0, 1.0, value=2.0, gradient=1.0),  # by hand
            Point(-0.5, 1.0, value=1.5, gradient=-1.0),  # by hand, below the target
            Point(1.0, 1.0, value=0.0, gradient=0.0),  # the subgradient at the kink
            Point(1e30, 0.0, value=1e30, gradient=1.0),  # extreme
        ),
        kinks=(0.0,),
        convex=True,
        symmetric=True,
        zero_at_target=True,
        gradient_bound=1.0,
        robust=True,
        same_as="torch.nn.functional.l1_loss",
        elicits="median",
        link="identity",
        aliases=("l1", "mae", "absolute_error", "mean_absolute_error"),
        use_when="regression judged by absolute error, or with many outliers",
        avoid_when="small errors matter: the gradient does not shrink near the target",
        source="Boscovich 1757, De litteraria expeditione per pontificiam ditionem",
    ),
    native=kernels.l1_loss,
)
def l1_loss(
    input: Tensor,
    target: Tensor,
    *,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Absolute error, averaged over all elements.

    Its gradient is the sign of the residual (0 at 0), whatever the size of the error; the
    best constant is the median of the targets.

    Args:
        input: Model output, ``(*)``, floating point, any real value.
        target: Observed values, ``(*)``, same shape as ``input``.
        sample_weight: Weight of each element, ``(*)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(*)`` for ``reduction="none"``, in the unit of the target; dtype of ``input``.

    Raises:
        ValueError: If the shapes differ or ``reduction`` is unknown.
        TypeError: If a tensor is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> lm.l1_loss(torch.tensor([3.0, -0.5]), torch.ones(2), reduction="none")
        tensor([2.0000, 1.5000])
    """
    return (input - target).abs()


class L1Loss(Loss):
    """Module form of :func:`l1_loss`."""

    function = staticmethod(l1_loss)
