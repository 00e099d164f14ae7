"""Maximum mean discrepancy: how unlike two samples are, under a Gaussian kernel."""

import functools
from typing import Any

import torch
from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.checks import fail
from lossmith.core.domain import FLAG, POSITIVE, REAL
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.numerics import not_below
from lossmith.core.reduction import Reduction, Terms
from lossmith.core.signature import Signature
from lossmith.engines.pairs import Pairs, Rows, Sides
from lossmith.losses.embedding.groups import squared_distances


def _sides(input: Tensor, target: Tensor, *, bandwidth: float | Tensor, **_: Any) -> Sides:
    distances = squared_distances(torch.cat((input, target)), None)
    wide = bandwidth.to(distances.left.dtype) if isinstance(bandwidth, Tensor) else bandwidth
    return distances._replace(temperature=2 * wide * wide)


def _rows(
    scores: Tensor, place: Tensor, *, counts: tuple[int, int], unbiased: bool, dtype: torch.dtype
) -> Tensor:
    """What each member of the two samples adds to the double sum."""
    n, m = counts
    likeness = torch.exp(-scores.clamp(min=0).to(dtype))
    likeness = likeness.scatter(1, place.unsqueeze(1), 0.0 if unbiased else 1.0)
    share = likeness.new_full((n + m,), 1 / n)
    share[n:] = -1 / m
    if not unbiased:
        return share[place] * (likeness @ share)
    first = place < n
    sizes = (likeness.new_full((), size / max(size - 1, 1)) for size in counts)
    within = torch.where(first, *sizes)
    by_set = likeness[:, :n] @ share[:n], likeness[:, n:] @ share[n:]
    own, other = torch.where(first, *by_set), torch.where(first, *by_set[::-1])
    return share[place] * (within * own + other)


def _step(input: Tensor, target: Tensor, *, unbiased: bool, **_: Any) -> Rows:
    counts = len(input), len(target)
    for name, count in zip(("input", "target"), counts, strict=True):
        if count < 1 + unbiased:
            fail(name, f"have {1 + unbiased} rows or more", count)
    dtype = torch.promote_types(input.dtype, target.dtype)
    rows = functools.partial(_rows, counts=counts, unbiased=unbiased, dtype=dtype)
    return Rows(rows, copies=6, total=_signed if unbiased else _unsigned)


def _signed(total: Tensor) -> Tensor:
    return total


def _unsigned(total: Tensor) -> Tensor:
    return not_below(total, 0.0)  # a square, but for rounding


@loss(
    Card(
        task=("embedding", "distribution"),
        coupling="pairs",
        formula=r"\operatorname*{mean}_{i, j} k(x_i, x_j) + \operatorname*{mean}_{i, j} k(y_i, y_j)"
        r" - 2 \operatorname*{mean}_{i, j} k(x_i, y_j),"
        r"\quad k(x, y) = e^{-\lVert x - y \rVert_2^2 / 2 \sigma^2}",
        signatures=(Signature(input=REAL("N D"), target=REAL("M D"), out=""),),
        options={"bandwidth": POSITIVE, "unbiased": FLAG},
        variants=({"unbiased": True, "bandwidth": 3.0}, {"bandwidth": 2.0}),
        symmetric=True,
        nonnegative=False,
        elicits="distribution",
        aliases=("mmd", "maximum_mean_discrepancy"),
        use_when="two samples should come from one distribution, whatever it is",
        avoid_when="the bandwidth is far from the distances: everything then looks alike or unlike",
        source="Gretton, Borgwardt, Rasch, Schölkopf and Smola 2012, JMLR 13:723-773;"
        " preprint 2008, arXiv:0805.2368",
    ),
    engine=Pairs(_sides, _step, stacked=True, learnable=("bandwidth",)),
)
def mmd_loss(
    input: Tensor,
    target: Tensor,
    *,
    bandwidth: float | Tensor = 1.0,
    unbiased: bool = False,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor | Terms:
    """Squared distance of the means of two samples, in the space of a Gaussian kernel.

    Args:
        input: One sample, ``(N, D)``, floating point, any real value.
        target: The other sample, ``(M, D)``; the sizes may differ.
        bandwidth: Standard deviation of the kernel, ``> 0``, in the unit of the data; the median
            of the distances is a common choice. A tensor with one element may learn.
        unbiased: Leave each point's likeness to itself out, which makes the estimate unbiased, and
            below 0 at times (equation 3 of the paper; the default is its equation 5).
        sample_weight: Weight of the value, ``()``, ``>= 0``; 0 means absent.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``; there is one value.

    Returns:
        Scalar; dtype of ``input``.

    Raises:
        ValueError: If the shapes do not fit, a sample is empty (or a single point, if
            ``unbiased``), ``bandwidth <= 0``, or ``reduction`` is unknown.
        TypeError: If a tensor is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> input, target = torch.tensor([[0.0], [0.0]]), torch.tensor([[1.0], [1.0], [1.0]])
        >>> lm.mmd_loss(input, target)  # 2 - 2 exp(-1/2)
        tensor(0.7869)
    """
    step = _step(input, target, unbiased=unbiased)
    return step.of(_sides(input, target, bandwidth=bandwidth))


class MMDLoss(Loss):
    """Module form of :func:`mmd_loss`."""

    bandwidth: float | Tensor = 1.0
    unbiased: bool = False
    function = staticmethod(mmd_loss)
