"""Focal loss: cross-entropy that turns its back on easy samples; softmax and sigmoid forms."""

import functools
from typing import Any, cast

import torch
import torch._C._nn as kernels
from torch import Tensor

from lossmith.core.card import Card, Point
from lossmith.core.certainty import tamed
from lossmith.core.domain import (
    CLASS,
    NONNEGATIVE,
    PROBABILITIES,
    REAL,
    UNIT,
    Optional,
    Vector,
    Whole,
)
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.numerics import (
    accurate_log_softmax,
    class_margin,
    faded,
    logistic_sides,
    times,
)
from lossmith.core.reduction import Reduction, Terms
from lossmith.core.signature import Signature, elementwise
from lossmith.engines.in_cache import Formula, in_cache, zeros_and_ones
from lossmith.engines.rows.probabilities import Against
from lossmith.engines.rows.targets import against


def _exact(mp, x, y, gamma=2.0, alpha=None):  # type: ignore[no-untyped-def]
    p, rest = 1 / (1 + mp.exp(-x)), 1 / (1 + mp.exp(x))
    a, b = (1, 1) if alpha is None else (mp.mpf(alpha), 1 - mp.mpf(alpha))
    return -a * y * rest**gamma * mp.log(p) - b * (1 - y) * p**gamma * mp.log(rest)


def _plain(input: Tensor, target: Tensor, gamma: float, alpha: float | None) -> Tensor:
    against, toward, p, rest = logistic_sides(input)  # -log(1 - p) and -log p
    positive = target * faded(toward, rest, against, gamma)
    negative = (1 - target) * faded(against, p, toward, gamma)
    if alpha is not None:
        positive, negative = alpha * positive, (1 - alpha) * negative
    return positive + negative


# With the logit of the wrong side, z = -x for a label of 1 and x for 0, the loss is
# w sigmoid(z)^gamma softplus(z), from one exponential less than both sides take
_softplus = cast(Any, kernels).softplus
_LINEAR_FROM = 40.0  # as in `numerics.softplus`


@functools.cache
def _number(value: float, dtype: torch.dtype) -> Tensor:
    """A number as a kernel takes it: one of Python it would convert, which takes as long again."""
    return torch.tensor(value, dtype=dtype, device="cpu")  # whatever the default is now


@functools.cache
def _of_hard_labels(gamma: int, alpha: float | None) -> Formula:
    def value(x: Tensor, y: Tensor, out: Tensor, sign: Tensor, wrong: Tensor, cost: Tensor) -> None:
        torch.add(_number(1.0, y.dtype), y, alpha=-2, out=sign)
        z = torch.mul(x, sign, out=wrong)
        _softplus(z, 1.0, _LINEAR_FROM, out=cost)
        torch.sigmoid(z, out=wrong)
        if alpha is not None:  # the slope has it from the sign
            sign.mul_(torch.lerp(_number(1 - alpha, y.dtype), _number(alpha, y.dtype), y))
        torch.mul(cost, wrong, out=out)
        for _ in range(gamma - 1):
            out.mul_(wrong)
        if alpha is not None:
            out.mul_(sign.abs())

    def slope(x: Tensor, y: Tensor, out: Tensor, sign: Tensor, wrong: Tensor, cost: Tensor) -> None:
        """``w wrong^gamma (wrong + gamma softplus (1 - wrong))``, with the sign of z in x."""
        for _ in range(gamma):
            sign.mul_(wrong)
        torch.neg(cost, out=out).exp_()  # 1 - wrong, which would cancel
        sign.mul_(torch.addcmul(wrong, out, cost, value=gamma, out=out))

    def plain(x: Tensor, y: Tensor) -> Tensor:
        finite = tamed(x)  # `value` and `slope` have the limits of infinite logits, `_plain` not
        return _plain(x if finite is None else finite, y, gamma, alpha)

    return Formula(plain, value, slope, lambda input, label: zeros_and_ones(label))


def _one_pass(
    input: Tensor, target: Tensor, reduction: int, gamma: float = 2.0, alpha: float | None = None
) -> Tensor | None:
    """Value and slope at once, for hard labels and the usual powers."""
    if gamma not in (1, 2, 3):
        return None
    return in_cache(_of_hard_labels(int(gamma), alpha), input, target, reduction)


@loss(
    Card(
        task=("binary", "multilabel"),
        coupling="element",
        formula=r"-\alpha y (1-p)^\gamma \log p - (1-\alpha)(1-y) p^\gamma \log(1-p),"
        r"\ p = \sigma(x)",
        signatures=elementwise(input=REAL, target=UNIT),
        options={"gamma": NONNEGATIVE, "alpha": Optional(UNIT)},
        variants=({"gamma": 0.0}, {"gamma": 0.5, "alpha": 0.25}, {"gamma": 3.5, "alpha": 0.9}),
        exact=_exact,
        points=(
            Point(0.0, 1.0, value=0.17328679513998632, gradient=-0.2982867951399863),  # log(2)/4
            Point(0.0, 0.0, value=0.6931471805599453, gradient=0.5, gamma=0.0),  # cross-entropy
            Point(1e4, 0.0, value=1e4, gradient=1.0),  # a hard sample counts in full
            Point(1e4, 1.0, value=0.0, gradient=0.0),  # an easy one does not
        ),
        elicits="mode",
        link="logit",
        aliases=("binary_focal_loss",),
        use_when="many easy negatives drown few positives",
        avoid_when="calibrated probabilities are wanted: focusing bends them",
        source="Lin, Goyal, Girshick, He & Dollar 2017, arXiv:1708.02002",
    ),
    native=_one_pass,
    native_checks=True,
)
def sigmoid_focal_loss(
    input: Tensor,
    target: Tensor,
    *,
    gamma: float = 2.0,
    alpha: float | None = None,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Binary cross-entropy, faded by the probability already reached.

    Worked out from log-sigmoids, so it is smooth and exact at both ends; gamma = 0 is binary
    cross-entropy. Targets between 0 and 1 mix the two sides in their proportion.

    Args:
        input: Logits, ``(*)``, floating point, any real value.
        target: Labels or probabilities in [0, 1], ``(*)``, same shape as ``input``.
        gamma: Power of the fading, ``>= 0``.
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
        >>> logits, labels = torch.tensor([0.0, 3.0]), torch.ones(2)
        >>> lm.sigmoid_focal_loss(logits, labels, reduction="none")
        tensor([1.7329e-01, 1.0928e-04])
    """
    return _plain(input, target, gamma, alpha)


class SigmoidFocalLoss(Loss):
    """Module form of :func:`sigmoid_focal_loss`."""

    gamma: float = 2.0
    alpha: float | None = None
    function = staticmethod(sigmoid_focal_loss)


def _cost(margin: Tensor, gamma: float) -> Tensor:
    nll, odds, rest, _ = logistic_sides(margin)  # odds: -log(1 - p)
    return faded(nll, rest, odds, gamma)


def _against(gamma: float = 2.0, weight: Tensor | None = None, ignore_index: int = -100) -> Against:
    def cost(nll: Tensor, p: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
        fade = rest.pow(gamma)
        ratio = torch.where(rest > 0, nll / rest, 1.0)  # its limit where the class is certain
        ratio.clamp_(max=torch.finfo(ratio.dtype).max)  # p is 0 where it is infinite
        return fade * nll, fade * (1 + gamma * p * ratio)

    return Against(cost, weight, ignore_index=ignore_index)


@loss(
    Card(
        task=("multiclass", "segmentation"),
        coupling="row",
        formula=r"-\sum_c w_c q_c (1 - p_c)^\gamma \log p_c,\ p = \operatorname{softmax}(x)",
        signatures=(
            Signature(input=REAL("N C *"), target=CLASS("N *"), out="N *"),
            Signature(input=REAL("N C *"), target=PROBABILITIES("N C *"), out="N *"),
            Signature(input=REAL("C"), target=CLASS(""), out=""),
            Signature(input=REAL("C"), target=PROBABILITIES("C"), out=""),
        ),
        options={
            "gamma": NONNEGATIVE,
            "weight": Vector(within=NONNEGATIVE),
            "ignore_index": Whole(),
        },
        variants=({"gamma": 0.0}, {"gamma": 0.5}, {"gamma": 3.0}),
        elicits="mode",
        link="softmax",
        aliases=("focal",),
        use_when="easy samples of frequent classes drown the rest",
        avoid_when="calibrated probabilities are wanted: focusing bends them",
        source="Lin, Goyal, Girshick, He & Dollar 2017, arXiv:1708.02002",
    ),
    engine=against(_against),
)
def focal_loss(
    input: Tensor,
    target: Tensor,
    *,
    gamma: float = 2.0,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor | Terms:
    """Cross-entropy, faded by the probability already reached.

    gamma = 0 is cross-entropy. ``weight`` is the paper's alpha, one number per class.

    Args:
        input: Logits, ``(N, C, *)`` or ``(C)``, floating point, any real value.
        target: Class indices in [0, C-1], ``(N, *)`` or ``()``, integers; or probabilities in
            [0, 1] with the shape of ``input``, floating point.
        gamma: Power of the fading, ``>= 0``.
        weight: Factor of each class, ``(C)``, ``>= 0``. The mean over class indices divides by the
            sum of the factors of the targets, as in cross-entropy.
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
        >>> logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 5.0]])
        >>> lm.focal_loss(logits, torch.tensor([0, 1]), reduction="none")
        tensor([0.0109, 4.9469])
    """
    dim = 1 if input.ndim > 1 else 0
    if not target.is_floating_point():
        value = _cost(class_margin(input, target, dim=dim), gamma)
        if weight is None:
            return value
        own = weight.to(input)[target]
        return Terms(times(own, value), normaliser=own)
    log_p = accurate_log_softmax(input, dim=dim)
    rest = -torch.expm1(log_p)  # 1 - p, which may be 0: the power would have an infinite slope
    certain = rest == 0
    fade = torch.where(certain, 0.0, torch.where(certain, 1.0, rest).pow(gamma))
    if weight is not None:
        target = target * weight.to(input).view(-1, *[1] * (input.ndim - dim - 1))
    return -times(target, times(fade, log_p)).sum(dim)


class FocalLoss(Loss):
    """Module form of :func:`focal_loss`; ``weight`` is a buffer."""

    gamma: float = 2.0
    weight: Tensor | None = None
    ignore_index: int = -100
    function = staticmethod(focal_loss)
