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

FORWARD, REVERSE, JENSEN_SHANNON, TOTAL_VARIATION = range(4)


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
    x = bent(x, sharpness, 1.0, SCALED, False) - top_x[:, None]
    y = bent(y, sharpness, 1.0, SCALED, False) - top_y[:, None]
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
    rows = tl.cast(rows, tl.int64)
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
    total = tl.sum(value, 1)
    top_x = tl.load(numbers + row, row < rows, 0.0)
    top_y = tl.load(numbers + 2 * rows + row, row < rows, 0.0)
    # where only one side is certain, and not of what the other is sure of
    total = tl.where((tl.maximum(top_x, top_y) >= CERTAIN) & (total > 1e30), float("inf"), total)
    tl.store(line, total, row < rows)
    tl.store(line + rows, tl.sum(one, 1), row < rows)
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


def _whole(found: Tensor) -> tuple[Tensor, Tensor]:
    """The largest logit of whole rows, and the sum of the exponentials, from those of parts."""
    tops, totals = found.unbind(1)[:2]
    if len(found) == 1:  # as few launches as can be
        return tops[0], totals[0]
    top = tops.amax(0)
    base = top.masked_fill(top == -torch.inf, 0.0)
    return top, (totals * (tops - base).exp()).sum(0)


def divergence(first: Tensor, second: Tensor, kind: int, sharpness: float) -> tuple[Tensor, Tensor]:
    """Value of each pair of rows, ``(N)``, and what their slopes need, ``(6, N)``.

    The largest logit and the logarithm of the sum of the exponentials of either, and two means.
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
