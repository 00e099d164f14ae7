"""Kullback-Leibler divergence; the name says in which space its arguments are.

==================================  =================  ==============================  ==========
function                            ``input``          ``target``                      unreduced
==================================  =================  ==============================  ==========
``kl_div``                          log-probabilities  probabilities; with             element
                                                       ``log_target=True`` their logs
``kl_div_from_probabilities_loss``  probabilities      probabilities                   row
``kl_div_with_logits_loss``         logits             probabilities                   row
``kl_div_from_logits_loss``         logits             logits                          row
==================================  =================  ==============================  ==========

All here are KL(target || input): ``target`` says where the two have to agree. The reverse is in
``reverse_kl_div.py``.
"""

import torch
from torch import Tensor

from lossmith.core.card import Card, Point
from lossmith.core.domain import FLAG, LOG_PROBABILITIES, POSITIVE, PROBABILITIES, REAL
from lossmith.core.loss import NATIVE_REDUCTION, loss
from lossmith.core.module import Loss
from lossmith.core.numerics import accurate_log_softmax, is_number, not_below, times
from lossmith.core.reduction import BatchReduction, Reduction
from lossmith.core.signature import Signature
from lossmith.engines.in_cache import Formula, in_cache
from lossmith.engines.rows.divergences import between, forward

SOURCE = "Kullback & Leibler 1951, doi:10.1214/aoms/1177729694"


def _plain(input: Tensor, target: Tensor) -> Tensor:
    return times(target, torch.where(target == 0, 1.0, target).log() - input)


def _few(input: Tensor, target: Tensor, reduction: int) -> Tensor | None:
    return torch.kl_div(input, target, reduction) if _in_unit(input, target) else None


def _value(x: Tensor, q: Tensor, out: Tensor, *spare: Tensor) -> None:
    info = torch.finfo(q.dtype)  # the smallest positive number stands for 0, whose factor is 0
    torch.clamp(q, min=info.tiny * info.eps, out=out).log_().sub_(x).mul_(q)


def _slope(x: Tensor, q: Tensor, out: Tensor, slope: Tensor, *spare: Tensor) -> None:
    torch.neg(q, out=slope)


def _in_unit(input: Tensor, target: Tensor) -> bool:
    low, high = torch.aminmax(target)
    return low.item() >= 0 and high.item() <= 1


FORMULA = Formula(_plain, _value, _slope, _in_unit, _few)


def _native(
    input: Tensor, target: Tensor, reduction: int, log_target: bool = False
) -> Tensor | None:
    if log_target:
        return None
    if reduction != NATIVE_REDUCTION["batchmean"]:
        return in_cache(FORMULA, input, target, reduction)
    value = in_cache(FORMULA, input, target, NATIVE_REDUCTION["sum"])
    return value if value is None or input.ndim == 0 else value / input.shape[0]


@loss(
    Card(
        task="distribution",
        coupling="element",
        formula=r"q (\log q - x), \quad x = \log p",
        signatures=(
            Signature(
                input=LOG_PROBABILITIES("*"),
                target=PROBABILITIES("*"),
                when={"log_target": False},
            ),
            Signature(
                input=LOG_PROBABILITIES("*"),
                target=LOG_PROBABILITIES("*"),
                when={"log_target": True},
            ),
        ),
        options={"log_target": FLAG},
        variants=({"log_target": True},),
        exact=lambda mp, x, y, log_target=False: (
            mp.exp(y) * (y - x) if log_target else y * (mp.log(y) - x) if y else mp.zero
        ),
        points=(
            Point(-2.0, 1.0, value=2.0, gradient=-1.0),  # by hand: 1 (log 1 + 2)
            Point(-0.5, 0.5, value=-0.09657359027997264, gradient=-0.5),  # 1/2 (1/2 - log 2)
            Point(-float("inf"), 0.0, value=0.0, gradient=0.0),  # 0 log(0 / 0) = 0
            # by hand: e^-1 (-1 + 3)
            Point(
                -3.0, -1.0, value=0.7357588823428847, gradient=-0.36787944117144233, log_target=True
            ),
            Point(-3.0, -float("inf"), value=0.0, gradient=0.0, log_target=True),
        ),
        convex=True,
        nonnegative=False,
        gradient_bound=1.0,
        same_as="torch.nn.functional.kl_div",
        elicits="distribution",
        link="log",
        reductions=("none", "mean", "batchmean", "sum"),
        aliases=("kld", "kl_divergence"),
        use_when="a model's log-probabilities should match a given distribution",
        avoid_when="the target is one class: cross-entropy is the same and cheaper",
        source=SOURCE,
    ),
    native=_native,
    native_checks=True,
)
def kl_div(
    input: Tensor,
    target: Tensor,
    *,
    log_target: bool = False,
    sample_weight: Tensor | None = None,
    reduction: BatchReduction = "mean",
) -> Tensor:
    """Kullback-Leibler divergence by element, from log-probabilities.

    Take ``reduction="batchmean"`` for the divergence per sample: ``"mean"`` also divides by the
    number of classes. One element can be negative, the sum of a row of distributions cannot.
    Probability 0 in the target adds 0, even where ``input`` is -inf.

    Args:
        input: Log-probabilities of the model, ``(*)``, floating point, ``<= 0``. Probabilities or
            logits in their place give a wrong number: see the other losses of this file.
        target: Probabilities, ``(*)``, same shape as ``input``, in [0, 1]; with
            ``log_target=True`` log-probabilities.
        log_target: Whether ``target`` is given in log space.
        sample_weight: Weight of each element, ``(*)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"batchmean"`` (the mean times
            the number of elements in a row of the first dimension), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(*)`` for ``reduction="none"``; dtype of ``input``.

    Raises:
        ValueError: If the shapes differ, a probability is outside [0, 1], or ``reduction`` is
            unknown.
        TypeError: If a tensor is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> model = torch.tensor([[0.5, 0.5]]).log()
        >>> lm.kl_div(model, torch.tensor([[0.9, 0.1]]), reduction="batchmean")
        tensor(0.3681)
    """
    if log_target:
        return times(target.exp(), target - input)
    return _plain(input, target)


class KLDivLoss(Loss):
    """Module form of :func:`kl_div`."""

    log_target: bool = False
    reduction: BatchReduction = "mean"  # pyright: ignore[reportIncompatibleVariableOverride]
    function = staticmethod(kl_div)


@loss(
    Card(
        task="distribution",
        coupling="row",
        formula=r"\sum_c q_c \log\frac{q_c}{p_c} - q_c + p_c",
        signatures=(
            Signature(input=PROBABILITIES("N C *"), target=PROBABILITIES("N C *"), out="N *"),
        ),
        convex=True,
        zero_at_target=True,
        elicits="distribution",
        link="identity",
        use_when="both distributions are given as probabilities",
        avoid_when="logits are at hand: they keep the digits of small probabilities",
        source=SOURCE,
    )
)
def kl_div_from_probabilities_loss(
    input: Tensor,
    target: Tensor,
    *,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Kullback-Leibler divergence of each row, from probabilities on both sides.

    In rows that add up to 1 the terms ``p - q`` cancel. They keep the loss ``>= 0`` and its minimum
    at ``input = target`` where a row adds up to something else.

    Args:
        input: Probabilities of the model, ``(N, C, *)``, floating point, in [0, 1].
        target: Probabilities, same shape as ``input``, in [0, 1].
        sample_weight: Weight of each row, ``(N, *)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N, *)`` for ``reduction="none"``; dtype of ``input``; inf where ``input``
        excludes what ``target`` allows.

    Raises:
        ValueError: If the shapes differ, a probability is outside [0, 1], or ``reduction`` is
            unknown.
        TypeError: If a tensor is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> model, wanted = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.9, 0.1]])
        >>> lm.kl_div_from_probabilities_loss(model, wanted)
        tensor(0.3681)
    """
    absent = target == 0
    log_p = torch.where(absent, 1.0, input).log()
    return rows(input, log_p, target, torch.where(absent, 1.0, target).log())


def rows(p: Tensor, log_p: Tensor, q: Tensor, log_q: Tensor) -> Tensor:
    """Sum of ``q log(q / p) - q + p`` over dimension 1, no term below 0.

    Where p is near q the terms are the small differences of large ones. With ``u = log(p / q)`` a
    term is ``q (e^u - 1 - u)``, and ``expm1`` keeps its digits; for large ``u`` it would overflow.
    """
    absent = q == 0
    u = torch.where(absent, 0.0, log_p - log_q)
    near = (u.abs() < 1) & ~absent
    small = torch.where(near, u, 0.0)
    term = torch.where(near, q * (torch.expm1(small) - small), p - q - q * u)
    return not_below(term, 0.0).sum(1)


class KLDivFromProbabilitiesLoss(Loss):
    """Module form of :func:`kl_div_from_probabilities_loss`."""

    function = staticmethod(kl_div_from_probabilities_loss)


@loss(
    Card(
        task=("distribution", "multiclass"),
        coupling="row",
        formula=r"\sum_c q_c \log\frac{q_c}{p_c} - q_c + p_c, \quad p = \operatorname{softmax}(x)",
        signatures=(Signature(input=REAL("N C *"), target=PROBABILITIES("N C *"), out="N *"),),
        convex=True,
        nonnegative=True,
        gradient_bound=1.0,
        elicits="distribution",
        link="softmax",
        use_when="targets are soft labels, and 0 should mean a perfect match",
        avoid_when="the target is one class: cross-entropy is the same and cheaper",
        source=SOURCE,
    )
)
def kl_div_with_logits_loss(
    input: Tensor,
    target: Tensor,
    *,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Kullback-Leibler divergence of each row, from logits to given probabilities.

    Cross-entropy less the entropy of the target: the same gradient in ``input``, and 0 at best. The
    terms ``p - q`` cancel in targets that add up to 1.

    Args:
        input: Logits of the model, ``(N, C, *)``, floating point, any real value.
        target: Probabilities, same shape as ``input``, in [0, 1]; rows should add up to 1.
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
        >>> lm.kl_div_with_logits_loss(torch.tensor([[3.0, 3.0]]), torch.tensor([[0.9, 0.1]]))
        tensor(0.3681)
    """
    log_p = accurate_log_softmax(input, dim=1)
    return rows(log_p.exp(), log_p, target, torch.where(target == 0, 1.0, target).log())


class KLDivWithLogitsLoss(Loss):
    """Module form of :func:`kl_div_with_logits_loss`."""

    function = staticmethod(kl_div_with_logits_loss)


@loss(
    Card(
        task="distribution",
        coupling="row",
        formula=r"\sum_c q_c (\log q_c - \log p_c), \quad"
        r" p = \operatorname{softmax}(x / T),\ q = \operatorname{softmax}(y / T)",
        signatures=(Signature(input=REAL("N C *"), target=REAL("N C *"), out="N *"),),
        options={"temperature": POSITIVE},
        convex=True,
        zero_at_target=True,
        gradient_bound=1.0,
        elicits="distribution",
        link="softmax",
        use_when="one model should match another, both by their logits",
        avoid_when="the model to match is unsure everywhere, so that there is little to learn",
        source=SOURCE,
    ),
    engine=between(forward),
)
def kl_div_from_logits_loss(
    input: Tensor,
    target: Tensor,
    *,
    temperature: float = 1.0,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Kullback-Leibler divergence of each row, from logits on both sides.

    Gradients flow to both; detach ``target`` where it comes from a fixed teacher.

    Args:
        input: Logits of the model, ``(N, C, *)``, floating point, any real value.
        target: Logits of the distribution to match, same shape as ``input``.
        temperature: Divisor of both sides' logits, ``> 0``; the gradient falls with its square.
        sample_weight: Weight of each row, ``(N, *)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N, *)`` for ``reduction="none"``; dtype of ``input``.

    Raises:
        ValueError: If the shapes differ or ``reduction`` is unknown.
        TypeError: If a tensor is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> student, teacher = torch.tensor([[3.0, 3.0]]), torch.tensor([[0.9, 0.1]]).log()
        >>> lm.kl_div_from_logits_loss(student, teacher)
        tensor(0.3681)
    """
    if not is_number(temperature, 1):
        input, target = input / temperature, target / temperature
    log_p, log_q = accurate_log_softmax(input, dim=1), accurate_log_softmax(target, dim=1)
    return rows(log_p.exp(), log_p, log_q.exp(), log_q)


class KLDivFromLogitsLoss(Loss):
    """Module form of :func:`kl_div_from_logits_loss`."""

    temperature: float = 1.0
    function = staticmethod(kl_div_from_logits_loss)
