"""Poly-1: cross-entropy with another weight on its first polynomial term."""

from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.domain import Interval, Whole
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.numerics import expm1
from lossmith.core.reduction import Reduction
from lossmith.engines.rows.probabilities import Against
from lossmith.engines.rows.targets import against
from lossmith.losses.classification.rows import BY_INDEX, BY_PROBABILITIES, target_cost

COEFFICIENT = Interval("coefficient", "be >= -1", low=-1.0)


def _cost(nll: Tensor, coefficient: float) -> Tensor:
    return nll - coefficient * expm1(-nll)


def _against(coefficient: float = 1.0, ignore_index: int = -100) -> Against:
    def cost(nll: Tensor, p: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
        return nll + coefficient * rest, (1 + coefficient) - coefficient * rest  # 1 + c p

    return Against(cost, ignore_index=ignore_index)


@loss(
    Card(
        task=("multiclass", "segmentation"),
        coupling="row",
        formula=r"-\log p_y + \epsilon_1 (1 - p_y)",
        signatures=(*BY_INDEX, *BY_PROBABILITIES),
        options={"coefficient": COEFFICIENT, "ignore_index": Whole()},
        variants=({"coefficient": 2.0}, {"coefficient": -0.5}),
        elicits="mode",
        link="softmax",
        aliases=("poly1", "poly1_cross_entropy", "polyloss"),
        use_when="cross-entropy works, and one more number may be tuned",
        avoid_when="the probabilities themselves are needed: they are biased",
        source="Leng 2022, arXiv:2204.12511",
    ),
    engine=against(_against),
)
def poly_loss(
    input: Tensor,
    target: Tensor,
    *,
    coefficient: float = 1.0,
    ignore_index: int = -100,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross-entropy plus a multiple of the probability of being wrong (Poly-1).

    Cross-entropy is the sum of ``(1 - p)^j / j``; this changes the coefficient of ``j = 1``, the
    part whose gradient does not fade as a sample is learned.

    Args:
        input: Logits, ``(N, C, *)`` or ``(C)``, floating point, any real value.
        target: Class indices in [0, C-1], ``(N, *)`` or ``()``, integers; or probabilities in
            [0, 1] with the shape of ``input``, floating point: the mean over classes under them.
        coefficient: Added to the coefficient 1 of the first term (epsilon_1 in the paper),
            ``>= -1``; 0 is cross-entropy, -1 takes the first term away.
        ignore_index: Targets with this value are absent; any integer, inside or outside [0, C-1].
        sample_weight: Weight of each sample, ``(N, *)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N, *)`` for ``reduction="none"``; dtype of ``input``.

    Raises:
        ValueError: If shapes do not fit, a class is outside [0, C-1], a probability is outside
            [0, 1], or an option is out of range.
        TypeError: If ``input`` is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> logits = torch.tensor([[0.0, 0.0], [0.0, 50.0]])  # probabilities 1/2 and about 0
        >>> lm.poly_loss(logits, torch.tensor([0, 0]), coefficient=2.0, reduction="none")
        tensor([ 1.6931, 52.0000])
    """
    return target_cost(input, target, lambda nll: _cost(nll, coefficient))


class PolyLoss(Loss):
    """Module form of :func:`poly_loss`."""

    coefficient: float = 1.0
    ignore_index: int = -100
    function = staticmethod(poly_loss)
