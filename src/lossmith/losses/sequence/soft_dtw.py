"""Soft dynamic time warping: all alignments of two time series, the cheap ones counting most.

A path goes through the grid of pairs of steps, down, across or diagonally; its cost is the sum of
the costs of its pairs. The soft minimum over all paths is a sum in logarithms.
"""

import functools
from dataclasses import replace

from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.checks import fail
from lossmith.core.domain import FLAG, POSITIVE, REAL
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.reduction import Reduction
from lossmith.core.signature import Signature
from lossmith.engines.soft_dtw import one_pass_soft_dtw, soft_minimum

# ordinary series: as far from each other as the default smoothing reaches
SERIES = replace(REAL, spread=0.3)


def _plain(input: Tensor, target: Tensor, *, gamma: float, divergence: bool) -> Tensor:
    """The soft minimum ``(N)`` by Algorithm 1 of the paper, in float64."""
    input, target = input.double(), target.double()

    def between(left: Tensor, right: Tensor) -> Tensor:
        cost = (left.unsqueeze(2) - right.unsqueeze(1)).square().sum(3)
        return soft_minimum(cost, gamma)[0]

    value = between(input, target)
    if divergence:
        value = value - 0.5 * between(input, input) - 0.5 * between(target, target)
    return value


@loss(
    Card(
        task="sequence",
        coupling="path",
        formula=r"-\gamma \log \sum_{\pi \in \mathcal{A}}"
        r" \exp\Bigl(-\tfrac1\gamma \sum_{(t,s) \in \pi} \lVert x_t - y_s \rVert_2^2\Bigr)",
        signatures=(Signature(input=SERIES("N T D"), target=SERIES("N S D"), out="N"),),
        options={"gamma": POSITIVE, "divergence": FLAG},
        variants=({"gamma": 10.0}, {"divergence": True}),
        symmetric=True,
        nonnegative=False,
        aliases=("soft_dtw", "dtw"),
        use_when="time series agree in shape, but not in the times at which things happen",
        avoid_when="the time at which something happens matters, or series are very long",
        source="Cuturi and Blondel 2017, arXiv:1703.01541;"
        " Blondel, Mensch and Vert 2021, arXiv:2010.08354",
    )
)
def soft_dtw_loss(
    input: Tensor,
    target: Tensor,
    *,
    gamma: float = 1.0,
    divergence: bool = False,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Soft minimum of the cost of all monotone alignments of two time series.

    The cost of a pair of steps is the squared Euclidean distance. As ``gamma`` goes to 0 this
    becomes dynamic time warping. It may be negative, and is not smallest where the series are
    equal; the ``divergence`` is never negative, and 0 there:
    :math:`d(x, y) - \tfrac12 d(x, x) - \tfrac12 d(y, y)`.

    Args:
        input: Time series, ``(N, T, D)``, floating point, any real value.
        target: Time series, ``(N, S, D)``, floating point; its length may be another.
        gamma: Strength of the smoothing, ``> 0``, in units of the squared distance.
        divergence: Whether the soft minima of each series with itself are taken off.
        sample_weight: Weight of each pair of series, ``(N)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N)`` for ``reduction="none"``; dtype of ``input``.

    Raises:
        ValueError: If shapes do not fit, a series has no steps, or ``gamma`` is not positive.
        TypeError: If ``input`` or ``target`` is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> early = torch.tensor([[[0.0], [5.0], [0.0], [0.0]]])
        >>> late = torch.tensor([[[0.0], [0.0], [5.0], [0.0]]])
        >>> lm.soft_dtw_loss(early, late, gamma=0.01).abs() < 0.1
        tensor(True)
    """
    for name, series in (("input", input), ("target", target)):
        if series.shape[1] == 0:
            fail(name, "have at least one step", series)
    plain = functools.partial(_plain, gamma=gamma, divergence=divergence)
    value = one_pass_soft_dtw(input, target, gamma, divergence, plain)
    return (plain(input, target) if value is None else value).to(input.dtype)


class SoftDTWLoss(Loss):
    """Module form of :func:`soft_dtw_loss`."""

    gamma: float = 1.0
    divergence: bool = False
    function = staticmethod(soft_dtw_loss)
