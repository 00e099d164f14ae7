"""Correlation as a loss: Pearson's, blind to shift and scale, and the concordance, which is not."""

import torch
from torch import Tensor

from lossmith.core.card import Card
from lossmith.core.domain import REAL
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.numerics import centred, power_of_two, unit
from lossmith.core.reduction import Reduction
from lossmith.core.signature import Signature

PAIRS = (
    Signature(input=REAL("D"), target=REAL("D"), out=""),
    Signature(input=REAL("N D"), target=REAL("N D"), out="N"),
)


@loss(
    Card(
        task="regression",
        coupling="statistics",
        formula=r"1 - \frac{\sum_d (x_d - \bar x)(y_d - \bar y)}"
        r"{\sqrt{\sum_d (x_d - \bar x)^2 \sum_d (y_d - \bar y)^2}}",
        signatures=PAIRS,
        symmetric=True,
        zero_at_target=True,
        elicits="any increasing straight line of the mean",
        link="none",
        aliases=("pearson", "correlation_loss", "ic_loss"),
        use_when="only the course counts: ranks of assets, shapes of curves, logits of a teacher",
        avoid_when="the values themselves are wanted: shift and scale are not learnt",
        source="Pearson 1895, doi:10.1098/rspl.1895.0041",
    )
)
def pearson_loss(
    input: Tensor,
    target: Tensor,
    *,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """One minus Pearson's correlation along the last dimension.

    It is half the squared distance of the two series, each centred and brought to length 1, so a
    good correlation keeps its digits. A constant series has none: its loss is 1, with no gradient.
    To correlate over a batch of single outputs pass ``(D)``; of several outputs, the transpose.

    Args:
        input: Predicted series, ``(N, D)`` or ``(D)``, floating point, any real value.
        target: Observed series, same shape as ``input``.
        sample_weight: Weight of each series, ``(N)`` or ``()``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N)`` for ``reduction="none"``, in [0, 2]; dtype of ``input``.

    Raises:
        ValueError: If the shapes differ or ``reduction`` is unknown.
        TypeError: If a tensor is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> lm.pearson_loss(torch.tensor([1.0, 2.0, 6.0]), torch.tensor([10.0, 20.0, 30.0]))
        tensor(0.0551)
    """
    x, y = unit(centred(input)), unit(centred(target))
    # each length is 1, or 0 for a constant: what it lacks is missing from the distance
    lacking = (x.detach() == 0).all(-1).to(x.dtype) + (y.detach() == 0).all(-1).to(x.dtype)
    return 0.5 * ((x - y).square().sum(-1) + lacking)


class PearsonLoss(Loss):
    """Module form of :func:`pearson_loss`."""

    function = staticmethod(pearson_loss)


@loss(
    Card(
        task="regression",
        coupling="statistics",
        formula=r"1 - \frac{2 s_{xy}}{s_x^2 + s_y^2 + (\bar x - \bar y)^2}",
        signatures=PAIRS,
        symmetric=True,
        zero_at_target=True,
        elicits="values on the line of identity",
        link="identity",
        aliases=("ccc", "concordance", "lin_ccc"),
        use_when="agreement is scored by the concordance: emotion, raters, measuring devices",
        avoid_when="batches are small: a mean of concordances is not the concordance of all",
        source="Lin 1989, doi:10.2307/2532051",
    )
)
def ccc_loss(
    input: Tensor,
    target: Tensor,
    *,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """One minus Lin's concordance correlation coefficient along the last dimension.

    It is the mean squared difference over what that would be without correlation. Variances divide
    by D, as in the paper. Two equal constants agree (0).
    To compare over a batch of single outputs pass ``(D)``; of several outputs, the transpose.

    Args:
        input: Predicted series, ``(N, D)`` or ``(D)``, floating point, any real value.
        target: Observed series, same shape as ``input``.
        sample_weight: Weight of each series, ``(N)`` or ``()``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N)`` for ``reduction="none"``, in [0, 2]; dtype of ``input``.

    Raises:
        ValueError: If the shapes differ or ``reduction`` is unknown.
        TypeError: If a tensor is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> lm.ccc_loss(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 3.0, 4.0]))
        tensor(0.4286)
    """
    if input.shape[-1] == 0:
        return (input + target).sum(-1)
    x, y, gap = centred(input), centred(target), input - target
    parts = torch.cat([x, y, gap], -1).detach()
    scale = power_of_two(
        parts.abs().amax(-1, keepdim=True)
    )  # so that no square over- or underflows
    x, y, gap = x / scale, y / scale, gap / scale
    apart = (x.square() + y.square()).mean(-1) + gap.mean(-1).square()
    return gap.square().mean(-1) / torch.where(apart == 0, 1.0, apart)


class CCCLoss(Loss):
    """Module form of :func:`ccc_loss`."""

    function = staticmethod(ccc_loss)
