"""Softmax over the similarities of a batch: InfoNCE between two sets, NT-Xent between two views."""

from typing import Any

import torch
from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.domain import FLAG, POSITIVE, REAL
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.numerics import alike, softplus, unit
from lossmith.core.reduction import Reduction
from lossmith.core.signature import Signature
from lossmith.engines.matched import Softmax
from lossmith.engines.pairs import Pairs, Sides


def _nll(own: Tensor, scores: Tensor, left_out: Tensor) -> Tensor:
    """``-log`` of the share of ``own`` among itself and the scores of the row not left out.

    ``left_out`` includes the own score, so that nothing cancels where the share is nearly 1.
    """
    lowest = torch.finfo(scores.dtype).min / 4
    return softplus(torch.logsumexp(torch.where(left_out, lowest, scores), 1) - own)


def _query_and_key(query: Tensor, key: Tensor, *, temperature: float | Tensor, **_: Any) -> Sides:
    query, key = alike(query, key)
    return Sides(unit(query), unit(key), temperature)


def _own_key(
    query: Tensor, key: Tensor, *, symmetric: bool, sample_weight: Tensor | None, **_: Any
) -> Softmax:
    place = torch.arange(len(query), device=query.device)
    absent = None if sample_weight is None else sample_weight == 0
    dtype = torch.promote_types(query.dtype, key.dtype)
    return Softmax(place, absent, dtype, columns=symmetric)


@loss(
    Card(
        task="embedding",
        coupling="pairs",
        formula=r"-\log \frac{\exp(\cos(q_i, k_i) / \tau)}{\sum_j \exp(\cos(q_i, k_j) / \tau)}",
        signatures=(Signature(query=REAL("N D"), key=REAL("N D"), out="N"),),
        options={"temperature": POSITIVE, "symmetric": FLAG},
        variants=({"temperature": 0.5, "symmetric": True}, {"temperature": 2.0}),
        elicits="log-ratio of joint and independent density",
        aliases=("infonce", "info_nce", "clip_loss", "multiple_negatives_ranking_loss"),
        use_when="matched pairs in large batches, where the rest of the batch is unlike",
        avoid_when="batches are small, or hold several samples of one kind",
        source="van den Oord, Li and Vinyals 2018, arXiv:1807.03748",
    ),
    engine=Pairs(_query_and_key, _own_key, learnable=("temperature",)),
)
def info_nce_loss(
    query: Tensor,
    key: Tensor,
    *,
    temperature: float | Tensor = 0.1,
    symmetric: bool = False,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Each query should find its own key among the keys of the batch.

    Similarity is the cosine, so the length of the embeddings does not count. It is the
    cross-entropy of row i with class i; ``symmetric=True`` is the loss of CLIP.

    Args:
        query: Embeddings, ``(N, D)``, floating point; they are brought to length 1 here.
        key: Embeddings of the partners, ``(N, D)``; the other rows are the negatives.
        temperature: Divides the cosine, ``> 0``; a tensor with one element may learn.
        symmetric: Also let each key find its query, and take the mean of both.
        sample_weight: Weight of each pair, ``(N)``, ``>= 0``; 0 means absent, as a negative too.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N)`` for ``reduction="none"``, in nats; dtype of ``query``.

    Raises:
        ValueError: If the shapes differ, ``temperature <= 0``, or ``reduction`` is unknown.
        TypeError: If a tensor is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> query, key = torch.eye(2), torch.tensor([[2.0, 0.0], [3.0, 4.0]])
        >>> lm.info_nce_loss(query, key, temperature=1.0, reduction="none")
        tensor([0.5130, 0.3711])
    """
    scores = _query_and_key(query, key, temperature=temperature).scores()
    left_out = torch.eye(scores.shape[0], dtype=torch.bool, device=scores.device)
    if sample_weight is not None:
        left_out = left_out | (sample_weight == 0)
    own = scores.diagonal()
    value = _nll(own, scores, left_out)
    return 0.5 * (value + _nll(own, scores.mT, left_out)) if symmetric else value


class InfoNCELoss(Loss):
    """Module form of :func:`info_nce_loss`."""

    temperature: float | Tensor = 0.1
    symmetric: bool = False
    function = staticmethod(info_nce_loss)


def _views(view1: Tensor, view2: Tensor, *, temperature: float | Tensor, **_: Any) -> Sides:
    both = torch.cat((unit(view1), unit(view2)))
    return Sides(both, both, temperature)


def _other_view(view1: Tensor, view2: Tensor, *, sample_weight: Tensor | None, **_: Any) -> Softmax:
    place = torch.arange(2 * len(view1), device=view1.device)
    absent = None if sample_weight is None else (sample_weight == 0).repeat(2)
    return Softmax(place.roll(len(view1)), absent, view1.dtype, views=2)


@loss(
    Card(
        task="embedding",
        coupling="pairs",
        formula=r"-\tfrac12 \sum_{(i, j)} \log"
        r" \frac{\exp(\cos(z_i, z_j) / \tau)}{\sum_{k \ne i} \exp(\cos(z_i, z_k) / \tau)}",
        signatures=(Signature(view1=REAL("N D"), view2=REAL("N D"), out="N"),),
        options={"temperature": POSITIVE},
        variants=({"temperature": 0.1}, {"temperature": 2.0}),
        symmetric=True,
        aliases=("ntxent", "nt_xent", "simclr_loss"),
        use_when="two augmented views of each sample and no labels, in large batches",
        avoid_when="the two sides are of different kinds, such as image and text",
        source="Chen, Kornblith, Norouzi and Hinton 2020, arXiv:2002.05709",
    ),
    engine=Pairs(_views, _other_view, stacked=True, learnable=("temperature",)),
)
def nt_xent_loss(
    view1: Tensor,
    view2: Tensor,
    *,
    temperature: float | Tensor = 0.5,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Each view should find the other view of its sample among all 2N - 1 other views.

    A sample's value is the mean over its two views, so the mean over samples is the paper's mean
    over 2N views. Similarity is the cosine.

    Args:
        view1: Embeddings of one view, ``(N, D)``, floating point; brought to length 1 here.
        view2: Embeddings of the other view of the same samples, ``(N, D)``.
        temperature: Divides the cosine, ``> 0``; a tensor with one element may learn.
        sample_weight: Weight of each sample, ``(N)``, ``>= 0``; 0 means absent, as a negative too.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N)`` for ``reduction="none"``, in nats; dtype of ``view1``.

    Raises:
        ValueError: If the shapes differ, ``temperature <= 0``, or ``reduction`` is unknown.
        TypeError: If a tensor is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> views = torch.eye(2)
        >>> lm.nt_xent_loss(views, views, temperature=1.0)
        tensor(0.5514)
    """
    count = view1.shape[0]
    scores = _views(view1, view2, temperature=temperature).scores()
    place = torch.arange(count, device=scores.device).repeat(2)
    left_out = place.unsqueeze(1) == place  # the view itself, and its partner
    if sample_weight is not None:
        left_out = left_out | (sample_weight == 0).repeat(2)
    own = scores.diagonal(count).repeat(2)
    return 0.5 * _nll(own, scores, left_out).view(2, count).sum(0)


class NTXentLoss(Loss):
    """Module form of :func:`nt_xent_loss`."""

    temperature: float | Tensor = 0.5
    function = staticmethod(nt_xent_loss)
