"""Loss and gradient of many samples, as boosting and linear models ask for them."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

import lossmith as lm
from lossmith.bench.limits import Work
from lossmith.bench.row import Direct, Draw, Family, Peer, Row, compiled, of, package
from lossmith.bench.rows.pointwise import binary, counts, positive, real, work

Loss = Callable[..., Tensor]


def table(draw: Draw, N: int, C: int) -> tuple[Tensor, ...]:
    """Logits and class indices."""
    return draw.normal(N, C), draw.whole(0, C, N)


def scikit(name: str, **options: float) -> Peer:
    """A loss of scikit-learn: sum of the values, and the gradient of each sample."""

    def make() -> Direct:
        loss = getattr(package("sklearn._loss"), name)(**options)

        def run(input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
            value, gradient = torch.empty(len(input)), torch.empty_like(input)
            loss.loss_gradient(
                y_true=target.to(input.dtype).numpy(),
                raw_prediction=input.numpy(),
                loss_out=value.numpy(),
                gradient_out=gradient.numpy(),
                n_threads=torch.get_num_threads(),
            )
            return value.sum(), gradient

        return Direct(run)

    return make


def total(function: Loss) -> Loss:
    """The sum over samples."""
    return lambda input, target: function(input, target, reduction="sum")


def pinball(input: Tensor, target: Tensor) -> Tensor:
    """The median's, as a maximum."""
    residual = target - input
    return torch.maximum(0.5 * residual, -0.5 * residual).sum()


def tweedie(input: Tensor, target: Tensor) -> Tensor:
    """Deviance at power 1.5 of a logarithmic mean."""
    return (2 * target * torch.exp(-0.5 * input) + 2 * torch.exp(0.5 * input)).sum()


def row(
    name: str,
    make: Callable[..., tuple[Tensor, ...]],
    ours: Loss,
    formula: Loss,
    theirs: Peer,
) -> Row:
    """The engine against torch, its compiler and scikit-learn."""
    return Row(
        name,
        make=make,
        ours=total(lm.one_pass(ours)),
        peers={"torch": of(formula), "compile": compiled(formula), "sklearn": theirs},
        truth=formula,
        work=work,
        small=({"N": 1 << 12},),
        cpu=({"N": 1_000_000}, {"N": 10_000_000}),
        gpu=({"N": 10_000_000},),
    )


FAMILY = Family(
    "samples",
    "Many samples",
    "Sum of the losses and a gradient for each sample; `sklearn` is the private module in which "
    "scikit-learn keeps the losses of its boosting and linear models.",
    (
        row(
            "logistic",
            binary,
            lm.binary_cross_entropy_with_logits,
            total(F.binary_cross_entropy_with_logits),
            scikit("HalfBinomialLoss"),
        ),
        row(
            "Poisson",
            counts,
            lm.poisson_nll_loss,
            total(F.poisson_nll_loss),
            scikit("HalfPoissonLoss"),
        ),
        row("quantile", real, lm.pinball_loss, pinball, scikit("PinballLoss", quantile=0.5)),
        row(
            "Tweedie",
            positive,
            lm.tweedie_loss,
            tweedie,
            scikit("HalfTweedieLoss", power=1.5),
        ),
        Row(
            "multinomial",
            make=table,
            ours=total(lm.cross_entropy),
            peers={
                "torch": of(total(F.cross_entropy)),
                "compile": compiled(total(F.cross_entropy)),
                "sklearn": scikit("HalfMultinomialLoss", n_classes=100),
            },
            truth=total(F.cross_entropy),
            work=lambda s, N, C: Work(bytes=2.0 * s * N * C),
            small=({"N": 64, "C": 100},),
            cpu=({"N": 65536, "C": 100},),
            gpu=({"N": 65536, "C": 100},),
        ),
    ),
)
