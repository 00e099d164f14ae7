"""Triplet margin: an anchor, something alike, something different."""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.checks import fail, said
from lossmith.core.domain import FLAG, NONNEGATIVE, POSITIVE, REAL, Function
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.numerics import safe_norm
from lossmith.core.reduction import Reduction
from lossmith.core.signature import Signature
from lossmith.engines.pull import squares_fit, with_pull

Distance = Callable[[Tensor, Tensor], Tensor]
EPS = 1e-6
ORDER = replace(POSITIVE, endless=True)
LARGEST = 1e18  # a far distance overflows from 1e19 on, unseen while the margin is below it
# Below this size the calls cost more than the passes over memory, and torch makes fewer of them.
SMALL = 1 << 14
FORMULA = r"\max(0,\; d(a, p) - d(a, n) + m)"
SOURCE = "Balntas, Riba, Ponsa and Mikolajczyk 2016, doi:10.5244/C.30.119"


def _hinge(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    distance: Distance,
    margin: float,
    swap: bool,
) -> Tensor:
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = torch.minimum(far, distance(positive, negative))
    return (near - far + margin).clamp(min=0)  # close distances subtract without rounding


def _native(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    reduction: int,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = EPS,
    swap: bool = False,
) -> Tensor | None:
    if not anchor.is_cpu or p not in (1, 2) or eps < EPS or margin > LARGEST:
        return None
    leaves = (anchor, positive, negative)
    if anchor.numel() >= SMALL and p == 2 and not swap:
        return _one_pass(*leaves, reduction, margin, eps)
    value = torch.triplet_margin_loss(*leaves, margin, p, eps, swap, reduction)
    # With eps at hand nothing can vanish when squared; what overflows shows, as NaN does.
    finite = value.isfinite().all() if value.ndim else math.isfinite(value.item())
    return value if finite or not all(leaf.isfinite().all() for leaf in leaves) else None


def _one_pass(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    reduction: int,
    margin: float,
    eps: float,
) -> Tensor | None:
    """Euclidean triplets whose differences are taken once, for value and gradient."""
    leaves = (anchor, positive, negative)
    if anchor.ndim != 2:
        return None
    a, p, n = anchor.detach(), positive.detach(), negative.detach()
    to_near, to_far = (a - p).add_(eps), (a - n).add_(eps)
    near = torch.linalg.vector_norm(to_near, dim=1)
    far = torch.linalg.vector_norm(to_far, dim=1)
    if not squares_fit(near, far):
        return None
    cost = (near - far).add_(margin)
    value = cost.clamp(min=0)

    def plain(anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        def distance(left: Tensor, right: Tensor) -> Tensor:
            return safe_norm(left - right + eps)

        return _hinge(anchor, positive, negative, distance, margin, swap=False)

    kept = (to_near, to_far, near, far, cost)
    return with_pull(value, reduction, _pull, plain, leaves=leaves, kept=kept)


def _pull(
    grad: Tensor,
    needed: tuple[bool, ...],
    leaves: tuple[Tensor, ...],
    to_near: Tensor,
    to_far: Tensor,
    near: Tensor,
    far: Tensor,
    cost: Tensor,
) -> tuple[Tensor | None, ...]:
    force = grad * (cost >= 0)
    by_near, by_far = (force / near).unsqueeze(1), (force / far).unsqueeze(1)
    return (
        torch.addcmul(to_near * by_near, to_far, by_far, value=-1) if needed[0] else None,
        to_near * -by_near if needed[1] else None,
        to_far * by_far if needed[2] else None,
    )


@loss(
    Card(
        task="embedding",
        coupling="row",
        formula=FORMULA + r",\quad d(x, y) = \lVert x - y + \varepsilon \rVert_p",
        signatures=(
            Signature(anchor=REAL("N D"), positive=REAL("N D"), negative=REAL("N D"), out="N"),
            Signature(anchor=REAL("D"), positive=REAL("D"), negative=REAL("D"), out=""),
        ),
        options={"margin": POSITIVE, "p": ORDER, "eps": NONNEGATIVE, "swap": FLAG},
        variants=(
            {"margin": 0.2, "swap": True},
            {"margin": 5.0, "p": 1.0, "eps": 0.0},
            {"p": 3.0, "eps": 0.01},
            {"p": float("inf"), "swap": True},
        ),
        same_as="torch.nn.functional.triplet_margin_loss",
        elicits="order of distances",
        aliases=("triplet", "triplet_loss"),
        use_when="triplets of anchor, alike and different examples, well chosen",
        avoid_when="triplets come at random: most soon cost nothing and teach nothing",
        source=SOURCE,
    ),
    native=_native,
)
def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = EPS,
    swap: bool = False,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """The positive should be nearer to the anchor than the negative, by a margin.

    A triplet that fulfils this costs nothing. Otherwise its gradient by the positive and by the
    negative has length 1 (``p = 2``), however far they are; it is 0 at distance 0.

    Args:
        anchor: Embeddings to compare with, ``(N, D)`` or ``(D)``, floating point.
        positive: Embeddings of examples like the anchor, same shape.
        negative: Embeddings of examples unlike the anchor, same shape.
        margin: Wanted difference of the distances, ``> 0``, in the unit of the distance.
        p: Order of the norm, ``> 0``; 2 is Euclidean, ``float("inf")`` the largest difference.
        eps: Added to each difference before the norm, ``>= 0``, as torch does.
        swap: Also compare positive and negative, and let the nearer of the two count as negative.
        sample_weight: Weight of each triplet, ``(N)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N)`` for ``reduction="none"``; dtype of ``anchor``.

    Raises:
        ValueError: If the shapes differ, an option is out of range, or ``reduction`` is unknown.
        TypeError: If a tensor is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> anchor = torch.tensor([[0.0, 0.0]])
        >>> near, far = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 5.5]])
        >>> lm.triplet_margin_loss(anchor, near, far, eps=0.0)
        tensor(0.5000)
    """

    def distance(left: Tensor, right: Tensor) -> Tensor:
        return safe_norm(left - right + eps, p)

    return _hinge(anchor, positive, negative, distance, margin, swap)


class TripletMarginLoss(Loss):
    """Module form of :func:`triplet_margin_loss`."""

    margin: float = 1.0
    p: float = 2.0
    eps: float = EPS
    swap: bool = False
    function = staticmethod(triplet_margin_loss)


def _euclidean_one_pass(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    reduction: int,
    distance_function: Distance | None = None,
    margin: float = 1.0,
    swap: bool = False,
) -> Tensor | None:
    if distance_function is not None or swap:
        return None
    return _one_pass(anchor, positive, negative, reduction, margin, EPS)


def _city_block(left: Tensor, right: Tensor) -> Tensor:
    return (left - right).abs().flatten(1).sum(1)


_EUCLIDEAN, _GIVEN = {"distance_function": None}, {"distance_function": Function()}


@loss(
    Card(
        task="embedding",
        coupling="row",
        formula=FORMULA,
        signatures=(
            Signature(
                anchor=REAL("N D"),
                positive=REAL("N D"),
                negative=REAL("N D"),
                out="N",
                when=_EUCLIDEAN,
            ),
            Signature(
                anchor=REAL("D"), positive=REAL("D"), negative=REAL("D"), out="", when=_EUCLIDEAN
            ),
            Signature(
                anchor=REAL("N D *"),
                positive=REAL("N D *"),
                negative=REAL("N D *"),
                out="N",
                when=_GIVEN,
            ),
            Signature(
                anchor=REAL("D"), positive=REAL("D"), negative=REAL("D"), out="", when=_GIVEN
            ),
        ),
        options={"distance_function": Function(), "margin": POSITIVE, "swap": FLAG},
        variants=(
            {"margin": 0.2, "swap": True},
            {"distance_function": _city_block, "margin": 4.0, "swap": True},
        ),
        same_as="torch.nn.functional.triplet_margin_with_distance_loss",
        elicits="order of distances",
        use_when="triplets under a distance of your own, or of samples that are not vectors",
        avoid_when="a p-norm will do: it has a loss of its own, safe at every scale",
        source=SOURCE,
    ),
    native=_euclidean_one_pass,
)
def triplet_margin_with_distance_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    distance_function: Distance | None = None,
    margin: float = 1.0,
    swap: bool = False,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Triplet margin under any distance.

    The gradient is that of the distance given, which has to be finite at distance 0 as well.

    Args:
        anchor: Embeddings to compare with, ``(N, D)`` or ``(D)``; with a distance function also
            ``(N, D, *)``, floating point.
        positive: Embeddings of examples like the anchor, same shape.
        negative: Embeddings of examples unlike the anchor, same shape.
        distance_function: Takes two such tensors and returns one distance per sample, ``(N)``;
            None is the Euclidean distance with 1e-6 added to each difference, as in torch.
        margin: Wanted difference of the distances, ``> 0``, in the unit of the distance.
        swap: Also compare positive and negative, and let the nearer of the two count as negative.
        sample_weight: Weight of each triplet, ``(N)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N)`` for ``reduction="none"``; dtype of ``anchor``.

    Raises:
        ValueError: If the shapes differ, ``margin <= 0``, the distances have a wrong shape, or
            ``reduction`` is unknown.
        TypeError: If a tensor is not floating point, or ``distance_function`` cannot be called.

    Example:
        >>> import torch, lossmith as lm
        >>> a, p, n = torch.zeros(1, 2), torch.ones(1, 2), torch.full((1, 2), 1.25)
        >>> lm.triplet_margin_with_distance_loss(
        ...     a, p, n, distance_function=lambda x, y: (x - y).abs().sum(-1)
        ... )
        tensor(0.5000)
    """

    def distance(left: Tensor, right: Tensor) -> Tensor:
        if distance_function is None:
            return safe_norm(left - right + EPS)
        found = distance_function(left, right)
        expected = left.shape[:1] if left.ndim > 1 else left.shape[:0]
        if found.shape != expected:
            rule = f"return distances of shape {tuple(expected)}"
            fail("distance_function", rule, said(str(tuple(found.shape))))
        return found

    return _hinge(anchor, positive, negative, distance, margin, swap)


class TripletMarginWithDistanceLoss(Loss):
    """Module form of :func:`triplet_margin_with_distance_loss`."""

    distance_function: Distance | None = None
    margin: float = 1.0
    swap: bool = False
    function = staticmethod(triplet_margin_with_distance_loss)
