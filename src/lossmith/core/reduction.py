"""The one place where losses are weighted and reduced. Nobody else in lossmith reduces.

Rules, the same for every loss: the mean divides by the sum of the weights; weight 0 means absent;
the mean over nothing is 0 with a connected zero gradient (torch gives NaN). ``"batchmean"`` is the
mean times the number of values in a row.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lossmith.core.numerics import safe_sqrt

Add = Callable[[Tensor], Tensor]
Reduction = Literal["none", "mean", "sum"]
BatchReduction = Literal["none", "mean", "sum", "batchmean"]


class Terms(NamedTuple):
    """What a loss returns when its mean is not simply the mean of its values.

    Attributes:
        loss: The unreduced loss.
        normaliser: What the mean divides by is the sum of this, instead of the count; same shape.
            Class-weighted cross-entropy returns the weight of each target here.
        mean_of: The mean is taken of these values instead of ``loss``; same shape.
            CTC returns the loss per target symbol here, as torch defines its mean.
        root: The square root is taken after the reduction (RMSE).
    """

    loss: Tensor
    normaliser: Tensor | None = None
    mean_of: Tensor | None = None
    root: bool = False


def reduce(
    result: Tensor | Terms,
    weight: Tensor | None,
    reduction: str,
    *,
    add: Add | None = None,
) -> Tensor:
    """Weigh and reduce an unreduced loss. ``weight`` has its shape; 0 means absent.

    torch adds up pairwise, and needs no more digits than its result has. Generated code adds one by
    one, and brings its own way to ``add``.
    """
    if not isinstance(result, Terms):
        if weight is None and add is None:
            if reduction == "mean":
                return result.mean() if result.numel() else result.sum()
            if reduction == "sum":
                return result.sum()
            if reduction == "none":
                return result
        result = Terms(result)
    values = result.loss
    if reduction == "mean" and result.mean_of is not None:
        values = result.mean_of
    normaliser = result.normaliser
    if weight is not None:
        # `where`, not the product alone: 0 * inf and 0 * NaN would let the absent speak.
        values = torch.where(weight == 0, torch.zeros_like(values), values) * weight
        normaliser = weight if normaliser is None else normaliser * weight
    total = torch.sum if add is None else add
    if reduction == "none":
        reduced = values
    elif reduction == "sum":
        reduced = total(values)
    elif normaliser is None and reduction == "batchmean":
        reduced = total(values) / max(_rows(values), 1)
    elif normaliser is None:
        reduced = total(values) / max(values.numel(), 1)
    else:
        divisor = total(normaliser)
        reduced = total(values) / torch.where(divisor == 0, torch.ones_like(divisor), divisor)
        if reduction == "batchmean":  # so that an absent row counts in neither sum
            reduced = reduced * (values.numel() / max(_rows(values), 1))
    reduced = reduced.to(values.dtype)
    return safe_sqrt(reduced) if result.root else reduced


def _rows(values: Tensor) -> int:
    return values.shape[0] if values.ndim else 1
