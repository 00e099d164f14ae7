"""Zero-one: whether the predicted class is wrong. For evaluation; nothing to descend."""

from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.domain import CLASS, REAL, Whole
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.reduction import Reduction
from lossmith.core.signature import Signature


@loss(
    Card(
        task="multiclass",
        coupling="row",
        formula=r"[\arg\max_c x_c \ne y]",
        signatures=(
            Signature(input=REAL("N C *"), target=CLASS("N *"), out="N *"),
            Signature(input=REAL("C"), target=CLASS(""), out=""),
        ),
        options={"ignore_index": Whole()},
        robust=True,
        differentiable=False,
        elicits="mode",
        link="none",
        aliases=("error_rate",),
        use_when="models are compared by their error rate",
        avoid_when="a model is trained: the gradient is 0; take cross-entropy or a hinge",
        source="Wald 1950, Statistical Decision Functions (Wiley)",
    )
)
def zero_one_loss(
    input: Tensor,
    target: Tensor,
    *,
    ignore_index: int = -100,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """1 where the highest score is not the target's, else 0.

    The gradient is 0 almost everywhere, so nothing can be trained with it. Its surrogates are
    ``hinge_loss``, ``soft_margin_loss`` and ``squared_hinge_loss`` for two classes, and
    ``cross_entropy`` and ``multiclass_hinge_loss`` for several. Among equal scores the first wins.

    Args:
        input: Class scores, ``(N, C, *)`` or ``(C)``, floating point, any real value.
        target: Class indices in [0, C-1], ``(N, *)`` or ``()``, integers.
        ignore_index: Targets with this value are absent; any integer, inside or outside [0, C-1].
        sample_weight: Weight of each sample, ``(N, *)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N, *)`` for ``reduction="none"``; dtype of ``input``.

    Raises:
        ValueError: If shapes do not fit, or a class is outside [0, C-1].
        TypeError: If ``input`` is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> scores = torch.tensor([[2.0, 0.0], [1.0, 3.0], [0.0, 1.0], [5.0, 1.0]])
        >>> lm.zero_one_loss(scores, torch.tensor([0, 0, 1, 0]))
        tensor(0.2500)
    """
    dim = 1 if input.ndim > 1 else 0
    wrong = (input.argmax(dim) != target).to(input.dtype)
    return wrong + 0.0 * input.sum(dim)  # NaN scores stay visible


class ZeroOneLoss(Loss):
    """Module form of :func:`zero_one_loss`."""

    ignore_index: int = -100
    function = staticmethod(zero_one_loss)
