"""Cosine of two embeddings, towards 1 or below a margin."""

import functools

import torch
from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.domain import REAL, SIGN, Interval
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.numerics import unit
from lossmith.core.reduction import Reduction
from lossmith.core.signature import Signature
from lossmith.engines.pull import squares_fit, with_pull


def _cost(input1: Tensor, input2: Tensor, target: Tensor, margin: float) -> Tensor:
    first, second = unit(input1), unit(input2)
    # 1 - cos is half the squared distance of the unit vectors: that keeps its digits near 0. A zero
    # vector has no direction, its cosine with anything is 0.
    present = (first * first).sum(-1) * (second * second).sum(-1) > 0.5
    apart = 0.5 * (first - second).square().sum(-1)
    apart = torch.where(present, apart, 1.0)
    excess = ((first * second).sum(-1) - margin).relu()
    return torch.where(target > 0, apart, excess)


def _one_pass(
    input1: Tensor, input2: Tensor, target: Tensor, reduction: int, margin: float = 0.0
) -> Tensor | None:
    leaves = (input1, input2)
    if input1.ndim != 2:
        return None
    x1, x2 = input1.detach(), input2.detach()
    length1 = torch.linalg.vector_norm(x1, dim=1, keepdim=True)
    length2 = torch.linalg.vector_norm(x2, dim=1, keepdim=True)
    if not squares_fit(length1, length2):
        return None
    per1, per2 = length1.reciprocal_(), length2.reciprocal_()
    first = x1 * per1
    second = x2 * per2
    cosine = (first * second).sum(1)  # not vecdot, which autocast would round to bfloat16
    chord = second.sub_(first)
    apart = torch.linalg.vector_norm(chord, dim=1).square_().mul_(0.5)
    value = torch.where(target > 0, apart, cosine.sub_(margin).relu_())
    force = (target * (value > 0)).unsqueeze(1)  # 1 pulls together, -1 apart

    plain = functools.partial(_cost, margin=margin)
    kept = (chord, apart.unsqueeze(1), per1, per2, force)
    return with_pull(value, reduction, _pull, plain, leaves=leaves, others=(target,), kept=kept)


def _pull(
    grad: Tensor,
    needed: tuple[bool, ...],
    leaves: tuple[Tensor, ...],
    chord: Tensor,
    apart: Tensor,
    per1: Tensor,
    per2: Tensor,
    force: Tensor,
) -> tuple[Tensor | None, ...]:
    # d(1 - cos) / dx = -(v - u + (1 - cos) u) / |x|, with u and v the unit vectors
    force = force * (grad.unsqueeze(1) if grad.ndim else grad)
    by1 = by2 = None
    if needed[0]:
        by1 = torch.addcmul(chord, leaves[0], apart * per1) * (-force * per1)
    if needed[1]:
        by2 = torch.addcmul(chord, leaves[1], apart * per2, value=-1) * (force * per2)
    return by1, by2


@loss(
    Card(
        task="embedding",
        coupling="row",
        formula=r"\begin{cases} 1 - \cos(x_1, x_2) & y = 1\\"
        r" \max(0,\; \cos(x_1, x_2) - m) & y = -1\end{cases}",
        signatures=(
            Signature(input1=REAL("N D"), input2=REAL("N D"), target=SIGN("N"), out="N"),
            Signature(input1=REAL("D"), input2=REAL("D"), target=SIGN(""), out=""),
        ),
        options={"margin": Interval("cosine", "lie in [-1, 1]", low=-1.0, high=1.0)},
        variants=({"margin": 0.3}, {"margin": -0.4}),
        symmetric=True,
        same_as="torch.nn.functional.cosine_embedding_loss",
        aliases=("cosine_embedding", "cosine_loss"),
        use_when="pairs of embeddings whose direction counts, known to be alike or not",
        avoid_when="the length of the embeddings carries meaning",
        source="Collobert, Kavukcuoglu and Farabet 2011, Torch7 (BigLearn, NIPS workshop)",
    ),
    native=_one_pass,
)
def cosine_embedding_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    *,
    margin: float = 0.0,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cosine towards 1 for similar pairs (target 1), below a margin for others (-1).

    Only directions count, so the gradient is at right angles to its embedding and shrinks with
    its length. A zero vector has no direction: its cosine is 0 and it gets no gradient.

    Args:
        input1: First embeddings, ``(N, D)`` or ``(D)``, floating point, any real value.
        input2: Second embeddings, same shape as ``input1``.
        target: 1 for similar pairs, -1 for dissimilar ones; ``(N)``, or ``()`` for one pair.
        margin: Cosine below which a dissimilar pair costs nothing, in [-1, 1].
        sample_weight: Weight of each pair, ``(N)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N)`` for ``reduction="none"``, in [0, 2]; dtype of ``input1``.

    Raises:
        ValueError: If the shapes do not fit, a target is neither -1 nor 1, ``margin`` is outside
            [-1, 1], or ``reduction`` is unknown.
        TypeError: If ``input1`` or ``input2`` is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> first, second = torch.tensor([[3.0, 0.0]] * 2), torch.tensor([[3.0, 4.0]] * 2)
        >>> lm.cosine_embedding_loss(first, second, torch.tensor([1, -1]), reduction="none")
        tensor([0.4000, 0.6000])
    """
    return _cost(input1, input2, target, margin)


class CosineEmbeddingLoss(Loss):
    """Module form of :func:`cosine_embedding_loss`."""

    margin: float = 0.0
    function = staticmethod(cosine_embedding_loss)
