"""Losses of single elements, through the one-pass engine and as they come."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

import lossmith as lm
from lossmith.bench.limits import Work
from lossmith.bench.row import Draw, Family, Row, compiled, of

Sample = Callable[..., tuple[Tensor, ...]]
Loss = Callable[..., Tensor]


def real(draw: Draw, N: int) -> tuple[Tensor, ...]:
    """Predictions and targets on the line."""
    return draw.normal(N), draw.normal(N)


def binary(draw: Draw, N: int) -> tuple[Tensor, ...]:
    """Logits and labels of 0 and 1."""
    return draw.normal(N) * 2, draw.uniform(N).round()


def counts(draw: Draw, N: int) -> tuple[Tensor, ...]:
    """Logarithms of rates, and counts."""
    return draw.normal(N), draw.whole(0, 6, N).float()


def positive(draw: Draw, N: int) -> tuple[Tensor, ...]:
    """Logarithms of means, and amounts."""
    return draw.normal(N), draw.uniform(N) * 3 + 0.1


def spread(draw: Draw, N: int) -> tuple[Tensor, ...]:
    """Predictions, targets and variances."""
    return *real(draw, N), draw.uniform(N) + 0.5


def pinball(input: Tensor, target: Tensor) -> Tensor:
    """The median's, as a maximum."""
    residual = target - input
    return torch.maximum(0.5 * residual, -0.5 * residual).mean()


def expectile(input: Tensor, target: Tensor) -> Tensor:
    """At one half, the square of both sides."""
    residual = target - input
    return (torch.where(residual > 0, 0.5, 0.5) * residual**2).mean()


def log_cosh(input: Tensor, target: Tensor) -> Tensor:
    """Without overflow."""
    residual = (input - target).abs()
    return (residual + F.softplus(-2 * residual) - 0.6931471805599453).mean()


def charbonnier(input: Tensor, target: Tensor) -> Tensor:
    """A smooth absolute value."""
    return ((input - target) ** 2 + 1e-6).sqrt().mean()


def tweedie(input: Tensor, target: Tensor) -> Tensor:
    """Deviance at power 1.5 of a logarithmic mean."""
    return (2 * target * torch.exp(-0.5 * input) + 2 * torch.exp(0.5 * input)).mean()


def gamma(input: Tensor, target: Tensor) -> Tensor:
    """Likelihood of a logarithmic mean."""
    return (input + target * torch.exp(-input)).mean()


def work(s: int, N: int) -> Work:
    """Read both, write the gradient."""
    return Work(bytes=3.0 * s * N)


def work_of_three(s: int, N: int) -> Work:
    """Read three tensors, write the gradient of the first."""
    return Work(bytes=4.0 * s * N)


def row(name: str, make: Sample, ours: Loss, formula: Loss) -> Row:
    """The engine against lossmith without it, the formula in torch calls, and its compilation."""
    return Row(
        name,
        make=make,
        ours=lm.one_pass(ours),
        peers={"plain": of(ours), "torch": of(formula), "compile": compiled(formula)},
        truth=formula,
        work=work_of_three if make is spread else work,
        small=({"N": 1 << 12},),
        cpu=({"N": 1 << 22},),
        gpu=({"N": 1 << 26},),
    )


FAMILY = Family(
    "pointwise",
    "Losses of single elements",
    "Through `one_pass`. `plain` is lossmith without an engine, `torch` the kernel of torch or the "
    "formula in torch calls, `compile` the same through `torch.compile`.",
    (
        row("mse", real, lm.mse_loss, F.mse_loss),
        row("l1", real, lm.l1_loss, F.l1_loss),
        row("smooth L1", real, lm.smooth_l1_loss, F.smooth_l1_loss),
        row("log-cosh", real, lm.log_cosh_loss, log_cosh),
        row("Charbonnier", real, lm.charbonnier_loss, charbonnier),
        row("pinball", real, lm.pinball_loss, pinball),
        row("expectile", real, lm.expectile_loss, expectile),
        row("Poisson", counts, lm.poisson_nll_loss, F.poisson_nll_loss),
        row("gamma", positive, lm.gamma_nll_loss, gamma),
        row("Tweedie", positive, lm.tweedie_loss, tweedie),
        row("Gaussian", spread, lm.gaussian_nll_loss, F.gaussian_nll_loss),
        row(
            "logistic",
            binary,
            lm.binary_cross_entropy_with_logits,
            F.binary_cross_entropy_with_logits,
        ),
    ),
)
