"""The kernels of losses over a softmax, in Triton: one read forward, one backward.

A program takes several rows where they are short. Rows that are long, or few, are cut into parts,
each the work of one program, which goes along it by blocks with the largest logit so far; torch
puts the parts together. All arithmetic is in float32, to which the series below are cut.

A kernel that reads two bytes for a class has about a dozen instructions for it before it falls
behind the memory, so exponentials are those to the base of 2, which are one instruction, and
nothing is divided for each class. ``tests/engines/test_triton_compiled.py`` counts them.
"""
# pyright: basic, reportArgumentType=false, reportGeneralTypeIssues=false
# (the arguments of a kernel have the types of Triton's language, which Python cannot name)

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from lossmith.engines.rows.head import Head
from lossmith.engines.triton.numbers import at_most, exp

TILE = 4096  # elements that a program reads at once: more would spill the registers
PROGRAMS = 1024  # enough for each processor of a GPU to have several: rows are cut up to here
NOBODY = -1  # the class of a row that is absent, of which nothing is read
FORWARD, REVERSE, JENSEN_SHANNON, TOTAL_VARIATION = range(4)
_AS_IT_IS = Head()


@triton.jit
def _tanh(x):
    """Of ``x >= 0``, with relative accuracy: a series near 0, where ``1 - exp`` would cancel."""
    s = x * x
    series = 62.0 / 2835 + s * (-1382.0 / 155925 + s * (21844.0 / 6081075))
    series = x * (1 + s * (-1.0 / 3 + s * (2.0 / 15 + s * (-17.0 / 315 + s * series))))
    e = exp(-2 * x)
    return tl.where(x < 0.25, series, (1 - e) / (1 + e))


@triton.jit
def _short_of_1(x):
    """``1 - e^-x`` of ``x >= 0``, with relative accuracy: a series near 0."""
    series = 1.0 / 24 + x * (-1.0 / 120 + x * (1.0 / 720 - x * (1.0 / 5040)))
    series = x * (1 + x * (-1.0 / 2 + x * (1.0 / 6 - x * series)))
    return tl.where(x < 0.25, series, 1 - exp(-x))


@triton.jit
def _to_mean(d):
    """``-log(1 - d / 2)`` of ``0 <= d <= 1``, to 4e-8 of itself: a polynomial by least squares."""
    high = -0.0028222298132705 + d * (
        0.0093966074930896 + d * (-0.0063571869548217 + d * 0.0027472048772342)
    )
    low = 0.0417075306329910 + d * (0.0152165965255257 + d * (0.0082601829807881 + d * high))
    return d * (0.5000000095980739 + d * (0.1249984470092455 + d * low))


@triton.jit
def _bent(z, scale, cap, SCALED: tl.constexpr, CAPPED: tl.constexpr):
    if SCALED:
        z = z * scale
    if CAPPED:
        z = z / cap
        z = cap * tl.where(z < 0, -1.0, 1.0) * _tanh(tl.abs(z))
    return at_most(z, 8.5e37)


@triton.jit
def _gauge(
    logits, index, weight, shift, out, stride, rows, classes, span, scale, cap,
    ALIGNED: tl.constexpr, SCALED: tl.constexpr, CAPPED: tl.constexpr, SHIFTED: tl.constexpr,
    INDEXED: tl.constexpr, DEEP: tl.constexpr, WEIGHTED: tl.constexpr,
    HIGH: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * HIGH + tl.arange(0, HIGH)
    part = tl.program_id(1)
    stride, classes = stride * ALIGNED, classes * ALIGNED
    at = tl.arange(0, WIDTH)
    present = row < rows
    own = tl.zeros((HIGH,), tl.int64)
    if INDEXED:
        own = tl.load(index + row, present, -1)
        present = own >= 0
    top = tl.full((HIGH,), -float("inf"), tl.float32)
    rest = tl.zeros((HIGH, WIDTH), tl.float32)
    below = tl.zeros((HIGH, WIDTH), tl.float32)
    dropped = tl.zeros((HIGH,), tl.float32)
    seen = 0.0
    for start in range(part * span, tl.minimum(classes, (part + 1) * span), WIDTH):
        column = start + at
        real = column < classes
        there = present[:, None] & real[None, :]
        z = tl.load(logits + row[:, None] * stride + column[None, :], there, -float("inf"))
        z = _bent(z.to(tl.float32), scale, cap, SCALED, CAPPED)
        if SHIFTED:
            z += tl.load(shift + column, real, 0.0).to(tl.float32)[None, :]
        if CAPPED:
            z = tl.where(there, z, -float("inf"))
        higher = tl.maximum(top, tl.max(z, 1))
        base = tl.where(higher == -float("inf"), 0.0, higher)
        past = tl.where(top == -float("inf"), base, top) - base  # 0 before the first block
        low = z - base[:, None]
        e = exp(low)
        if INDEXED:
            if HIGH > 1:  # noqa: SIM114 (one is decided by the compiler, the other by the program)
                e = tl.where(column[None, :] == own[:, None], 0.0, e)
            elif (tl.max(own, 0) >= start) & (tl.max(own, 0) < start + WIDTH):
                e = tl.where(column[None, :] == own[:, None], 0.0, e)
        rest = rest * exp(past)[:, None] + e
        if DEEP:
            factor = tl.where(real, 1.0, 0.0)
            if WEIGHTED:
                factor = tl.load(weight + column, real, 0.0).to(tl.float32)
            below += tl.where(there & (factor > 0)[None, :], low * factor[None, :], 0.0)
            dropped += past * seen
            seen += tl.sum(factor, 0)
        top = higher
    line = out + part * 5 * rows + row
    inside = row < rows
    tl.store(line, top, inside)
    tl.store(line + rows, tl.sum(rest, 1), inside)
    if INDEXED:
        depth = tl.load(logits + row * stride + own, present, 0.0).to(tl.float32)
        depth = _bent(depth, scale, cap, SCALED, CAPPED)
        if SHIFTED:
            depth += tl.load(shift + own, present, 0.0).to(tl.float32)
        tl.store(line + 2 * rows, depth, inside)
    if DEEP:
        tl.store(line + 3 * rows, -(tl.sum(below, 1) + dropped), inside)
        tl.store(line + 4 * rows, seen, inside)


@triton.jit
def _slopes(
    logits, slopes, index, weight, shift, numbers, stride, out_stride, rows, classes, scale, cap,
    ALIGNED: tl.constexpr, SCALED: tl.constexpr, CAPPED: tl.constexpr, SHIFTED: tl.constexpr,
    DEEP: tl.constexpr, WEIGHTED: tl.constexpr, HIGH: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * HIGH + tl.arange(0, HIGH)
    start = tl.program_id(1) * WIDTH
    column = start + tl.arange(0, WIDTH)
    stride, out_stride, classes = stride * ALIGNED, out_stride * ALIGNED, classes * ALIGNED
    own = tl.load(index + row, row < rows, -1)
    present = own >= 0
    real = column < classes
    there = (row < rows)[:, None] & real[None, :]
    line = numbers + row
    # of an absent row all of these are 0, and so is every slope
    top, deep = tl.load(line, present, 0.0), tl.load(line + rows, present, 0.0)
    spread, away = tl.load(line + 2 * rows, present, 0.0), tl.load(line + 3 * rows, present, 0.0)
    place = row[:, None] * stride + column[None, :]
    z = tl.load(logits + place, present[:, None] & real[None, :], 0.0).to(tl.float32)
    z = _bent(z, scale, cap, SCALED, CAPPED)
    if CAPPED:
        bend = scale * (1 - (z / cap) * (z / cap))
    else:
        spread, away = spread * scale, away * scale
    if SHIFTED:
        z += tl.load(shift + column, real, 0.0).to(tl.float32)[None, :]
    # the largest first, since its sum with the other is rounded at its own size
    slope = exp(z - top[:, None] - deep[:, None]) * spread[:, None]
    if DEEP:
        flat = tl.load(line + 4 * rows, present, 0.0)
        if not CAPPED:
            flat = flat * scale
        factor = tl.full((WIDTH,), 1.0, tl.float32)
        if WEIGHTED:
            factor = tl.load(weight + column, real, 0.0).to(tl.float32)
        slope -= flat[:, None] * factor[None, :]
    if HIGH > 1:  # noqa: SIM114 (as above)
        slope = tl.where(column[None, :] == own[:, None], away[:, None], slope)
    elif (tl.max(own, 0) >= start) & (tl.max(own, 0) < start + WIDTH):
        slope = tl.where(column[None, :] == own[:, None], away[:, None], slope)
    if CAPPED:
        slope = slope * bend
    end = row[:, None] * out_stride + column[None, :]
    tl.store(slopes + end, slope.to(slopes.dtype.element_ty), there)


@triton.jit
def _sides(
    first, second, row, column, there, stride_x, stride_y, sharpness, numbers, rows,
    SCALED: tl.constexpr,
):  # fmt: skip
    """Both softmaxes, the logarithm u of their quotient, the size of their difference, and d.

    With the larger of both, ``m``, the difference is ``m (1 - e^-|u|)``, which is ``m d``: where
    they are almost the same, it keeps its digits.
    """
    inside = row < rows
    line = numbers + row
    top_x, deep_x = tl.load(line, inside, 0.0), tl.load(line + rows, inside, 0.0)
    top_y, deep_y = tl.load(line + 2 * rows, inside, 0.0), tl.load(line + 3 * rows, inside, 0.0)
    place_x = row[:, None] * stride_x + column[None, :]
    place_y = row[:, None] * stride_y + column[None, :]
    x = tl.load(first + place_x, there, -float("inf")).to(tl.float32)
    y = tl.load(second + place_y, there, -float("inf")).to(tl.float32)
    # the largest first, since its sum with the other is rounded at its own size
    x = _bent(x, sharpness, 1.0, SCALED, False) - top_x[:, None]
    y = _bent(y, sharpness, 1.0, SCALED, False) - top_y[:, None]
    p, q = exp(x - deep_x[:, None]), exp(y - deep_y[:, None])
    larger = tl.maximum(p, q)
    u = tl.where(larger == 0, 0.0, (x - y) - (deep_x - deep_y)[:, None])
    d = _short_of_1(tl.abs(u))
    return p, q, u, larger * d, d


@triton.jit
def _divergence(
    first, second, numbers, out, stride_x, stride_y, rows, classes, span, sharpness,
    KIND: tl.constexpr, ALIGNED: tl.constexpr, SCALED: tl.constexpr,
    HIGH: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * HIGH + tl.arange(0, HIGH)
    part = tl.program_id(1)
    stride_x, stride_y, classes = stride_x * ALIGNED, stride_y * ALIGNED, classes * ALIGNED
    value = tl.zeros((HIGH, WIDTH), tl.float32)
    one = tl.zeros((HIGH, WIDTH), tl.float32)
    other = tl.zeros((HIGH, WIDTH), tl.float32)
    for start in range(part * span, tl.minimum(classes, (part + 1) * span), WIDTH):
        column = start + tl.arange(0, WIDTH)
        there = (row < rows)[:, None] & (column < classes)[None, :]
        p, q, u, gap, d = _sides(
            first, second, row, column, there, stride_x, stride_y, sharpness, numbers, rows, SCALED
        )
        if KIND == 0:
            part_q = tl.where(q > 0, q * u, 0.0)
            one += part_q
            value += tl.where(u < 0, -gap, gap) - part_q
        elif KIND == 1:
            part_p = tl.where(p > 0, p * u, 0.0)
            one += part_p
            value += part_p - tl.where(u < 0, -gap, gap)
        elif KIND == 2:
            near = _to_mean(d)
            to_p = tl.where(p > 0, p * (near + tl.minimum(u, 0.0)), 0.0)
            to_q = tl.where(q > 0, q * (near - tl.maximum(u, 0.0)), 0.0)
            one += to_p
            other += to_q
            value += 0.5 * (to_p + to_q)
        else:
            half = tl.where(u == 0, 0.0, tl.where(u < 0, -0.5, 0.5))
            one += p * half
            other += q * half
            value += 0.5 * gap
    line = out + part * 3 * rows + row
    tl.store(line, tl.sum(value, 1), row < rows)
    tl.store(line + rows, tl.sum(one, 1), row < rows)
    tl.store(line + 2 * rows, tl.sum(other, 1), row < rows)


@triton.jit
def _divergence_slopes(
    first, second, to_first, to_second, numbers, grad, stride_x, stride_y, rows, classes, sharpness,
    KIND: tl.constexpr, INPUT: tl.constexpr, TARGET: tl.constexpr, ALIGNED: tl.constexpr,
    SCALED: tl.constexpr, HIGH: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * HIGH + tl.arange(0, HIGH)
    column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    stride_x, stride_y, classes = stride_x * ALIGNED, stride_y * ALIGNED, classes * ALIGNED
    line = numbers + row
    one = tl.load(line + 4 * rows, row < rows, 0.0)[:, None]
    other = tl.load(line + 5 * rows, row < rows, 0.0)[:, None]
    factor = tl.load(grad + row, row < rows, 0.0)[:, None]
    there = (row < rows)[:, None] & (column < classes)[None, :]
    p, q, u, gap, d = _sides(
        first, second, row, column, there & (factor != 0), stride_x, stride_y, sharpness, numbers,
        rows, SCALED,
    )  # fmt: skip
    by_x = tl.where(u < 0, -gap, gap)
    by_y = -by_x
    if KIND == 0:
        by_y = tl.where(q > 0, -q * (u - one), 0.0)
    elif KIND == 1:
        by_x = tl.where(p > 0, p * (u - one), 0.0)
    elif KIND == 2:
        near = _to_mean(d)
        by_x = 0.5 * tl.where(p > 0, p * (near + tl.minimum(u, 0.0) - one), 0.0)
        by_y = 0.5 * tl.where(q > 0, q * (near - tl.maximum(u, 0.0) - other), 0.0)
    else:
        half = tl.where(u == 0, 0.0, tl.where(u < 0, -0.5, 0.5))
        by_x = p * (half - one)
        by_y = -q * (half - other)
    end = row[:, None] * classes + column[None, :]
    factor = factor * sharpness
    if INPUT:
        by_x = tl.where(factor == 0, 0.0, by_x * factor)  # even of NaN
        tl.store(to_first + end, by_x.to(to_first.dtype.element_ty), there)
    if TARGET:
        by_y = tl.where(factor == 0, 0.0, by_y * factor)
        tl.store(to_second + end, by_y.to(to_second.dtype.element_ty), there)


class Cut(NamedTuple):
    """How ``(N, C)`` is shared out among programs.

    Attributes:
        high, width: Rows and classes that a program takes at once.
        span: Classes of a part.
        tall, parts: Programs along the rows, and for each of those along a row.
    """

    high: int
    width: int
    span: int
    tall: int
    parts: int

    @classmethod
    def of(cls, logits: Tensor) -> "Cut":
        """Whose rows are cut where they are too few for all processors."""
        rows, classes = logits.shape
        width = min(TILE, triton.next_power_of_2(classes))
        high = TILE // width
        tall, blocks = triton.cdiv(rows, high), triton.cdiv(classes, width)
        span = triton.cdiv(blocks, max(1, PROGRAMS // tall)) * width
        return cls(high, width, span, tall, triton.cdiv(classes, span))

    @property
    def options(self) -> dict[str, int]:
        """For the kernels."""
        return {"HIGH": self.high, "WIDTH": self.width}


def _rows(logits: Tensor) -> Tensor:
    """Rows whose classes lie next to each other."""
    return logits if logits.stride(1) == 1 or logits.shape[1] == 1 else logits.contiguous()


def _aligned(*sizes: int) -> tuple[int, ...]:
    """Sizes as multiples of a number, and that: told of it, the compiler reads several at once."""
    common = math.gcd(16, *sizes)
    return *(size // common for size in sizes), common


def _parts(head: Head, weight: Tensor | None) -> dict[str, bool]:
    """What there is of the transform of the logits, and of weights."""
    return {
        "SCALED": head.scale != 1,
        "CAPPED": head.softcap is not None,
        "SHIFTED": head.shift is not None,
        "WEIGHTED": weight is not None,
    }


def gauge(
    logits: Tensor,
    index: Tensor | None = None,
    weight: Tensor | None = None,
    *,
    head: Head = _AS_IT_IS,
    deep: bool = False,
) -> Tensor:
    """What each row of ``(N, C)`` says, ``(4, N)``.

    The largest logit m; the sum of ``e^(x - m)``, without that of the class ``index``; the logit
    of the class; if ``deep``, the sum of ``weight (m - x)``. Of a class ``NOBODY`` none is told.
    """
    logits, cut = _rows(logits), Cut.of(logits)
    rows = logits.shape[0]
    stride, classes, common = _aligned(logits.stride(0), logits.shape[1])
    found = torch.empty(cut.parts, 5, rows, dtype=torch.float32, device=logits.device)
    with torch.cuda.device_of(logits):
        _gauge[cut.tall, cut.parts](
            logits, index, weight, head.shift, found, stride, rows, classes, cut.span, head.scale,
            head.softcap or 1.0, ALIGNED=common, **_parts(head, weight), DEEP=deep,
            INDEXED=index is not None, **cut.options,
        )  # fmt: skip
    if cut.parts == 1:
        return found[0, :4]
    tops, rests, depth, belows, masses = found.unbind(1)
    top = tops.amax(0)
    bases, base = (t.masked_fill(t == -torch.inf, 0.0) for t in (tops, top))
    rest = (rests * (tops - base).exp()).sum(0)
    below = (belows + masses * (base - bases)).sum(0) if deep else rest
    return torch.stack([top, rest, depth[0], below])


def slopes(
    logits: Tensor,
    index: Tensor,
    weight: Tensor | None,
    numbers: Tensor,
    out: Tensor,
    *,
    head: Head,
    deep: bool,
) -> None:
    """Write the slopes of ``(N, C)`` to ``out``, which may be the logits themselves.

    By ``numbers``, ``(5, N)``: the largest logit m, the logarithm of the sum of ``e^(x - m)``,
    a, b, c. A class has ``a p``, less ``c weight`` if ``deep``; the class ``index`` has b; rows of
    the class ``NOBODY`` have 0, whatever their logits.
    """
    kept, cut = _rows(logits), Cut.of(logits)
    stride, out_stride, classes, common = _aligned(kept.stride(0), out.stride(0), out.shape[1])
    with torch.cuda.device_of(kept):
        _slopes[cut.tall, triton.cdiv(out.shape[1], cut.width)](
            kept, out, index, weight, head.shift, numbers, stride, out_stride, out.shape[0],
            classes, head.scale, head.softcap or 1.0, ALIGNED=common, **_parts(head, weight),
            DEEP=deep, **cut.options,
        )  # fmt: skip


def divergence(first: Tensor, second: Tensor, kind: int, sharpness: float) -> tuple[Tensor, Tensor]:
    """Value of each pair of rows, ``(N)``, and what their slopes need, ``(6, N)``.

    The largest logit and the logarithm of the sum of the exponentials of either, and two means.
    """
    first, second, cut = _rows(first), _rows(second), Cut.of(first)
    rows = first.shape[0]
    sides = []
    for side in (first, second):
        top, rest, *_ = gauge(side, head=Head(sharpness))
        sides += [top, rest.log()]
    numbers = torch.stack([*sides, top, top])
    stride_x, stride_y, classes, common = _aligned(
        first.stride(0), second.stride(0), first.shape[1]
    )
    found = torch.empty(cut.parts, 3, rows, dtype=torch.float32, device=first.device)
    with torch.cuda.device_of(first):
        _divergence[cut.tall, cut.parts](
            first, second, numbers, found, stride_x, stride_y, rows, classes, cut.span, sharpness,
            KIND=kind, ALIGNED=common, SCALED=sharpness != 1, **cut.options,
        )  # fmt: skip
    found = found.sum(0)
    numbers[4:] = found[1:]
    return found[0].clamp(min=0.0), numbers  # a rounding may lead below


def divergence_slopes(
    first: Tensor,
    second: Tensor,
    numbers: Tensor,
    grad: Tensor,
    kind: int,
    sharpness: float,
    needs: tuple[bool, bool],
) -> tuple[Tensor | None, ...]:
    """Slopes by both sides, times ``grad``, ``(N)``; None where none is wanted."""
    first, second, cut = _rows(first), _rows(second), Cut.of(first)
    to_first, to_second = (
        torch.empty(side.shape, dtype=side.dtype, device=side.device) if need else None
        for side, need in zip((first, second), needs, strict=True)
    )
    stride_x, stride_y, classes, common = _aligned(
        first.stride(0), second.stride(0), first.shape[1]
    )
    with torch.cuda.device_of(first):
        _divergence_slopes[cut.tall, triton.cdiv(first.shape[1], cut.width)](
            first, second, to_first, to_second, numbers, grad, stride_x, stride_y, first.shape[0],
            classes, sharpness, KIND=kind, INPUT=needs[0], TARGET=needs[1], ALIGNED=common,
            SCALED=sharpness != 1, **cut.options,
        )  # fmt: skip
    return to_first, to_second
