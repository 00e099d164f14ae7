"""Losses of regions: dice, Tversky, and dice with cross-entropy, on volumes."""

import functools
from typing import Any

from torch import Tensor
from torch.nn import functional as F

import lossmith as lm
from lossmith.bench.limits import Work
from lossmith.bench.row import Draw, Family, Loss, Peer, Row, compiled, folder_of, of, package


def make(draw: Draw, N: int, C: int, L: int) -> tuple[Tensor, ...]:
    """Logits of a cube with edge L, and its label map."""
    return draw.normal(N, C, L, L, L), draw.whole(0, C, N, L, L, L)


def sums(input: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Overlap, predicted and true volume of each sample and class."""
    p = input.softmax(1)
    t = F.one_hot(target, input.shape[1]).movedim(-1, 1).to(p.dtype)
    return (p * t).flatten(2).sum(-1), p.flatten(2).sum(-1), t.flatten(2).sum(-1)


def dice(input: Tensor, target: Tensor) -> Tensor:
    """The textbook formula with 1 added to both sides of the fraction."""
    both, predicted, true = sums(input, target)
    return (1 - (2 * both + 1) / (predicted + true + 1)).mean()


def tversky(input: Tensor, target: Tensor) -> Tensor:
    """False alarms at 0.3, misses at 0.7."""
    both, predicted, true = sums(input, target)
    wrong = 0.3 * (predicted - both) + 0.7 * (true - both)
    return (1 - (both + 1) / (both + wrong + 1)).mean()


def dice_ce(input: Tensor, target: Tensor) -> Tensor:
    """Dice plus cross-entropy."""
    return dice(input, target) + F.cross_entropy(input, target)


def batch_dice(input: Tensor, target: Tensor) -> Tensor:
    """One fraction for each class of the whole batch."""
    both, predicted, true = (one.sum(0) for one in sums(input, target))
    return (1 - (2 * both + 1) / (predicted + true + 1)).mean()


def monai(name: str, **options: Any) -> Peer:
    """A loss of MONAI, which makes the label map one-hot."""

    def make() -> Loss:
        losses = package("monai.losses")
        loss = getattr(losses, name)(
            softmax=True, to_onehot_y=True, smooth_nr=1.0, smooth_dr=1.0, **options
        )
        return lambda input, target: loss(input, target.unsqueeze(1))

    return make


def smp() -> Loss:
    """Of segmentation-models-pytorch, where half of what is added goes to the overlap.

    Its models want a torchvision that fits torch's build; its losses want torch alone.
    """
    return folder_of("segmentation_models_pytorch", "losses").DiceLoss("multiclass", smooth=0.5)


def work(s: int, N: int, C: int, L: int) -> Work:
    """Logits read twice, the gradient written, labels of 8 bytes read twice."""
    return Work(bytes=(3.0 * s * C + 16.0) * N * L**3)


row = functools.partial(
    Row,
    make=make,
    work=work,
    small=({"N": 2, "C": 3, "L": 8},),
    cpu=({"N": 2, "C": 4, "L": 96},),
    gpu=({"N": 2, "C": 4, "L": 160}, {"N": 2, "C": 14, "L": 128}),
)


def ways(loss: Loss, formula: Loss, **others: Peer) -> dict[str, Any]:
    """The engine with a compiler; its peers are the loss as it comes, torch, and others."""
    torch = {"torch": of(formula), "compile": compiled(formula)}
    return {
        "ours": lm.one_pass(loss),
        "peers": {"default": of(loss), **torch, **others},
        "truth": formula,
    }


FAMILY = Family(
    "region",
    "Regions",
    "Volumes of logits and label maps; MONAI and the formula in torch calls make them one-hot. "
    "lossmith is through `one_pass`, `default` the same loss without a compiler.",
    (
        row("dice", **ways(lm.dice_loss, dice, monai=monai("DiceLoss"))),
        row(
            "dice over the batch",
            **ways(
                lm.DiceLoss(batch=True),
                batch_dice,
                monai=monai("DiceLoss", batch=True),
                smp=smp,
            ),
        ),
        row(
            "tversky",
            **ways(lm.tversky_loss, tversky, monai=monai("TverskyLoss", alpha=0.3, beta=0.7)),
        ),
        row(
            "dice and cross-entropy",
            **ways(lm.dice_ce_loss, dice_ce, monai=monai("DiceCELoss")),
        ),
        row(
            "dice by volume",
            ours=lm.one_pass(lm.dice_loss),
            peers={"default": of(lm.dice_loss), "torch": of(dice), "monai": monai("DiceLoss")},
            truth=dice,
            small=tuple({"N": 1, "C": 3, "L": edge} for edge in (4, 6, 8)),
            cpu=tuple({"N": 1, "C": 4, "L": edge} for edge in (16, 32, 64, 128)),
            gpu=tuple({"N": 1, "C": 4, "L": edge} for edge in (32, 64, 128, 256)),
            grows=True,
        ),
    ),
    options={
        "label map": "lossmith monai smp",
        "soft masks": "lossmith monai",
        "weight": "lossmith monai",
        "include_background": "lossmith monai",
        "ignore_index": "lossmith monai smp",
        "squared denominator": "lossmith monai",
        "batch": "lossmith monai smp",
        "sample_weight": "lossmith",
        "reduction none": "lossmith monai",
    },
)
