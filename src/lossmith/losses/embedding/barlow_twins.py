"""Barlow Twins: two views of a batch whose features agree, each with its own and no other."""

import torch
from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.domain import NONNEGATIVE, REAL
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.numerics import alike, centred, unit
from lossmith.core.reduction import Reduction
from lossmith.core.signature import Signature


@loss(
    Card(
        task="embedding",
        coupling="statistics",
        formula=r"\sum_i (1 - C_{ii})^2 + \lambda \sum_{i \ne j} C_{ij}^2,"
        r"\ C = \operatorname{corr}(z^A, z^B)",
        signatures=(Signature(view1=REAL("N D"), view2=REAL("N D"), out=""),),
        options={"lambd": NONNEGATIVE},
        variants=({"lambd": 0.5}, {"lambd": 0.0}),
        symmetric=True,
        aliases=("barlow",),
        use_when="two augmented views of each sample, no labels, and batches of moderate size",
        avoid_when="batches hold few samples: correlations of features are then mere noise",
        source="Zbontar 2021, arXiv:2103.03230",
    )
)
def barlow_twins_loss(
    view1: Tensor,
    view2: Tensor,
    *,
    lambd: float = 0.005,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Distance of the cross-correlation of the features of two views to the identity.

    Each feature is centred over the batch and brought to length 1. Features that are constant over
    the batch correlate with nothing, and have no gradient.

    Args:
        view1: Embeddings of one view, ``(N, D)``, floating point; a row per sample.
        view2: Embeddings of the other view, ``(N, D)``.
        lambd: Factor of the squared correlations of different features, ``>= 0``.
        sample_weight: Weight of the value, ``()``, ``>= 0``.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``: the value is one number.

    Returns:
        Scalar, ``>= 0``; dtype of ``view1``.

    Raises:
        ValueError: If the shapes differ, ``lambd < 0``, or ``reduction`` is unknown.
        TypeError: If a tensor is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> view = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
        >>> lm.barlow_twins_loss(view, view)
        tensor(0.)
        >>> lm.barlow_twins_loss(view, view.flip(1))
        tensor(2.0100)
    """
    if view1.shape[0] == 0:
        return (view1 + view2).sum()
    one, two = (unit(centred(view, 0), dim=0) for view in alike(view1, view2))
    off = torch.ones((one.shape[1], one.shape[1]), dtype=torch.bool, device=one.device)
    off = off ^ torch.eye(one.shape[1], dtype=torch.bool, device=one.device)
    # 1 - C of vectors of length 1 is half their squared distance, which does not cancel
    lengths = one.square().sum(0) + two.square().sum(0)
    apart = 0.5 * ((one - two).square().sum(0) + torch.where(lengths < 1.5, 2 - lengths, 0.0))
    return apart.square().sum() + lambd * torch.where(off, one.mT @ two, 0.0).square().sum()


class BarlowTwinsLoss(Loss):
    """Module form of :func:`barlow_twins_loss`."""

    lambd: float = 0.005
    function = staticmethod(barlow_twins_loss)
