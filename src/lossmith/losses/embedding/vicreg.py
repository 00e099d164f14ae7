"""VICReg: views that agree, features that vary, features that do not repeat each other."""

import torch
from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.domain import NONNEGATIVE, POSITIVE, REAL
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.reduction import Reduction
from lossmith.core.signature import Signature


def _spread(view: Tensor, gamma: float, eps: float) -> tuple[Tensor, Tensor]:
    """Hinge on the standard deviations, and the sum of squared covariances, over the features."""
    count, size = view.shape
    centred = view - view.mean(0)
    degrees = max(count - 1, 1)
    deviation = (centred.square().sum(0) / degrees + eps).sqrt()
    covariance = centred.mT @ centred / degrees
    off = ~torch.eye(size, dtype=torch.bool, device=view.device)
    repeated = torch.where(off, covariance, 0.0).square().sum()
    return (gamma - deviation).clamp(min=0).sum() / max(size, 1), repeated / max(size, 1)


@loss(
    Card(
        task="embedding",
        coupling="statistics",
        formula=r"\lambda \overline{(z - z')^2}"
        r" + \frac{\mu}{D} \sum_{z, j} \max(0, \gamma - \sqrt{\operatorname{var}(z_j) + \epsilon})"
        r" + \frac{\nu}{D} \sum_z \sum_{i \ne j} \operatorname{cov}(z_i, z_j)^2",
        signatures=(Signature(view1=REAL("N D"), view2=REAL("N D"), out=""),),
        options={
            "invariance": NONNEGATIVE,
            "variance": NONNEGATIVE,
            "covariance": NONNEGATIVE,
            "gamma": NONNEGATIVE,
            "eps": POSITIVE,
        },
        variants=(
            {"invariance": 1.0, "variance": 2.0, "covariance": 3.0, "gamma": 4.0},
            {"variance": 0.0, "eps": 0.01},
        ),
        symmetric=True,
        aliases=("vicreg",),
        use_when="two views, or two different networks, that must not collapse to a constant",
        avoid_when="batches hold few samples: variances of features are then mere noise",
        source="Bardes 2022, arXiv:2105.04906",
    )
)
def vicreg_loss(
    view1: Tensor,
    view2: Tensor,
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
    gamma: float = 1.0,
    eps: float = 1e-4,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Squared distance of two views, plus a price on flat and on repeated features.

    The invariance is the mean over samples and features, as in the paper's algorithm, for which the
    factors were chosen (its equation sums over the features). Variances and covariances divide by
    N - 1.

    Args:
        view1: Embeddings of one view, ``(N, D)``, floating point; a row per sample.
        view2: Embeddings of the other view, ``(N, D)``.
        invariance: Factor of the mean squared distance (lambda), ``>= 0``.
        variance: Factor of the hinge on the standard deviations (mu), ``>= 0``.
        covariance: Factor of the squared covariances (nu), ``>= 0``.
        gamma: Standard deviation that is enough, ``>= 0``, in units of the embedding.
        eps: Added to the variance under the root, ``> 0``.
        sample_weight: Weight of the value, ``()``, ``>= 0``.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``: the value is one number.

    Returns:
        Scalar, ``>= 0``; dtype of ``view1``.

    Raises:
        ValueError: If the shapes differ, an option is out of range, or ``reduction`` is unknown.
        TypeError: If a tensor is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> view = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
        >>> lm.vicreg_loss(view, view), lm.vicreg_loss(view, 0 * view)
        (tensor(0.), tensor(49.7500))
    """
    if view1.numel() == 0:
        return (view1 + view2).sum()
    apart = view1 - view2
    value = _times(invariance, apart.square().mean()) + 0.0 * apart.clamp(-1, 1).sum()
    for view in (view1, view2):
        flat, repeated = _spread(view, gamma, eps)
        value = value + _times(variance, flat) + _times(covariance, repeated)
    return value


def _times(factor: float | Tensor, part: Tensor) -> Tensor:
    """What is left out by a factor of 0 counts nothing, even where it overflows."""
    return factor * part if isinstance(factor, Tensor) or factor else torch.zeros_like(part)


class VICRegLoss(Loss):
    """Module form of :func:`vicreg_loss`."""

    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0
    gamma: float = 1.0
    eps: float = 1e-4
    function = staticmethod(vicreg_loss)
