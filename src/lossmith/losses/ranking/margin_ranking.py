"""Hinge on the difference of two scores."""

import functools

import torch
from torch import Tensor

from lossmith.core.card import Card, Point
from lossmith.core.domain import REAL, SIGN
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.reduction import Reduction
from lossmith.core.signature import elementwise
from lossmith.engines.pull import with_pull

# Below this size the calls cost more than the passes over memory, and torch makes fewer of them.
SMALL = 1 << 14


def _cost(input1: Tensor, input2: Tensor, target: Tensor, margin: float) -> Tensor:
    return (margin - target * (input1 - input2)).clamp(min=0)


def _one_pass(
    input1: Tensor, input2: Tensor, target: Tensor, reduction: int, margin: float = 0.0
) -> Tensor | None:
    leaves = (input1, input2)
    if input1.numel() < SMALL:
        return torch.margin_ranking_loss(input1, input2, target, margin, reduction)
    if target.requires_grad:
        return None
    first, second = input1.detach(), input2.detach()
    cost = (second - first).mul_(target)
    if margin:
        cost.add_(margin)
    force = target * (cost >= 0)
    value = cost.clamp_(min=0)

    plain, others = functools.partial(_cost, margin=margin), (target,)
    return with_pull(value, reduction, _pull, plain, leaves=leaves, others=others, kept=(force,))


def _pull(
    grad: Tensor, needed: tuple[bool, ...], leaves: tuple[Tensor, ...], force: Tensor
) -> tuple[Tensor | None, ...]:
    return force * -grad if needed[0] else None, force * grad if needed[1] else None


@loss(
    Card(
        task="ranking",
        coupling="element",
        formula=r"\max(0,\; m - y\,(x_1 - x_2))",
        signatures=elementwise(input1=REAL, input2=REAL, target=SIGN),
        options={"margin": REAL},
        variants=({"margin": 0.5}, {"margin": 2.0}),
        exact=lambda mp, x1, x2, y, margin=0.0: max(mp.zero, mp.mpf(margin) - y * (x1 - x2)),
        points=(
            Point(0.5, 2.0, 1.0, value=1.5, gradient=-1.0),  # by hand: the order is wrong
            Point(0.5, 2.0, -1.0, value=0.0, gradient=0.0),  # by hand: the order is right
            Point(0.5, 0.0, 1.0, value=1.5, gradient=-1.0, margin=2.0),  # right, but too close
            Point(1e30, 0.0, -1.0, value=1e30, gradient=1.0),  # extreme
        ),
        convex=True,
        gradient_bound=1.0,
        robust=True,
        same_as="torch.nn.functional.margin_ranking_loss",
        elicits="order",
        aliases=("margin_ranking", "pairwise_hinge"),
        use_when="pairs of scores whose order is known, and a fixed gap is enough",
        avoid_when="whole lists with graded relevance are at hand",
        source="Herbrich, Graepel and Obermayer 1999, doi:10.1049/cp:19991091",
    ),
    native=_one_pass,
)
def margin_ranking_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    *,
    margin: float = 0.0,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Hinge on the difference of two scores.

    A pair in the right order, with at least the margin between the scores, costs nothing; any
    other pulls with a constant force. Equal scores are pulled apart even at margin 0.

    Args:
        input1: First scores, ``(*)``, floating point, any real value.
        input2: Second scores, ``(*)``, same shape as ``input1``.
        target: 1 where the first score should be higher, -1 where the second should; ``(*)``.
        margin: Wanted gap between the two, any real value, in the unit of the scores.
        sample_weight: Weight of each pair, ``(*)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(*)`` for ``reduction="none"``, in the unit of the scores; dtype of ``input1``.

    Raises:
        ValueError: If the shapes differ, a target is neither -1 nor 1, or ``reduction`` is unknown.
        TypeError: If ``input1`` or ``input2`` is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> first, second = torch.tensor([0.5, 0.5]), torch.tensor([2.0, 2.0])
        >>> lm.margin_ranking_loss(first, second, torch.tensor([1.0, -1.0]), reduction="none")
        tensor([1.5000, 0.0000])
    """
    return _cost(input1, input2, target, margin)


class MarginRankingLoss(Loss):
    """Module form of :func:`margin_ranking_loss`."""

    margin: float = 0.0
    function = staticmethod(margin_ranking_loss)
