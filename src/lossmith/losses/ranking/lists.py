"""What the losses on lists share: entries that are not there, gains, ranks."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lossmith.core.checks import fail_type, require_range
from lossmith.core.domain import Vector
from lossmith.core.reduction import Terms


@dataclass(frozen=True)
class Present(Vector):
    """An option that is a tensor of booleans, True where an entry exists, or None."""

    def check_option(self, name: str, value: Any) -> None:
        """Refuse what is not a tensor of booleans."""
        super().check_option(name, value)
        if value is not None and value.dtype is not torch.bool:
            fail_type(name, "be a tensor of bool or None", value)


PRESENT = Present(("N", "L"))


def entries(
    scores: Tensor, relevance: Tensor, mask: Tensor | None, *, low: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores and relevance with 0 where ``mask`` is False, and the mask itself (all True if None).

    The relevance of what is present must be at least ``low`` and finite.
    """
    if not relevance.is_floating_point():
        # float32 takes neighbours above 2^24 for equal; Apple's GPUs have no float64
        wide = scores.dtype if relevance.device.type == "mps" else torch.float64
        relevance = relevance.to(wide)
    if mask is None:
        mask = torch.ones_like(scores, dtype=torch.bool)
    else:
        scores, relevance = torch.where(mask, scores, 0.0), torch.where(mask, relevance, 0.0)
    rule = "be finite" if low == -math.inf else f"be >= {low:g} and finite"
    largest = torch.finfo(relevance.dtype).max
    require_range("relevance", rule, relevance, max(low, -largest), largest)
    return scores, relevance, mask


def per_list(value: Tensor, mask: Tensor | None) -> Tensor | Terms:
    """The unreduced loss; in its mean a list without any entry does not count."""
    return value if mask is None else Terms(value, normaliser=mask.any(1).to(value))


def better_pairs(relevance: Tensor, mask: Tensor) -> Tensor:
    """``(N, L, L)``: whether entry i is more relevant than entry j, both present."""
    better = relevance.unsqueeze(2) > relevance.unsqueeze(1)
    return better & mask.unsqueeze(2) & mask.unsqueeze(1)


def gaps(scores: Tensor) -> Tensor:
    """``(N, L, L)``: score of entry i minus score of entry j."""
    return scores.unsqueeze(2) - scores.unsqueeze(1)


def ranks(scores: Tensor, mask: Tensor) -> Tensor:
    """Place of each entry by descending score, from 1; equal scores in the order given."""
    lowered = torch.where(mask, scores, -torch.inf)
    return _places(lowered.argsort(dim=1, descending=True, stable=True), scores)


def ideal_ranks(scores: Tensor, relevance: Tensor, mask: Tensor) -> Tensor:
    """Place of each entry by descending relevance, from 1; equal ones by descending score.

    What is masked has relevance 0 here and comes last of all.
    """
    first = torch.where(mask, scores, -torch.inf).argsort(dim=1, descending=True, stable=True)
    second = relevance.gather(1, first).argsort(dim=1, descending=True, stable=True)
    return _places(first.gather(1, second), scores)


def _places(order: Tensor, scores: Tensor) -> Tensor:
    return (order.argsort(1) + 1).to(scores)


def shares(relevance: Tensor, ideal: Tensor) -> Tensor:
    """Gains ``2^relevance - 1``, divided by the DCG of the ideal order; all 0 if that is 0."""
    # relative to the largest, so that no power of two overflows
    top = relevance.amax(1, keepdim=True) if relevance.shape[1] else relevance
    gain = -torch.expm1(-math.log(2.0) * relevance) * torch.exp2(relevance - top)
    best = (gain / torch.log2(1.0 + ideal)).sum(1, keepdim=True)
    return gain / torch.where(best == 0, 1.0, best)
