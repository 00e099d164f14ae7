"""Hinge and squared hinge: no loss beyond the margin; scores against labels of -1 and 1."""

import torch
from torch import Tensor

from lossmith.core.card import Card, Point
from lossmith.core.domain import POSITIVE, REAL, SIGN
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.reduction import Reduction
from lossmith.core.signature import elementwise


@loss(
    Card(
        task=("binary", "multilabel"),
        coupling="element",
        formula=r"\max(0, m - y x)",
        signatures=elementwise(input=REAL, target=SIGN),
        options={"margin": POSITIVE},
        variants=({"margin": 0.5}, {"margin": 2.0}),
        exact=lambda mp, x, y, margin=1.0: max(mp.zero, mp.mpf(margin) - y * x),
        points=(
            Point(0.25, 1.0, value=0.75, gradient=-1.0),  # by hand, inside the margin
            Point(2.0, 1.0, value=0.0, gradient=0.0),  # by hand, beyond it
            Point(3.0, -1.0, value=4.0, gradient=1.0),  # by hand, on the wrong side
        ),
        kinks=(1.0, -1.0),
        convex=True,
        gradient_bound=1.0,
        elicits="mode",
        link="identity",
        aliases=("hinge", "svm"),
        use_when="only the side of the boundary matters",
        avoid_when="probabilities are wanted",
        source="Cortes & Vapnik 1995, doi:10.1007/BF00994018",
    )
)
def hinge_loss(
    input: Tensor,
    target: Tensor,
    *,
    margin: float = 1.0,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """How far a score falls short of the margin on its label's side.

    The gradient is minus the label inside the margin and 0 beyond it.

    Args:
        input: Scores, ``(*)``, floating point, any real value; the sign is the predicted label.
        target: Labels, -1 or 1, ``(*)``, same shape as ``input``.
        margin: Score from which a right prediction costs nothing, ``> 0``.
        sample_weight: Weight of each element, ``(*)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(*)`` for ``reduction="none"``; dtype of ``input``.

    Raises:
        ValueError: If the shapes differ, ``margin <= 0``, or a label is neither -1 nor 1.
        TypeError: If ``input`` is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> scores, labels = torch.tensor([0.25, 3.0]), torch.tensor([1.0, -1.0])
        >>> lm.hinge_loss(scores, labels, reduction="none")
        tensor([0.7500, 4.0000])
    """
    return torch.relu(margin - target * input)


class HingeLoss(Loss):
    """Module form of :func:`hinge_loss`."""

    margin: float = 1.0
    function = staticmethod(hinge_loss)


@loss(
    Card(
        task=("binary", "multilabel"),
        coupling="element",
        formula=r"\max(0, m - y x)^2",
        signatures=elementwise(input=REAL, target=SIGN),
        options={"margin": POSITIVE},
        variants=({"margin": 0.5}, {"margin": 2.0}),
        exact=lambda mp, x, y, margin=1.0: max(mp.zero, mp.mpf(margin) - y * x) ** 2,
        points=(
            Point(0.25, 1.0, value=0.5625, gradient=-1.5),  # by hand, inside the margin
            Point(2.0, 1.0, value=0.0, gradient=0.0),  # by hand, beyond it
            Point(3.0, -1.0, value=16.0, gradient=8.0),  # by hand, on the wrong side
        ),
        convex=True,
        elicits="mean",
        link="identity",
        aliases=("squared_hinge",),
        use_when="only the side of the boundary matters, and a smooth loss is wanted",
        avoid_when="some labels are wrong: their pull grows with the distance",
        source="Cortes & Vapnik 1995, doi:10.1007/BF00994018",
    )
)
def squared_hinge_loss(
    input: Tensor,
    target: Tensor,
    *,
    margin: float = 1.0,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Square of the distance by which a score falls short of the margin.

    Args:
        input: Scores, ``(*)``, floating point, any real value; the sign is the predicted label.
        target: Labels, -1 or 1, ``(*)``, same shape as ``input``.
        margin: Score from which a right prediction costs nothing, ``> 0``.
        sample_weight: Weight of each element, ``(*)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(*)`` for ``reduction="none"``; dtype of ``input``.

    Raises:
        ValueError: If the shapes differ, ``margin <= 0``, or a label is neither -1 nor 1.
        TypeError: If ``input`` is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> scores, labels = torch.tensor([0.25, 3.0]), torch.tensor([1.0, -1.0])
        >>> lm.squared_hinge_loss(scores, labels, reduction="none")
        tensor([ 0.5625, 16.0000])
    """
    return torch.relu(margin - target * input) ** 2


class SquaredHingeLoss(Loss):
    """Module form of :func:`squared_hinge_loss`."""

    margin: float = 1.0
    function = staticmethod(squared_hinge_loss)
