"""Jensen-Shannon divergence, of probabilities or of logits, and its root, which is a metric."""

import torch
from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.domain import POSITIVE, PROBABILITIES, REAL
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.numerics import not_below, safe_sqrt, xlogy
from lossmith.core.reduction import Reduction
from lossmith.core.signature import Signature
from lossmith.engines.rows.divergences import between, jensen_shannon


@loss(
    Card(
        task="distribution",
        coupling="row",
        formula=r"\tfrac12\sum_c p_c \log\frac{p_c}{m_c} + \tfrac12\sum_c q_c \log\frac{q_c}{m_c},"
        r" \quad m = \tfrac12(p + q)",
        signatures=(
            Signature(input=PROBABILITIES("N C *"), target=PROBABILITIES("N C *"), out="N *"),
        ),
        convex=True,
        symmetric=True,
        zero_at_target=True,
        elicits="between distribution and mode",
        link="identity",
        aliases=("jsd", "jensen_shannon"),
        use_when="two distributions should meet, and neither side is the truth",
        avoid_when="they hardly overlap: near its ceiling the gradient fades",
        source="Lin 1991, doi:10.1109/18.61115",
    )
)
def js_div(
    input: Tensor,
    target: Tensor,
    *,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Jensen-Shannon divergence of each row, from probabilities on both sides.

    The mean Kullback-Leibler divergence to the mixture of both, in nats: symmetric, finite even
    where one side excludes what the other allows, and at most ``log 2`` in rows that add up to 1.

    Args:
        input: Probabilities, ``(N, C, *)``, floating point, in [0, 1]; apply softmax to logits.
        target: Probabilities, same shape as ``input``.
        sample_weight: Weight of each row, ``(N, *)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N, *)`` for ``reduction="none"``; dtype of ``input``.

    Raises:
        ValueError: If the shapes differ, a probability is outside [0, 1], or ``reduction`` is
            unknown.
        TypeError: If a tensor is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> one, other = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.9, 0.1]])
        >>> lm.js_div(one, other)
        tensor(0.1017)
    """
    return _divergence(input, target)


def _divergence(p: Tensor, q: Tensor) -> Tensor:
    """Half the sum of ``p log(p / m) + q log(q / m)``.

    Where p is near q the two terms nearly cancel. With ``t = (p - q) / (p + q)`` they add up to
    ``m (2 t atanh(t) + log1p(-t^2))``, which keeps its digits, and so does its root.
    """
    both = p + q
    # of a denormal number the reciprocal, which the gradient takes, is infinite
    safe = torch.where(both < torch.finfo(both.dtype).tiny, 1.0, both)
    t = (p - q) / safe
    near = t.abs() < 0.5
    small = torch.where(near, t, 0.0)
    close = 0.5 * both * (2 * small * torch.atanh(small) + torch.log1p(-small * small))
    far = xlogy(p, 2 * p / safe) + xlogy(q, 2 * q / safe)
    return 0.5 * not_below(torch.where(near, close, far), 0.0).sum(1)


class JSDivLoss(Loss):
    """Module form of :func:`js_div`."""

    function = staticmethod(js_div)


@loss(
    Card(
        task="distribution",
        coupling="row",
        formula=r"\mathrm{JS}(\operatorname{softmax}(x / T), \operatorname{softmax}(y / T))",
        signatures=(Signature(input=REAL("N C *"), target=REAL("N C *"), out="N *"),),
        options={"temperature": POSITIVE},
        variants=({"temperature": 2.0},),
        symmetric=True,
        zero_at_target=True,
        elicits="between distribution and mode",
        link="softmax",
        use_when="one model should match another, and neither over- nor underestimate it",
        avoid_when="they hardly overlap: near its ceiling the gradient fades",
        source="Lin 1991, doi:10.1109/18.61115; Agarwal 2023, arXiv:2306.13649",
    ),
    engine=between(jensen_shannon, 0.5),
)
def js_div_from_logits_loss(
    input: Tensor,
    target: Tensor,
    *,
    temperature: float = 1.0,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Jensen-Shannon divergence of each row, from logits on both sides.

    See :func:`js_div`. Gradients flow to both; detach ``target`` where it comes from a fixed
    teacher.

    Args:
        input: Logits of the model, ``(N, C, *)``, floating point, any real value.
        target: Logits of the distribution to match, same shape as ``input``.
        temperature: Divisor of both sides' logits, ``> 0``; the gradient falls with its square.
        sample_weight: Weight of each row, ``(N, *)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N, *)`` for ``reduction="none"``, in [0, log 2]; dtype of ``input``.

    Raises:
        ValueError: If the shapes differ or an option is out of range.
        TypeError: If a tensor is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> student, teacher = torch.tensor([[3.0, 3.0]]), torch.tensor([[0.9, 0.1]]).log()
        >>> lm.js_div_from_logits_loss(student, teacher)
        tensor(0.1017)
    """
    return _divergence((input / temperature).softmax(1), (target / temperature).softmax(1))


class JSDivFromLogitsLoss(Loss):
    """Module form of :func:`js_div_from_logits_loss`."""

    temperature: float = 1.0
    function = staticmethod(js_div_from_logits_loss)


@loss(
    Card(
        task="distribution",
        coupling="row",
        formula=r"\sqrt{\mathrm{JS}(p, q)}",
        signatures=(
            Signature(input=PROBABILITIES("N C *"), target=PROBABILITIES("N C *"), out="N *"),
        ),
        symmetric=True,
        zero_at_target=True,
        elicits="between distribution and mode",
        link="identity",
        use_when="distances between distributions are compared or added: it is a metric",
        avoid_when="a smooth minimum is needed: the gradient jumps at equality",
        source="Endres & Schindelin 2003, doi:10.1109/TIT.2003.813506",
    )
)
def js_distance_loss(
    input: Tensor,
    target: Tensor,
    *,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Square root of the Jensen-Shannon divergence of each row, from probabilities.

    Unlike the divergence it satisfies the triangle inequality. At equality its gradient is the
    subgradient 0.

    Args:
        input: Probabilities, ``(N, C, *)``, floating point, in [0, 1]; apply softmax to logits.
        target: Probabilities, same shape as ``input``.
        sample_weight: Weight of each row, ``(N, *)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N, *)`` for ``reduction="none"``; dtype of ``input``.

    Raises:
        ValueError: If the shapes differ, a probability is outside [0, 1], or ``reduction`` is
            unknown.
        TypeError: If a tensor is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> one, other = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.9, 0.1]])
        >>> lm.js_distance_loss(one, other)
        tensor(0.3190)
    """
    return safe_sqrt(_divergence(input, target))


class JSDistanceLoss(Loss):
    """Module form of :func:`js_distance_loss`."""

    function = staticmethod(js_distance_loss)
