"""Triplet losses that find their triplets in a labelled batch: all, semi-hard or hardest ones.

The N^3 triplets of a batch are never listed. Distances sorted row by row answer for each positive
how many negatives are too near, and what they add up to: N^2 log N operations.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.domain import FLAG, POSITIVE, REAL, Optional
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.numerics import safe_sqrt, softplus
from lossmith.core.reduction import Reduction, Terms
from lossmith.core.signature import Signature
from lossmith.engines.pairs import Pairs, Rows, Sides
from lossmith.losses.embedding.groups import GROUP, Relations, relations, squared_distances

SIGNATURES = (Signature(embedding=REAL("N D"), target=GROUP("N"), out="N"),)
Mining = Callable[..., Terms]


def _sides(embedding: Tensor, *_: Any, sample_weight: Tensor | None, **__: Any) -> Sides:
    return squared_distances(embedding, sample_weight)


def _step(mining: Mining) -> Callable[..., Rows]:
    """The step that mines triplets of the anchors of a stripe."""

    def step(embedding: Tensor, target: Tensor, **options: Any) -> Rows:
        given = {"mining": mining, "target": target, "dtype": embedding.dtype, **options}
        return Rows(functools.partial(_rows, **given), copies=30)

    return step


def _rows(
    scores: Tensor,
    place: Tensor,
    *,
    mining: Mining,
    target: Tensor,
    squared: bool,
    sample_weight: Tensor | None,
    dtype: torch.dtype,
    **options: Any,
) -> Terms:
    distance = scores.clamp(min=0)  # below 0 by rounding only
    distance = (distance if squared else safe_sqrt(distance)).to(dtype)
    return mining(distance, relations(place, target, sample_weight), **options)


def _sorted(key: Tensor, related: Relations) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Keys in rising order, which of them are positives and negatives, and the place of each.

    What is left out comes last.
    """
    rising, order = torch.where(related.out, torch.finfo(key.dtype).max, key).sort(1)
    place = torch.arange(key.shape[1], device=key.device).expand_as(order)
    return rising, related.positive.gather(1, order), related.negative.gather(1, order), place


def _all(distance: Tensor, related: Relations, *, margin: float, active_only: bool) -> Terms:
    """A positive's hinges: its key times the number of negatives below it, less their sum."""
    key = torch.where(related.positive, distance + margin, distance)
    rising, positive, negative, place = _sorted(key, related)
    fresh = torch.ones_like(positive)
    fresh[:, 1:] = rising[:, 1:] != rising[:, :-1]
    start = torch.where(fresh, place, 0).cummax(1).values  # equal keys share their first place
    number = (negative.cumsum(1) - negative.long()).gather(1, start)
    # sums of many in float64, from the least key on: differences are all that counts
    reach = torch.where(positive | negative, rising - rising[:, :1].detach(), 0.0).double()
    nearer = torch.where(negative, reach, 0.0)
    total = (nearer.cumsum(1) - nearer).gather(1, start)
    number = torch.where(positive, number, 0)
    hinges = torch.where(positive, number * reach - total, 0.0).sum(1)
    possible = related.positive.sum(1) * related.negative.sum(1)
    counted = number.sum(1) if active_only else possible
    return Terms(hinges.to(distance.dtype), normaliser=counted.to(distance.dtype))


def _semi_hard(distance: Tensor, related: Relations, *, margin: float) -> Terms:
    """The nearest negative beyond each positive; where there is none, the farthest of all."""
    rising, positive, negative, place = _sorted(distance, related)
    count = place.shape[1]
    following = torch.where(negative, place, count)
    last = torch.ones_like(positive)
    last[:, :-1] = rising[:, 1:] != rising[:, :-1]
    end = torch.where(last, place, count).flip(1).cummin(1).values.flip(1)  # of equal keys
    beyond = following.flip(1).cummin(1).values.flip(1)
    beyond = torch.cat((beyond, torch.full_like(beyond[:, :1], count)), 1).gather(1, end + 1)
    farthest = torch.where(negative, place, -1).amax(1, keepdim=True)
    chosen = torch.where(beyond < count, beyond, farthest)
    found = positive & (farthest >= 0)
    hinges = (rising - rising.gather(1, chosen.clamp(min=0)) + margin).clamp(min=0)
    return Terms(torch.where(found, hinges, 0.0).sum(1), normaliser=found.sum(1).to(distance.dtype))


def _hard(distance: Tensor, related: Relations, *, margin: float | None) -> Terms:
    """The farthest positive and the nearest negative."""
    far = torch.where(related.positive, distance, -math.inf).amax(1)
    near = torch.where(related.negative, distance, math.inf).amin(1)
    found = related.positive.any(1) & related.negative.any(1)
    excess = torch.where(found, far, 0.0) - torch.where(found, near, 0.0)
    value = softplus(excess) if margin is None else (excess + margin).clamp(min=0)
    return Terms(torch.where(found, value, 0.0), normaliser=found.to(distance.dtype))


def _of(mining: Mining, embedding: Tensor, target: Tensor, **options: Any) -> Tensor | Terms:
    """The whole loss at once."""
    return _step(mining)(embedding, target, **options).of(_sides(embedding, **options))


@loss(
    Card(
        task="embedding",
        coupling="pairs",
        formula=r"\sum_{p : y_p = y_a} \sum_{n : y_n \ne y_a} \max(0,\; d_{ap} - d_{an} + m)",
        signatures=SIGNATURES,
        options={"margin": POSITIVE, "active_only": FLAG, "squared": FLAG},
        variants=({"margin": 5.0, "active_only": False}, {"margin": 20.0, "squared": True}),
        plain_mean=False,
        elicits="order of distances",
        aliases=("batch_all_triplet", "triplet_batch_all"),
        use_when="labelled batches with noise: every triplet has a say",
        avoid_when="most triplets are easy and batches small: few are then left to learn from",
        source="Hermans, Beyer and Leibe 2017, arXiv:1703.07737",
    ),
    engine=Pairs(_sides, _step(_all)),
)
def batch_all_triplet_loss(
    embedding: Tensor,
    target: Tensor,
    *,
    margin: float = 1.0,
    active_only: bool = True,
    squared: bool = False,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor | Terms:
    """Hinges of all triplets of a batch: positives nearer than negatives, by a margin.

    The value of an anchor is the sum over its triplets; the mean is that of triplets, by default
    of those only that cost something. Their number changes by jumps, and has no gradient.

    Args:
        embedding: Embeddings, ``(N, D)``, floating point, any real value; to compare directions,
            bring them to length 1 before.
        target: Labels, ``(N)``, integers; only their equality counts.
        margin: Wanted difference of the distances, ``> 0``, in their unit.
        active_only: The mean divides by the number of triplets with a loss above 0, else by that
            of all triplets.
        squared: Squared Euclidean distances instead of Euclidean ones.
        sample_weight: Weight of each anchor, ``(N)``, ``>= 0``; 0 means absent, for others too.
        reduction: ``"mean"`` (over triplets, weighted by anchor), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N)`` for ``reduction="none"``; dtype of ``embedding``.

    Raises:
        ValueError: If the shapes do not fit, ``margin <= 0``, or ``reduction`` is unknown.
        TypeError: If ``embedding`` is not floating point, or ``target`` not integer.

    Example:
        >>> import torch, lossmith as lm
        >>> embedding = torch.tensor([[0.0], [2.0], [2.5], [9.0]])
        >>> lm.batch_all_triplet_loss(embedding, torch.tensor([7, 7, 3, 3]), reduction="none")
        tensor([ 0.5000,  2.5000, 12.0000,  0.5000])
    """
    options = {"margin": margin, "active_only": active_only, "squared": squared}
    return _of(_all, embedding, target, **options, sample_weight=sample_weight)


class BatchAllTripletLoss(Loss):
    """Module form of :func:`batch_all_triplet_loss`."""

    margin: float = 1.0
    active_only: bool = True
    squared: bool = False
    function = staticmethod(batch_all_triplet_loss)


@loss(
    Card(
        task="embedding",
        coupling="pairs",
        formula=r"\sum_{p : y_p = y_a} \max(0,\; d_{ap} - d_{an(p)} + m),"
        r"\quad n(p) = \operatorname*{arg\,min}_{n : y_n \ne y_a,\; d_{an} > d_{ap}} d_{an}",
        signatures=SIGNATURES,
        options={"margin": POSITIVE, "squared": FLAG},
        variants=({"margin": 5.0}, {"margin": 20.0, "squared": True}),
        plain_mean=False,
        elicits="order of distances",
        aliases=("semihard_triplet", "triplet_semihard_loss"),
        use_when="training from scratch, where the hardest triplets lead to collapse",
        avoid_when="batches hold few negatives: none may lie just beyond a positive",
        source="Schroff, Kalenichenko and Philbin 2015, arXiv:1503.03832",
    ),
    engine=Pairs(_sides, _step(_semi_hard)),
)
def semi_hard_triplet_loss(
    embedding: Tensor,
    target: Tensor,
    *,
    margin: float = 1.0,
    squared: bool = False,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor | Terms:
    """Each positive against the nearest of the negatives that are farther than it.

    Where no negative is farther, the farthest one stands in. The value of an anchor is the sum
    over its positives; the mean is that of pairs of anchor and positive. The paper takes squared
    distances of embeddings of length 1.

    Args:
        embedding: Embeddings, ``(N, D)``, floating point, any real value; to compare directions,
            bring them to length 1 before.
        target: Labels, ``(N)``, integers; only their equality counts.
        margin: Wanted difference of the distances, ``> 0``, in their unit.
        squared: Squared Euclidean distances instead of Euclidean ones.
        sample_weight: Weight of each anchor, ``(N)``, ``>= 0``; 0 means absent, for others too.
        reduction: ``"mean"`` (over pairs, weighted by anchor), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N)`` for ``reduction="none"``; dtype of ``embedding``.

    Raises:
        ValueError: If the shapes do not fit, ``margin <= 0``, or ``reduction`` is unknown.
        TypeError: If ``embedding`` is not floating point, or ``target`` not integer.

    Example:
        >>> import torch, lossmith as lm
        >>> embedding = torch.tensor([[0.0], [2.0], [2.5], [9.0]])
        >>> lm.semi_hard_triplet_loss(embedding, torch.tensor([7, 7, 3, 3]), reduction="none")
        tensor([0.5000, 0.0000, 5.0000, 0.5000])
    """
    options = {"margin": margin, "squared": squared}
    return _of(_semi_hard, embedding, target, **options, sample_weight=sample_weight)


class SemiHardTripletLoss(Loss):
    """Module form of :func:`semi_hard_triplet_loss`."""

    margin: float = 1.0
    squared: bool = False
    function = staticmethod(semi_hard_triplet_loss)


@loss(
    Card(
        task="embedding",
        coupling="pairs",
        formula=r"\max\big(0,\; \max_{p : y_p = y_a} d_{ap} - \min_{n : y_n \ne y_a} d_{an}"
        r" + m\big)",
        signatures=SIGNATURES,
        options={"margin": Optional(POSITIVE), "squared": FLAG},
        variants=({"margin": None}, {"margin": 20.0, "squared": True}),
        plain_mean=False,
        elicits="order of distances",
        aliases=("batch_hard_triplet", "triplet_hard_loss"),
        use_when="labels are clean, with several samples of each class in a batch",
        avoid_when="labels are noisy: the hardest pairs are then the wrong ones",
        source="Hermans, Beyer and Leibe 2017, arXiv:1703.07737",
    ),
    engine=Pairs(_sides, _step(_hard)),
)
def batch_hard_triplet_loss(
    embedding: Tensor,
    target: Tensor,
    *,
    margin: float | None = 1.0,
    squared: bool = False,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor | Terms:
    """The farthest positive of each anchor against its nearest negative.

    The mean is over the anchors that have both.

    Args:
        embedding: Embeddings, ``(N, D)``, floating point, any real value; to compare directions,
            bring them to length 1 before.
        target: Labels, ``(N)``, integers; only their equality counts.
        margin: Wanted difference of the distances, ``> 0``, in their unit. None takes the softplus
            of the difference instead of a hinge, the paper's soft margin.
        squared: Squared Euclidean distances instead of Euclidean ones.
        sample_weight: Weight of each anchor, ``(N)``, ``>= 0``; 0 means absent, for others too.
        reduction: ``"mean"`` (over anchors with a triplet, weighted), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N)`` for ``reduction="none"``; dtype of ``embedding``.

    Raises:
        ValueError: If the shapes do not fit, ``margin <= 0``, or ``reduction`` is unknown.
        TypeError: If ``embedding`` is not floating point, or ``target`` not integer.

    Example:
        >>> import torch, lossmith as lm
        >>> embedding = torch.tensor([[0.0], [2.0], [2.5], [9.0]])
        >>> lm.batch_hard_triplet_loss(embedding, torch.tensor([7, 7, 3, 3]), reduction="none")
        tensor([0.5000, 2.5000, 7.0000, 0.5000])
    """
    options = {"margin": margin, "squared": squared}
    return _of(_hard, embedding, target, **options, sample_weight=sample_weight)


class BatchHardTripletLoss(Loss):
    """Module form of :func:`batch_hard_triplet_loss`."""

    margin: float | None = 1.0
    squared: bool = False
    function = staticmethod(batch_hard_triplet_loss)
