"""Supervised contrastive loss: every sample of the same class is a partner."""

import functools
from typing import Any

import torch
from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.domain import POSITIVE, REAL
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.numerics import softplus, unit
from lossmith.core.reduction import Reduction, Terms
from lossmith.core.signature import Signature
from lossmith.engines.pairs import Pairs, Rows, Sides
from lossmith.losses.embedding.groups import GROUP, relations


def _sides(embedding: Tensor, target: Tensor, *, temperature: float | Tensor, **_: Any) -> Sides:
    vectors = unit(embedding)
    return Sides(vectors, vectors, temperature)


def _rows(scores: Tensor, place: Tensor, *, target: Tensor, sample_weight: Tensor | None) -> Terms:
    """The nearest partner is taken out of the sum, so that nothing cancels where it has it all."""
    positive, _, out = relations(place, target, sample_weight)
    lowest = torch.finfo(scores.dtype).min / 4
    at = torch.where(positive, scores, lowest).argmax(1, keepdim=True)
    nearest = scores.gather(1, at)
    rest = torch.where(out, lowest, scores).scatter(1, at, lowest)
    others = positive.scatter(1, at, 0)
    behind = torch.where(others, nearest - scores, 0.0).sum(1)
    count = positive.sum(1)
    value = softplus(torch.logsumexp(rest, 1) - nearest.squeeze(1)) + behind / count.clamp(min=1)
    found = count > 0
    return Terms(torch.where(found, value, 0.0), normaliser=found.to(scores.dtype))


def _step(embedding: Tensor, target: Tensor, *, sample_weight: Tensor | None, **_: Any) -> Rows:
    return Rows(functools.partial(_rows, target=target, sample_weight=sample_weight))


@loss(
    Card(
        task="embedding",
        coupling="pairs",
        formula=r"-\frac{1}{|P_i|} \sum_{p \in P_i} \log"
        r" \frac{\exp(\cos(z_i, z_p) / \tau)}{\sum_{a \ne i} \exp(\cos(z_i, z_a) / \tau)},"
        r"\quad P_i = \{p \ne i : y_p = y_i\}",
        signatures=(Signature(embedding=REAL("N D"), target=GROUP("N"), out="N"),),
        options={"temperature": POSITIVE},
        variants=({"temperature": 0.5}, {"temperature": 2.0}),
        plain_mean=False,
        aliases=("supcon", "supervised_contrastive_loss"),
        use_when="labelled samples, several of each class in a batch",
        avoid_when="most classes have a single sample in the batch",
        source="Khosla et al. 2020, arXiv:2004.11362",
    ),
    engine=Pairs(_sides, _step, learnable=("temperature",)),
)
def supcon_loss(
    embedding: Tensor,
    target: Tensor,
    *,
    temperature: float | Tensor = 0.1,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor | Terms:
    """Each sample should find the others of its class among all other samples.

    The paper's equation 2, with the mean over partners outside of the logarithm. The paper sums
    over samples; here, as elsewhere, the default is the mean over those that have a partner. The
    others have the value 0 and count for nothing but as somebody's negative. Several views of a
    sample are several rows of one label.

    Args:
        embedding: Embeddings, ``(N, D)``, floating point; they are brought to length 1 here.
        target: Labels, ``(N)``, integers; only their equality counts.
        temperature: Divides the cosine, ``> 0``; a tensor with one element may learn.
        sample_weight: Weight of each sample, ``(N)``, ``>= 0``; 0 means absent, for others too.
        reduction: ``"mean"`` (divides by the sum of the weights of the samples that have a
            partner), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N)`` for ``reduction="none"``, in nats; dtype of ``embedding``.

    Raises:
        ValueError: If the shapes do not fit, ``temperature <= 0``, or ``reduction`` is unknown.
        TypeError: If ``embedding`` is not floating point, or ``target`` not integer.

    Example:
        >>> import torch, lossmith as lm
        >>> embedding = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
        >>> lm.supcon_loss(embedding, torch.tensor([7, 7, 3]), temperature=1.0, reduction="none")
        tensor([0.3133, 0.3133, 0.0000])
    """
    step = _step(embedding, target, sample_weight=sample_weight)
    return step.of(_sides(embedding, target, temperature=temperature))


class SupConLoss(Loss):
    """Module form of :func:`supcon_loss`."""

    temperature: float | Tensor = 0.1
    function = staticmethod(supcon_loss)
