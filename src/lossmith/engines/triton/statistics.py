"""The two passes over logits of regions, in Triton: one read for the sums, one for the slopes.

A program takes pieces of one sample, all classes of a position at once, and leaves a partial sum
of its own; torch adds these up in float64, in the same order in each run. All arithmetic is in
float32, or in float64 for logits of that dtype.
"""
# pyright: basic, reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# (the arguments of a kernel have the types of Triton's language, which Python cannot name)

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from lossmith.engines.passes import COLUMNS, Measure
from lossmith.engines.triton.numbers import at_most, exp, log1p

TILE = 4096  # elements of a piece: more would spill the registers
SUMMING = 8  # warps that share a piece where each of its lanes keeps six sums, for the same reason
PROGRAMS = 512  # of all samples together; each adds up its lanes and leaves one partial sum


@triton.jit
def _power(x, gamma):
    """``x^gamma`` of ``0 <= x <= 1`` for gamma > 0."""
    return tl.where(x > 0, exp(gamma * tl.log(tl.where(x > 0, x, 1.0))), 0.0)


@triton.jit
def _labels(
    logits, target, x_sample, x_class, x_at, y_sample, y_at, sample, at, kind, classes, count,
    ignore, LARGEST: tl.constexpr, COST: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """Softmax of a piece ``(classes, positions)`` and what the labels make of it."""
    there = at < count
    label = tl.load(target + sample * y_sample + at * y_at, there, ignore).to(tl.int64)
    present = there & (label != ignore)
    known = present & (label >= 0) & (label < classes)
    label = tl.where(known, label, -1)
    line = logits + sample * x_sample + at * x_at
    inside = (kind < classes)[:, None] & there[None, :]
    x = tl.load(line[None, :] + kind[:, None] * x_class, inside, -float("inf")).to(DTYPE)
    x = at_most(x, LARGEST)
    x = tl.where(present[None, :], x, 0.0)
    x = tl.where((kind < classes)[:, None], x, -float("inf"))
    top = tl.max(x, 0)
    mark = kind.to(tl.int32)[:, None] == label.to(tl.int32)[None, :]
    power = tl.where(mark, 0.0, exp(x - top[None, :]))
    rest = tl.sum(power, 0)
    # read once more, from the cache: to pick it out would take two instructions for each class
    logit = at_most(tl.load(line + label * x_class, known, 0.0).to(DTYPE), LARGEST)
    own = tl.where(known, exp(logit - top), 0.0)
    whole = own + rest
    nll = tl.zeros_like(own)
    if COST:  # of the likeliest class own is 1, and the digits of -log p are those of the rest
        nll = (top - logit) + log1p(tl.where(own == 1, rest, whole - 1))
    # a label that is no class is NaN in its sample
    each = tl.where(known, 1 / whole, tl.where(present, float("nan"), 0.0))
    return mark, power * each[None, :], own * each, rest * each, nll, known, label


@triton.jit
def _label_sums(
    logits, target, out, x_sample, x_class, x_at, y_sample, y_at, classes, count, ignore,
    LARGEST: tl.constexpr, GAMMA: tl.constexpr, SQUARED: tl.constexpr,
    COST: tl.constexpr, FOCAL: tl.constexpr, DTYPE: tl.constexpr, HIGH: tl.constexpr,
    WIDE: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    sample, part, parts = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.num_programs(1)
    kind = tl.arange(0, HIGH).to(tl.int64)
    hit = tl.zeros((HIGH, WIDE), DTYPE)  # as many lanes as a piece is wide
    alarm, miss, gap, cost, size = hit, hit, hit, hit, hit
    all = tl.zeros((WIDE,), DTYPE)
    for start in range(part * WIDE, count, parts * WIDE):
        at = start + tl.arange(0, WIDE).to(tl.int64)
        mark, share, own, rest, nll, known, _ = _labels(
            logits, target, x_sample, x_class, x_at, y_sample, y_at, sample, at, kind, classes,
            count, ignore, LARGEST, COST, DTYPE,
        )  # fmt: skip
        hit += tl.where(mark, own[None, :], 0.0)
        alarm += share
        miss += tl.where(mark, rest[None, :], 0.0)
        size += mark.to(DTYPE)
        all += known.to(DTYPE)
        if SQUARED:
            apart = tl.where(mark, rest[None, :], share)
            gap += apart * apart
        if COST:
            if FOCAL:
                nll = nll * _power(rest, GAMMA)
            cost += tl.where(mark, nll[None, :], 0.0)
    place = out + ((sample * parts + part) * classes + kind) * COLUMNS
    real = kind < classes
    tl.store(place, tl.sum(hit, 1), real)
    tl.store(place + 1, tl.sum(alarm, 1), real)
    tl.store(place + 2, tl.sum(miss, 1), real)
    tl.store(place + 3, tl.sum(gap, 1), real)
    tl.store(place + 4, tl.sum(cost, 1), real)
    tl.store(place + 5, tl.sum(size, 1), real)
    tl.store(place + 6, tl.sum(all, 0), real)


@triton.jit
def _label_slopes(
    logits, target, by, out, x_sample, x_class, x_at, y_sample, y_at, o_sample, o_class, o_at,
    classes, count, ignore, LARGEST: tl.constexpr, GAMMA: tl.constexpr,
    SQUARED: tl.constexpr, COST: tl.constexpr,
    FOCAL: tl.constexpr, DTYPE: tl.constexpr, HIGH: tl.constexpr, WIDE: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    pieces = tl.cdiv(count, WIDE)  # all along one axis of the grid: others end at 65,535
    sample = (tl.program_id(0) // pieces).to(tl.int64)
    kind = tl.arange(0, HIGH).to(tl.int64)
    at = tl.program_id(0) % pieces * WIDE + tl.arange(0, WIDE).to(tl.int64)
    mark, share, own, rest, nll, known, label = _labels(
        logits, target, x_sample, x_class, x_at, y_sample, y_at, sample, at, kind, classes, count,
        ignore, LARGEST, COST and FOCAL, DTYPE,
    )  # fmt: skip
    real = kind < classes
    place = by + (sample * classes + kind) * COLUMNS
    mine = by + (sample * classes + label) * COLUMNS
    alarm = tl.load(place + 1, real, 0.0)[:, None]
    # as LabelMaps.slopes derives them
    level, shift = tl.load(mine, known, 0.0), tl.load(mine + 2, known, 0.0)
    if SQUARED:
        level -= 2 * rest * tl.load(mine + 3, known, 0.0)
        alarm += 2 * tl.load(place + 3, real, 0.0)[:, None] * share
    likely = tl.where(own > rest, level, 0.0)
    level, shift = level - likely, shift - likely
    mean = tl.sum(share * alarm, 0) + rest * shift + own * level
    certainty = tl.zeros((WIDE,), DTYPE)
    if COST:
        certainty += tl.load(mine + 4, known, 0.0)
        if FOCAL:
            entropy = tl.where(own > 0, own * nll, 0.0)
            sure = rest == 0
            ratio = tl.where(sure, 1.0, entropy / tl.where(sure, 1.0, rest))
            certainty = certainty * _power(rest, GAMMA) * (1 + GAMMA * ratio)
    at_label = own * (level - mean) - rest * certainty
    others = share * (alarm + (shift + certainty - mean)[None, :])
    slope = tl.where(mark, at_label[None, :], others)
    place = out + sample * o_sample + kind[:, None] * o_class + at[None, :] * o_at
    tl.store(place, slope.to(out.dtype.element_ty), real[:, None] & (at < count)[None, :])


@triton.jit
def _masks(logits, target, x_sample, x_at, y_sample, y_at, sample, at, count,
           LARGEST: tl.constexpr, DTYPE: tl.constexpr):  # fmt: skip
    """Both sides of the sigmoid, their costs, and the mask, for a piece of positions."""
    there = at < count
    x = tl.load(logits + sample * x_sample + at * x_at, there, 0.0).to(DTYPE)
    x = -at_most(-at_most(x, LARGEST), LARGEST)
    mask = tl.load(target + sample * y_sample + at * y_at, there, 0).to(DTYPE)
    small = exp(-tl.abs(x))
    more = 1 / (1 + small)
    less = small * more
    inside, outside = tl.where(x < 0, less, more), tl.where(x < 0, more, less)
    tail = log1p(small)
    against = tl.where(x < 0, 0.0, x) + tail  # -log(1 - p)
    toward = tl.where(x < 0, -x, 0.0) + tail  # -log p
    apart = tl.where(mask > 0.5, (1 - mask) - outside, inside - mask)
    return mask, inside, outside, against, toward, apart, there


@triton.jit
def _mask_sums(
    logits, target, out, x_sample, x_at, y_sample, y_at, count,
    LARGEST: tl.constexpr, GAMMA: tl.constexpr, SQUARED: tl.constexpr, COST: tl.constexpr,
    FOCAL: tl.constexpr, DTYPE: tl.constexpr, WIDE: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    sample, part, parts = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.num_programs(1)
    hit = tl.zeros((WIDE,), DTYPE)  # as many lanes as a piece is wide
    alarm, miss, gap, cost, size = hit, hit, hit, hit, hit
    for start in range(part * WIDE, count, parts * WIDE):
        at = start + tl.arange(0, WIDE).to(tl.int64)
        mask, inside, outside, against, toward, apart, there = _masks(
            logits, target, x_sample, x_at, y_sample, y_at, sample, at, count, LARGEST, DTYPE
        )
        hit += tl.where(there, inside * mask, 0.0)
        alarm += tl.where(there, inside * (1 - mask), 0.0)
        miss += tl.where(there, outside * mask, 0.0)
        if SQUARED:
            gap += tl.where(there, apart * apart, 0.0)
        size += tl.where(there, mask, 0.0)
        if COST:
            yes, no = toward, against
            if FOCAL:
                yes, no = toward * exp(-GAMMA * against), against * exp(-GAMMA * toward)
            cost += tl.where(there, mask * yes + (1 - mask) * no, 0.0)
    place = out + (sample * parts + part) * COLUMNS
    tl.store(place, tl.sum(hit, 0))
    tl.store(place + 1, tl.sum(alarm, 0))
    tl.store(place + 2, tl.sum(miss, 0))
    tl.store(place + 3, tl.sum(gap, 0))
    tl.store(place + 4, tl.sum(cost, 0))
    tl.store(place + 5, tl.sum(size, 0))
    tl.store(place + 6, 0.0)


@triton.jit
def _mask_slopes(
    logits, target, by, out, x_sample, x_at, y_sample, y_at, o_sample, o_at, count,
    LARGEST: tl.constexpr, GAMMA: tl.constexpr, SQUARED: tl.constexpr, COST: tl.constexpr,
    FOCAL: tl.constexpr, DTYPE: tl.constexpr, WIDE: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    pieces = tl.cdiv(count, WIDE)
    sample = (tl.program_id(0) // pieces).to(tl.int64)
    at = tl.program_id(0) % pieces * WIDE + tl.arange(0, WIDE).to(tl.int64)
    mask, inside, outside, against, toward, apart, there = _masks(
        logits, target, x_sample, x_at, y_sample, y_at, sample, at, count, LARGEST, DTYPE
    )
    place = by + sample * COLUMNS
    pull = mask * (tl.load(place) - tl.load(place + 2)) + (1 - mask) * tl.load(place + 1)
    if SQUARED:
        pull += 2 * apart * tl.load(place + 3)
    slope = inside * outside * pull
    if COST:
        yes, no = -outside, inside
        if FOCAL:
            yes = exp(-GAMMA * against) * (yes - GAMMA * inside * toward)
            no = exp(-GAMMA * toward) * (no + GAMMA * outside * against)
        slope += tl.load(place + 4) * (mask * yes + (1 - mask) * no)
    tl.store(out + sample * o_sample + at * o_at, slope.to(out.dtype.element_ty), there)


class Kernels(NamedTuple):
    """The two passes, over logits ``(N, C, positions)`` and a label map or masks."""

    measure: Measure

    def sums(self, logits: Tensor, target: Tensor) -> Tensor:
        """The sums, ``(N, C, COLUMNS)``, in float64."""
        samples, classes, count = logits.shape
        options = self._options(logits)
        parts = max(1, min(triton.cdiv(count, options["WIDE"]), PROGRAMS // max(samples, 1)))
        work = torch.float64 if logits.dtype is torch.float64 else torch.float32
        partial = logits.new_empty((samples, parts, classes, COLUMNS), dtype=work)
        grid = (samples, parts)
        if not partial.numel():
            return partial.sum(1, dtype=torch.float64)
        with torch.cuda.device_of(logits):
            if self.measure.by_class:
                _label_sums[grid](
                    logits, target, partial, *logits.stride(), *target.stride(), classes, count,
                    self.measure.ignore_index, **options, num_warps=SUMMING,
                )  # fmt: skip
            else:
                x, y = logits.squeeze(1), target.squeeze(1)
                _mask_sums[grid](x, y, partial, *x.stride(), *y.stride(), count, **options)
        total = partial.sum(1, dtype=torch.float64)
        if not self.measure.by_class:
            total[..., -1] = count
        return total

    def slopes(
        self, logits: Tensor, target: Tensor, pull: Tensor, needed: tuple[bool, ...]
    ) -> tuple[Tensor | None, ...]:
        """Gradient of the logits, from that of the sums, and none of a target."""
        samples, classes, count = logits.shape
        slopes, options = torch.empty_like(logits), self._options(logits)
        by = pull.to(torch.float64 if logits.dtype is torch.float64 else torch.float32).contiguous()
        grid = (samples * triton.cdiv(count, options["WIDE"]),)
        found = (slopes, *(None for _ in needed[1:]))
        if not slopes.numel():
            return found
        with torch.cuda.device_of(logits):
            if self.measure.by_class:
                _label_slopes[grid](
                    logits, target, by, slopes, *logits.stride(), *target.stride(),
                    *slopes.stride(), classes, count, self.measure.ignore_index, **options,
                )  # fmt: skip
            else:
                x, y, out = logits.squeeze(1), target.squeeze(1), slopes.squeeze(1)
                _mask_slopes[grid](
                    x, y, by, out, *x.stride(), *y.stride(), *out.stride(), count, **options
                )
        return found

    def _options(self, logits: Tensor) -> dict[str, Any]:
        """What a kernel is made for; as arguments its numbers would be rounded to float32."""
        double = logits.dtype is torch.float64
        info = torch.finfo(torch.float64 if double else torch.float32)
        shared = {
            "LARGEST": info.max / 256,
            "GAMMA": self.measure.gamma or 0.0,
            "SQUARED": self.measure.squared,
            "COST": self.measure.gamma is not None,
            "FOCAL": (self.measure.gamma or 0.0) > 0,
            "DTYPE": tl.float64 if double else tl.float32,
            "COLUMNS": COLUMNS,
        }
        if not self.measure.by_class:
            return {**shared, "WIDE": TILE // 4}
        high = triton.next_power_of_2(logits.shape[1])
        return {**shared, "HIGH": high, "WIDE": max(16, TILE // high)}
