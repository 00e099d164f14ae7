"""Cross-entropy of logits: labels, soft targets, options, images."""

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import lossmith as lm
from lossmith.bench.limits import Work
from lossmith.bench.row import Draw, Family, Loss, Peer, Row, compiled, need_gpu, of, package

BOTH = (torch.float32, torch.bfloat16)
SMOOTHING = 0.1
CAP = 30.0
Z = 1e-4
TORCH = {"torch": of(F.cross_entropy), "compile": compiled(F.cross_entropy)}


def liger(**options: float) -> Peer:
    """Liger-Kernel's, which writes the gradient over the logits it is given."""

    def make() -> Loss:
        need_gpu()
        functional = package("liger_kernel.transformers.functional")
        return functools.partial(functional.liger_cross_entropy, **options)

    return make


def labelled(draw: Draw, N: int, V: int) -> tuple[Tensor, ...]:
    """Logits and class indices."""
    return draw.normal(N, V) * 2, draw.whole(0, V, N)


def learned(draw: Draw, N: int, V: int) -> tuple[Tensor, ...]:
    """The same from a trained model: the label is far ahead."""
    logits, label = labelled(draw, N, V)
    logits[range(N), label] += 14
    return logits, label


def far(draw: Draw, N: int, V: int) -> tuple[Tensor, ...]:
    """The same so far apart that most probabilities vanish."""
    logits, label = labelled(draw, N, V)
    return logits * 20, label


def soft(draw: Draw, N: int, V: int) -> tuple[Tensor, ...]:
    """Logits and probabilities."""
    return draw.normal(N, V) * 2, (draw.normal(N, V) * 2).softmax(1)


def image(draw: Draw, N: int, C: int, H: int, W: int) -> tuple[Tensor, ...]:
    """Logits and class indices for every pixel."""
    return draw.normal(N, C, H, W) * 2, draw.whole(0, C, N, H, W)


def weighed(draw: Draw, N: int, V: int) -> tuple[Tensor, ...]:
    """Logits, class indices, and a weight for each class."""
    return *labelled(draw, N, V), draw.uniform(V) + 0.5


def ours_weighed(input: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """With class weights and label smoothing."""
    return lm.cross_entropy(input, target, weight=weight, label_smoothing=SMOOTHING)


def torch_weighed(input: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """The same by torch."""
    return F.cross_entropy(input, target, weight, label_smoothing=SMOOTHING)


def ours_optioned(input: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """With every option, unreduced; the sum over rows is part of the time."""
    return lm.cross_entropy(
        input,
        target,
        weight=weight,
        label_smoothing=SMOOTHING,
        softcap=CAP,
        z_loss=Z,
        reduction="none",
    ).sum()


def torch_optioned(input: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """The same in torch calls."""
    capped = CAP * torch.tanh(input / CAP)
    loss = F.cross_entropy(capped, target, weight, label_smoothing=SMOOTHING, reduction="none")
    return (loss + Z * capped.logsumexp(1) ** 2).sum()


def ours_statistics(input: Tensor, target: Tensor) -> Tensor:
    """Log-probabilities with a bonus for entropy, as policy gradients take them."""
    found = lm.softmax_statistics(input, target)
    return -(found.log_prob + 0.01 * found.entropy).mean()


def torch_statistics(input: Tensor, target: Tensor) -> Tensor:
    """The same from all log-probabilities."""
    log_p = input.log_softmax(1)
    entropy = -(log_p.exp() * log_p).sum(1)
    return -(log_p.gather(1, target[:, None]).squeeze(1) + 0.01 * entropy).mean()


def focal(input: Tensor, target: Tensor) -> Tensor:
    """Focal loss of a softmax with gamma 2, as it is commonly written on torch."""
    nll = F.cross_entropy(input, target, reduction="none")
    return ((1 - torch.exp(-nll)) ** 2 * nll).mean()


def two_passes(s: int, **dims: int) -> Work:
    """Read the logits and write their gradient."""
    return Work(bytes=2.0 * s * _product(dims))


def three_passes(s: int, **dims: int) -> Work:
    """Read logits and targets, and write the gradient."""
    return Work(bytes=3.0 * s * _product(dims))


def _product(dims: dict[str, int]) -> int:
    return functools.reduce(lambda a, b: a * b, dims.values())


ROWS = (
    Row(
        "labels",
        make=labelled,
        ours=lm.cross_entropy,
        peers={**TORCH, "liger": liger()},
        truth=F.cross_entropy,
        work=two_passes,
        small=({"N": 64, "V": 10}, {"N": 16, "V": 401}),
        cpu=(
            {"N": 65536, "V": 10},
            {"N": 4096, "V": 1000},
            {"N": 512, "V": 32000},
        ),
        gpu=(
            *({"N": 32768, "V": classes} for classes in (256, 1000, 4096)),
            {"N": 16384, "V": 32000},
            {"N": 8192, "V": 128256},
            {"N": 8192, "V": 262144},
        ),
        dtypes=BOTH,
    ),
    Row(
        "labels by rows",
        make=labelled,
        ours=lm.cross_entropy,
        peers=TORCH,
        truth=F.cross_entropy,
        work=two_passes,
        small=({"N": 4, "V": 1000}, {"N": 16, "V": 1000}, {"N": 64, "V": 1000}),
        cpu=tuple({"N": rows, "V": 1000} for rows in (16, 64, 256, 1024, 4096, 16384)),
        gpu=tuple({"N": 4**k, "V": 1000} for k in range(2, 10)),
        grows=True,
    ),
    Row(
        "labels to a Module",
        make=labelled,
        ours=lm.CrossEntropyLoss(),
        peers={"torch": of(nn.CrossEntropyLoss())},
        truth=F.cross_entropy,
        work=two_passes,
        small=({"N": 16, "V": 10},),
        cpu=({"N": 64, "V": 10}, {"N": 64, "V": 1000}, {"N": 4096, "V": 1000}),
        gpu=({"N": 64, "V": 1000}, {"N": 16384, "V": 1000}),
    ),
    Row(
        "learned labels",
        make=learned,
        ours=lm.cross_entropy,
        peers=TORCH,
        truth=F.cross_entropy,
        work=two_passes,
        small=({"N": 4, "V": 1000}, {"N": 16, "V": 1000}),
        cpu=tuple({"N": rows, "V": 1000} for rows in (16, 64, 256, 4096)),
        gpu=({"N": 16384, "V": 1000},),
    ),
    Row(
        "few classes",
        make=labelled,
        ours=lm.cross_entropy,
        peers=TORCH,
        truth=F.cross_entropy,
        work=two_passes,
        small=({"N": 8, "V": 2}, {"N": 30, "V": 10}),
        cpu=({"N": 64, "V": 10}, {"N": 1000, "V": 10}, {"N": 3000, "V": 20}, {"N": 30000, "V": 3}),
        gpu=({"N": 1 << 20, "V": 3}, {"N": 1 << 20, "V": 20}),
    ),
    Row(
        "logits far apart",
        make=far,
        ours=lm.cross_entropy,
        peers=TORCH,
        truth=F.cross_entropy,
        work=two_passes,
        small=({"N": 30, "V": 10},),
        cpu=({"N": 30000, "V": 10}, {"N": 1000, "V": 100}, {"N": 4096, "V": 1000}),
        gpu=({"N": 16384, "V": 1000},),
    ),
    Row(
        "weights and smoothing",
        make=weighed,
        ours=ours_weighed,
        peers={
            "torch": of(torch_weighed),
            "compile": compiled(torch_weighed),
            "liger": liger(label_smoothing=SMOOTHING),
        },
        truth=torch_weighed,
        work=two_passes,
        small=({"N": 16, "V": 401},),
        cpu=({"N": 512, "V": 32000},),
        gpu=({"N": 8192, "V": 128256},),
        dtypes=BOTH,
    ),
    Row(
        "all options, unreduced",
        make=weighed,
        ours=ours_optioned,
        peers={"torch": of(torch_optioned), "compile": compiled(torch_optioned)},
        truth=torch_optioned,
        work=two_passes,
        small=({"N": 16, "V": 401},),
        cpu=({"N": 512, "V": 32000},),
        gpu=({"N": 8192, "V": 128256},),
    ),
    Row(
        "log-probability and entropy",
        make=labelled,
        ours=ours_statistics,
        peers={"torch": of(torch_statistics), "compile": compiled(torch_statistics)},
        truth=torch_statistics,
        work=two_passes,
        small=({"N": 16, "V": 401},),
        cpu=({"N": 512, "V": 32000},),
        gpu=({"N": 8192, "V": 151936},),
    ),
    Row(
        "soft targets",
        make=soft,
        ours=lm.cross_entropy,
        peers=TORCH,
        truth=F.cross_entropy,
        work=three_passes,
        small=({"N": 16, "V": 401},),
        cpu=({"N": 1024, "V": 1000}, {"N": 256, "V": 32000}),
        gpu=({"N": 1024, "V": 1000}, {"N": 8192, "V": 32000}),
    ),
    Row(
        "pixels",
        make=image,
        ours=lm.cross_entropy,
        peers=TORCH,
        truth=F.cross_entropy,
        work=two_passes,
        small=({"N": 2, "C": 5, "H": 7, "W": 9},),
        cpu=({"N": 2, "C": 19, "H": 256, "W": 512},),
        gpu=({"N": 8, "C": 19, "H": 1024, "W": 2048},),
    ),
    Row(
        "softmax focal",
        make=labelled,
        ours=lm.focal_loss,
        peers={"torch": of(focal), "compile": compiled(focal)},
        truth=focal,
        work=two_passes,
        small=({"N": 16, "V": 80},),
        cpu=({"N": 16384, "V": 80},),
        gpu=({"N": 100_000, "V": 80},),
    ),
)

FAMILY = Family(
    "cross_entropy",
    "Cross-entropy",
    "Logits in, gradient of the logits out. Liger-Kernel writes the gradient over the logits.",
    ROWS,
    options={
        "class indices": "lossmith torch compile liger",
        "soft targets": "lossmith torch compile",
        "weight": "lossmith torch compile liger",
        "label_smoothing": "lossmith torch compile liger",
        "ignore_index": "lossmith torch compile liger",
        "softcap": "lossmith liger",
        "logit_scale": "lossmith",
        "z_loss": "lossmith liger",
        "statistics of each row": "lossmith",
        "reduction none": "lossmith torch compile liger",
        "sample_weight": "lossmith",
        "(N, C, *)": "lossmith torch compile",
        "logits left intact": "lossmith torch compile",
        "double backward": "lossmith torch",
        "CPU and GPU": "lossmith torch compile",
    },
)
