"""Losses of all pairs in a batch: CLIP, NT-Xent, SigLIP."""

import functools

import torch
from torch import Tensor
from torch.nn import functional as F

import lossmith as lm
from lossmith.bench.limits import Work
from lossmith.bench.row import Draw, Family, Loss, Row, compiled, of, package

TEMPERATURE = 0.1
BIAS = -8.0


def make(draw: Draw, N: int, D: int) -> tuple[Tensor, ...]:
    """Embeddings of two views that resemble each other."""
    one = draw.normal(N, D)
    return one, one + draw.normal(N, D)


def unit(x: Tensor) -> Tensor:
    """Rows of length 1."""
    return F.normalize(x, dim=1)


def clip(query: Tensor, key: Tensor) -> Tensor:
    """Cross-entropy of the similarities both ways."""
    scores = unit(query) @ unit(key).T / TEMPERATURE
    own = torch.arange(len(query), device=query.device)
    return 0.5 * (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own))


def nt_xent(view1: Tensor, view2: Tensor) -> Tensor:
    """Cross-entropy over all views but the own one."""
    views = unit(torch.cat([view1, view2]))
    scores = (views @ views.T / TEMPERATURE).fill_diagonal_(float("-inf"))
    own = torch.arange(len(views), device=views.device).roll(len(view1))
    return F.cross_entropy(scores, own)


def siglip(image: Tensor, text: Tensor) -> Tensor:
    """Logistic loss of every pair, summed over texts."""
    scores = unit(image) @ unit(text).T / TEMPERATURE + BIAS
    sign = 2 * torch.eye(len(image), dtype=image.dtype, device=image.device) - 1
    return -F.logsigmoid(sign * scores).sum(1).mean()


def pml() -> Loss:
    """NT-Xent of pytorch-metric-learning."""
    losses = package("pytorch_metric_learning.losses")
    return losses.SelfSupervisedLoss(losses.NTXentLoss(temperature=TEMPERATURE))


def softmaxes(s: int, N: int, D: int) -> Work:
    """Similarities twice, and two products for the gradients."""
    return Work(bytes=4.0 * s * N * D, flops=8.0 * N * N * D)


def sigmoids(s: int, N: int, D: int) -> Work:
    """No normaliser: the similarities once."""
    return Work(bytes=4.0 * s * N * D, flops=6.0 * N * N * D)


def views(s: int, N: int, D: int) -> Work:
    """Both views against both, symmetric: half of the 2N x 2N similarities, twice."""
    return Work(bytes=4.0 * s * N * D, flops=16.0 * N * N * D)


row = functools.partial(Row, make=make, wanted=(0, 1), bulk=lambda N, D: N * N)
SMALL = {"N": 24, "D": 8}

FAMILY = Family(
    "pairs",
    "Contrastive losses",
    "Gradients of both sides; the peers make the whole matrix of similarities.",
    (
        row(
            "CLIP",
            ours=functools.partial(lm.info_nce_loss, temperature=TEMPERATURE, symmetric=True),
            peers={"torch": of(clip), "compile": compiled(clip)},
            truth=clip,
            work=softmaxes,
            small=tuple({"N": n, "D": 8} for n in (16, 32, 64)),
            cpu=tuple({"N": 1 << k, "D": 256} for k in range(10, 15)),
            gpu=tuple({"N": 1 << k, "D": 768} for k in (12, 13, 14, 15)),
            grows=True,
        ),
        row(
            "NT-Xent",
            ours=functools.partial(lm.nt_xent_loss, temperature=TEMPERATURE),
            peers={"torch": of(nt_xent), "compile": compiled(nt_xent), "pml": pml},
            truth=nt_xent,
            work=views,
            small=(SMALL,),
            cpu=({"N": 1024, "D": 256},),
            gpu=({"N": 4096, "D": 512},),
        ),
        row(
            "SigLIP",
            ours=functools.partial(lm.siglip_loss, temperature=TEMPERATURE, bias=BIAS),
            peers={"torch": of(siglip), "compile": compiled(siglip)},
            truth=siglip,
            work=sigmoids,
            small=(SMALL,),
            cpu=({"N": 4096, "D": 256},),
            gpu=({"N": 8192, "D": 512}, {"N": 32768, "D": 768}),
        ),
    ),
    options={
        "learnable temperature": "lossmith torch compile",
        "sample_weight": "lossmith",
        "reduction none": "lossmith pml",
        "double backward": "lossmith torch",
    },
)
