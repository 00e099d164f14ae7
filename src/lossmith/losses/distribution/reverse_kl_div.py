"""Kullback-Leibler divergence from the model's side, from logits."""

from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.domain import POSITIVE, REAL
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.numerics import accurate_log_softmax, is_number
from lossmith.core.reduction import Reduction
from lossmith.core.signature import Signature
from lossmith.engines.rows.divergences import between, reverse
from lossmith.losses.distribution.kl_div import rows


@loss(
    Card(
        task="distribution",
        coupling="row",
        formula=r"\sum_c p_c (\log p_c - \log q_c), \quad"
        r" p = \operatorname{softmax}(x / T),\ q = \operatorname{softmax}(y / T)",
        signatures=(Signature(input=REAL("N C *"), target=REAL("N C *"), out="N *"),),
        options={"temperature": POSITIVE},
        variants=({"temperature": 2.0},),
        zero_at_target=True,
        elicits="mode",
        link="softmax",
        aliases=("reverse_kl", "reverse_kl_div"),
        use_when="a small model distils a large one and should keep to what the large one says",
        avoid_when="everything that the other model allows has to be covered",
        source="Kullback & Leibler 1951, doi:10.1214/aoms/1177729694; Gu 2023, arXiv:2306.08543",
    ),
    engine=between(reverse),
)
def reverse_kl_div_from_logits_loss(
    input: Tensor,
    target: Tensor,
    *,
    temperature: float = 1.0,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Reverse Kullback-Leibler divergence KL(input || target), from two logits.

    It charges for what the model allows and the target does not, where
    :func:`kl_div_from_logits_loss` charges for what the model leaves out. Gradients flow to both.

    Args:
        input: Logits of the model, ``(N, C, *)``, floating point, any real value.
        target: Logits of the distribution to match, same shape as ``input``.
        temperature: Divisor of both sides' logits, ``> 0``; the gradient falls with its square.
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
        >>> lm.reverse_kl_div_from_logits_loss(student, teacher)
        tensor(0.5108)
    """
    if not is_number(temperature, 1):
        input, target = input / temperature, target / temperature
    log_p, log_q = accurate_log_softmax(input, dim=1), accurate_log_softmax(target, dim=1)
    return rows(log_q.exp(), log_q, log_p.exp(), log_p)


class ReverseKLDivFromLogitsLoss(Loss):
    """Module form of :func:`reverse_kl_div_from_logits_loss`."""

    temperature: float = 1.0
    function = staticmethod(reverse_kl_div_from_logits_loss)
