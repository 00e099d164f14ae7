"""LDAM: cross-entropy in which the target class must win by a margin, larger if it is rare."""

from dataclasses import replace

import torch
from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.domain import CLASS, NONNEGATIVE, POSITIVE, REAL, Vector, Whole
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.numerics import class_margin, softplus, take_class
from lossmith.core.reduction import Reduction
from lossmith.core.signature import Signature
from lossmith.losses.classification.rows import class_dim, over_classes

COSINE = replace(REAL, spread=0.3)  # any real is taken; ordinary values are cosines


@loss(
    Card(
        task=("multiclass", "segmentation"),
        coupling="row",
        formula=r"-\log \frac{e^{s (x_y - \Delta_y)}}"
        r"{e^{s (x_y - \Delta_y)} + \sum_{c \ne y} e^{s x_c}}, \quad"
        r" \Delta_c = m \left(\frac{\min_k n_k}{n_c}\right)^{1/4}",
        signatures=(
            Signature(input=COSINE("N C *"), target=CLASS("N *"), out="N *"),
            Signature(input=COSINE("C"), target=CLASS(""), out=""),
        ),
        options={
            "class_counts": Vector(within=POSITIVE),
            "margin": NONNEGATIVE,
            "scale": POSITIVE,
            "ignore_index": Whole(),
        },
        variants=(
            {"class_counts": torch.tensor([900.0, 60.0, 30.0, 10.0])},
            {"class_counts": torch.tensor([9, 1, 1, 4]), "margin": 2.0, "scale": 1.0},
            {"margin": 0.0, "scale": 0.5},
        ),
        convex=True,
        gradient_bound="scale",
        link="softmax",
        aliases=("ldam", "label_distribution_aware_margin"),
        use_when="classes are imbalanced and the logits are cosines",
        avoid_when="logits are unbounded: training can grow them until no margin matters",
        source="Cao 2019, arXiv:1906.07413",
    )
)
def ldam_loss(
    input: Tensor,
    target: Tensor,
    *,
    class_counts: Tensor | None = None,
    margin: float = 0.5,
    scale: float = 30.0,
    ignore_index: int = -100,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross-entropy with a margin that falls with the fourth root of the class count.

    The margin is taken from the target's logit in training alone; predictions take the argmax of
    the logits as they are. (Label-distribution-aware margin.)

    Args:
        input: Logits, by design cosines in [-1, 1], ``(N, C, *)`` or ``(C)``,
            floating point, any real value.
        target: Class indices in [0, C-1], ``(N, *)`` or ``()``, integers.
        class_counts: Training samples of each class, ``(C)``, ``> 0``, integers or floating point.
            None: all the same, which gives each class the full margin.
        margin: Margin of the rarest class, ``>= 0``, in the unit of the logits.
        scale: Factor of the logits inside the softmax, ``> 0``.
        ignore_index: Targets with this value are absent; any integer, inside or outside [0, C-1].
        sample_weight: Weight of each sample, ``(N, *)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N, *)`` for ``reduction="none"``; dtype of ``input``.

    Raises:
        ValueError: If shapes do not fit, a class is outside [0, C-1], or an option is out of range.
        TypeError: If ``input`` is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> counts = torch.tensor([160, 10])  # margins 0.25 and 0.5
        >>> lm.ldam_loss(torch.zeros(2, 2), torch.tensor([0, 1]), class_counts=counts, scale=4.0,
        ...     reduction="none")
        tensor([1.3133, 2.1269])
    """
    dim = class_dim(input)
    margins = margin * input.new_ones(input.shape[dim])
    if class_counts is not None:
        counts = class_counts.to(input)
        margins = margin * (counts.amin() / counts).pow(0.25)
    own = take_class(over_classes(margins, input).expand_as(input), target, dim=dim)
    return softplus(class_margin(scale * input, target, dim=dim) + scale * own)


class LDAMLoss(Loss):
    """Module form of :func:`ldam_loss`; ``class_counts`` is a buffer."""

    class_counts: Tensor | None = None
    margin: float = 0.5
    scale: float = 30.0
    ignore_index: int = -100
    function = staticmethod(ldam_loss)
