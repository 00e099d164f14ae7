"""The kernels of losses over a softmax, in Triton: one read forward, one backward.

A program takes several rows where they are short. Rows that are long, or few, are cut into parts,
each the work of one program, which goes along it by blocks with the largest logit so far; torch
puts the parts together. All arithmetic is in float32, to which the series below are cut.

A kernel that reads two bytes for a class has about a dozen instructions for it before it falls
behind the memory, so exponentials are those to the base of 2, which take two in place of five, and
without a soft cap nothing is divided. ``tests/engines/test_triton_compiled.py`` counts them.
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
def bent(z, scale, cap, SCALED: tl.constexpr, CAPPED: tl.constexpr):
    """Logits after scale and soft cap."""
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
        z = bent(z.to(tl.float32), scale, cap, SCALED, CAPPED)
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
        depth = bent(depth, scale, cap, SCALED, CAPPED)
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
    z = bent(z, scale, cap, SCALED, CAPPED)
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


def contiguous(logits: Tensor) -> Tensor:
    """Rows whose classes lie next to each other."""
    return logits if logits.stride(1) == 1 or logits.shape[1] == 1 else logits.contiguous()


def aligned(*sizes: int) -> tuple[int, ...]:
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
    logits, cut = contiguous(logits), Cut.of(logits)
    rows = logits.shape[0]
    stride, classes, common = aligned(logits.stride(0), logits.shape[1])
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
    kept, cut = contiguous(logits), Cut.of(logits)
    stride, out_stride, classes, common = aligned(kept.stride(0), out.stride(0), out.shape[1])
    with torch.cuda.device_of(kept):
        _slopes[cut.tall, triton.cdiv(out.shape[1], cut.width)](
            kept, out, index, weight, head.shift, numbers, stride, out_stride, out.shape[0],
            classes, head.scale, head.softcap or 1.0, ALIGNED=common, **_parts(head, weight),
            DEEP=deep, **cut.options,
        )  # fmt: skip
