"""Multi-similarity loss: the pairs of a labelled batch, each weighted by how hard it is."""

import functools
import math
from typing import Any

import torch
from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.domain import NONNEGATIVE, POSITIVE, REAL, Optional
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.numerics import masked_logsumexp, softplus, unit
from lossmith.core.reduction import Reduction, Terms
from lossmith.core.signature import Signature
from lossmith.engines.pairs import Pairs, Rows, Sides
from lossmith.losses.embedding.groups import GROUP, relations


def _sides(embedding: Tensor, *_: Any, **__: Any) -> Sides:
    vectors = unit(embedding)
    return Sides(vectors, vectors)


def _rows(
    scores: Tensor,
    place: Tensor,
    *,
    target: Tensor,
    alpha: float,
    beta: float,
    base: float,
    mining: float | None,
    sample_weight: Tensor | None,
) -> Tensor:
    positive, negative, _ = relations(place, target, sample_weight)
    if mining is not None:
        known = scores.detach()
        farthest = torch.where(positive, known, math.inf).amin(1, keepdim=True)
        nearest = torch.where(negative, known, -math.inf).amax(1, keepdim=True)
        positive = positive & (known - mining < nearest)
        negative = negative & (known + mining > farthest)
    pull = masked_logsumexp(alpha * (base - scores), positive, dim=1)
    push = masked_logsumexp(beta * (scores - base), negative, dim=1)
    return softplus(pull) / alpha + softplus(push) / beta


def _step(embedding: Tensor, target: Tensor, **options: Any) -> Rows:
    return Rows(functools.partial(_rows, target=target, **options))


@loss(
    Card(
        task="embedding",
        coupling="pairs",
        formula=r"\frac1\alpha \log\Big(1 + \sum_{p \in P_i} e^{-\alpha (s_{ip} - \lambda)}\Big)"
        r" + \frac1\beta \log\Big(1 + \sum_{n \in N_i} e^{\beta (s_{in} - \lambda)}\Big),"
        r"\quad s_{ij} = \cos(z_i, z_j)",
        signatures=(Signature(embedding=REAL("N D"), target=GROUP("N"), out="N"),),
        options={
            "alpha": POSITIVE,
            "beta": POSITIVE,
            "base": REAL,
            "mining": Optional(NONNEGATIVE),
        },
        variants=({"mining": None}, {"alpha": 1.0, "beta": 5.0, "base": 0.0, "mining": 2.0}),
        aliases=("ms_loss", "multi_similarity"),
        use_when="retrieval from labelled samples, several of each class in a batch",
        avoid_when="labels are noisy: the hardest pairs are then the wrong ones",
        source="Wang, Han, Huang, Dong and Scott 2019, arXiv:1904.06627",
    ),
    engine=Pairs(_sides, _step),
)
def multi_similarity_loss(
    embedding: Tensor,
    target: Tensor,
    *,
    alpha: float = 2.0,
    beta: float = 50.0,
    base: float = 0.5,
    mining: float | None = 0.1,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor | Terms:
    """Soft maxima over the alike and the unlike pairs of each sample.

    A sample is paired with those only that are hard: unlike ones nearly as similar as its farthest
    partner, and partners hardly more similar than its nearest stranger. The paper has
    ``base=1``; its authors' code, like others since, 0.5.

    Args:
        embedding: Embeddings, ``(N, D)``, floating point; they are brought to length 1 here.
        target: Labels, ``(N)``, integers; only their equality counts.
        alpha: Sharpness for alike pairs, ``> 0``.
        beta: Sharpness for unlike pairs, ``> 0``.
        base: Cosine at which a pair is neither near nor far; the paper's lambda.
        mining: Slack of the choice of hard pairs, ``>= 0``, a difference of cosines; the paper's
            epsilon. None takes every pair.
        sample_weight: Weight of each sample, ``(N)``, ``>= 0``; 0 means absent, for others too.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N)`` for ``reduction="none"``; dtype of ``embedding``.

    Raises:
        ValueError: If the shapes do not fit, an option is out of range, or ``reduction`` is
            unknown.
        TypeError: If ``embedding`` is not floating point, or ``target`` not integer.

    Example:
        >>> import torch, lossmith as lm
        >>> embedding = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
        >>> lm.multi_similarity_loss(embedding, torch.tensor([7, 7, 3]), reduction="none")
        tensor([0.0000, 0.5991, 0.0000])
    """
    options = {"alpha": alpha, "beta": beta, "base": base, "mining": mining}
    return _step(embedding, target, **options, sample_weight=sample_weight).of(_sides(embedding))


class MultiSimilarityLoss(Loss):
    """Module form of :func:`multi_similarity_loss`."""

    alpha: float = 2.0
    beta: float = 50.0
    base: float = 0.5
    mining: float | None = 0.1
    function = staticmethod(multi_similarity_loss)
