"""Gaussian: the negative log-likelihood under a predicted mean and variance."""

import math

from torch import Tensor

from lossmith.core.card import Card, Point
from lossmith.core.domain import FLAG, NONNEGATIVE, REAL, SPREAD
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.reduction import Reduction
from lossmith.core.signature import elementwise
from lossmith.losses.elementwise.spread import floored, to_shape_of_input


@loss(
    Card(
        task="regression",
        coupling="element",
        formula=r"\tfrac12\Bigl(\log v + \frac{(x - y)^2}{v}\Bigr),"
        r" \quad v = \max(\mathrm{var}, \varepsilon)",
        signatures=elementwise(input=REAL, target=REAL, var=SPREAD),
        options={"full": FLAG, "eps": NONNEGATIVE},
        variants=({"full": True}, {"eps": 1e-3}, {"eps": 1e-9, "full": True}),
        exact=lambda mp, x, y, var, full=False, eps=1e-6: (
            (mp.log(max(var, eps)) + (x - y) ** 2 / max(var, mp.mpf(eps))) / 2
            + (mp.log(2 * mp.pi) / 2 if full else 0)
        ),
        points=(
            Point(3.0, 1.0, 1.0, value=2.0, gradient=2.0),  # by hand: (0 + 4) / 2
            Point(1.0, 1.0, math.e, value=0.5, gradient=0.0),  # by hand: log e / 2
            Point(1.0, 0.0, 0.0, value=499993.092244721, gradient=1e6),  # eps in place of 0
            # -log of the standard normal density at its mode
            Point(0.0, 0.0, 1.0, value=0.9189385332046727, gradient=0.0, full=True),
        ),
        convex=True,
        nonnegative=False,
        same_as="torch.nn.functional.gaussian_nll_loss",
        elicits="mean and variance",
        link="identity",
        aliases=("gaussian",),
        use_when="the size of the error varies with the input, and should be predicted too",
        avoid_when="there are outliers, or the variance can collapse on memorised samples",
        source="Nix & Weigend 1994, doi:10.1109/ICNN.1994.374138",
    ),
    arrange=to_shape_of_input,
)
def gaussian_nll_loss(
    input: Tensor,
    target: Tensor,
    var: Tensor,
    *,
    full: bool = False,
    eps: float = 1e-6,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Negative log-likelihood of a Gaussian with predicted mean and variance.

    The pull on the mean is the residual over the variance: samples that are predicted to be
    noisy pull less. Where ``var`` lies under ``eps`` it is replaced by ``eps`` and keeps its
    gradient, so a variance that collapsed can grow again.

    Args:
        input: Predicted mean, ``(*)``, floating point, any real value.
        target: Observed values, ``(*)``, same shape as ``input``.
        var: Predicted variance, ``>= 0``, in the squared unit of the target; of the shape of
            ``input``, or without its last dimension, or with size 1 in one dimension; or a float.
        full: Whether to add the constant ``log(2 pi) / 2``.
        eps: Smallest variance in use, ``>= 0``; with 0, ``var`` must be ``> 0``.
        sample_weight: Weight of each element, ``(*)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(*)`` for ``reduction="none"``; dtype of ``input``.

    Raises:
        ValueError: If shapes do not fit, a variance is below 0, ``eps < 0``, or ``reduction`` is
            unknown.
        TypeError: If a tensor is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> mean, var = torch.tensor([3.0, 3.0]), torch.tensor([1.0, 4.0])
        >>> lm.gaussian_nll_loss(mean, torch.tensor([1.0, 1.0]), var, reduction="none")
        tensor([2.0000, 1.1931])
    """
    v = floored("var", var, eps)
    residual = input - target
    # not the square first: it would overflow where the quotient does not
    value = 0.5 * (v.log() + residual * (residual / v))
    return value + 0.5 * math.log(2 * math.pi) if full else value


class GaussianNLLLoss(Loss):
    """Module form of :func:`gaussian_nll_loss`."""

    full: bool = False
    eps: float = 1e-6
    function = staticmethod(gaussian_nll_loss)
