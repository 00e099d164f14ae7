"""Lovász losses: the convex surrogate of one minus intersection over union."""

import torch
from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.domain import BINARY, CLASS, REAL, Whole
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.reduction import Reduction
from lossmith.core.signature import Signature
from lossmith.losses.region.overlap import class_pixels, positions

SOURCE = "Berman 2017, arXiv:1705.08790"


def _extension(error: Tensor, inside: Tensor) -> Tensor:
    """Lovász extension of the Jaccard distance along the last dimension; errors are >= 0.

    Positions are wronged one by one, the largest error first; each error is weighted by how much
    its position adds to the distance. Counts are whole numbers and nothing cancels: a position of
    the region adds ``1 / union``, another ``intersection / (union (union - 1))``, or 1 if it is
    the first of an empty region.
    """
    error, order = torch.sort(error, stable=True, dim=-1, descending=True)
    inside = inside.gather(-1, order)
    wronged = inside.cumsum(-1)
    size = wronged[..., -1:]
    intersection = (size - wronged).to(error.dtype)
    union = (size + (~inside).cumsum(-1)).to(error.dtype)
    first = union == 1
    outside = torch.where(first, 1.0, intersection / (union * torch.where(first, 1.0, union - 1)))
    step = torch.where(inside, 1 / union, outside)
    return (error * step).sum(-1)


@loss(
    Card(
        task=("segmentation", "binary", "multilabel"),
        coupling="row",
        formula=r"\overline{\Delta_J}(m),\ m_i = \max(0, 1 - x_i (2 t_i - 1))",
        signatures=(Signature(input=REAL("N *"), target=BINARY("N *"), out="N"),),
        convex=True,
        gradient_bound=1.0,
        elicits="region of largest overlap",
        link="logit",
        aliases=("lovasz_hinge", "lovasz"),
        use_when="one mask per image, scored by intersection over union (IoU)",
        avoid_when="probabilities are needed: the logits are only a score",
        source=SOURCE,
    )
)
def lovasz_hinge_loss(
    input: Tensor,
    target: Tensor,
    *,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Lovász extension of the Jaccard distance of hinge errors, one mask per image.

    All dimensions after the first are one mask. An empty mask costs the largest false alarm, and
    0 where every logit is -1 or less. The cost is a sort of the positions.

    Args:
        input: Logits, ``(N, *)``, floating point, any real value; positive means inside. A
            position of -inf with target 0 counts nowhere.
        target: Masks of 0 and 1, ``(N, *)``, same shape as ``input``, any real dtype or bool.
        sample_weight: Weight of each sample, ``(N)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N)`` for ``reduction="none"``; dtype of ``input``.

    Raises:
        ValueError: If the shapes differ, a target is neither 0 nor 1, or ``reduction`` is unknown.
        TypeError: If ``input`` is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> logits = torch.tensor([[0.5, -0.5, -2.0]])  # errors 0.5, 1.5 and 0
        >>> lm.lovasz_hinge_loss(logits, torch.tensor([[1, 1, 0]]))
        tensor(1.)
    """
    inside = positions(target, 1) > 0.5
    logits = positions(input, 1)
    return _extension((1 - torch.where(inside, logits, -logits)).relu(), inside)


class LovaszHingeLoss(Loss):
    """Module form of :func:`lovasz_hinge_loss`."""

    function = staticmethod(lovasz_hinge_loss)


@loss(
    Card(
        task="segmentation",
        coupling="row",
        formula=r"\frac{1}{|\{c \in t\}|} \sum_{c \in t} \overline{\Delta_J}(m(c)),\ "
        r"m_i(c) = |[t_i = c] - \operatorname{softmax}(x_i)_c|",
        signatures=(Signature(input=REAL("N C *"), target=CLASS("N *"), out="N"),),
        options={"ignore_index": Whole()},
        variants=({"ignore_index": 1}, {"ignore_index": 0}),
        elicits="region of largest overlap",
        link="softmax",
        aliases=("lovasz_softmax",),
        use_when="several classes per image, scored by mean intersection over union (mIoU)",
        avoid_when="probabilities have to be calibrated, or training starts from scratch",
        source=SOURCE,
    )
)
def lovasz_softmax_loss(
    input: Tensor,
    target: Tensor,
    *,
    ignore_index: int = -100,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Lovász extension of the Jaccard distance of softmax errors, mean over classes.

    Each image has its own distances, over the classes that its label map holds; an image without
    any label costs 0. The cost is a sort of the positions for each class.

    Args:
        input: Logits, ``(N, C, *)`` with two or more classes, floating point, any real value.
        target: Label map, class indices in [0, C-1], ``(N, *)``, integers.
        ignore_index: Positions with this value count nowhere; any integer.
        sample_weight: Weight of each sample, ``(N)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N)`` for ``reduction="none"``, in [0, 1]; dtype of ``input``.

    Raises:
        ValueError: If shapes do not fit, there is one class only, a label is outside [0, C-1], or
            ``reduction`` is unknown.
        TypeError: If ``input`` is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> logits = torch.tensor([[[99.0, 0.0], [0.0, 0.0]]])  # sure of the first position
        >>> lm.lovasz_softmax_loss(logits, torch.tensor([[0, 1]]))
        tensor(0.3750)
    """
    pixels = class_pixels(input, target, ignore_index)
    inside = pixels.mask > 0.5
    value = _extension(torch.where(inside, pixels.outside, pixels.inside), inside)
    present = inside.any(-1)
    count = present.sum(-1).clamp(min=1)
    return torch.where(present, value, 0.0).sum(1) / count


class LovaszSoftmaxLoss(Loss):
    """Module form of :func:`lovasz_softmax_loss`."""

    ignore_index: int = -100
    function = staticmethod(lovasz_softmax_loss)
