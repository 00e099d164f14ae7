"""The kernels of divergences of two softmaxes, in Triton: two reads forward, one backward.

What belongs to either softmax by itself is worked out as :mod:`lossmith.engines.triton.rows` does.
"""
# pyright: basic, reportArgumentType=false, reportGeneralTypeIssues=false
# (the arguments of a kernel have the types of Triton's language, which Python cannot name)

import torch
import triton
import triton.language as tl
from torch import Tensor

from lossmith.engines.rows.head import Head
from lossmith.engines.triton.numbers import exp
from lossmith.engines.triton.rows import CERTAIN, bent, gauge
from lossmith.engines.triton.shares import Share, aligned

# Logarithms of quotients below which what a class adds, of second order, is not left to the
# difference of two numbers of first order
_NEAR = tl.constexpr(1.0)
FORWARD, REVERSE, JENSEN_SHANNON, TOTAL_VARIATION = range(4)


@triton.jit
def _short_of_1(x):
    """``d = 1 - e^-x`` of ``x >= 0``, and ``x - d`` where x is below _NEAR.

    Both with relative accuracy, from a polynomial through Chebyshev's points (2e-8).
    """
    high = -0.00830117044582 + x * (0.00132481796429 - x * 0.000137424190861)
    low = 0.499999991263 + x * (-0.166666036607 + x * (0.0416592553593 + x * high))
    below = x * x * low
    return tl.where(x < _NEAR, x - below, 1 - exp(-x)), below


@triton.jit
def _to_mean(d):
    """``-log(1 - d / 2) - d / 2`` of ``0 <= d <= 1``, to 7e-8 of itself, in the same way."""
    high = 0.00433482793343 + d * (-0.00295826715088 + d * 0.00126848501915)
    high = 0.00605965076047 + d * (0.00354005323669 + d * (-0.00140759175360 + d * high))
    low = 0.0416659409916 + d * (0.0156440685795 + d * high)
    return d * d * (0.125000004492 + d * low)


@triton.jit
def _sides(
    first, second, row, column, there, stride_x, stride_y, sharpness, numbers, rows,
    SCALED: tl.constexpr,
):  # fmt: skip
    """Both softmaxes, their larger m, the logarithm u of their quotient, d, and how far d is below.

    Their difference is ``m (1 - e^-|u|)``, which is ``m d``: where they are almost the same, it
    keeps its digits. So does u, if it comes from the difference of the
    logits; where these lie far apart, their distances from the largest have more.
    """
    inside = row < rows
    line = numbers + row
    top_x, deep_x = tl.load(line, inside, 0.0), tl.load(line + rows, inside, 0.0)
    top_y, deep_y = tl.load(line + 2 * rows, inside, 0.0), tl.load(line + 3 * rows, inside, 0.0)
    place_x = row[:, None] * stride_x + column[None, :]
    place_y = row[:, None] * stride_y + column[None, :]
    x = tl.load(first + place_x, there, -float("inf")).to(tl.float32)
    y = tl.load(second + place_y, there, -float("inf")).to(tl.float32)
    x, y = bent(x, sharpness, 1.0, SCALED, False), bent(y, sharpness, 1.0, SCALED, False)
    apart, drop = x - y, top_x - top_y
    # the largest first, since its sum with the other is rounded at its own size
    x, y = x - top_x[:, None], y - top_y[:, None]
    p, q = exp(x - deep_x[:, None]), exp(y - deep_y[:, None])
    larger = tl.maximum(p, q)
    apart = tl.where((tl.abs(drop) < 1)[:, None], apart - drop[:, None], x - y)
    u = tl.where(larger == 0, 0.0, apart - (deep_x - deep_y)[:, None])
    d, below = _short_of_1(tl.abs(u))
    return p, q, larger, u, d, below


@triton.jit
def _divergence(
    first, second, numbers, out, stride_x, stride_y, rows, classes, span, sharpness,
    KIND: tl.constexpr, INPUT: tl.constexpr, TARGET: tl.constexpr,
    ALIGNED: tl.constexpr, SCALED: tl.constexpr, HIGH: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """The value of a part of each row, and a mean over its classes for the slopes of either side.

    That is the mean of what the slopes would be without it: they add up to 0.
    """
    row = tl.program_id(0).to(tl.int64) * HIGH + tl.arange(0, HIGH)
    part = tl.program_id(1)
    stride_x, stride_y, classes = stride_x * ALIGNED, stride_y * ALIGNED, classes * ALIGNED
    rows = tl.cast(rows, tl.int64)
    value = tl.zeros((HIGH, WIDTH), tl.float32)
    one = tl.zeros((HIGH, WIDTH), tl.float32)
    other = tl.zeros((HIGH, WIDTH), tl.float32)
    for start in range(part * span, tl.minimum(classes, (part + 1) * span), WIDTH):
        column = start + tl.arange(0, WIDTH)
        there = (row < rows)[:, None] & (column < classes)[None, :]
        p, q, larger, u, d, below = _sides(
            first, second, row, column, there, stride_x, stride_y, sharpness, numbers, rows, SCALED
        )
        gap, near = tl.where(u < 0, -larger, larger) * d, tl.abs(u) < _NEAR
        if KIND == 0:
            part_q, slight = tl.where(q > 0, q * u, 0.0), tl.where(u < 0, below, u * d - below)
            if INPUT:
                one += gap
            if TARGET:
                other += part_q
            value += tl.where(near, larger * slight, gap - part_q)
        elif KIND == 1:
            part_p, slight = tl.where(p > 0, p * u, 0.0), tl.where(u < 0, -u * d - below, below)
            if INPUT:
                one += part_p
            if TARGET:
                other += gap
            value += tl.where(near, larger * slight, part_p - gap)
        elif KIND == 2:
            bend = _to_mean(d)
            mean = 0.5 * d + bend
            to_p = tl.where(p > 0, p * (mean + tl.minimum(u, 0.0)), 0.0)
            to_q = tl.where(q > 0, q * (mean - tl.maximum(u, 0.0)), 0.0)
            slight = 0.5 * d * d + (2 - d) * bend - (1 - d) * below
            if INPUT:
                one += to_p
            if TARGET:
                other += to_q
            value += 0.5 * tl.where(near, larger * slight, to_p + to_q)
        else:
            half = tl.where(u == 0, 0.0, tl.where(u < 0, -0.5, 0.5))
            if INPUT:
                one += p * half
            if TARGET:
                other += q * half
            value += 0.5 * larger * d
    line = out + part * 3 * rows + row
    total = tl.sum(value, 1)
    top_x = tl.load(numbers + row, row < rows, 0.0)
    top_y = tl.load(numbers + 2 * rows + row, row < rows, 0.0)
    # where only one side is certain, and not of what the other is sure of
    total = tl.where((tl.maximum(top_x, top_y) >= CERTAIN) & (total > 1e30), float("inf"), total)
    tl.store(line, total, row < rows)
    if INPUT:
        tl.store(line + rows, tl.sum(one, 1), row < rows)
    if TARGET:
        tl.store(line + 2 * rows, tl.sum(other, 1), row < rows)


@triton.jit
def _divergence_slopes(
    first, second, to_first, to_second, numbers, grad, stride_x, stride_y, rows, classes, sharpness,
    KIND: tl.constexpr, INPUT: tl.constexpr, TARGET: tl.constexpr, EACH: tl.constexpr,
    ALIGNED: tl.constexpr, SCALED: tl.constexpr, HIGH: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * HIGH + tl.arange(0, HIGH)
    column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    stride_x, stride_y, classes = stride_x * ALIGNED, stride_y * ALIGNED, classes * ALIGNED
    rows = tl.cast(rows, tl.int64)
    line = numbers + row
    one = tl.load(line + 4 * rows, row < rows, 0.0)[:, None]
    other = tl.load(line + 5 * rows, row < rows, 0.0)[:, None]
    factor = tl.load(grad + row * EACH, row < rows, 0.0)[:, None]
    there = (row < rows)[:, None] & (column < classes)[None, :]
    p, q, larger, u, d, _ = _sides(
        first, second, row, column, there & (factor != 0), stride_x, stride_y, sharpness, numbers,
        rows, SCALED,
    )  # fmt: skip
    gap = tl.where(u < 0, -larger, larger) * d
    # the mean of all gaps would be 0, but for what the rounding of all u has in common
    if KIND == 0:
        by_x = gap - p * one
        by_y = tl.where(q > 0, -q * (u - other), 0.0)
    elif KIND == 1:
        by_x = tl.where(p > 0, p * (u - one), 0.0)
        by_y = p * other - gap
    elif KIND == 2:
        mean = 0.5 * d + _to_mean(d)
        by_x = 0.5 * tl.where(p > 0, p * (mean + tl.minimum(u, 0.0) - one), 0.0)
        by_y = 0.5 * tl.where(q > 0, q * (mean - tl.maximum(u, 0.0) - other), 0.0)
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


def _whole(found: Tensor) -> tuple[Tensor, Tensor]:
    """The largest logit of whole rows, and the sum of the exponentials, from those of parts."""
    tops, totals = found.unbind(1)[:2]
    if len(found) == 1:  # as few launches as can be
        return tops[0], totals[0]
    top = tops.amax(0)
    base = top.masked_fill(top == -torch.inf, 0.0)
    return top, (totals * (tops - base).exp()).sum(0)


def divergence(
    first: Tensor, second: Tensor, kind: int, sharpness: float, needs: tuple[bool, ...]
) -> tuple[Tensor, Tensor]:
    """Value of each pair of rows, ``(N)``, and what their slopes need, ``(6, N)``.

    The largest logit and the logarithm of the sum of the exponentials of either, and a mean for
    the slopes of either, if it ``needs`` one.
    """
    first, second = first.contiguous(), second.contiguous()
    both, rows = [side.T.unsqueeze(0) for side in (first, second)], len(first)
    cut, sides = Share.of(both[0]), []
    for side in both:
        top, total = _whole(gauge(side, head=Head(sharpness)))
        sides += [top, total.log()]
    numbers = torch.stack([*sides, top, top])
    _, stride_x, _, stride_y, classes, common = aligned(*both)
    found = torch.empty(cut.parts, 3, rows, dtype=torch.float32, device=first.device)
    with torch.cuda.device_of(first):
        _divergence[cut.tall, cut.parts](
            first, second, numbers, found, stride_x, stride_y, rows, classes, cut.span, sharpness,
            KIND=kind, INPUT=needs[0], TARGET=needs[1], ALIGNED=common, SCALED=sharpness != 1,
            **cut.options,
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
    """Slopes by both sides, times ``grad``, ``(N)`` or ``(1)``; None where none is wanted."""
    first, second = first.contiguous(), second.contiguous()
    both = [side.T.unsqueeze(0) for side in (first, second)]
    cut = Share.of(both[0])
    to_first, to_second = (
        torch.empty(side.shape, dtype=side.dtype, device=side.device) if need else None
        for side, need in zip((first, second), needs, strict=True)
    )
    _, stride_x, _, stride_y, classes, common = aligned(*both)
    with torch.cuda.device_of(first):
        _divergence_slopes[cut.tall, triton.cdiv(first.shape[1], cut.width)](
            first, second, to_first, to_second, numbers, grad, stride_x, stride_y, first.shape[0],
            classes, sharpness, KIND=kind, INPUT=needs[0], TARGET=needs[1],
            EACH=int(len(grad) > 1), ALIGNED=common, SCALED=sharpness != 1, **cut.options,
        )  # fmt: skip
    return to_first, to_second
