"""Generalized cross-entropy: between cross-entropy and absolute error, for wrong labels."""

from dataclasses import replace

from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.domain import UNIT, Whole
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.numerics import expm1
from lossmith.core.reduction import Reduction
from lossmith.engines.rows.probabilities import Against
from lossmith.engines.rows.targets import against
from lossmith.losses.classification.rows import BY_INDEX, BY_PROBABILITIES, target_cost

EXPONENT = replace(UNIT, rule="lie in (0, 1]", low_open=True)


def _cost(nll: Tensor, q: float) -> Tensor:
    return -expm1(-q * nll) / q


def _against(q: float = 0.7, ignore_index: int = -100) -> Against:
    def cost(nll: Tensor, p: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
        return _cost(nll, q), (-q * nll).exp()

    return Against(cost, ignore_index=ignore_index)


@loss(
    Card(
        task=("multiclass", "segmentation"),
        coupling="row",
        formula=r"\frac{1 - p_y^q}{q}",
        signatures=(*BY_INDEX, *BY_PROBABILITIES),
        options={"q": EXPONENT, "ignore_index": Whole()},
        variants=({"q": 0.01}, {"q": 1.0}),
        robust=True,
        elicits="mode",
        link="softmax",
        aliases=("gce", "lq_loss", "generalised_cross_entropy"),
        use_when="an unknown part of the class labels is wrong",
        avoid_when="labels are clean or rare: it learns slower than cross-entropy",
        source="Zhang 2018, arXiv:1805.07836",
    ),
    engine=against(_against),
)
def generalized_cross_entropy_loss(
    input: Tensor,
    target: Tensor,
    *,
    q: float = 0.7,
    ignore_index: int = -100,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Box-Cox transform of the target's probability: ``(1 - p^q) / q``.

    Its gradient is that of cross-entropy times p^q, so samples that the model finds unlikely pull
    less. ``q -> 0`` is cross-entropy, ``q = 1`` is half the absolute error of the probabilities.

    Args:
        input: Logits, ``(N, C, *)`` or ``(C)``, floating point, any real value.
        target: Class indices in [0, C-1], ``(N, *)`` or ``()``, integers; or probabilities in
            [0, 1] with the shape of ``input``, floating point: the mean over classes under them.
        q: Exponent, in (0, 1]; the larger, the less a wrong label pulls.
        ignore_index: Targets with this value are absent; any integer, inside or outside [0, C-1].
        sample_weight: Weight of each sample, ``(N, *)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N, *)`` for ``reduction="none"``, in [0, 1/q]; dtype of ``input``.

    Raises:
        ValueError: If shapes do not fit, a class is outside [0, C-1], a probability is outside
            [0, 1], or an option is out of range.
        TypeError: If ``input`` is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> logits = torch.tensor([[0.0, 0.0], [0.0, 50.0]])  # probabilities 1/2 and about 0
        >>> target = torch.tensor([0, 0])
        >>> lm.generalized_cross_entropy_loss(logits, target, q=0.5, reduction="none")
        tensor([0.5858, 2.0000])
    """
    return target_cost(input, target, lambda nll: _cost(nll, q))


class GeneralizedCrossEntropyLoss(Loss):
    """Module form of :func:`generalized_cross_entropy_loss`."""

    q: float = 0.7
    ignore_index: int = -100
    function = staticmethod(generalized_cross_entropy_loss)
