"""Center loss: embeddings near the center of their class."""

import torch
from torch import Tensor, nn

from lossmith.core.card import Card
from lossmith.core.domain import CLASS, REAL, Whole
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.reduction import Reduction
from lossmith.core.signature import Signature


def _own_rows(centers: Tensor, target: Tensor) -> Tensor:
    """The center of each sample; NaN for a class outside, where that is not checked."""
    if centers.device.type == "cpu":
        return centers.index_select(0, target)
    inside = (target >= 0) & (target < centers.shape[0])
    rows = centers.index_select(0, torch.where(inside, target, 0))
    return torch.where(inside.unsqueeze(1), rows, torch.nan)


@loss(
    Card(
        task="embedding",
        coupling="row",
        formula=r"\tfrac12 \lVert x - c_y \rVert_2^2",
        signatures=(Signature(input=REAL("N D"), target=CLASS("N"), centers=REAL("C D"), out="N"),),
        options={"ignore_index": Whole()},
        convex=True,
        elicits="class mean",
        aliases=("center", "centre_loss"),
        use_when="beside a softmax loss, to draw the embeddings of each class together",
        avoid_when="used alone: all embeddings and centers may then fall into one point",
        source="Wen, Zhang, Li and Qiao 2016, doi:10.1007/978-3-319-46478-7_31",
    )
)
def center_loss(
    input: Tensor,
    target: Tensor,
    centers: Tensor,
    *,
    ignore_index: int = -100,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Half the squared distance of each embedding to the center of its class.

    Its gradient is the difference. The centers get one too, so any optimiser moves them; the paper
    moves them by a running mean instead, which gives rare classes a larger step.

    Args:
        input: Embeddings, ``(N, D)``, floating point, any real value.
        target: Class indices in [0, C-1], ``(N)``, integers.
        centers: One center per class, ``(C, D)``, floating point.
        ignore_index: Targets with this value are absent; any integer.
        sample_weight: Weight of each sample, ``(N)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N)`` for ``reduction="none"``; dtype of ``input``.

    Raises:
        ValueError: If the shapes do not fit, a class is outside [0, C-1], or ``reduction`` is
            unknown.
        TypeError: If ``input`` or ``centers`` is not floating point, or ``target`` not integer.

    Example:
        >>> import torch, lossmith as lm
        >>> embeddings = torch.tensor([[1.0, 2.0], [3.0, 0.0]])
        >>> centers = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
        >>> lm.center_loss(embeddings, torch.tensor([0, 1]), centers, reduction="none")
        tensor([2.5000, 8.0000])
    """
    return 0.5 * (input - _own_rows(centers, target)).square().sum(1)


class CenterLoss(Loss):
    """Module form of :func:`center_loss` that owns the centers and learns them.

    ``centers``, ``(num_classes, num_features)``, is a parameter, drawn from a normal distribution;
    give it to the optimiser together with those of the network. Called with input and target.

    Example:
        >>> import torch, lossmith as lm
        >>> pull = lm.CenterLoss(num_classes=10, num_features=2)
        >>> pull(torch.zeros(4, 2), torch.tensor([0, 1, 2, 9])).requires_grad
        True
    """

    ignore_index: int = -100
    function = staticmethod(center_loss)

    def __init__(
        self,
        *,
        num_classes: int,
        num_features: int,
        ignore_index: int = -100,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(ignore_index=ignore_index, reduction=reduction)
        for name, size in (("num_classes", num_classes), ("num_features", num_features)):
            Whole(1).check_option(name, size)
        self.centers = nn.Parameter(torch.randn(num_classes, num_features))

    def forward(
        self, *tensors: Tensor, sample_weight: Tensor | None = None, **named: Tensor
    ) -> Tensor:
        """The loss of input and target under the own centers."""
        return super().forward(*tensors, sample_weight=sample_weight, centers=self.centers, **named)
