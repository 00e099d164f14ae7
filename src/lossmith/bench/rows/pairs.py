"""Losses of all pairs in a batch: CLIP, NT-Xent, SigLIP."""

import functools

import torch
from torch import Tensor
from torch.nn import functional as F

import lossmith as lm
from lossmith.bench.limits import Work
from lossmith.bench.row import Absent, Draw, Family, Loss, Peer, Row, compiled, of, package

TEMPERATURE = 0.1
BIAS = -8.0
MARGIN = 0.2
MOST_VIEWS = 128


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


def labelled(draw: Draw, N: int, D: int) -> tuple[Tensor, ...]:
    """Embeddings, and labels that four of them share."""
    return draw.normal(N, D), torch.arange(N, device=draw.device) // 4


def alike(embedding: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cosines, who has the same label, and who is somebody else."""
    same, views = target == target[:, None], unit(embedding)
    return views @ views.T, same.clone().fill_diagonal_(False), ~same


def supcon(embedding: Tensor, target: Tensor) -> Tensor:
    """Log-shares of the partners among all others, mean over partners."""
    scores, partner, stranger = alike(embedding, target)
    scores = (scores / TEMPERATURE).masked_fill(~(partner | stranger), float("-inf"))
    log_share = scores.log_softmax(1).masked_fill(~partner, 0.0)
    return -(log_share.sum(1) / partner.sum(1)).mean()


def multi_similarity(embedding: Tensor, target: Tensor) -> Tensor:
    """Soft maxima over partners at sharpness 2 and over strangers at 50, every pair taken."""
    scores, partner, stranger = alike(embedding, target)

    def soft(values: Tensor, mask: Tensor) -> Tensor:
        return F.softplus(values.masked_fill(~mask, float("-inf")).logsumexp(1))

    return (soft(2 * (0.5 - scores), partner) / 2 + soft(50 * (scores - 0.5), stranger) / 50).mean()


def ours_triplets(embedding: Tensor, target: Tensor) -> Tensor:
    """Of embeddings scaled to length 1."""
    return lm.batch_all_triplet_loss(unit(embedding), target, margin=MARGIN)


def triplets(embedding: Tensor, target: Tensor) -> Tensor:
    """Every stranger against every pair of partners, mean over the triplets that cost something."""
    cosine, partner, stranger = alike(embedding, target)
    far = (2 - 2 * cosine.masked_fill(~(partner | stranger), 0.0)).sqrt()
    anchor, positive = partner.nonzero(as_tuple=True)
    hinge = (far[anchor, positive, None] - far[anchor] + MARGIN).relu() * stranger[anchor]
    return hinge.sum() / (hinge > 0).sum()


def pml(name: str, **options: float) -> Peer:
    """A loss of pytorch-metric-learning."""
    return lambda: getattr(package("pytorch_metric_learning.losses"), name)(**options)


def pml_views() -> Loss:
    """NT-Xent of pytorch-metric-learning, from two views instead of labels."""
    losses = package("pytorch_metric_learning.losses")
    loss = losses.SelfSupervisedLoss(losses.NTXentLoss(temperature=TEMPERATURE))

    def run(view1: Tensor, view2: Tensor) -> Tensor:
        if len(view1) > MOST_VIEWS:
            raise Absent(f"keeps every pair for every view: above N {MOST_VIEWS} no room")
        return loss(view1, view2)

    return run


def pml_triplets() -> Loss:
    """All triplets of pytorch-metric-learning, which scales embeddings to length 1 itself."""
    losses = package("pytorch_metric_learning.losses")
    return losses.TripletMarginLoss(margin=MARGIN, triplets_per_anchor="all")


def softmaxes(s: int, N: int, D: int) -> Work:
    """Similarities twice, and two products for the gradients."""
    return Work(bytes=4.0 * s * N * D, flops=8.0 * N * N * D)


def sigmoids(s: int, N: int, D: int) -> Work:
    """No normaliser: the similarities once."""
    return Work(bytes=4.0 * s * N * D, flops=6.0 * N * N * D)


def one_set(s: int, N: int, D: int) -> Work:
    """Symmetric: half of the similarities, twice, and two products for the gradient."""
    return Work(bytes=2.0 * s * N * D, flops=4.0 * N * N * D)


def views(s: int, N: int, D: int) -> Work:
    """Both views against both, symmetric: half of the 2N x 2N similarities, twice."""
    return Work(bytes=4.0 * s * N * D, flops=16.0 * N * N * D)


def matrix(N: int, D: int) -> int:
    """Numbers in the similarities of a plain computation."""
    return N * N


sides = functools.partial(Row, make=make, wanted=(0, 1), bulk=matrix)
labels = functools.partial(Row, make=labelled, bulk=matrix)
SMALL = {"N": 24, "D": 8}

FAMILY = Family(
    "pairs",
    "Contrastive losses",
    "Gradients of both sides; the peers make the whole matrix of similarities.",
    (
        sides(
            "CLIP",
            ours=functools.partial(lm.info_nce_loss, temperature=TEMPERATURE, symmetric=True),
            peers={"torch": of(clip), "compile": compiled(clip)},
            truth=clip,
            work=softmaxes,
            small=tuple({"N": n, "D": 8} for n in (16, 32, 64)),
            cpu=tuple({"N": 1 << k, "D": 256} for k in range(10, 16)),
            gpu=tuple({"N": 1 << k, "D": 768} for k in (12, 13, 14, 15, 17)),
            grows=True,
        ),
        sides(
            "NT-Xent",
            ours=functools.partial(lm.nt_xent_loss, temperature=TEMPERATURE),
            peers={"torch": of(nt_xent), "compile": compiled(nt_xent), "pml": pml_views},
            truth=nt_xent,
            work=views,
            bulk=lambda N, D: 4 * N * N,
            small=(SMALL,),
            cpu=({"N": MOST_VIEWS, "D": 256}, {"N": 2048, "D": 256}),
            gpu=({"N": MOST_VIEWS, "D": 512}, {"N": 4096, "D": 512}),
        ),
        sides(
            "SigLIP",
            ours=functools.partial(lm.siglip_loss, temperature=TEMPERATURE, bias=BIAS),
            peers={"torch": of(siglip), "compile": compiled(siglip)},
            truth=siglip,
            work=sigmoids,
            small=(SMALL,),
            cpu=({"N": 4096, "D": 256},),
            gpu=({"N": 8192, "D": 512}, {"N": 32768, "D": 768}),
        ),
        labels(
            "SupCon",
            ours=functools.partial(lm.supcon_loss, temperature=TEMPERATURE),
            peers={
                "torch": of(supcon),
                "compile": compiled(supcon),
                "pml": pml("SupConLoss", temperature=TEMPERATURE),
            },
            truth=supcon,
            work=one_set,
            small=(SMALL,),
            cpu=({"N": 2048, "D": 256},),
            gpu=({"N": 8192, "D": 512},),
        ),
        labels(
            "multi-similarity",
            ours=functools.partial(lm.multi_similarity_loss, mining=None),
            peers={
                "torch": of(multi_similarity),
                "compile": compiled(multi_similarity),
                "pml": pml("MultiSimilarityLoss"),
            },
            truth=multi_similarity,
            work=one_set,
            small=(SMALL,),
            cpu=({"N": 2048, "D": 256},),
            gpu=({"N": 4096, "D": 512},),
        ),
        labels(
            "batch-all triplet",
            ours=ours_triplets,
            peers={"torch": of(triplets), "pml": pml_triplets},
            truth=triplets,
            work=one_set,
            bulk=lambda N, D: 3 * N * N,
            small=(SMALL,),
            cpu=({"N": 512, "D": 256},),
            gpu=({"N": 4096, "D": 512},),
        ),
    ),
    options={
        "learnable temperature": "lossmith torch compile",
        "sample_weight": "lossmith",
        "reduction none": "lossmith pml",
        "double backward": "lossmith torch",
    },
)
