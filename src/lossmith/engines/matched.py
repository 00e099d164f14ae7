"""Steps of the pairs engine for rows that each have one partner among the columns.

The score of the partner is taken out of its row, so that the rest is summed without it and nothing
cancels where the partner has nearly all of the probability. The work on a stripe is done by four
kernels: those of this file, made of torch's in place, or those in Triton.
"""

from typing import Any

import torch
from torch import Tensor

from lossmith.core.numerics import softplus
from lossmith.engines.eligible import by_triton


class Matched:
    """What softmax and sigmoid have in common: where the partners are, and who is left out.

    Args:
        partner: Column of the partner of each row.
        absent: Which rows and columns are absent; None if none is.
        views: Rows per sample; with several, both sides are the same vectors, view by view, and a
            row leaves its own column out.
    """

    copies = 2

    def __init__(
        self, partner: Tensor, absent: Tensor | None, dtype: torch.dtype, *, views: int = 1
    ) -> None:
        self.partner, self.absent, self.views = partner, absent, views
        self.lowest = torch.finfo(dtype).min / 4  # adds nothing to any sum, and is no infinity

    def apart(self, tile: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """Columns and tile of the partners; whatever is left out of ``tile`` gets lowest."""
        column = self.partner[place].unsqueeze(1)
        own = tile.gather(1, column)
        if self.views > 1:
            tile.scatter_(1, place.unsqueeze(1), self.lowest)
        if self.absent is not None:
            out = self.absent[place].unsqueeze(1) | self.absent
            tile.masked_fill_(out, self.lowest)
        return column, own

    def finish(self, values: Tensor) -> Tensor:
        """The mean over the views."""
        return values if self.views == 1 else values.view(self.views, -1).mean(0)

    def spread(self, force: Tensor) -> Tensor:
        """Even shares for the views."""
        return force if self.views == 1 else (force / self.views).repeat(self.views)


class Softmax(Matched):
    """``-log`` of the share of the partner among the tile of its row.

    With ``columns`` the mean of that and of its share in its column; row i belongs to column i.
    """

    def __init__(
        self,
        partner: Tensor,
        absent: Tensor | None,
        dtype: torch.dtype,
        *,
        views: int = 1,
        columns: bool = False,
    ) -> None:
        super().__init__(partner, absent, dtype, views=views)
        self.looks = columns
        if columns:
            self.own, self.others, self.total = partner.new_zeros((3, len(partner)), dtype=dtype)
            self.top = torch.full_like(self.own, self.lowest)

    def value(self, tile: Tensor, place: Tensor) -> Tensor:
        """The part of the rows; the sums of the columns go on."""
        column, own = self.apart(tile, place)
        tile.scatter_(1, column, self.lowest)
        kernels = kernels_for(tile)
        others = kernels.log_sum_exp(tile)
        if self.looks:
            kernels.merge_columns(tile, (self.top, self.total))
            self.own[place], self.others[place] = own.squeeze(1), others
        return softplus(others - own.squeeze(1))

    def finish(self, values: Tensor) -> Tensor:
        """With the part of the columns, now that they are complete."""
        if not self.looks:
            return super().finish(values)
        return 0.5 * (values + softplus(self._columns() - self.own))

    def _columns(self) -> Tensor:
        return self.top + self.total.log()

    def pull(self, tile: Tensor, place: Tensor, force: Tensor) -> tuple[Tensor, Tensor]:
        """The part of the rows, and the slopes of rows and columns."""
        column, own = self.apart(tile, place)
        tile.scatter_(1, column, self.lowest)
        kernels = kernels_for(tile)
        others = self.others[place] if self.looks else kernels.log_sum_exp(tile)
        margin = others - own.squeeze(1)
        slope = margin.sigmoid() * force[place]
        if self.looks:
            sides = self._columns()
            along = 0.5 * (sides - self.own).sigmoid() * force
            slope = 0.5 * slope
            kernels.exponentials(tile, others, slope, sides, along)
            slope = slope + along[place]
        else:
            kernels.exponentials(tile, others, slope)
        tile.scatter_(1, column, -slope.unsqueeze(1))
        return softplus(margin), tile


class Sigmoid(Matched):
    """The sum of the logistic losses of a row: 1 for the partner, 0 for the others."""

    looks = False

    def value(self, tile: Tensor, place: Tensor) -> Tensor:
        """Softplus of each score, of the opposite one for the partner."""
        column, own = self.apart(tile, place)
        tile.scatter_(1, column, -own)
        return kernels_for(tile).logistic(tile)

    def pull(self, tile: Tensor, place: Tensor, force: Tensor) -> tuple[Tensor, Tensor]:
        """The slope needs no normaliser, so one pass gives it."""
        column, own = self.apart(tile, place)
        tile.scatter_(1, column, -own)
        value = kernels_for(tile).logistic(tile, force[place])
        tile.scatter_(1, column, -tile.gather(1, column))
        return value, tile


class InPlace:
    """The kernels, made of torch's."""

    @staticmethod
    def log_sum_exp(tile: Tensor) -> Tensor:
        """Of each row."""
        top = tile.amax(1, keepdim=True)
        return (tile - top).exp_().sum(1).log_() + top.squeeze(1)

    @staticmethod
    def merge_columns(tile: Tensor, out: tuple[Tensor, Tensor]) -> None:
        """Carry ``log sum exp`` of the columns, ``top + log(total)``, on over further rows."""
        top, total = out
        higher = torch.maximum(top, tile.amax(0))
        total.mul_(torch.exp(top - higher)).add_((tile - higher).exp_().sum(0))
        top.copy_(higher)

    @staticmethod
    def exponentials(
        tile: Tensor,
        rows: Tensor,
        slope: Tensor,
        columns: Tensor | None = None,
        along: Tensor | None = None,
    ) -> None:
        """``tile`` become ``slope exp(s - rows)``, and ``along exp(s - columns)`` on top."""
        other = None if columns is None or along is None else (tile - columns).exp_().mul_(along)
        tile.sub_(rows.unsqueeze(1)).exp_().mul_(slope.unsqueeze(1))
        if other is not None:
            tile.add_(other)

    @staticmethod
    def logistic(tile: Tensor, force: Tensor | None = None) -> Tensor:
        """Sums of softplus; with a ``force``, ``tile`` become ``force sigmoid(s)``."""
        value = softplus(tile).sum(1)
        if force is not None:
            tile.sigmoid_().mul_(force.unsqueeze(1))
        return value


def kernels_for(tile: Tensor) -> Any:
    """Triton's where they run, torch's elsewhere."""
    if by_triton(tile):
        from lossmith.engines.triton.pairs import Kernels

        return Kernels
    return InPlace
