"""Laplace: the negative log-likelihood under a predicted median and scale."""

import math

from torch import Tensor

from lossmith.core.card import Card, Point
from lossmith.core.domain import NONNEGATIVE, REAL, SPREAD
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.reduction import Reduction
from lossmith.core.signature import elementwise
from lossmith.losses.elementwise.spread import floored, to_shape_of_input


@loss(
    Card(
        task="regression",
        coupling="element",
        formula=r"\log 2b + \frac{|x - y|}{b}, \quad b = \max(\mathrm{scale}, \varepsilon)",
        signatures=elementwise(input=REAL, target=REAL, scale=SPREAD),
        options={"eps": NONNEGATIVE},
        variants=({"eps": 1e-3}, {"eps": 0.02}),
        exact=lambda mp, x, y, scale, eps=1e-6: (
            mp.log(2 * max(scale, eps)) + abs(x - y) / max(scale, mp.mpf(eps))
        ),
        points=(
            Point(3.0, 1.0, 0.5, value=4.0, gradient=2.0),  # by hand: log 1 + 2 / 0.5
            Point(1.0, 1.0, 0.5 * math.e, value=1.0, gradient=0.0),  # by hand: log e
            Point(-1e18, 0.0, 1.0, value=1e18, gradient=-1.0),  # log 2 is below the last digit
            Point(1.0, 0.0, 0.0, value=999986.8776366225, gradient=1e6),  # eps in place of 0
        ),
        convex=True,
        nonnegative=False,
        robust=True,
        elicits="median and mean absolute deviation from it",
        link="identity",
        aliases=("laplace",),
        use_when="the size of the error should be predicted, and there are outliers",
        avoid_when="the mean is wanted rather than the median",
        source="Kotz, Kozubowski & Podgorski 2001, The Laplace Distribution and Generalizations"
        " (Birkhauser)",
    ),
    arrange=to_shape_of_input,
)
def laplace_nll_loss(
    input: Tensor,
    target: Tensor,
    scale: Tensor,
    *,
    eps: float = 1e-6,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Negative log-likelihood of a Laplace distribution with predicted scale.

    Absolute error over the scale ``b``, with nothing dropped: ``b`` itself is wanted, not its log
    and not the variance, which is ``2 b^2``. A ``scale`` under ``eps`` is replaced by ``eps`` and
    keeps its gradient.

    Args:
        input: Predicted median, ``(*)``, floating point, any real value.
        target: Observed values, ``(*)``, same shape as ``input``.
        scale: Predicted scale, ``>= 0``, in the unit of the target; of the shape of ``input``, or
            without its last dimension, or with size 1 in one dimension; or a float.
        eps: Smallest scale in use, ``>= 0``; with 0, ``scale`` must be ``> 0``.
        sample_weight: Weight of each element, ``(*)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(*)`` for ``reduction="none"``; dtype of ``input``.

    Raises:
        ValueError: If shapes do not fit, a scale is below 0, ``eps < 0``, or ``reduction`` is
            unknown.
        TypeError: If a tensor is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> median, scale = torch.tensor([3.0, 3.0]), torch.tensor([0.5, 2.0])
        >>> lm.laplace_nll_loss(median, torch.tensor([1.0, 1.0]), scale, reduction="none")
        tensor([4.0000, 2.3863])
    """
    b = floored("scale", scale, eps)
    return (2 * b).log() + (input - target).abs() / b


class LaplaceNLLLoss(Loss):
    """Module form of :func:`laplace_nll_loss`."""

    eps: float = 1e-6
    function = staticmethod(laplace_nll_loss)
