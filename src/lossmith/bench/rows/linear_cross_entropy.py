"""Cross-entropy behind a linear head: hidden states and a matrix instead of logits."""

import functools

import torch
from torch import Tensor
from torch.nn import functional as F

import lossmith as lm
from lossmith.bench.limits import Work
from lossmith.bench.row import (
    Absent,
    Draw,
    Family,
    Loss,
    Peer,
    Row,
    compiled,
    need_gpu,
    of,
    package,
)
from lossmith.bench.rows.divergence import js

SMOOTHING = 0.1
Z = 1e-4
HEAD = lm.linear_head(lm.cross_entropy)


def make(draw: Draw, M: int, H: int, V: int) -> tuple[Tensor, ...]:
    """Hidden states, the matrix of the head, and class indices."""
    return draw.normal(M, H), draw.normal(V, H) / H**0.5, draw.whole(0, V, M)


def unfused(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    """The logits, then their loss."""
    return F.cross_entropy(F.linear(hidden, weight), target)


def chunked() -> Loss:
    """The one of torch in chunks of the batch."""
    options = getattr(torch.nn, "LinearCrossEntropyOptions", None)
    if options is None:
        raise Absent("torch has it from 2.13 on")
    return functools.partial(
        F.linear_cross_entropy, options=options(chunking_method="aspect_ratio")
    )


def liger(**options: int) -> Peer:
    """Liger-Kernel's; ``chunk_mem_const`` is its memory for speed."""

    def make() -> Loss:
        need_gpu()
        functional = package("liger_kernel.transformers.functional")
        return functools.partial(functional.liger_fused_linear_cross_entropy, **options)

    return make


def weighed(draw: Draw, M: int, H: int, V: int) -> tuple[Tensor, ...]:
    """And a weight for each class."""
    return *make(draw, M, H, V), draw.uniform(V) + 0.5


def ours_weighed(hidden: Tensor, weight: Tensor, target: Tensor, factor: Tensor) -> Tensor:
    """With class weights and label smoothing."""
    return HEAD(hidden, weight, target, weight=factor, label_smoothing=SMOOTHING)


def torch_weighed(hidden: Tensor, weight: Tensor, target: Tensor, factor: Tensor) -> Tensor:
    """The same from all logits."""
    logits = F.linear(hidden, weight)
    return F.cross_entropy(logits, target, factor, label_smoothing=SMOOTHING)


def ours_unreduced(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    """One value for each row, with a z-loss; the sum over rows is part of the time."""
    return HEAD(hidden, weight, target, z_loss=Z, reduction="none").sum()


def torch_unreduced(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    """The same from all logits."""
    logits = F.linear(hidden, weight)
    loss = F.cross_entropy(logits, target, reduction="none")
    return (loss + Z * logits.logsumexp(1) ** 2).sum()


def two_models(draw: Draw, M: int, H: int, V: int) -> tuple[Tensor, ...]:
    """Hidden states and the matrix of a student, then those of its teacher."""
    return *make(draw, M, H, V)[:2], *make(draw, M, H, V)[:2]


def distil(hidden: Tensor, weight: Tensor, hidden2: Tensor, weight2: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the teacher's classes from the student's."""
    log_p = F.linear(hidden, weight).log_softmax(1)
    q = F.linear(hidden2, weight2).softmax(1)
    return F.kl_div(log_p, q, reduction="batchmean")


def js_of_heads(hidden: Tensor, weight: Tensor, hidden2: Tensor, weight2: Tensor) -> Tensor:
    """Jensen-Shannon divergence of the two models' classes."""
    return js(F.linear(hidden, weight), F.linear(hidden2, weight2))


def work_of_two(s: int, M: int, H: int, V: int) -> Work:
    """One product more, for the teacher's logits."""
    return Work(bytes=3.0 * s * (M * H + V * H), flops=8.0 * M * H * V)


def work(s: int, M: int, H: int, V: int) -> Work:
    """Three products; the matrix and its gradient go through memory at least once."""
    return Work(bytes=2.0 * s * (M * H + V * H), flops=6.0 * M * H * V)


row = functools.partial(
    Row,
    small=tuple({"M": rows, "H": 16, "V": 401} for rows in (8, 16, 32)),
    wanted=(0, 1),
    bulk=lambda M, H, V: M * V,
)

FAMILY = Family(
    "linear_cross_entropy",
    "Linear heads",
    "Gradients of hidden states and matrix. `torch` makes the logits, `chunked` is torch's "
    "`linear_cross_entropy` with chunks by aspect ratio; lossmith is `linear_head` of the loss.",
    (
        row(
            "linear cross-entropy",
            make=make,
            ours=HEAD,
            peers={
                "torch": of(unfused),
                "compile": compiled(unfused),
                "chunked": chunked,
                "liger": liger(),
                "liger, 16 chunks": liger(chunk_mem_const=16),
            },
            truth=unfused,
            work=work,
            cpu=tuple({"M": rows, "H": 512, "V": 32000} for rows in (512, 2048, 8192)),
            gpu=(
                *({"M": 8192, "H": 4096, "V": classes} for classes in (32000, 256000)),
                *({"M": rows, "H": 4096, "V": 128256} for rows in (4096, 8192, 32768)),
            ),
            dtypes=(torch.float32, torch.bfloat16),
            grows=True,
        ),
        row(
            "head with weights and smoothing",
            make=weighed,
            ours=ours_weighed,
            peers={"torch": of(torch_weighed), "compile": compiled(torch_weighed)},
            truth=torch_weighed,
            work=work,
            cpu=({"M": 2048, "H": 512, "V": 32000},),
            gpu=({"M": 8192, "H": 4096, "V": 128256},),
            dtypes=(torch.float32, torch.bfloat16),
        ),
        row(
            "head with z-loss, unreduced",
            make=make,
            ours=ours_unreduced,
            peers={"torch": of(torch_unreduced), "compile": compiled(torch_unreduced)},
            truth=torch_unreduced,
            work=work,
            cpu=({"M": 2048, "H": 512, "V": 32000},),
            gpu=({"M": 8192, "H": 4096, "V": 128256},),
            dtypes=(torch.float32, torch.bfloat16),
        ),
        row(
            "distillation of heads",
            make=two_models,
            ours=lm.linear_head(lm.kl_div_from_logits_loss, heads=2),
            peers={"torch": of(distil), "compile": compiled(distil)},
            truth=distil,
            work=work_of_two,
            cpu=({"M": 1024, "H": 512, "V": 32000},),
            gpu=({"M": 8192, "H": 4096, "V": 128256},),
        ),
        row(
            "JS of heads",
            make=two_models,
            ours=lm.linear_head(lm.js_div_from_logits_loss, heads=2),
            peers={"torch": of(js_of_heads), "compile": compiled(js_of_heads)},
            truth=js_of_heads,
            work=work_of_two,
            cpu=({"M": 1024, "H": 512, "V": 32000},),
            gpu=({"M": 8192, "H": 4096, "V": 128256},),
        ),
    ),
    options={
        "any row loss": "lossmith torch compile",
        "bias of the layer": "lossmith torch compile chunked liger",
        "weight": "lossmith torch compile chunked liger",
        "label_smoothing": "lossmith torch compile liger",
        "ignore_index": "lossmith torch compile chunked liger",
        "softcap": "lossmith liger",
        "z_loss": "lossmith liger",
        "reduction none": "lossmith torch compile chunked liger",
        "sample_weight": "lossmith",
        "soft targets": "lossmith torch compile",
        "double backward": "lossmith torch",
        "CPU and GPU": "lossmith torch compile chunked",
    },
)
