"""The kernels of losses over a softmax, in Triton: one read forward, one backward.

A program takes several rows where they are short, and goes along them by blocks where they are
long, with the largest logit so far. Sums go on in as many lanes as a block is wide and are added up
at the end; all arithmetic is in float32, to which the series below are cut.
"""
# pyright: basic, reportArgumentType=false, reportGeneralTypeIssues=false
# (the arguments of a kernel have the types of Triton's language, which Python cannot name)

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

WIDE = 4096  # classes that a program reads at once: more would spill the registers of both sides
TILE = 4096  # elements that a program of several rows takes
FORWARD, REVERSE, JENSEN_SHANNON, TOTAL_VARIATION = range(4)


@triton.jit
def _tanh(x):
    """Of ``x >= 0``, with relative accuracy: a series near 0, where ``1 - exp`` would cancel."""
    s = x * x
    series = 62.0 / 2835 + s * (-1382.0 / 155925 + s * (21844.0 / 6081075))
    series = x * (1 + s * (-1.0 / 3 + s * (2.0 / 15 + s * (-17.0 / 315 + s * series))))
    e = tl.exp(-2 * x)
    return tl.where(x < 0.25, series, (1 - e) / (1 + e))


@triton.jit
def _log1p(x):
    """Of ``x >= 0``: what ``1 + x`` rounds off is made up for."""
    whole = 1 + x
    rounded = whole == 1
    return tl.where(rounded, x, tl.log(whole) * x / tl.where(rounded, 1.0, whole - 1))


@triton.jit
def _bent(z, scale, cap, CAPPED: tl.constexpr):
    z = z * scale
    if CAPPED:
        z = z / cap
        z = cap * tl.where(z < 0, -1.0, 1.0) * _tanh(tl.abs(z))
    return tl.where(z > 8.5e37, 8.5e37, z)  # an infinite logit means certainty, not NaN


@triton.jit
def _gauge(
    logits, index, weight, shift, out, stride, rows, classes, scale, cap,
    CAPPED: tl.constexpr, SHIFTED: tl.constexpr, WEIGHTED: tl.constexpr,
    HIGH: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * HIGH + tl.arange(0, HIGH)
    at = tl.arange(0, WIDTH)
    real = row < rows
    own = tl.load(index + row, real, 0)
    top = tl.full((HIGH,), -float("inf"), tl.float32)
    rest = tl.zeros((HIGH, WIDTH), tl.float32)
    chosen = tl.zeros((HIGH, WIDTH), tl.float32)
    depth = tl.zeros((HIGH, WIDTH), tl.float32)
    moment = tl.zeros((HIGH, WIDTH), tl.float32)
    below = tl.zeros((HIGH, WIDTH), tl.float32)
    seen = tl.zeros((HIGH, WIDTH), tl.float32)
    for start in range(0, classes, WIDTH):
        column = start + at
        there = real[:, None] & (column < classes)[None, :]
        z = tl.load(logits + row[:, None] * stride + column[None, :], there, 0.0).to(tl.float32)
        z = _bent(z, scale, cap, CAPPED)
        if SHIFTED:
            z += tl.load(shift + column, column < classes, 0.0).to(tl.float32)[None, :]
        mine = there & (column[None, :] == own[:, None])
        depth += tl.where(mine, z, 0.0)
        factor = tl.full((WIDTH,), 1.0, tl.float32)
        if WEIGHTED:
            factor = tl.load(weight + column, column < classes, 0.0).to(tl.float32)
        z = tl.where(there, z, -float("inf"))
        higher = tl.maximum(top, tl.max(z, 1))
        base = tl.where(higher == -float("inf"), 0.0, higher)
        past = tl.where(top == -float("inf"), base, top) - base  # 0 before the first block
        fade = tl.exp(past)[:, None]
        low = tl.where(there, z - base[:, None], -float("inf"))
        e = tl.exp(low)
        finite = tl.where(e > 0, low, 0.0)  # 0 times -inf is 0 here
        moment = fade * (moment + past[:, None] * (rest + chosen)) + e * finite
        rest = rest * fade + tl.where(mine, 0.0, e)
        chosen = chosen * fade + tl.where(mine, e, 0.0)
        factor = tl.where(there, factor[None, :], 0.0)
        below += past[:, None] * seen + tl.where(factor > 0, low, 0.0) * factor
        seen += factor
        top = higher
    line = out + row
    tl.store(line, top, real)
    tl.store(line + rows, tl.sum(chosen, 1), real)
    tl.store(line + 2 * rows, tl.sum(rest, 1), real)
    tl.store(line + 3 * rows, tl.sum(depth, 1), real)
    tl.store(line + 4 * rows, tl.sum(moment, 1), real)
    tl.store(line + 5 * rows, -tl.sum(below, 1), real)


@triton.jit
def _slopes(
    logits, slopes, index, weight, shift, numbers, stride, out_stride, rows, classes, scale, cap,
    CAPPED: tl.constexpr, SHIFTED: tl.constexpr, WEIGHTED: tl.constexpr,
    HIGH: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * HIGH + tl.arange(0, HIGH)
    column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    real = row < rows
    line = numbers + row
    top, spread = tl.load(line, real, 0.0), tl.load(line + rows, real, 0.0)
    slant, flat = tl.load(line + 2 * rows, real, 0.0), tl.load(line + 3 * rows, real, 0.0)
    away, deep = tl.load(line + 4 * rows, real, 0.0), tl.load(line + 5 * rows, real, 0.0)
    there = real[:, None] & (column < classes)[None, :]
    place = row[:, None] * stride + column[None, :]
    z = tl.load(logits + place, there, 0.0).to(tl.float32)
    z = _bent(z, scale, cap, CAPPED)
    bend = tl.full((HIGH, WIDTH), 1.0, tl.float32) * scale
    if CAPPED:
        bend = bend * (1 - (z / cap) * (z / cap))
    if SHIFTED:
        z += tl.load(shift + column, column < classes, 0.0).to(tl.float32)[None, :]
    log_p = z - top[:, None] - deep[:, None]
    p = tl.exp(log_p)
    slope = p * (spread[:, None] + slant[:, None] * tl.where(p > 0, log_p, 0.0))
    factor = tl.full((WIDTH,), 1.0, tl.float32)
    if WEIGHTED:
        factor = tl.load(weight + column, column < classes, 0.0).to(tl.float32)
    slope -= flat[:, None] * factor[None, :]
    mine = column[None, :] == tl.load(index + row, real, 0)[:, None]
    slope = tl.where(mine, away[:, None], slope) * bend
    absent = (spread == 0) & (slant == 0) & (flat == 0) & (away == 0)  # even of NaN
    slope = tl.where(absent[:, None], 0.0, slope)
    end = row[:, None] * out_stride + column[None, :]
    tl.store(slopes + end, slope.to(slopes.dtype.element_ty), there)


@triton.jit
def _sides(first, second, place_x, place_y, there, sharpness, top_x, top_y, deep_x, deep_y):
    x = _bent(tl.load(first + place_x, there, 0.0).to(tl.float32), sharpness, 1.0, False)
    y = _bent(tl.load(second + place_y, there, 0.0).to(tl.float32), sharpness, 1.0, False)
    # the largest first, since their sum with the rest is rounded at its own size
    x, y = x - top_x[:, None], y - top_y[:, None]
    log_p, log_q = x - deep_x[:, None], y - deep_y[:, None]
    p, q = tl.where(there, tl.exp(log_p), 0.0), tl.where(there, tl.exp(log_q), 0.0)
    u = tl.where((p == 0) & (q == 0), 0.0, (x - y) - (deep_x - deep_y)[:, None])
    t = _tanh(0.5 * tl.abs(u))
    return p, q, u, t


@triton.jit
def _divergence(
    first, second, out, stride_x, stride_y, rows, classes, sharpness,
    KIND: tl.constexpr, HIGH: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * HIGH + tl.arange(0, HIGH)
    at = tl.arange(0, WIDTH)
    real = row < rows
    top_x = tl.full((HIGH,), -float("inf"), tl.float32)
    top_y = tl.full((HIGH,), -float("inf"), tl.float32)
    total_x = tl.zeros((HIGH, WIDTH), tl.float32)
    total_y = tl.zeros((HIGH, WIDTH), tl.float32)
    for start in range(0, classes, WIDTH):
        there = real[:, None] & (start + at < classes)[None, :]
        place = start + at[None, :]
        x = tl.load(first + row[:, None] * stride_x + place, there, -float("inf")).to(tl.float32)
        y = tl.load(second + row[:, None] * stride_y + place, there, -float("inf")).to(tl.float32)
        x, y = _bent(x, sharpness, 1.0, False), _bent(y, sharpness, 1.0, False)
        high_x, high_y = tl.maximum(top_x, tl.max(x, 1)), tl.maximum(top_y, tl.max(y, 1))
        base_x = tl.where(high_x == -float("inf"), 0.0, high_x)
        base_y = tl.where(high_y == -float("inf"), 0.0, high_y)
        total_x = total_x * tl.exp(top_x - base_x)[:, None] + tl.exp(x - base_x[:, None])
        total_y = total_y * tl.exp(top_y - base_y)[:, None] + tl.exp(y - base_y[:, None])
        top_x, top_y = high_x, high_y
    deep_x, deep_y = tl.log(tl.sum(total_x, 1)), tl.log(tl.sum(total_y, 1))
    value = tl.zeros((HIGH, WIDTH), tl.float32)
    one = tl.zeros((HIGH, WIDTH), tl.float32)
    other = tl.zeros((HIGH, WIDTH), tl.float32)
    for start in range(0, classes, WIDTH):
        there = real[:, None] & (start + at < classes)[None, :]
        place = start + at[None, :]
        p, q, u, t = _sides(
            first, second, row[:, None] * stride_x + place, row[:, None] * stride_y + place, there,
            sharpness, top_x, top_y, deep_x, deep_y,
        )  # fmt: skip
        gap = (p + q) * t
        side = tl.where(u < 0, -1.0, 1.0)
        if KIND == 0:
            part = tl.where(q > 0, q * u, 0.0)
            one += part
            value += side * gap - part
        elif KIND == 1:
            part = tl.where(p > 0, p * u, 0.0)
            one += part
            value += part - side * gap
        elif KIND == 2:
            near = _log1p(t)
            to_p = tl.where(p > 0, p * (near + tl.minimum(u, 0.0)), 0.0)
            to_q = tl.where(q > 0, q * (near - tl.maximum(u, 0.0)), 0.0)
            one += to_p
            other += to_q
            value += 0.5 * (to_p + to_q)
        else:
            half = tl.where(u == 0, 0.0, 0.5 * side)
            one += p * half
            other += q * half
            value += 0.5 * gap
    line = out + row
    total = tl.sum(value, 1)
    tl.store(line, tl.where(total < 0, 0.0, total), real)  # a rounding may lead below
    tl.store(line + rows, tl.sum(one, 1), real)
    tl.store(line + 2 * rows, tl.sum(other, 1), real)
    tl.store(line + 3 * rows, top_x, real)
    tl.store(line + 4 * rows, top_y, real)
    tl.store(line + 5 * rows, deep_x, real)
    tl.store(line + 6 * rows, deep_y, real)


@triton.jit
def _divergence_slopes(
    first, second, to_first, to_second, numbers, grad, stride_x, stride_y, rows, classes, sharpness,
    KIND: tl.constexpr, INPUT: tl.constexpr, TARGET: tl.constexpr,
    HIGH: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * HIGH + tl.arange(0, HIGH)
    column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    real = row < rows
    line = numbers + row
    one, other = (
        tl.load(line + rows, real, 0.0)[:, None],
        tl.load(line + 2 * rows, real, 0.0)[:, None],
    )
    top_x, top_y = tl.load(line + 3 * rows, real, 0.0), tl.load(line + 4 * rows, real, 0.0)
    deep_x, deep_y = tl.load(line + 5 * rows, real, 0.0), tl.load(line + 6 * rows, real, 0.0)
    factor = tl.load(grad + row, real, 0.0)[:, None]
    there = real[:, None] & (column < classes)[None, :]
    p, q, u, t = _sides(
        first, second, row[:, None] * stride_x + column[None, :],
        row[:, None] * stride_y + column[None, :], there, sharpness, top_x, top_y, deep_x, deep_y,
    )  # fmt: skip
    side = tl.where(u < 0, -1.0, 1.0)
    gap = side * (p + q) * t
    if KIND == 0:
        by_x = gap
        by_y = tl.where(q > 0, -q * (u - one), 0.0)
    elif KIND == 1:
        by_x = tl.where(p > 0, p * (u - one), 0.0)
        by_y = -gap
    elif KIND == 2:
        near = _log1p(t)
        by_x = 0.5 * tl.where(p > 0, p * (near + tl.minimum(u, 0.0) - one), 0.0)
        by_y = 0.5 * tl.where(q > 0, q * (near - tl.maximum(u, 0.0) - other), 0.0)
    else:
        half = tl.where(u == 0, 0.0, 0.5 * side)
        by_x = p * (half - one)
        by_y = -q * (half - other)
    end = row[:, None] * classes + column[None, :]
    factor = factor * sharpness
    if INPUT:
        by_x = tl.where(factor == 0, 0.0, by_x * factor)
        tl.store(to_first + end, by_x.to(to_first.dtype.element_ty), there)
    if TARGET:
        by_y = tl.where(factor == 0, 0.0, by_y * factor)
        tl.store(to_second + end, by_y.to(to_second.dtype.element_ty), there)


def _rows(logits: Tensor) -> Tensor:
    """Rows whose classes lie next to each other."""
    return logits if logits.stride(1) == 1 or logits.shape[1] == 1 else logits.contiguous()


def _shape(logits: Tensor) -> dict[str, Any]:
    """How many rows and classes a program takes at once."""
    width = min(WIDE, triton.next_power_of_2(logits.shape[1]))
    return {"WIDTH": width, "HIGH": max(1, TILE // width)}


def _head(softcap: float | None, shift: Tensor | None) -> dict[str, bool]:
    """Which parts of the transform of the logits there are."""
    return {"CAPPED": softcap is not None, "SHIFTED": shift is not None}


def gauge(
    logits: Tensor,
    index: Tensor,
    weight: Tensor | None,
    scale: float,
    softcap: float | None,
    shift: Tensor | None,
) -> Tensor:
    """What each row of ``(N, C)`` says, ``(6, N)``.

    The largest logit m; the exponential ``e^(x - m)`` of the class ``index``; the sum of the
    others; the logit of the class; the sum of ``e^(x - m) (x - m)``; the sum of ``weight (m - x)``.
    """
    logits, shape = _rows(logits), _shape(logits)
    rows, classes = logits.shape
    out = torch.empty(6, rows, dtype=torch.float32, device=logits.device)
    _gauge[(triton.cdiv(rows, shape["HIGH"]),)](
        logits, index, weight, shift, out, logits.stride(0), rows, classes, scale, softcap or 1.0,
        **_head(softcap, shift), WEIGHTED=weight is not None, **shape,
    )  # fmt: skip
    return out


def slopes(
    logits: Tensor,
    index: Tensor,
    weight: Tensor | None,
    scale: float,
    softcap: float | None,
    shift: Tensor | None,
    numbers: Tensor,
    out: Tensor,
) -> None:
    """Write the slopes of ``(N, C)`` to ``out``, which may be the logits themselves.

    By ``numbers``, ``(6, N)``: the largest logit m, a, b, c, d and the logarithm of the sum of
    ``e^(x - m)``. A class has ``p (a + b log p) - c weight``,
    the class ``index`` has d; a row of zeros is absent, whatever its logits.
    """
    shape = _shape(logits)
    rows, classes = logits.shape
    kept = _rows(logits)
    grid = triton.cdiv(rows, shape["HIGH"]), triton.cdiv(classes, shape["WIDTH"])
    _slopes[grid](
        kept, out, index, weight, shift, numbers, kept.stride(0), out.stride(0), rows, classes,
        scale, softcap or 1.0, **_head(softcap, shift), WEIGHTED=weight is not None, **shape,
    )  # fmt: skip


def divergence(first: Tensor, second: Tensor, kind: int, sharpness: float) -> Tensor:
    """Value, two means, and what belongs to each softmax, of each pair of rows, ``(7, N)``."""
    first, second, shape = _rows(first), _rows(second), _shape(first)
    rows, classes = first.shape
    out = torch.empty(7, rows, dtype=torch.float32, device=first.device)
    _divergence[(triton.cdiv(rows, shape["HIGH"]),)](
        first, second, out, first.stride(0), second.stride(0), rows, classes, sharpness,
        KIND=kind, **shape,
    )  # fmt: skip
    return out


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
    first, second, shape = _rows(first), _rows(second), _shape(first)
    rows, classes = first.shape
    outs = tuple(
        torch.empty(side.shape, dtype=side.dtype, device=side.device) if need else None
        for side, need in zip((first, second), needs, strict=True)
    )
    grid = triton.cdiv(rows, shape["HIGH"]), triton.cdiv(classes, shape["WIDTH"])
    _divergence_slopes[grid](
        first, second, outs[0], outs[1], numbers, grad, first.stride(0), second.stride(0), rows,
        classes, sharpness, KIND=kind, INPUT=needs[0], TARGET=needs[1], **shape,
    )  # fmt: skip
    return outs
