"""The sums over positions that region losses are functions of, and those functions."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from lossmith.core.checks import fail
from lossmith.engines.passes import (
    COST,
    FALSE_ALARM,
    GAP,
    HIT,
    MISS,
    POSITIONS,
    SIZE,
    Measure,
)
from lossmith.engines.statistics import region_sums
from lossmith.losses.region.overlap import Pixels, class_pixels, mask_pixels, share


@dataclass(frozen=True)
class RegionStatistics:
    """Sums over the positions of images, of which every region loss is a function.

    They add: the statistics of two halves of an image, or of the shards of a batch on several
    devices, give those of the whole by ``+`` or an all-reduce of ``sums``. One pass over the logits
    makes them, one more takes their gradient back, whatever is computed from them in between::

        statistics = lm.RegionStatistics.from_logits(logits, label_map)
        loss = statistics.dice_loss().mean() + 0.5 * statistics.tversky_loss(alpha=0.3).mean()

    Attributes:
        sums: ``(N, C, 7)``: for each sample and class the sums of p t, p (1 - t), (1 - p) t,
            (p - t)^2, of the cost of the target, of t, and of 1, with p the probability and t the
            target of a position.

    Example:
        >>> import torch, lossmith as lm
        >>> logits, label_map = torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4, dtype=torch.long)
        >>> upper = lm.RegionStatistics.from_logits(logits[:, :, :2], label_map[:, :2])
        >>> lower = lm.RegionStatistics.from_logits(logits[:, :, 2:], label_map[:, 2:])
        >>> (upper + lower).dice_loss(smooth=0.0)
        tensor([[0.3333, 1.0000]])
    """

    sums: Tensor

    @classmethod
    def from_logits(
        cls,
        input: Tensor,
        target: Tensor,
        *,
        ignore_index: int = -100,
        squared: bool = False,
        gamma: float | None = None,
        batch: bool = False,
    ) -> Self:
        """The statistics of a softmax over dimension 1.

        Args:
            input: Logits, ``(N, C, *)`` with two or more classes, floating point, finite or -inf.
            target: Label map, class indices in [0, C-1], ``(N, *)``, integers; or memberships in
                [0, 1] with the shape of ``input``, floating point.
            ignore_index: Positions of a label map with this value count nowhere.
            squared: Whether to sum ``(p - t)^2``; without it that sum is 0.
            gamma: Sum ``-(1 - p)^gamma log p`` of the targets, 0 for cross-entropy; None for 0.
            batch: Whether to sum over the samples too, as over one: the "batch Dice" of the field.

        Raises:
            ValueError: If there is one class only.
        """
        if input.shape[1] < 2:
            rule = "have two or more classes in dimension 1 (for one logit: binary_...)"
            fail("input", rule, input.shape[1])

        def plain(input: Tensor, target: Tensor) -> Tensor:
            return _sums(class_pixels(input, target, ignore_index, gamma), squared)

        measure = Measure(plain, True, ignore_index, squared, gamma)
        return cls._from(region_sums(input, target, measure), batch)

    @classmethod
    def from_mask_logits(
        cls,
        input: Tensor,
        target: Tensor,
        *,
        squared: bool = False,
        gamma: float | None = None,
        batch: bool = False,
    ) -> Self:
        """The statistics of a sigmoid, one class.

        Args:
            input: Logits, ``(N, *)``, floating point, finite; all dimensions after the first are
                one mask.
            target: Masks in [0, 1], same shape as ``input``, any real dtype or bool.
            squared: Whether to sum ``(p - t)^2``; without it that sum is 0.
            gamma: Sum the binary focal loss of the positions, 0 for cross-entropy; None for 0.
            batch: Whether to sum over the samples too, as over one.
        """

        def plain(input: Tensor, target: Tensor) -> Tensor:
            return _sums(mask_pixels(input, target, gamma), squared)

        return cls._from(
            region_sums(input, target, Measure(plain, False, 0, squared, gamma)), batch
        )

    @classmethod
    def _from(cls, sums: Tensor, batch: bool) -> Self:
        return cls(sums.sum(0, keepdim=True) if batch else sums)

    def __add__(self, other: "RegionStatistics") -> "RegionStatistics":
        if not isinstance(other, RegionStatistics):
            return NotImplemented
        return RegionStatistics(self.sums + other.sums)

    def dice_loss(self, *, smooth: float = 1.0, squared: bool = False) -> Tensor:
        """One minus the Dice coefficient of each class, ``(N, C)``."""
        hit, false_alarm, miss = self._overlap()
        # sum p^2 + sum t^2 = 2 sum p t + sum (p - t)^2
        wrong = self.sums[..., GAP] if squared else false_alarm + miss
        return share(wrong, 2 * hit, smooth)

    def tversky_loss(self, *, alpha: float = 0.3, beta: float = 0.7, smooth: float = 1.0) -> Tensor:
        """One minus the Tversky index of each class, ``(N, C)``; Jaccard for alpha = beta = 1."""
        hit, false_alarm, miss = self._overlap()
        return share(alpha * false_alarm + beta * miss, hit, smooth)

    def focal_tversky_loss(
        self,
        *,
        alpha: float = 0.3,
        beta: float = 0.7,
        gamma: float = 4 / 3,
        smooth: float = 1.0,
    ) -> Tensor:
        """The Tversky loss of each class to the power 1/gamma, ``(N, C)``."""
        value = self.tversky_loss(alpha=alpha, beta=beta, smooth=smooth)
        perfect = value == 0  # the root is infinitely steep there: no pull instead
        return torch.where(perfect, 0.0, torch.where(perfect, 1.0, value).pow(1 / gamma))

    def generalized_dice_loss(
        self, *, power: float = 2.0, include_background: bool = True
    ) -> Tensor:
        """One minus the Dice coefficient of all classes together, ``(N)``.

        A class counts by its size to the power ``-power``, an absent one as much as the rarest.
        """
        start = 0 if include_background else 1
        hit, false_alarm, miss = (part[:, start:] for part in self._overlap())
        size = self.sums[:, start:, SIZE]
        absent = size == 0
        # any common factor cancels: this one keeps the powers in range
        rarest = torch.where(absent, torch.inf, size).amin(1, keepdim=True).detach()
        factor = torch.where(absent, 1.0, rarest / torch.where(absent, rarest, size)).pow(power)
        factor = torch.where(absent, 1.0, factor)
        return share((factor * (false_alarm + miss)).sum(1), (2 * factor * hit).sum(1), 0.0)

    def mcc_loss(self) -> Tensor:
        """One minus Matthews' correlation coefficient of each class, ``(N, C)``; 1 if undefined.

        With q the product of the four rates of success and r that of the four rates of failure
        the coefficient is ``sqrt(q) - sqrt(r)``, and ``1 - sqrt(q) = (1 - q) / (1 + sqrt(q))``,
        where ``1 - q`` is a sum of rates of failure.
        """
        hit, false_alarm, miss = self._overlap()
        quiet = self.sums[..., POSITIONS] - self.sums[..., SIZE] - false_alarm
        quiet = torch.where(quiet < 0, 0.0, quiet)  # which only rounding can bring about
        totals = (hit + false_alarm, hit + miss, quiet + false_alarm, quiet + miss)
        tiny = torch.finfo(hit.dtype).tiny
        undefined = torch.stack(totals).amin(0) < tiny
        totals = [torch.where(undefined, 1.0, total) for total in totals]
        failure = torch.zeros_like(hit)
        rights, wrongs = (hit, hit, quiet, quiet), (false_alarm, miss, false_alarm, miss)
        for right, wrong, total in zip(rights, wrongs, totals, strict=True):
            failure = (wrong + right * failure) / total
        called, present, calm, clear = (total.sqrt() for total in totals)
        success = (hit / called / present) * (quiet / calm / clear)
        confusion = (false_alarm / called / calm) * (miss / present / clear)
        return torch.where(undefined, 1.0, failure / (1 + success) + confusion)

    def cost(self, *, weight: Tensor | None = None) -> Tensor:
        """Mean over the positions of the cost that ``gamma`` asked for, ``(N)``.

        With ``weight``, a number per class, the mean divides by the sum of those of the targets.
        """
        cost, count = self.sums[..., COST], self.sums[:, 0, POSITIONS]
        if weight is not None:
            cost = cost * weight.to(cost)
            count = (self.sums[..., SIZE] * weight.to(cost)).sum(1)
        return cost.sum(1) / torch.where(count == 0, 1.0, count)

    def _overlap(self) -> tuple[Tensor, Tensor, Tensor]:
        columns = self.sums.unbind(-1)
        return columns[HIT], columns[FALSE_ALARM], columns[MISS]


def over_classes(
    value: Tensor,
    weight: Tensor | None = None,
    include_background: bool = True,
    *,
    batch: bool = False,
) -> Tensor:
    """Mean over the classes, ``(N, C)`` to ``(N)``, or to ``()`` for a batch taken as one."""
    start = 0 if include_background else 1
    if weight is None:
        mean = value[:, start:].mean(1)
    else:
        factor = weight[start:].to(value)
        total = factor.sum()
        mean = (value[:, start:] * factor).sum(1) / torch.where(total == 0, 1.0, total)
    return mean.squeeze(0) if batch else mean


def _sums(pixels: Pixels, squared: bool) -> Tensor:
    """The sums in the order of the columns."""
    inside, outside, mask, number, cost = pixels
    nothing = torch.zeros_like(inside[..., 0])
    gap = nothing
    if squared:
        # |p - t|; the complements hold the digits where p and t are near 1
        gap = torch.where(mask > 0.5, outside - (1 - mask), inside - mask).square().sum(-1)
    columns = (
        (inside * mask).sum(-1),
        (inside * (1 - mask)).sum(-1),
        (outside * mask).sum(-1),
        gap,
        nothing if cost is None else cost.sum(-1),
        mask.sum(-1),
        nothing + number,
    )
    return torch.stack(columns, -1)
