"""Poisson: the negative log-likelihood of counts, from a log-rate or a rate."""

import math

import torch
from torch import Tensor

from lossmith.core.card import Card, Point
from lossmith.core.domain import COUNT, FLAG, NONNEGATIVE, REAL
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.numerics import xlogy
from lossmith.core.reduction import Reduction
from lossmith.core.signature import Signature
from lossmith.engines.in_cache import Formula, in_cache


def _exact(mp, x, y, log_input=True, full=False, eps=1e-8):  # type: ignore[no-untyped-def]
    rate = mp.exp(x) if log_input else x
    log_rate = x if log_input else mp.log(x + mp.mpf(eps))
    value = rate - (y * log_rate if y else 0)
    if full and y > 1:
        value += y * mp.log(y) - y + mp.log(2 * mp.pi * y) / 2
    return value


def _plain(input: Tensor, target: Tensor) -> Tensor:
    # not the plain product: log-rate -inf with count 0 is 0, and 0 * inf would be NaN
    counted = torch.where(target == 0, 0.0, input)
    return torch.addcmul(input.exp(), target, counted, value=-1)


def _few(input: Tensor, target: Tensor, reduction: int) -> Tensor | None:
    if not _counts(input, target):
        return None
    return torch.poisson_nll_loss(input, target, True, False, 0.0, reduction)


def _value(x: Tensor, y: Tensor, out: Tensor, rate: Tensor, *spare: Tensor) -> None:
    torch.addcmul(torch.exp(x, out=rate), x, y, value=-1, out=out)


def _slope(x: Tensor, y: Tensor, out: Tensor, rate: Tensor, *spare: Tensor) -> None:
    rate.sub_(y)


def _counts(log_rate: Tensor, count: Tensor) -> bool:
    return count.amin().item() >= 0


FROM_LOG_RATE = Formula(_plain, _value, _slope, _counts, _few)


def _native(
    input: Tensor,
    target: Tensor,
    reduction: int,
    log_input: bool = True,
    full: bool = False,
    eps: float = 1e-8,
) -> Tensor | None:
    if full or not log_input or target.dtype is not input.dtype:
        return None
    return in_cache(FROM_LOG_RATE, input, target, reduction)


@loss(
    Card(
        task=("count", "regression"),
        coupling="element",
        formula=r"e^{x} - y x \ \text{from the log-rate } x; \quad"
        r" \lambda - y \log(\lambda + \varepsilon) \ \text{from the rate } \lambda",
        signatures=(
            Signature(input=REAL("*"), target=COUNT("*"), when={"log_input": True}),
            Signature(input=NONNEGATIVE("*"), target=COUNT("*"), when={"log_input": False}),
        ),
        options={"log_input": FLAG, "full": FLAG, "eps": NONNEGATIVE},
        variants=(
            {"full": True},
            {"log_input": False},
            {"log_input": False, "eps": 0.5, "full": True},
            {"log_input": False, "eps": 0.0},
        ),
        exact=_exact,
        points=(
            Point(0.0, 3.0, value=1.0, gradient=-2.0),  # by hand: 1 - 0, slope 1 - 3
            Point(math.log(3.0), 3.0, value=-0.2958368660043291, gradient=0.0),  # 3 - 3 log 3
            Point(-math.inf, 0.0, value=0.0, gradient=0.0),  # rate 0, nothing counted
            Point(-1e18, 2.0, value=2e18, gradient=-2.0),  # e^x is below the last digit
            Point(0.0, 0.0, value=0.0, gradient=1.0, log_input=False, eps=0.0),  # 0 log 0 = 0
            # by hand: 1 + 2 log 2 - 2 + log(4 pi)/2
            Point(0.0, 2.0, value=1.6518064843565197, gradient=-1.0, full=True),
        ),
        convex=True,
        nonnegative=False,
        same_as="torch.nn.functional.poisson_nll_loss",
        elicits="mean",
        link="log",
        aliases=("poisson",),
        use_when="targets are counts whose variance is about their mean",
        avoid_when="counts vary much more than their mean, or have far too many zeros",
        source="Nelder & Wedderburn 1972, doi:10.2307/2344614",
    ),
    native=_native,
    native_checks=True,
)
def poisson_nll_loss(
    input: Tensor,
    target: Tensor,
    *,
    log_input: bool = True,
    full: bool = False,
    eps: float = 1e-8,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Negative log-likelihood of Poisson counts.

    The term ``log y!`` does not depend on ``input`` and is left out unless ``full``, so values can
    be negative. Rate 0 with count 0 costs nothing, whichever way the rate is given.

    Args:
        input: Log of the expected count, ``(*)``, floating point, any real value; with
            ``log_input=False`` the expected count itself, ``>= 0``.
        target: Observed counts, ``(*)``, same shape as ``input``, ``>= 0``, integers or floating
            point. Where it is 0, no gradient flows to it.
        log_input: Whether ``input`` is the log of the expected count.
        full: Whether to add Stirling's approximation of ``log y!`` where ``y > 1``.
        eps: Added to the expected count inside the log if ``log_input=False``; ``>= 0``.
        sample_weight: Weight of each element, ``(*)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(*)`` for ``reduction="none"``; dtype of ``input``.

    Raises:
        ValueError: If the shapes differ, a count is below 0, an expected count is below 0,
            ``eps < 0``, or ``reduction`` is unknown.
        TypeError: If ``input`` is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> log_rate = torch.tensor([0.0, 1.0])
        >>> lm.poisson_nll_loss(log_rate, torch.tensor([3, 1]), reduction="none")
        tensor([1.0000, 1.7183])
    """
    value = _plain(input, target) if log_input else input - xlogy(target, input + eps)
    return value + _stirling(target) if full else value


def _stirling(count: Tensor) -> Tensor:
    """``log y!`` from 2 on to four digits; at 0 and 1 it is 0."""
    many = count > 1
    y = torch.where(many, count, 1.0)
    return torch.where(many, y * y.log() - y + 0.5 * torch.log(2 * math.pi * y), 0.0)


class PoissonNLLLoss(Loss):
    """Module form of :func:`poisson_nll_loss`."""

    log_input: bool = True
    full: bool = False
    eps: float = 1e-8
    function = staticmethod(poisson_nll_loss)
