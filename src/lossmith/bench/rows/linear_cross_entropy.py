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


def work(s: int, M: int, H: int, V: int) -> Work:
    """Three products; the matrix and its gradient go through memory at least once."""
    return Work(bytes=2.0 * s * (M * H + V * H), flops=6.0 * M * H * V)


FAMILY = Family(
    "linear_cross_entropy",
    "Linear cross-entropy",
    "Gradients of hidden states and matrix; `torch` makes the logits, `chunked` is torch's "
    "`linear_cross_entropy` with chunks by aspect ratio.",
    (
        Row(
            "linear cross-entropy",
            make=make,
            ours=lm.linear_cross_entropy,
            peers={
                "torch": of(unfused),
                "compile": compiled(unfused),
                "chunked": chunked,
                "liger": liger(),
                "liger, 16 chunks": liger(chunk_mem_const=16),
            },
            truth=unfused,
            work=work,
            small=tuple({"M": rows, "H": 16, "V": 401} for rows in (8, 16, 32)),
            cpu=tuple({"M": rows, "H": 512, "V": 32000} for rows in (512, 2048, 8192)),
            gpu=(
                *({"M": 8192, "H": 4096, "V": classes} for classes in (32000, 256000)),
                *({"M": rows, "H": 4096, "V": 128256} for rows in (4096, 8192, 32768)),
            ),
            dtypes=(torch.float32, torch.bfloat16),
            wanted=(0, 1),
            grows=True,
            bulk=lambda M, H, V: M * V,
        ),
    ),
    options={
        "linear_bias": "lossmith torch compile chunked liger",
        "weight": "lossmith torch compile chunked liger",
        "label_smoothing": "lossmith torch compile liger",
        "ignore_index": "lossmith torch compile chunked liger",
        "reduction none": "lossmith torch compile chunked liger",
        "sample_weight": "lossmith",
        "soft targets": "lossmith torch compile",
        "double backward": "lossmith torch",
        "CPU and GPU": "lossmith torch compile chunked",
    },
)
