"""Binary cross-entropy, from logits and from probabilities."""

from typing import Any, cast

import torch
import torch._C._nn as kernels
from torch import Tensor

from lossmith.core.card import Card, Point
from lossmith.core.domain import NONNEGATIVE, REAL, UNIT, Factor, Optional
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.numerics import logistic_nll, logistic_sides, softplus, times
from lossmith.core.reduction import Reduction
from lossmith.core.signature import elementwise
from lossmith.engines.in_cache import Formula, in_cache, zeros_and_ones
from lossmith.engines.pull import reduced, with_pull
from lossmith.losses.classification.soft_margin import soft_margin

# torch's bound on the logarithm of a probability, which keeps the loss of a certain error finite
LOWEST_LOG = -100.0
# torch divides by p (1 - p) and by no less than 1e-12: its pair of kernels is right from here on.
# Its second derivative is not, so they are not left to its own graph.
FLOOR = 2e-12
# from here on no logarithm meets that bound, and p (1 - p) does not vanish
SMALLEST = 1e-36
ONE = torch.ones(())
MINUS_ONE = -ONE
forward: Any = cast(Any, kernels).binary_cross_entropy
backward: Any = torch.ops.aten.binary_cross_entropy_backward.default


def _few(input: Tensor, target: Tensor, reduction: int) -> Tensor | None:
    if zeros_and_ones(target):
        return soft_margin(input, torch.add(MINUS_ONE, target, alpha=2), reduction)
    if not _in_unit(input, target):
        return None
    return reduced(torch.lerp(softplus(input), softplus(-input), target), reduction)


def _value(x: Tensor, y: Tensor, out: Tensor, gap: Tensor, sign: Tensor, tail: Tensor) -> None:
    """``x (side - y) + log(1 + e^-|x|)``: both terms are positive, nothing cancels.

    ``side`` is 1 for positive logits and 0 for others, ``sign`` -1 and 1.
    """
    side = torch.gt(x, 0, out=gap)
    torch.sub(ONE, side, alpha=2, out=sign)
    side.sub_(y)
    torch.mul(sign, x, out=tail).exp_()
    torch.log1p(tail, out=out).addcmul_(x, gap)


def _slope(x: Tensor, y: Tensor, out: Tensor, gap: Tensor, sign: Tensor, tail: Tensor) -> None:
    """``side - y + sign e^-|x| / (1 + e^-|x|)``."""
    torch.add(tail, 1, out=out)
    gap.addcmul_(tail.div_(out), sign)


def _in_unit(input: Tensor, label: Tensor) -> bool:
    low, high = torch.aminmax(label)
    return low.item() >= 0 and high.item() <= 1


FROM_LOGITS = Formula(logistic_nll, _value, _slope, _in_unit, _few)


def one_pass(
    input: Tensor,
    target: Tensor,
    reduction: int,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    alpha: float | None = None,
) -> Tensor | None:
    """Value and slope at once, where no further weights come in."""
    plain_call = weight is None and pos_weight is None and alpha is None
    return in_cache(FROM_LOGITS, input, target, reduction) if plain_call else None


def _from_probabilities(input: Tensor, target: Tensor, alpha: float | None = None) -> Tensor:
    impossible, certain = input == 0, input == 1
    log_p = torch.where(impossible, LOWEST_LOG, torch.where(impossible, 1.0, input).log())
    log_rest = torch.where(certain, LOWEST_LOG, torch.log1p(-torch.where(certain, 0.0, input)))
    positive = -target * log_p.clamp(min=LOWEST_LOG)
    negative = -(1 - target) * log_rest.clamp(min=LOWEST_LOG)
    if alpha is not None:
        positive, negative = alpha * positive, (1 - alpha) * negative
    return positive + negative


def _value_from_probabilities(
    p: Tensor, y: Tensor, out: Tensor, slope: Tensor, log_p: Tensor, log_rest: Tensor
) -> None:
    torch.log(p, out=log_p)
    torch.neg(p, out=log_rest).log1p_()
    torch.lerp(log_rest, log_p, y, out=out).neg_()


def _slope_from_probabilities(
    p: Tensor, y: Tensor, out: Tensor, slope: Tensor, log_p: Tensor, rest: Tensor
) -> None:
    """``(p - y) / (p (1 - p))``."""
    torch.sub(p, y, out=slope).div_(torch.sub(ONE, p, out=rest).mul_(p))


def _above_the_bound(p: Tensor, label: Tensor) -> bool:
    least, most = torch.aminmax(p)
    return least.item() > SMALLEST and most.item() < 1 and _in_unit(p, label)


def _few_from_probabilities(input: Tensor, target: Tensor, reduction: int) -> Tensor | None:
    p = input.detach()
    least, most = torch.aminmax(p)
    if not (least.item() > FLOOR and most.item() < 1 - FLOOR and _in_unit(p, target)):
        return None
    value = forward(p, target, None, reduction)

    def pull(grad: Tensor, needed: Any, leaves: Any, target: Tensor) -> tuple[Tensor]:
        return (backward(grad, p, target, None, reduction),)

    given = {"leaves": (input,), "others": (target,), "kept": (target,)}
    return with_pull(value, reduction, pull, _from_probabilities, **given, done=True)


FROM_PROBABILITIES = Formula(
    _from_probabilities,
    _value_from_probabilities,
    _slope_from_probabilities,
    _above_the_bound,
    _few_from_probabilities,
)


def _one_pass_from_probabilities(
    input: Tensor,
    target: Tensor,
    reduction: int,
    weight: Tensor | None = None,
    alpha: float | None = None,
) -> Tensor | None:
    plain_call = weight is None and alpha is None
    return in_cache(FROM_PROBABILITIES, input, target, reduction) if plain_call else None


def _exact_logits(mp, x, y, pos_weight=None, weight=None, alpha=None):  # type: ignore[no-untyped-def]
    a, b = (1, 1) if alpha is None else (mp.mpf(alpha), 1 - mp.mpf(alpha))
    return a * y * mp.log(1 + mp.exp(-x)) + b * (1 - y) * mp.log(1 + mp.exp(x))


def _exact_probabilities(mp, x, y, weight=None, alpha=None):  # type: ignore[no-untyped-def]
    a, b = (1, 1) if alpha is None else (mp.mpf(alpha), 1 - mp.mpf(alpha))
    log_x = max(mp.log(x), LOWEST_LOG) if x > 0 else LOWEST_LOG
    log_rest = max(mp.log(1 - x), LOWEST_LOG) if x < 1 else LOWEST_LOG
    return -a * y * log_x - b * (1 - y) * log_rest


@loss(
    Card(
        task=("binary", "multilabel"),
        coupling="element",
        formula=r"y \log(1 + e^{-x}) + (1 - y) \log(1 + e^{x})",
        signatures=elementwise(input=REAL, target=UNIT),
        options={
            "weight": Factor(within=NONNEGATIVE),
            "pos_weight": Factor(within=NONNEGATIVE),
            "alpha": Optional(UNIT),
        },
        variants=({"alpha": 0.25}, {"alpha": 0.9}),
        exact=_exact_logits,
        points=(
            Point(0.0, 1.0, value=0.6931471805599453, gradient=-0.5),  # log 2
            Point(-15.0, 0.0, value=3.059022974e-07, gradient=3.059022269e-07),  # log1p(e^-15)
            Point(1e4, 0.0, value=1e4, gradient=1.0),  # linear far on the wrong side
            Point(1e4, 1.0, value=0.0, gradient=0.0),  # e^-1e4 underflows
            Point(0.0, 1.0, value=0.25 * 0.6931471805599453, gradient=-0.125, alpha=0.25),
        ),
        convex=True,
        gradient_bound=None,
        same_as="torch.nn.functional.binary_cross_entropy_with_logits",
        elicits="distribution",
        link="logit",
        aliases=("bce_with_logits", "bce", "log_loss"),
        use_when="yes-or-no targets, one or many per sample, and the probability matters",
        avoid_when="exactly one of several classes is true",
        source="Good 1952, doi:10.1111/j.2517-6161.1952.tb00104.x",
    ),
    native=one_pass,
    native_checks=True,
)
def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    alpha: float | None = None,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Negative log-probability of a yes-or-no target, from logits.

    Its gradient is sigmoid minus target. A likely label keeps all its digits on both sides: nothing
    is subtracted.

    Args:
        input: Logits, ``(*)``, floating point, any real value.
        target: Labels or probabilities in [0, 1], ``(*)``, same shape as ``input``.
        weight: Factor of each element, broadcast against ``input``, ``>= 0``; the mean still
            divides by the number of elements, as in torch.
        pos_weight: Factor of the positive part, broadcast against ``input``, ``>= 0``.
        alpha: Balance in [0, 1]: factor of the positive part, with 1 - alpha for the negative
            part; None for 1 and 1.
        sample_weight: Weight of each element, ``(*)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(*)`` for ``reduction="none"``; dtype of ``input``.

    Raises:
        ValueError: If the shapes differ, a target is outside [0, 1], or an option is out of range.
        TypeError: If a tensor is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> logits, labels = torch.tensor([2.0, -15.0]), torch.tensor([1.0, 0.0])
        >>> lm.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        tensor([1.2693e-01, 3.0590e-07])
    """
    if pos_weight is None and alpha is None:
        value = logistic_nll(input, target)
        return value if weight is None else times(Factor.spread("weight", weight, input), value)
    against, toward, *_ = logistic_sides(input)  # -log(1 - p) and -log p
    positive, negative = target * toward, (1 - target) * against
    if pos_weight is not None:
        positive = times(Factor.spread("pos_weight", pos_weight, input), positive)
    if alpha is not None:
        positive, negative = alpha * positive, (1 - alpha) * negative
    value = positive + negative
    return value if weight is None else times(Factor.spread("weight", weight, input), value)


class BCEWithLogitsLoss(Loss):
    """Module form of :func:`binary_cross_entropy_with_logits`; the weights are buffers."""

    weight: Tensor | None = None
    pos_weight: Tensor | None = None
    alpha: float | None = None
    function = staticmethod(binary_cross_entropy_with_logits)


@loss(
    Card(
        task=("binary", "multilabel"),
        coupling="element",
        formula=r"-y \max(\log p, -100) - (1 - y) \max(\log(1 - p), -100)",
        signatures=elementwise(input=UNIT, target=UNIT),
        options={
            "weight": Factor(within=NONNEGATIVE),
            "alpha": Optional(UNIT),
        },
        variants=({"alpha": 0.25}, {"alpha": 0.9}),
        exact=_exact_probabilities,
        points=(
            Point(0.5, 1.0, value=0.6931471805599453, gradient=-2.0),  # log 2
            Point(0.0, 1.0, value=100.0, gradient=0.0),  # the bound, where the loss is flat
            Point(1.0, 1.0, value=0.0, gradient=-1.0),  # -log p at p = 1
            Point(0.25, 0.0, value=0.2876820724517809, gradient=4 / 3),  # -log(3/4)
        ),
        same_as="torch.nn.functional.binary_cross_entropy",
        elicits="distribution",
        link="identity",
        use_when="the model gives probabilities and its logits are out of reach",
        avoid_when="logits are at hand: from them the loss is exact and its gradient bounded",
        source="Good 1952, doi:10.1111/j.2517-6161.1952.tb00104.x",
    ),
    native=_one_pass_from_probabilities,
    native_checks=True,
)
def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    alpha: float | None = None,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Negative log-probability of a yes-or-no target, from probabilities.

    Logarithms are bounded below by -100, as in torch; where the bound holds, the loss is flat and
    its gradient 0.

    Args:
        input: Probabilities in [0, 1], ``(*)``, floating point; not logits.
        target: Labels or probabilities in [0, 1], ``(*)``, same shape as ``input``.
        weight: Factor of each element, broadcast against ``input``, ``>= 0``; the mean still
            divides by the number of elements, as in torch.
        alpha: Balance in [0, 1]: factor of the positive part, with 1 - alpha for the negative
            part; None for 1 and 1.
        sample_weight: Weight of each element, ``(*)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(*)`` for ``reduction="none"``; dtype of ``input``.

    Raises:
        ValueError: If the shapes differ, or a value is outside [0, 1].
        TypeError: If a tensor is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> lm.binary_cross_entropy(torch.tensor([0.5, 0.0]), torch.ones(2), reduction="none")
        tensor([  0.6931, 100.0000])
    """
    value = _from_probabilities(input, target, alpha)
    return value if weight is None else times(Factor.spread("weight", weight, input), value)


class BCELoss(Loss):
    """Module form of :func:`binary_cross_entropy`; ``weight`` is a buffer."""

    weight: Tensor | None = None
    alpha: float | None = None
    function = staticmethod(binary_cross_entropy)
