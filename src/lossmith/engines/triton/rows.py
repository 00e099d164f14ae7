"""The kernels of losses over a softmax, in Triton: one read forward, one backward.

A program takes several rows where they are short. Rows that are long, or few, are cut into parts,
each the work of one program, which goes along it by blocks with the largest logit so far; whoever
asked puts the parts together. All arithmetic is in float32, to which the series below are cut.

A kernel that reads two bytes for a class has about a dozen instructions for it before it falls
behind the memory, so exponentials are those to the base of 2, which take two in place of five, and
without a soft cap nothing is divided. ``tests/engines/test_triton_compiled.py`` counts them.
"""
# pyright: basic, reportArgumentType=false, reportGeneralTypeIssues=false
# (the arguments of a kernel have the types of Triton's language, which Python cannot name)

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from lossmith.engines.rows.head import COSTLY, Head
from lossmith.engines.triton.numbers import at_most, exp, log1p
from lossmith.engines.triton.shares import TILE, Share, aligned, together

SETTLED = 256  # rows that a program settles
_COSTLY = tl.constexpr(COSTLY)
CERTAIN = tl.constexpr(8.5e37)  # stands for an infinite logit, whose distances would be NaN
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
    return at_most(z, CERTAIN)


@triton.jit
def _placed(positions, HIGH: tl.constexpr):
    """Sample and positions of a program, their numbers as rows, and which of them there are."""
    tiles = tl.cdiv(positions, HIGH)
    sample = (tl.program_id(0) // tiles).to(tl.int64)
    at = (tl.program_id(0) % tiles).to(tl.int64) * HIGH + tl.arange(0, HIGH)
    return sample, at, sample * positions + at, at < positions


@triton.jit
def _named(index, each, row, inside, classes, ignore, WEIGHED: tl.constexpr):
    """The class of each row; which rows are there, and which of those have none, but 0 here."""
    own = tl.load(index + row, inside, ignore).to(tl.int64)
    present = inside & (own != ignore)
    if WEIGHED:
        present = present & (tl.load(each + row, inside, 0.0) != 0)
    wrong = present & ((own < 0) | (own >= classes))
    return tl.where(present & (wrong == 0), own, 0), present, wrong


@triton.jit
def _gauge(
    logits, index, each, weight, shift, out, outer, stride, step, positions, rows, classes, span,
    ignore, scale, cap,
    ALIGNED: tl.constexpr, SCALED: tl.constexpr, CAPPED: tl.constexpr, SHIFTED: tl.constexpr,
    INDEXED: tl.constexpr, WEIGHED: tl.constexpr, DEEP: tl.constexpr, WEIGHTED: tl.constexpr,
    HIGH: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    sample, position, row, inside = _placed(positions, HIGH)
    part = tl.program_id(1)
    classes, rows = classes * ALIGNED, tl.cast(rows, tl.int64)
    line = logits + sample * ALIGNED * outer + position * ALIGNED * stride
    at = tl.arange(0, WIDTH)
    present = inside
    own = tl.zeros((HIGH,), tl.int64)
    if INDEXED:
        own, present, _ = _named(index, each, row, inside, classes, ignore, WEIGHED)
    top = tl.full((HIGH,), -float("inf"), tl.float32)
    rest = tl.zeros((HIGH, WIDTH), tl.float32)
    below = tl.zeros((HIGH, WIDTH), tl.float32)
    dropped = tl.zeros((HIGH,), tl.float32)
    seen = 0.0
    for start in range(part * span, tl.minimum(classes, (part + 1) * span), WIDTH):
        column = start + at
        real = column < classes
        there = present[:, None] & real[None, :]
        z = tl.load(line[:, None] + column.to(tl.int64)[None, :] * step, there, -float("inf"))
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
    end = out + part * 5 * rows + row
    tl.store(end, top, inside)
    tl.store(end + rows, tl.sum(rest, 1), inside)
    if INDEXED:
        depth = tl.load(line + own * step, present, 0.0).to(tl.float32)
        depth = bent(depth, scale, cap, SCALED, CAPPED)
        if SHIFTED:
            depth += tl.load(shift + own, present, 0.0).to(tl.float32)
        tl.store(end + 2 * rows, depth, inside)
    if DEEP:
        tl.store(end + 3 * rows, -(tl.sum(below, 1) + dropped), inside)
        tl.store(end + 4 * rows, seen, inside)


@triton.jit
def _settle(
    found, index, each, weight, terms, numbers, costs, rows, classes, parts, ignore, smoothing,
    z_loss, COSTS: tl.constexpr, WEIGHED: tl.constexpr, DEEP: tl.constexpr, WEIGHTED: tl.constexpr,
    SQUARED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    rows = tl.cast(rows, tl.int64)  # five lines of them may be more than 32 bits tell
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = row < rows
    own, present, wrong = _named(index, each, row, inside, classes, ignore, WEIGHED)
    top = tl.full((BLOCK,), -float("inf"), tl.float32)
    for part in range(parts):
        top = tl.maximum(top, tl.load(found + part * 5 * rows + row, inside, 0.0))
    base = tl.where(top == -float("inf"), 0.0, top)
    rest = tl.zeros((BLOCK,), tl.float32)
    below = tl.zeros((BLOCK,), tl.float32)
    mass = tl.zeros((BLOCK,), tl.float32)
    for part in range(parts):
        line = found + part * 5 * rows + row
        its = tl.load(line, inside, 0.0)
        rest += tl.load(line + rows, inside, 0.0) * exp(its - base)
        if DEEP:
            seen = tl.load(line + 4 * rows, inside, 0.0)
            below += tl.load(line + 3 * rows, inside, 0.0)
            below += seen * (base - tl.where(its == -float("inf"), 0.0, its))
            mass += seen
    depth = tl.load(found + 2 * rows + row, inside, 0.0)
    chosen = exp(depth - top)
    whole = chosen + rest
    deep = tl.log(whole)
    # nothing cancels, however likely the class; where it is not, its logit tells
    cost = log1p(rest / chosen)
    cost = tl.where(cost < _COSTLY, cost, top - depth + deep)
    cost = tl.where((top >= CERTAIN) & (depth < top), float("inf"), cost)
    factor = tl.full((BLOCK,), 1.0, tl.float32)
    if WEIGHTED:
        factor = tl.load(weight + own, present, 0.0).to(tl.float32)
    against = (1 - smoothing) * factor
    value = tl.where(against == 0, 0.0, against * cost)
    away = -against * rest / whole
    smooth = smoothing / classes
    if DEEP or SQUARED:
        lse = top + deep
        below = tl.where((top >= CERTAIN) & (below > 1e30), float("inf"), below)
        every = smooth * mass + 2 * z_loss * lse
        value += smooth * (mass * deep + below) + z_loss * lse * lse
        away += every * chosen / whole - smooth * factor
        against += every
    value = tl.where(wrong, float("nan"), value)
    against = tl.where(wrong, float("nan"), against)
    away = tl.where(wrong, float("nan"), away)
    size = tl.where(present, 1.0, 0.0)
    if WEIGHED:
        size = tl.load(each + row, present, 0.0).to(tl.float32)
    if COSTS:
        tl.store(costs + row, tl.where(present, cost, 0.0), inside)
        tl.store(costs + rows + row, tl.where(present, rest / whole, 0.0), inside)
    tl.store(terms + row, tl.where(present, size * value, 0.0), inside)
    tl.store(terms + rows + row, size * factor, inside)
    line = numbers + row
    tl.store(line, top, inside)
    tl.store(line + rows, deep, inside)
    tl.store(line + 2 * rows, size * against, inside)
    tl.store(line + 3 * rows, size * away, inside)
    tl.store(line + 4 * rows, size * smooth, inside)


@triton.jit
def _slopes(
    logits, slopes, index, each, weight, shift, numbers, grad, divisor, outer, stride, step,
    out_outer, out_stride, out_step, positions, rows, classes, ignore, scale, cap,
    DIVIDED: tl.constexpr, EACH: tl.constexpr, WEIGHED: tl.constexpr, ALIGNED: tl.constexpr,
    SCALED: tl.constexpr, CAPPED: tl.constexpr, SHIFTED: tl.constexpr, DEEP: tl.constexpr,
    WEIGHTED: tl.constexpr, HIGH: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    sample, position, row, inside = _placed(positions, HIGH)
    start = tl.program_id(1) * WIDTH
    column = start + tl.arange(0, WIDTH)
    classes, rows = classes * ALIGNED, tl.cast(rows, tl.int64)
    own, present, _ = _named(index, each, row, inside, classes, ignore, WEIGHED)
    real = column < classes
    there = inside[:, None] & real[None, :]
    line = numbers + row
    # of an absent row, p and all of the others are 0, and so is every slope
    top, deep = tl.load(line, present, float("inf")), tl.load(line + rows, present, 0.0)
    spread, away = tl.load(line + 2 * rows, present, 0.0), tl.load(line + 3 * rows, present, 0.0)
    size = tl.load(grad + row * EACH, present, 0.0).to(tl.float32)
    if DIVIDED:
        size = size / tl.load(divisor)
    spread, away = spread * size, away * size
    along = column.to(tl.int64)[None, :]
    sample, position = sample * ALIGNED, position * ALIGNED
    place = (sample * outer + position * stride)[:, None] + along * step
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
        flat = tl.load(line + 4 * rows, present, 0.0) * size
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
    end = (sample * out_outer + position * out_stride)[:, None] + along * out_step
    tl.store(slopes + end, slope.to(slopes.dtype.element_ty), there)


def _flags(head: Head, weight: Tensor | None, each: Tensor | None = None) -> dict[str, bool]:
    """What there is of the transform of the logits, and of weights."""
    return {
        "SCALED": head.scale != 1,
        "CAPPED": head.softcap is not None,
        "SHIFTED": head.shift is not None,
        "WEIGHTED": weight is not None,
        "WEIGHED": each is not None,
    }


class Labels(NamedTuple):
    """What is told of each row, that is of each position of each sample.

    Attributes:
        index: Its class, of any integer dtype. One that is outside makes the row NaN.
        ignore: The class of rows that are absent, of which nothing is read.
        each: Their weights; a row of weight 0 is absent, too. None for 1.
    """

    index: Tensor
    ignore: int = -100
    each: Tensor | None = None


def gauge(
    logits: Tensor,
    labels: Labels | None = None,
    weight: Tensor | None = None,
    *,
    head: Head = _AS_IT_IS,
    deep: bool = False,
) -> Tensor:
    """What each part of each row of ``(samples, C, positions)`` says, ``(parts, 5, rows)``.

    The largest logit m; the sum of ``e^(x - m)``, without that of the row's class; the logit of
    the class; if ``deep``, the sums of ``weight (m - x)`` and of ``weight``.
    """
    logits = together(logits)
    # two sums in place of one for each element
    cut, rows = Share.of(logits, TILE // (1 + deep)), logits.shape[0] * logits.shape[2]
    index, ignore, each = (None, 0, None) if labels is None else labels
    outer, stride, classes, common = aligned(logits)
    found = torch.empty(cut.parts, 5, rows, dtype=torch.float32, device=logits.device)
    with torch.cuda.device_of(logits):
        _gauge[cut.tall, cut.parts](
            logits, index, each, weight, head.shift, found, outer, stride, logits.stride(1),
            logits.shape[2], rows, classes, cut.span, ignore, head.scale, head.softcap or 1.0,
            ALIGNED=common, INDEXED=index is not None, DEEP=deep, **_flags(head, weight, each),
            **cut.options,
        )  # fmt: skip
    return found


def settle(
    found: Tensor,
    labels: Labels,
    classes: int,
    weight: Tensor | None,
    smoothing: float,
    z_loss: float,
    costs: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of rows, from what :func:`gauge` says of them.

    Into ``costs``, ``(2, N)``, goes that of each row by itself, and the probability of the other
    classes; 0 where the row is absent.

    Returns:
        The values times their weights, and what the mean divides by, ``(2, N)``; and what
        :func:`slopes` needs, ``(5, N)``.
    """
    (index, ignore, each), rows = labels, found.shape[2]
    terms, numbers = found.new_empty(2, rows), found.new_empty(5, rows)
    with torch.cuda.device_of(found):
        _settle[(triton.cdiv(rows, SETTLED),)](
            found, index, each, weight, terms, numbers, costs, rows, classes, len(found), ignore,
            smoothing, z_loss, COSTS=costs is not None, WEIGHED=each is not None,
            DEEP=smoothing > 0, WEIGHTED=weight is not None, SQUARED=z_loss > 0, BLOCK=SETTLED,
        )  # fmt: skip
    return terms, numbers


def slopes(
    logits: Tensor,
    labels: Labels,
    weight: Tensor | None,
    numbers: Tensor,
    grad: Tensor,
    divisor: Tensor | None,
    out: Tensor,
    *,
    head: Head,
    deep: bool,
) -> None:
    """Write the slopes of ``(samples, C, positions)`` to ``out``, which may be the logits.

    By ``numbers``, ``(5, rows)``: the largest logit m, the logarithm of the sum of ``e^(x - m)``,
    a, b, c. A class has ``a p``, less ``c weight`` if ``deep``; the row's own class has b. All of
    it times ``grad``, ``()`` or ``(rows)``, over a divisor if there is one.
    """
    kept = together(logits)
    cut, rows = Share.of(kept), kept.shape[0] * kept.shape[2]
    outer, stride, out_outer, out_stride, classes, common = aligned(kept, out)
    index, ignore, each = labels
    with torch.cuda.device_of(kept):
        _slopes[cut.tall, triton.cdiv(out.shape[1], cut.width)](
            kept, out, index, each, weight, head.shift, numbers, grad, divisor, outer,
            stride, kept.stride(1), out_outer, out_stride, out.stride(1), kept.shape[2], rows,
            classes, ignore, head.scale, head.softcap or 1.0,
            DIVIDED=divisor is not None, EACH=grad.stride(0) if grad.ndim else 0, ALIGNED=common,
            **_flags(head, weight, each), DEEP=deep, **cut.options,
        )  # fmt: skip
