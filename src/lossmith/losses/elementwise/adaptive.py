"""Barron's general robust loss: one family from squared error to Welsch, with a shape to learn."""

import math
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from lossmith.core.card import Card, Point
from lossmith.core.checks import fail
from lossmith.core.domain import POSITIVE, REAL, Interval
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.numerics import expm1, log1p_square
from lossmith.core.reduction import Reduction
from lossmith.core.signature import elementwise

# One for all entries of the last dimension, or one for each
SHAPE = Interval("shape", "be <= 2", high=2.0, several=True, endless=True)
PROPER_SHAPE = Interval("proper_shape", "lie in [0, 2]", low=0.0, high=2.0, several=True)
SCALE = replace(POSITIVE, several=True)


def _exact(mp: Any, x: Any, y: Any, alpha: float = 1.0, scale: float = 1.0) -> Any:
    square = ((x - y) / mp.mpf(scale)) ** 2
    if alpha == 2:
        return square / 2
    if alpha == 0:
        return mp.log1p(square / 2)
    if alpha == -math.inf:
        return -mp.expm1(-square / 2)
    gap = 2 - mp.mpf(alpha)
    return gap / alpha * ((square / gap + 1) ** (mp.mpf(alpha) / 2) - 1)


@cache
def _exact_log_partition(mp: Any, alpha: float) -> Any:
    return mp.log(2 * mp.quad(lambda x: mp.exp(-_exact(mp, x, 0, alpha)), [0, 1, 4, mp.inf]))


@loss(
    Card(
        task="regression",
        coupling="element",
        formula=r"\frac{2-\alpha}{\alpha}"
        r"\left(\left(\frac{(r/c)^2}{2-\alpha}+1\right)^{\alpha/2}-1\right)",
        signatures=elementwise(input=REAL, target=REAL),
        options={"alpha": SHAPE, "scale": SCALE},
        variants=(
            {"alpha": 2.0},
            {"alpha": 1.999, "scale": 3.0},
            {"alpha": 0.5, "scale": 0.25},
            {"alpha": 1e-4},
            {"alpha": 0.0},
            {"alpha": -2.0},
            {"alpha": -1e4},
            {"alpha": -math.inf, "scale": 3.0},
        ),
        exact=_exact,
        points=(
            Point(3.0, 0.0, value=4.5, gradient=3.0, alpha=2.0),  # half the squared error
            Point(0.75, 0.0, value=0.25, gradient=0.6),  # pseudo-Huber: sqrt(1 + 9/16) = 5/4
            Point(-2.0, 0.0, value=1.0986122886681098, gradient=-2 / 3, alpha=0.0),  # Cauchy: log 3
            Point(1.0, 0.0, value=0.4, gradient=0.64, alpha=-2.0),  # Geman-McClure: 2/5, 16/25
            # Welsch at one scale, as in the literals of that loss
            Point(1.0, 0.0, value=0.3934693402873666, gradient=0.6065306597126334, alpha=-math.inf),
            Point(1e30, 0.0, value=1e30, gradient=1.0),  # extreme: the square overflows float32
        ),
        symmetric=True,
        zero_at_target=True,
        robust=True,
        elicits="between median and mean",
        link="identity",
        aliases=("barron", "general_robust_loss"),
        use_when="the heaviness of the tails is to be tuned by one number",
        avoid_when="a fixed member of the family is known to fit: name that one",
        source="Barron 2019, arXiv:1701.03077",
    )
)
def barron_loss(
    input: Tensor,
    target: Tensor,
    *,
    alpha: float | Tensor = 1.0,
    scale: float | Tensor = 1.0,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """One family from squared error to Welsch; ``alpha`` says how much outliers count.

    2 is half the squared error, 1 pseudo-Huber, 0 Cauchy, -2 Geman-McClure, -inf Welsch; every
    member begins as half the square of ``r/scale``. Convex from 1 on.

    Args:
        input: Model output, ``(*)``, floating point, any real value.
        target: Observed values, ``(*)``, same shape as ``input``.
        alpha: Shape, ``<= 2``, -inf included; a number, or a tensor ``(1,)`` or ``(D,)`` with one
            shape per entry of the last dimension. Gradients flow to a tensor.
        scale: Size of ordinary errors, ``> 0``, in the unit of the target; as ``alpha``.
        sample_weight: Weight of each element, ``(*)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(*)`` for ``reduction="none"``, without unit; dtype of ``input``.

    Raises:
        ValueError: If the shapes differ or do not fit, ``alpha > 2``, ``scale <= 0``, or
            ``reduction`` is unknown.
        TypeError: If a tensor is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> residual = torch.tensor([1.0, 10.0])
        >>> lm.barron_loss(residual, torch.zeros(2), alpha=1.0, reduction="none")
        tensor([0.4142, 9.0499])
        >>> lm.barron_loss(residual, torch.zeros(2), alpha=-2.0, reduction="none")
        tensor([0.4000, 1.9231])
    """
    ratio = (input - target) / _per_entry("scale", scale, input)
    return _rho(ratio, _per_entry("alpha", alpha, input))


class BarronLoss(Loss):
    """Module form of :func:`barron_loss`; a tensor learns only if it is a parameter."""

    alpha: float | Tensor = 1.0
    scale: float | Tensor = 1.0
    function = staticmethod(barron_loss)


@loss(
    Card(
        task=("regression", "distribution"),
        coupling="element",
        formula=r"\rho(r;\alpha,c)+\log c+\log Z(\alpha),\quad"
        r" Z(\alpha)=\int e^{-\rho(x;\alpha,1)}\,dx",
        signatures=elementwise(input=REAL, target=REAL),
        options={"alpha": PROPER_SHAPE, "scale": SCALE},
        variants=({"alpha": 0.0, "scale": 0.1}, {"alpha": 1.5}, {"alpha": 2.0, "scale": 3.0}),
        exact=lambda mp, x, y, alpha=1.0, scale=1.0: (
            _exact(mp, x, y, alpha, scale) + mp.log(scale) + _exact_log_partition(mp, alpha)
        ),
        points=(
            # normal density: 9/2 + log(2 pi) / 2
            Point(3.0, 0.0, value=5.418938533204673, gradient=3.0, alpha=2.0),
            # Cauchy density: log 3 + log(pi sqrt(2))
            Point(-2.0, 0.0, value=2.5899157647974826, gradient=-2 / 3, alpha=0.0),
            # normal of standard deviation 1/10: log(2 pi) / 2 - log 10
            Point(0.0, 0.0, value=-1.383646559789373, gradient=0.0, alpha=2.0, scale=0.1),
        ),
        symmetric=True,
        nonnegative=False,
        robust=True,
        elicits="between median and mean",
        link="identity",
        use_when="the shape or the scale of the errors is learned together with the model",
        avoid_when="both are fixed: the two logarithms are then constants",
        source="Barron 2019, arXiv:1701.03077",
    )
)
def barron_nll_loss(
    input: Tensor,
    target: Tensor,
    *,
    alpha: float | Tensor = 1.0,
    scale: float | Tensor = 1.0,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Negative log-likelihood of a density with the general robust loss as exponent.

    The logarithms of ``scale`` and of the partition function make wide tails and a large scale
    cost something, so that both can be learned. 2 is the normal density, 0 a Cauchy density.

    Args:
        input: Centre of the density, ``(*)``, floating point, any real value.
        target: Observed values, ``(*)``, same shape as ``input``.
        alpha: Shape, in [0, 2]; a number, or a tensor ``(1,)`` or ``(D,)`` with one shape per
            entry of the last dimension. Gradients flow to a tensor.
        scale: Size of ordinary errors, ``> 0``, in the unit of the target; as ``alpha``.
        sample_weight: Weight of each element, ``(*)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(*)`` for ``reduction="none"``, in nats; dtype of ``input``.

    Raises:
        ValueError: If the shapes differ or do not fit, ``alpha`` is outside [0, 2],
            ``scale <= 0``, or ``reduction`` is unknown.
        TypeError: If a tensor is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> lm.barron_nll_loss(torch.tensor([0.0]), torch.tensor([3.0]), alpha=2.0)
        tensor(5.4189)
    """
    shape, spread = _per_entry("alpha", alpha, input), _per_entry("scale", scale, input)
    if isinstance(shape, Tensor):
        partition: float | Tensor = _log_partition(shape).to(input.dtype)
    else:
        partition = _log_partition_of(shape)
    size = spread.log() if isinstance(spread, Tensor) else math.log(spread)
    return _rho((input - target) / spread, shape) + (size + partition)


class AdaptiveBarronLoss(Loss):
    """:func:`barron_nll_loss` with a shape and a scale that learn.

    ``parameters()`` are ``alpha_logit`` and ``log_scale``, one number per entry of the last
    dimension (or one in all): give them to the optimiser beside the model's. ``alpha`` is twice
    the sigmoid of the one, ``scale`` the exponential of the other.

    Args:
        entries: Size of the last dimension of ``input``, or 1 for a shape and a scale in common.
        alpha: Shape to start from, in (0, 2).
        scale: Scale to start from, ``> 0``, in the unit of the target.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Example:
        >>> import torch, lossmith as lm
        >>> criterion = lm.AdaptiveBarronLoss()
        >>> criterion(torch.tensor([1.0, 2.0]), torch.zeros(2)).backward()
        >>> criterion.alpha.detach(), criterion.scale.detach()
        (tensor([1.]), tensor([1.]))
    """

    function = staticmethod(barron_nll_loss)

    def __init__(
        self,
        *,
        entries: int = 1,
        alpha: float = 1.0,
        scale: float = 1.0,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        if not 0 < alpha < 2:
            fail("alpha", "lie in (0, 2)", alpha)
        POSITIVE.check_option("scale", scale)
        self.alpha_logit = nn.Parameter(torch.full((entries,), math.log(alpha / (2 - alpha))))
        self.log_scale = nn.Parameter(torch.full((entries,), math.log(scale)))

    @property
    def alpha(self) -> Tensor:
        """The shapes as they are now."""
        return 2 * torch.sigmoid(self.alpha_logit)

    @property
    def scale(self) -> Tensor:
        """The scales as they are now."""
        return self.log_scale.exp()

    def forward(
        self, *tensors: Tensor, sample_weight: Tensor | None = None, **named: Tensor
    ) -> Tensor:
        """The negative log-likelihood under the present shape and scale."""
        return barron_nll_loss(
            *tensors,
            alpha=self.alpha,
            scale=self.scale,
            sample_weight=sample_weight,
            reduction=self.reduction,
            **named,
        )

    def extra_repr(self) -> str:
        """The constructor's arguments that are not parameters."""
        return f"entries={self.alpha_logit.numel()}, reduction={self.reduction!r}"


def _per_entry(name: str, value: float | Tensor, input: Tensor) -> float | Tensor:
    """A number as it is; a 1-D tensor made to broadcast against ``input`` and keep its rank."""
    if not isinstance(value, Tensor):
        return value
    if value.numel() == 1 and value.ndim <= 1:
        return value.to(input.dtype).reshape(())
    if value.ndim != 1 or input.shape[-1:] != value.shape:
        fail(name, "be a number or have the shape (1,) or that of the last dimension", value)
    return value.to(input.dtype)


def _rho(ratio: Tensor, alpha: float | Tensor) -> Tensor:
    """The loss of ``r / scale``: each part of the shapes by the form that is accurate there."""
    if isinstance(alpha, Tensor):
        upper = _above_one(ratio, alpha.clamp(min=1))
        return torch.where(alpha >= 1, upper, _below_one(ratio, alpha.clamp(max=1)))
    # nothing to learn: only one part is needed, and no derivative in alpha
    unseen = torch.finfo(ratio.dtype).eps ** 2
    if alpha >= 1:
        return _above_one(ratio, ratio.new_full((), alpha))
    if alpha < -1 / unseen:
        return -expm1(-0.5 * ratio * ratio)
    half_log = 0.5 * log1p_square(ratio / math.sqrt(2 - alpha))
    if abs(alpha) < unseen:
        return 2 * half_log
    return (2 - alpha) / alpha * expm1(alpha * half_log)


def _above_one(ratio: Tensor, alpha: Tensor) -> Tensor:
    """For ``1 <= alpha <= 2``, with ``b = 2 - alpha``: ``(u^2 q - b (1 - q)) / alpha``.

    Here ``q = (1 + u^2/b)^(-b/2)``. Nothing grows without bound as ``b`` goes to 0, and the
    difference loses at most a factor of 3. From 1e18 on only the leading power of ``u`` is left,
    and ``u^2`` would overflow on the way back.
    """
    gap = _gap(alpha)
    far = ratio.abs() > 1e18
    leading = torch.where(far, ratio, 1.0).abs() ** alpha * gap ** (0.5 * gap)
    near = torch.where(far, 1.0, ratio)
    inner = near / gap.sqrt()
    root_q = torch.hypot(inner, torch.ones_like(inner)) ** (-0.5 * gap)
    damped = near * root_q
    rest = gap * torch.expm1(-0.5 * gap * log1p_square(inner))
    return torch.where(far, leading, damped * damped + rest) / alpha


def _below_one(ratio: Tensor, alpha: Tensor) -> Tensor:
    """For ``alpha <= 1``; -inf by a number whose loss rounds to the same."""
    alpha = alpha.clamp(min=-(torch.finfo(ratio.dtype).eps ** -2))
    gap = _gap(alpha)
    return gap * _box_cox(0.5 * log1p_square(ratio / gap.sqrt()), alpha)


def _gap(alpha: Tensor) -> Tensor:
    """``2 - alpha``, kept off 0 by a number too small to be seen in the loss.

    At ``alpha = 2`` the derivative in ``alpha`` is infinite; here it is large and of its sign.
    """
    return 2 - alpha + torch.finfo(alpha.dtype).eps ** 2


def _box_cox(log_x: Tensor, alpha: Tensor) -> Tensor:
    """``(x^alpha - 1) / alpha``, ``log x`` at 0, with accurate derivatives by both arguments.

    Near 0 the quotient's derivative by ``alpha`` cancels; there it is the series of
    ``sinh(z) / z`` with ``z = alpha log(x) / 2``, whose terms beyond the eighth are below 1e-17.
    """
    power = alpha * log_x
    near = power.abs() < 1
    half = 0.5 * torch.where(near, power, 0.0)
    series = torch.ones_like(half)
    for order in range(16, 0, -2):
        series = 1 + half * half / (order * (order + 1)) * series
    far = expm1(torch.where(near, 0.0, power)) / torch.where(near, 1.0, alpha)
    return torch.where(near, log_x * half.exp() * series, far)


def _log_partition_of(alpha: float) -> float:
    """The same of a number: a compiler sees the result, not the nodes, which take it a minute."""
    return _known_log_partition(alpha)


# torch.compiler.assume_constant_result does this, and imports a compiler to do it: two seconds
setattr(_log_partition_of, "_dynamo_marked_constant", True)  # noqa: B010


@cache
def _known_log_partition(alpha: float) -> float:
    """On the CPU only, wherever the tensors are, and even if they have no values."""
    with _disable_current_modes():
        return _log_partition(torch.tensor(alpha, dtype=torch.float64, device="cpu")).item()


def _log_partition(alpha: Tensor) -> Tensor:
    """``log Z(alpha)`` for shapes in [0, 2], in float64: value to 1e-14, derivative to 1e-12.

    With ``x = sqrt(b) sinh(w)`` the integrand is analytic in a strip of ``w`` whose width does not
    shrink for any shape, so the trapezoidal rule converges exponentially. What is cut off at
    ``w = 44`` is below 1e-18 even for the Cauchy tail. The nodes are constants, hence `detach`.
    """
    step, last = 0.125, 352
    alpha = alpha.double().unsqueeze(-1)
    width = _gap(alpha.detach()).sqrt()
    node = step * torch.arange(last + 1, dtype=alpha.dtype, device=alpha.device)
    # the integrand is even: the node at 0 counts once, the others for both signs
    weight = torch.where(node == 0, step, 2 * step * torch.cosh(node)) * width
    return torch.logsumexp(weight.log() - _rho(width * torch.sinh(node), alpha), -1)
