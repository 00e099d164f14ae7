"""Squared error: the mean of squares, and half of it."""

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
        formula="r^2",
        signatures=elementwise(input=REAL, target=REAL),
        exact=lambda mp, x, y: (x - y) ** 2,
        points=(
            Point(3.0, 1.0, value=4.0, gradient=4.0),  # by hand
            Point(-0.5, 1.0, value=2.25, gradient=-3.0),  # by hand, below the target
            Point(1e18, 0.0, value=1e36, gradient=2e18),  # extreme, still inside float32
        ),
        convex=True,
        symmetric=True,
        zero_at_target=True,
        same_as="torch.nn.functional.mse_loss",
        elicits="mean",
        link="identity",
        aliases=("mse", "squared_error", "mean_squared_error"),
        use_when="regression whose answer is the mean, with errors of about normal size",
        avoid_when="a few targets are far off: an error twice as large pulls twice as hard",
        source="Gauss 1809, Theoria motus corporum coelestium",
    ),
    native=kernels.mse_loss,
)
def mse_loss(
    input: Tensor,
    target: Tensor,
    *,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Squared error, averaged over all elements.

    Its gradient is twice the residual; the best constant is the mean of the targets.
    It is not the root of the mean (:func:`rmse_loss`) nor half the square.

    Args:
        input: Model output, ``(*)``, floating point, any real value.
        target: Observed values, ``(*)``, same shape as ``input``.
        sample_weight: Weight of each element, ``(*)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(*)`` for ``reduction="none"``, in the squared unit of the target; dtype of
        ``input``.

    Raises:
        ValueError: If the shapes differ or ``reduction`` is unknown.
        TypeError: If a tensor is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> lm.mse_loss(torch.tensor([3.0, -0.5]), torch.ones(2), reduction="none")
        tensor([4.0000, 2.2500])
    """
    residual = input - target
    return residual * residual


class MSELoss(Loss):
    """Module form of :func:`mse_loss`."""

    function = staticmethod(mse_loss)


@loss(
    Card(
        task="regression",
        coupling="element",
        formula=r"\tfrac12 r^2",
        signatures=elementwise(input=REAL, target=REAL),
        exact=lambda mp, x, y: (x - y) ** 2 / 2,
        points=(
            Point(3.0, 1.0, value=2.0, gradient=2.0),  # by hand
            Point(-0.5, 1.0, value=1.125, gradient=-1.5),  # by hand, below the target
            Point(1e18, 0.0, value=5e35, gradient=1e18),  # extreme, still inside float32
        ),
        convex=True,
        symmetric=True,
        zero_at_target=True,
        elicits="mean",
        link="identity",
        aliases=("half_mse", "half_squared_error"),
        use_when="as squared error, where the gradient should be the residual itself",
        avoid_when="a few targets are far off: an error twice as large pulls twice as hard",
        source="Gauss 1809, Theoria motus corporum coelestium",
    )
)
def half_mse_loss(
    input: Tensor,
    target: Tensor,
    *,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Half the squared error, averaged over all elements.

    Its gradient is the residual itself. It is the negative log-likelihood of a normal
    distribution of variance 1, without the constant.

    Args:
        input: Model output, ``(*)``, floating point, any real value.
        target: Observed values, ``(*)``, same shape as ``input``.
        sample_weight: Weight of each element, ``(*)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(*)`` for ``reduction="none"``, in the squared unit of the target; dtype of
        ``input``.

    Raises:
        ValueError: If the shapes differ or ``reduction`` is unknown.
        TypeError: If a tensor is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> lm.half_mse_loss(torch.tensor([3.0, -0.5]), torch.ones(2), reduction="none")
        tensor([2.0000, 1.1250])
    """
    residual = input - target
    return 0.5 * residual * residual


class HalfMSELoss(Loss):
    """Module form of :func:`half_mse_loss`."""

    function = staticmethod(half_mse_loss)
