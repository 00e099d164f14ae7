"""What losses of a labelled batch share: which pairs are alike, and how far apart they are."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from lossmith.core.domain import Domain, Sizes
from lossmith.engines.pairs import Sides


@dataclass(frozen=True)
class Groups(Domain):
    """Integers of which only the equality counts: equal ones belong together."""

    floating: bool | None = False
    index: ClassVar[bool] = True

    def sample(self, shape: tuple[int, ...], generator: torch.Generator, sizes: Sizes) -> Tensor:
        """Two groups, so that even three samples hold an alike pair."""
        return torch.randint(2, shape, generator=generator)


GROUP = Groups("group", "be integers")


class Relations(NamedTuple):
    """How the rows of a stripe stand to all samples; every entry is ``(R, N)``.

    Attributes:
        positive: Another sample of the same group.
        negative: A sample of another group.
        out: The sample itself, and absent ones.
    """

    positive: Tensor
    negative: Tensor
    out: Tensor


def relations(place: Tensor, target: Tensor, sample_weight: Tensor | None) -> Relations:
    """Those of the samples at ``place`` to all."""
    out = place.unsqueeze(1) == torch.arange(len(target), device=target.device)
    if sample_weight is not None:
        out = out | (sample_weight == 0)
    alike = target[place].unsqueeze(1) == target
    return Relations(alike & ~out, ~(alike | out), out)


def squared_distances(vectors: Tensor, sample_weight: Tensor | None) -> Sides:
    """Sides whose scores are the squared Euclidean distances of the vectors.

    From products, ``|x|^2 - 2 x y + |y|^2``, by two more dimensions. The centre of the batch is
    taken off first: distances do not know it, and products far from 0 would lose their digits. On
    the CPU they are float64 as well: one outlier would take the digits of all float32 distances.
    """
    vectors = vectors.double() if vectors.is_cpu else vectors
    count = len(vectors) if sample_weight is None else (sample_weight != 0).sum()
    centre = vectors.detach().sum(0) / (max(count, 1) if isinstance(count, int) else count.clamp(1))
    vectors = vectors - centre
    square = vectors.square().sum(1, keepdim=True)
    one = torch.ones_like(square)
    return Sides(torch.cat((-2 * vectors, square, one), 1), torch.cat((vectors, one, square), 1))
