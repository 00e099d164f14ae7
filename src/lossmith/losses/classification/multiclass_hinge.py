"""Multi-class hinge: by the strongest rival (Crammer-Singer) and by all (Weston-Watkins)."""

import torch
from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.domain import CLASS, POSITIVE, REAL, Whole
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.numerics import take_class
from lossmith.core.reduction import Reduction
from lossmith.core.signature import Signature

SIGNATURES = (
    Signature(input=REAL("N C *"), target=CLASS("N *"), out="N *"),
    Signature(input=REAL("C"), target=CLASS(""), out=""),
)


def _leads(input: Tensor, target: Tensor, margin: float) -> Tensor:
    """``max(0, margin - own + rival)`` for each class, 0 for the own."""
    dim = 1 if input.ndim > 1 else 0
    own = take_class(input, target, dim=dim).unsqueeze(dim)
    return torch.relu(margin - own + input).scatter(dim, target.unsqueeze(dim), 0.0)


@loss(
    Card(
        task="multiclass",
        coupling="row",
        formula=r"\max(0, m - x_y + \max_{c \ne y} x_c)",
        signatures=SIGNATURES,
        options={"margin": POSITIVE, "ignore_index": Whole()},
        variants=({"margin": 0.3}, {"margin": 2.5}),
        convex=True,
        gradient_bound=1.0,
        elicits="mode",
        link="identity",
        aliases=("crammer_singer",),
        use_when="only the winning class matters",
        avoid_when="probabilities are wanted",
        source="Crammer & Singer 2001, On the algorithmic implementation of multiclass"
        " kernel-based vector machines (JMLR 2)",
    )
)
def multiclass_hinge_loss(
    input: Tensor,
    target: Tensor,
    *,
    margin: float = 1.0,
    ignore_index: int = -100,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """How far the strongest wrong class comes within the margin of the right one.

    Args:
        input: Class scores, ``(N, C, *)`` or ``(C)``, floating point, any real value.
        target: Class indices in [0, C-1], ``(N, *)`` or ``()``, integers.
        margin: Lead from which a wrong class costs nothing, ``> 0``.
        ignore_index: Targets with this value are absent; any integer, inside or outside [0, C-1].
        sample_weight: Weight of each sample, ``(N, *)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N, *)`` for ``reduction="none"``; dtype of ``input``.

    Raises:
        ValueError: If shapes do not fit, a class is outside [0, C-1], or ``margin <= 0``.
        TypeError: If ``input`` is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> scores = torch.tensor([[0.1, 0.2, 0.7], [0.2, 0.5, 0.3]])
        >>> lm.multiclass_hinge_loss(scores, torch.tensor([1, 2]), reduction="none")
        tensor([1.5000, 1.2000])
    """
    return _leads(input, target, margin).amax(1 if input.ndim > 1 else 0)


class MulticlassHingeLoss(Loss):
    """Module form of :func:`multiclass_hinge_loss`."""

    margin: float = 1.0
    ignore_index: int = -100
    function = staticmethod(multiclass_hinge_loss)


@loss(
    Card(
        task="multiclass",
        coupling="row",
        formula=r"\sum_{c \ne y} \max(0, m - x_y + x_c)",
        signatures=SIGNATURES,
        options={"margin": POSITIVE, "ignore_index": Whole()},
        variants=({"margin": 0.3}, {"margin": 2.5}),
        convex=True,
        elicits="mode",
        link="identity",
        use_when="every wrong class must stay behind the right one",
        avoid_when="probabilities are wanted",
        source="Weston & Watkins 1999, Support vector machines for multi-class pattern recognition"
        " (ESANN)",
    )
)
def weston_watkins_hinge_loss(
    input: Tensor,
    target: Tensor,
    *,
    margin: float = 1.0,
    ignore_index: int = -100,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """How far each wrong class comes within the margin of the right one, summed.

    The sum is not divided by the number of classes; ``multi_margin_loss`` divides, as torch does.

    Args:
        input: Class scores, ``(N, C, *)`` or ``(C)``, floating point, any real value.
        target: Class indices in [0, C-1], ``(N, *)`` or ``()``, integers.
        margin: Lead from which a wrong class costs nothing, ``> 0``.
        ignore_index: Targets with this value are absent; any integer, inside or outside [0, C-1].
        sample_weight: Weight of each sample, ``(N, *)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N, *)`` for ``reduction="none"``; dtype of ``input``.

    Raises:
        ValueError: If shapes do not fit, a class is outside [0, C-1], or ``margin <= 0``.
        TypeError: If ``input`` is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> scores = torch.tensor([[0.1, 0.2, 0.7], [0.2, 0.5, 0.3]])
        >>> lm.weston_watkins_hinge_loss(scores, torch.tensor([1, 2]), reduction="none")
        tensor([2.4000, 2.1000])
    """
    return _leads(input, target, margin).sum(1 if input.ndim > 1 else 0)


class WestonWatkinsHingeLoss(Loss):
    """Module form of :func:`weston_watkins_hinge_loss`."""

    margin: float = 1.0
    ignore_index: int = -100
    function = staticmethod(weston_watkins_hinge_loss)
