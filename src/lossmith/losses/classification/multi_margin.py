"""Multi-margin: torch's multi-class hinge, averaged over all classes."""

import functools
import math
from typing import Any, cast

import torch
import torch._C._nn as kernels
from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.domain import CLASS, NONNEGATIVE, REAL, Choice, Interval, Vector
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.numerics import take_class, times
from lossmith.core.reduction import Reduction
from lossmith.core.signature import Signature
from lossmith.engines.eligible import sequential
from lossmith.engines.in_cache import Formula, in_cache, rows_are_worth_it
from lossmith.engines.pull import with_pull

forward: Any = cast(Any, kernels).multi_margin_loss
backward: Any = torch.ops.aten.multi_margin_loss_backward.default
ANY_NUMBER = Interval("number", "be a number")


def _kernel(
    input: Tensor,
    target: Tensor,
    reduction: int,
    p: int,
    margin: float,
) -> Tensor | None:
    """The kernel of torch with the derivatives that it lacks. It is finite for NaN scores."""
    scores = input.detach()
    simple = input.ndim == 2 and input.is_cpu
    if not simple or not math.isfinite(scores.sum().item()):
        return None
    scores = sequential(scores)
    value = forward(scores, target, p, margin, None, reduction)

    def pull(grad: Tensor, needed: Any, leaves: Any, scores: Tensor, target: Tensor) -> Any:
        each = grad.to(scores.dtype).contiguous()
        slope = backward(each, scores, target, p, margin, None, reduction)
        return (slope.to(grad.dtype),)

    plain = functools.partial(_plain, p=p, margin=margin)
    given = {"leaves": (input,), "others": (target,), "kept": (scores, target)}
    return with_pull(value.to(input.dtype), reduction, pull, plain, **given, done=True)


def _plain(input: Tensor, target: Tensor, p: int, margin: float) -> Tensor:
    dim = input.ndim - 1
    own = take_class(input, target, dim=dim).unsqueeze(dim)
    short = torch.relu(margin - own + input)
    if p == 2:
        short = short * short
    # the own class would add margin^p; it is taken out, not subtracted, which would round
    short = short.scatter(dim, target.unsqueeze(dim), 0.0)
    return short.sum(dim) / input.shape[dim]


def _value(
    x: Tensor,
    label: Tensor,
    out: Tensor,
    slope: Tensor,
    short: Tensor,
    square: Tensor,
    *,
    p: int,
    margin: float,
) -> None:
    place = label.unsqueeze(1)
    torch.add(x, margin - x.gather(1, place), out=short).clamp_(min=0).scatter_(1, place, 0.0)
    each = short if p == 1 else torch.mul(short, short, out=square)
    torch.sum(each, 1, out=out).div_(x.shape[1])


def _slope(
    x: Tensor,
    label: Tensor,
    out: Tensor,
    slope: Tensor,
    short: Tensor,
    square: Tensor,
    *,
    p: int,
) -> None:
    """What pulls the wrong classes down pushes the right one up; a sum of ones is exact."""
    torch.gt(short, 0, out=slope) if p == 1 else torch.mul(short, 2, out=slope)
    slope.scatter_(1, label.unsqueeze(1), -slope.sum(1, keepdim=True)).div_(x.shape[1])


def _one_pass(
    input: Tensor,
    target: Tensor,
    reduction: int,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor | None:
    if weight is not None:
        return None
    if not rows_are_worth_it(input):
        return _kernel(input, target, reduction, p, margin)
    formula = Formula(
        functools.partial(_plain, p=p, margin=margin),
        functools.partial(_value, p=p, margin=margin),
        functools.partial(_slope, p=p),
        by_row=True,
    )
    return in_cache(formula, input, target, reduction)


@loss(
    Card(
        task="multiclass",
        coupling="row",
        formula=r"\frac{w_y}{C} \sum_{c \ne y} \max(0, m - x_y + x_c)^p",
        signatures=(
            Signature(input=REAL("N C"), target=CLASS("N"), out="N"),
            Signature(input=REAL("C"), target=CLASS(""), out=""),
        ),
        options={
            "p": Choice((1, 2)),
            "margin": ANY_NUMBER,
            "weight": Vector(within=NONNEGATIVE),
        },
        variants=({"p": 2}, {"margin": 0.3}, {"margin": 2.5, "p": 2}),
        convex=True,
        same_as="torch.nn.functional.multi_margin_loss",
        elicits="mode",
        link="identity",
        use_when="only the order of the class scores matters",
        avoid_when="probabilities are wanted",
        source="Weston & Watkins 1999, Support vector machines for multi-class pattern recognition"
        " (ESANN)",
    ),
    native=_one_pass,
    native_checks=True,
)
def multi_margin_loss(
    input: Tensor,
    target: Tensor,
    *,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """How far each wrong class comes within the margin of the right one.

    The sum over the wrong classes is divided by the number of all classes, as in torch.

    Args:
        input: Class scores, ``(N, C)`` or ``(C)``, floating point, any real value.
        target: Class indices in [0, C-1], ``(N)`` or ``()``, integers.
        p: Power of the shortfall, 1 or 2.
        margin: Lead from which a wrong class costs nothing, any number.
        weight: Factor of each target class, ``(C)``, ``>= 0``; the mean divides by the number of
            samples, as in torch.
        sample_weight: Weight of each sample, ``(N)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N)`` for ``reduction="none"``; dtype of ``input``.

    Raises:
        ValueError: If shapes do not fit, a class is outside [0, C-1], or ``p`` is neither 1 nor 2.
        TypeError: If ``input`` is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> scores = torch.tensor([[0.1, 0.2, 0.7], [0.2, 0.5, 0.3]])
        >>> lm.multi_margin_loss(scores, torch.tensor([1, 2]), reduction="none")
        tensor([0.8000, 0.7000])
    """
    value = _plain(input, target, p, margin)
    return value if weight is None else times(weight.to(input)[target], value)


class MultiMarginLoss(Loss):
    """Module form of :func:`multi_margin_loss`; ``weight`` is a buffer."""

    p: int = 1
    margin: float = 1.0
    weight: Tensor | None = None
    function = staticmethod(multi_margin_loss)
