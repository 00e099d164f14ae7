"""Two roots: of the mean of all squares, and of the sum of squares of each sample."""

from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.domain import REAL
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.numerics import safe_norm
from lossmith.core.reduction import Reduction, Terms
from lossmith.core.signature import Signature, elementwise


@loss(
    Card(
        task="regression",
        coupling="statistics",
        formula=r"\sqrt{\frac{\sum_i w_i r_i^2}{\sum_i w_i}}",
        signatures=elementwise(input=REAL, target=REAL),
        convex=True,
        symmetric=True,
        zero_at_target=True,
        plain_mean=False,
        elicits="mean",
        link="identity",
        aliases=("rmse", "root_mean_squared_error"),
        use_when="the loss should be read in the unit of the target",
        avoid_when="batches are small: the mean of the roots is not the root of the mean",
        source="Gauss 1809, Theoria motus corporum coelestium",
    )
)
def rmse_loss(
    input: Tensor,
    target: Tensor,
    *,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor | Terms:
    """Root of the mean of squares over all elements.

    Its gradient is that of the mean of squares over twice the root; 0 at a perfect fit,
    where the plain formula gives NaN.

    Args:
        input: Model output, ``(*)``, floating point, any real value.
        target: Observed values, ``(*)``, same shape as ``input``.
        sample_weight: Weight of each squared residual, ``(*)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (root of the weighted mean of squares), ``"sum"`` (root of their
            weighted sum) or ``"none"`` (root of each weighted square: ``|r|`` without weights).

    Returns:
        Scalar, or ``(*)`` for ``reduction="none"``, in the unit of the target; dtype of ``input``.

    Raises:
        ValueError: If the shapes differ or ``reduction`` is unknown.
        TypeError: If a tensor is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> lm.rmse_loss(torch.tensor([1.0, 7.0]), torch.zeros(2))
        tensor(5.)
    """
    residual = input - target
    return Terms(residual * residual, root=True)


class RMSELoss(Loss):
    """Module form of :func:`rmse_loss`."""

    function = staticmethod(rmse_loss)


@loss(
    Card(
        task="regression",
        coupling="row",
        formula=r"\sqrt{\sum_d r_d^2}",
        signatures=(Signature(input=REAL("* D"), target=REAL("* D"), out="*"),),
        convex=True,
        symmetric=True,
        zero_at_target=True,
        gradient_bound=1.0,
        robust=True,
        elicits="spatial median",
        link="identity",
        aliases=("l2_norm", "euclidean_distance"),
        use_when="targets are points or vectors, and their distance is what counts",
        avoid_when="the components have different units",
        source="Haldane 1948, Note on the median of a multivariate distribution (Biometrika)",
    )
)
def l2_norm_loss(
    input: Tensor,
    target: Tensor,
    *,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Euclidean distance of each sample to its target, along the last dimension.

    Its gradient is the unit vector away from the target, and 0 at the target. The best
    constant is the spatial (geometric) median, not the mean.

    Args:
        input: Predicted vectors, ``(*, D)``, floating point, any real value.
        target: Observed vectors, ``(*, D)``, same shape as ``input``.
        sample_weight: Weight of each vector, ``(*)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(*)`` for ``reduction="none"``, in the unit of the target; dtype of ``input``.

    Raises:
        ValueError: If the shapes differ, there is no dimension, or ``reduction`` is unknown.
        TypeError: If a tensor is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> lm.l2_norm_loss(torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2))
        tensor(5.)
    """
    return safe_norm(input - target, dim=-1)


class L2NormLoss(Loss):
    """Module form of :func:`l2_norm_loss`."""

    function = staticmethod(l2_norm_loss)
