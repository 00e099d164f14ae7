"""Divergences of two rows of logits."""

import functools

import torch
from torch import Tensor
from torch.nn import functional as F

import lossmith as lm
from lossmith.bench.limits import Work
from lossmith.bench.row import Draw, Family, Loss, Row, compiled, need_gpu, of, package

SIZES = {
    "small": ({"N": 16, "V": 401},),
    "cpu": ({"N": 4096, "V": 1000}, {"N": 1024, "V": 32000}),
    "gpu": ({"N": 8192, "V": 32000}, {"N": 8192, "V": 128256}),
}


def make(draw: Draw, N: int, V: int) -> tuple[Tensor, ...]:
    """Logits of a student and of its teacher."""
    return draw.normal(N, V) * 2, draw.normal(N, V) * 2


def kl(input: Tensor, target: Tensor) -> Tensor:
    """Teacher against student, mean over rows."""
    return F.kl_div(input.log_softmax(1), target.softmax(1), reduction="batchmean")


def js(input: Tensor, target: Tensor) -> Tensor:
    """Mean divergence to the mixture."""
    log_p, log_q = input.log_softmax(1), target.log_softmax(1)
    p, q = log_p.exp(), log_q.exp()
    log_m = (0.5 * (p + q)).log()
    return 0.5 * (p * (log_p - log_m) + q * (log_q - log_m)).sum(1).mean()


def reverse_kl(input: Tensor, target: Tensor) -> Tensor:
    """Student against teacher, mean over rows."""
    return F.kl_div(
        target.log_softmax(1), input.log_softmax(1), reduction="batchmean", log_target=True
    )


def variation(input: Tensor, target: Tensor) -> Tensor:
    """Half of what the probabilities differ by, mean over rows."""
    return 0.5 * (input.softmax(1) - target.softmax(1)).abs().sum(1).mean()


def liger_kl() -> Loss:
    """Liger-Kernel's, from log-probabilities; its mean over rows is torch's."""
    need_gpu()
    kernel = package("liger_kernel.transformers.functional").liger_kl_div
    return lambda x, y: kernel(x.log_softmax(1), y.softmax(1), reduction="batchmean")


def liger_js() -> Loss:
    """Liger-Kernel's, from log-probabilities."""
    need_gpu()
    kernel = package("liger_kernel.transformers.functional").liger_jsd
    return lambda x, y: kernel(x.log_softmax(1), y.log_softmax(1))


def work(s: int, N: int, V: int) -> Work:
    """Read both rows, write one gradient."""
    return Work(bytes=3.0 * s * N * V)


row = functools.partial(Row, make=make, work=work, **SIZES)

FAMILY = Family(
    "divergence",
    "Divergences of logits",
    "Two tensors of logits in, gradient of the first out. Liger-Kernel takes log-probabilities: "
    "the softmax before it is part of its time.",
    (
        row(
            "KL",
            ours=lm.kl_div_from_logits_loss,
            peers={"torch": of(kl), "compile": compiled(kl), "liger": liger_kl},
            truth=kl,
            dtypes=(torch.float32, torch.bfloat16),
        ),
        row(
            "JS",
            ours=lm.js_div_from_logits_loss,
            peers={"torch": of(js), "compile": compiled(js), "liger": liger_js},
            truth=js,
        ),
        row(
            "reverse KL",
            ours=lm.reverse_kl_div_from_logits_loss,
            peers={"torch": of(reverse_kl), "compile": compiled(reverse_kl)},
            truth=reverse_kl,
        ),
        row(
            "total variation",
            ours=lm.total_variation_from_logits_loss,
            peers={"torch": of(variation), "compile": compiled(variation)},
            truth=variation,
        ),
    ),
    options={
        "from logits": "lossmith",
        "from probabilities": "lossmith torch",
        "gradient of both": "lossmith torch compile",
        "sample_weight": "lossmith",
        "(N, C, *)": "lossmith torch compile",
        "double backward": "lossmith torch",
        "CPU and GPU": "lossmith torch compile",
    },
)
