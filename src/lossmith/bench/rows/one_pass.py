"""Value and gradient in one pass over memory: focal, Huber, and a loss of somebody's own."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

import lossmith as lm
from lossmith.bench.limits import Work
from lossmith.bench.row import Draw, Family, Row, compiled, of


def residuals(draw: Draw, N: int) -> tuple[Tensor, ...]:
    """Predictions and targets."""
    return draw.normal(N), draw.normal(N)


def binary(draw: Draw, N: int) -> tuple[Tensor, ...]:
    """Logits and labels of 0 and 1."""
    return draw.normal(N) * 2, draw.uniform(N).round()


def focal(input: Tensor, target: Tensor) -> Tensor:
    """With alpha 0.25 and gamma 2, the formula of torchvision's ``sigmoid_focal_loss``."""
    p = torch.sigmoid(input)
    nll = F.binary_cross_entropy_with_logits(input, target, reduction="none")
    share = p * target + (1 - p) * (1 - target)
    balance = 0.25 * target + 0.75 * (1 - target)
    return (balance * nll * (1 - share) ** 2).mean()


def tails(input: Tensor, target: Tensor) -> Tensor:
    """A loss of somebody's own, unreduced."""
    residual = input - target
    return torch.log1p(residual * residual) + 0.1 * residual.abs()


def mean_tails(input: Tensor, target: Tensor) -> Tensor:
    """The same, reduced by hand."""
    return tails(input, target).mean()


def work(s: int, N: int) -> Work:
    """Read both, write the gradient."""
    return Work(bytes=3.0 * s * N)


def row(
    name: str,
    make: Callable[..., tuple[Tensor, ...]],
    ours: Callable[..., Tensor],
    formula: Callable[..., Tensor],
) -> Row:
    """One loss under the engine, against lossmith's other ways, torch, and its compiler."""
    return Row(
        name,
        make=make,
        ours=lm.one_pass(ours),
        peers={
            "torch": of(formula),
            "compile": compiled(formula),
            "plain": of(lm.one_pass(ours, engine="plain")),
            "blocks": of(lm.one_pass(ours, engine="blocks")),
        },
        truth=formula,
        work=work,
        small=tuple({"N": n} for n in (1 << 6, 1 << 9, 1 << 12)),
        cpu=tuple({"N": 1 << k} for k in range(10, 23, 3)),
        gpu=tuple({"N": 1 << k} for k in range(10, 29, 3)),
        grows=True,
    )


FAMILY = Family(
    "one_pass",
    "One pass",
    "Value and gradient from one generated kernel. `torch` is the formula in torch calls, "
    "`compile` the same through `torch.compile`; `plain` is lossmith without an engine, `blocks` "
    "lossmith without a compiler.",
    (
        row("focal", binary, lm.SigmoidFocalLoss(alpha=0.25), focal),
        row("huber", residuals, lm.huber_loss, F.huber_loss),
        row("own", residuals, tails, mean_tails),
    ),
)
