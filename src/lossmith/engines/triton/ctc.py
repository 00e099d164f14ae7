"""The two walks of CTC in Triton: one program for each sample and direction, states in registers.

The blanks and the symbols of a sample lie in two vectors, so that a step moves one of them by one
place and nothing else. All of it in logarithms and in float64: the steps of a sample wait for each
other, and the digits cost no time beside that.
"""
# pyright: basic, reportArgumentType=false, reportCallIssue=false
# (the arguments of a kernel have the types of Triton's language, which Python cannot name)

import torch
import triton
import triton.language as tl
from torch import Tensor

from lossmith.engines.alignments import in_logarithms

# Stands for log 0, since -inf - -inf is NaN. Added once per step it stays finite.
IMPOSSIBLE = -1e300
_IMPOSSIBLE = tl.constexpr(IMPOSSIBLE)
WIDEST = 8192  # places of which a step moves 64 KiB, which every GPU has for a program to share


@triton.jit
def _both(x, y):
    top = tl.maximum(x, y)
    return top + tl.log(tl.exp(x - top) + tl.exp(y - top))


@triton.jit
def _all(x, y, z):
    top = tl.maximum(tl.maximum(x, y), z)
    return top + tl.log(tl.exp(x - top) + tl.exp(y - top) + tl.exp(z - top))


@triton.jit
def _bounded(x):
    """At least ``_IMPOSSIBLE``; NaN stays, which the larger of two numbers would not be."""
    return tl.where(x < _IMPOSSIBLE, _IMPOSSIBLE, x)


@triton.jit
def _walk(
    emit, skip, steps, symbols, paths, value, count, width, stride, last, side, BLOCK: tl.constexpr
):
    """Direction 0 sums the paths up to a step, that step included, and 1 those behind it.

    ``stride`` lies between two steps of ``emit``, ``last`` between the first and the last, ``side``
    between the two halves of ``paths``.
    """
    sample = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, BLOCK)
    there, named = place < width, place < width - 1
    length, final = tl.load(steps + sample), tl.load(symbols + sample)
    nothing = tl.full((BLOCK,), _IMPOSSIBLE, tl.float64)
    line = emit + sample * width
    row = skip + sample * (width - 1)
    out = paths + sample * 2 * width
    if tl.program_id(1) == 0:
        leap = tl.load(row + place, named, _IMPOSSIBLE)
        left = tl.maximum(place - 1, 0)
        blank, symbol = tl.where(place == 0, 0.0, nothing), nothing
        for step in range(count):
            before = tl.where(place > 0, tl.gather(symbol, left, 0), nothing)
            new_symbol = _all(symbol, blank, before + leap)
            new_symbol += tl.load(line + 1 + place, named, _IMPOSSIBLE)
            new_blank = _both(blank, before) + tl.load(line)
            blank = tl.where(step < length, _bounded(new_blank), blank)
            symbol = tl.where(step < length, _bounded(new_symbol), symbol)
            tl.store(out + place, blank, there)
            tl.store(out + width + place, symbol, there)
            line += stride
            out += 2 * stride
        at_blank = tl.sum(tl.where(place == final, blank, 0.0), 0)  # of one: the largest hides NaN
        at_symbol = tl.sum(tl.where(place == final - 1, symbol, 0.0), 0)
        at_symbol = tl.where(final > 0, at_symbol, _IMPOSSIBLE)
        tl.store(value + sample, -_both(at_blank, at_symbol))
    else:
        line += last
        out += side + 2 * last
        right = tl.minimum(place + 1, BLOCK - 1)
        leap = tl.load(row + right, right < width - 1, _IMPOSSIBLE)
        blank = tl.where(place == final, 0.0, nothing)
        symbol = tl.where(place == final - 1, 0.0, nothing)
        for back in range(count):
            inside = count - 1 - back < length
            tl.store(out + place, tl.where(inside, blank, nothing), there)
            tl.store(out + width + place, tl.where(inside, symbol, nothing), there)
            of_symbol = symbol + tl.load(line + 1 + place, named, _IMPOSSIBLE)
            of_blank = blank + tl.load(line)
            next_blank = tl.where(place < BLOCK - 1, tl.gather(of_blank, right, 0), nothing)
            next_symbol = tl.where(place < BLOCK - 1, tl.gather(of_symbol, right, 0), nothing)
            new_symbol = _all(of_symbol, next_blank, next_symbol + leap)
            new_blank = _both(of_blank, of_symbol)
            blank = tl.where(inside, _bounded(new_blank), blank)
            symbol = tl.where(inside, _bounded(new_symbol), symbol)
            line -= stride
            out -= 2 * stride


def on_device(
    emit: Tensor, differs: Tensor, steps: Tensor, symbols: Tensor, *, posterior: bool
) -> tuple[Tensor, Tensor | None]:
    """What :func:`lossmith.engines.alignments.in_logarithms` does, in one launch for all steps."""
    count, batch, width = emit.shape
    if width > WIDEST:
        return in_logarithms(emit, differs, steps, symbols, posterior=posterior)
    paths = emit.new_empty(2, count, batch, 2, width)
    value = emit.new_empty(batch)
    lines = emit.clamp(min=IMPOSSIBLE).contiguous()
    skip = torch.zeros_like(differs, dtype=emit.dtype).masked_fill_(~differs, IMPOSSIBLE)
    block = triton.next_power_of_2(width)
    with torch.cuda.device_of(emit):
        _walk[(batch, 1 + posterior)](
            lines,
            skip,
            steps.contiguous(),
            symbols.contiguous(),
            paths,
            value,
            count,
            width,
            batch * width,
            (count - 1) * batch * width,
            paths.stride(0),
            BLOCK=block,
            num_warps=max(1, min(16, block // 64)),
        )
    impossible = value > -IMPOSSIBLE / 2
    found = value.masked_fill(impossible, torch.inf)
    if not posterior:
        return found, None
    share = paths[0].add_(paths[1]).add_(value.view(-1, 1, 1)).exp_()
    share = torch.cat([share[:, :, 0].sum(2, keepdim=True), share[:, :, 1, : width - 1]], 2)
    return found, share.masked_fill_(impossible.unsqueeze(1), 0.0)
