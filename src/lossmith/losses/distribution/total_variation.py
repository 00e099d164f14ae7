"""Total variation distance of two distributions, from logits."""

from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.domain import POSITIVE, REAL
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.reduction import Reduction
from lossmith.core.signature import Signature
from lossmith.engines.rows.divergences import between, total_variation


@loss(
    Card(
        task="distribution",
        coupling="row",
        formula=r"\tfrac12\sum_c |p_c - q_c|, \quad"
        r" p = \operatorname{softmax}(x / T),\ q = \operatorname{softmax}(y / T)",
        signatures=(Signature(input=REAL("N C *"), target=REAL("N C *"), out="N *"),),
        options={"temperature": POSITIVE},
        variants=({"temperature": 2.0},),
        symmetric=True,
        zero_at_target=True,
        robust=True,
        elicits="mode",
        link="softmax",
        aliases=("tvd", "tv_distance"),
        use_when="how often two models would disagree is what counts, and outliers should not",
        avoid_when="the distributions hardly overlap: its gradient vanishes there",
        source="Wen 2023, arXiv:2307.15190",
    ),
    engine=between(total_variation, 0.5),
)
def total_variation_from_logits_loss(
    input: Tensor,
    target: Tensor,
    *,
    temperature: float = 1.0,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Total variation distance of each row, from logits on both sides.

    Half the sum of the absolute differences of the probabilities: the largest difference that the
    two make to any event, in [0, 1]. Gradients flow to both; where a class is equally likely on
    both sides, that class pulls nothing.

    Args:
        input: Logits of the model, ``(N, C, *)``, floating point, any real value.
        target: Logits of the distribution to match, same shape as ``input``.
        temperature: Divisor of both sides' logits, ``> 0``.
        sample_weight: Weight of each row, ``(N, *)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N, *)`` for ``reduction="none"``; dtype of ``input``.

    Raises:
        ValueError: If the shapes differ or an option is out of range.
        TypeError: If a tensor is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> student, teacher = torch.tensor([[3.0, 3.0]]), torch.tensor([[0.9, 0.1]]).log()
        >>> lm.total_variation_from_logits_loss(student, teacher)
        tensor(0.4000)
    """
    p, q = (input / temperature).softmax(1), (target / temperature).softmax(1)
    return 0.5 * (p - q).abs().sum(1)


class TotalVariationFromLogitsLoss(Loss):
    """Module form of :func:`total_variation_from_logits_loss`."""

    temperature: float = 1.0
    function = staticmethod(total_variation_from_logits_loss)
