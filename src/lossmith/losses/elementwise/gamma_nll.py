"""Gamma: the negative log-likelihood of positive amounts, from the log of their mean."""

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
        formula=r"x + y e^{-x}, \quad x = \log \mu",
        signatures=elementwise(input=REAL, target=POSITIVE),
        exact=lambda mp, x, y: x + y * mp.exp(-x),
        points=(
            Point(0.0, 1.0, value=1.0, gradient=0.0),  # by hand: log 1 + 1 / 1, mean hit
            Point(0.0, 3.0, value=3.0, gradient=-2.0),  # by hand: 0 + 3, slope 1 - 3
            Point(-1.0, 0.5, value=0.35914091422952255, gradient=-0.35914091422952255),  # e/2 - 1
            # e^100 is no float32
            Point(-100.0, 1e-30, value=26881171418061.36, gradient=-26881171418160.36),
        ),
        convex=True,
        nonnegative=False,
        elicits="mean",
        link="log",
        aliases=("gamma",),
        use_when="positive, skewed targets whose errors grow with their size",
        avoid_when="targets can be 0",
        source="Nelder & Wedderburn 1972, doi:10.2307/2344614",
    )
)
def gamma_nll_loss(
    input: Tensor,
    target: Tensor,
    *,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Negative log-likelihood of a gamma distribution, from the log of its mean.

    The pull is the relative error. With shape ``k`` the likelihood is ``k`` times this plus
    ``log Gamma(k) - k log k - (k - 1) log y``, which does not depend on ``input``: ``k`` and these
    terms are dropped, so values can be negative.

    Args:
        input: Log of the expected value, ``(*)``, floating point, any real value.
        target: Observed values, ``(*)``, same shape as ``input``, ``> 0``.
        sample_weight: Weight of each element, ``(*)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(*)`` for ``reduction="none"``; dtype of ``input``.

    Raises:
        ValueError: If the shapes differ, a target is ``<= 0``, or ``reduction`` is unknown.
        TypeError: If a tensor is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> log_mean = torch.tensor([0.0, 1.0])
        >>> lm.gamma_nll_loss(log_mean, torch.tensor([3.0, 3.0]), reduction="none")
        tensor([3.0000, 2.1036])
    """
    # In two halves: e^-x alone overflows long before its product with a small target does.
    half = (-0.5 * input).exp()
    return input + target * half * half


class GammaNLLLoss(Loss):
    """Module form of :func:`gamma_nll_loss`."""

    function = staticmethod(gamma_nll_loss)
