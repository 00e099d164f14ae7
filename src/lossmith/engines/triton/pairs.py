"""The kernels of a stripe of similarities, in Triton; the multiplications stay cuBLAS's.

Every row, and in :func:`_merge` every column, belongs to one program, so that results are the same
in each run. Sums go on in as many lanes as a block is wide, and the lanes are added up at the end.
"""
# pyright: basic, reportArgumentType=false
# (the arguments of a kernel have the types of Triton's language, which Python cannot name)

import torch
import triton
import triton.language as tl
from torch import Tensor

from lossmith.engines.triton.numbers import exp, log1p

WIDE = 1024  # columns that a program reads at once
TILE = (32, 128)  # rows and columns of those that go down the columns


@triton.jit
def _log_sum_exp(scores, out, stride, count, lowest, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    top = tl.zeros((BLOCK,), scores.dtype.element_ty) + lowest
    total = tl.zeros((BLOCK,), scores.dtype.element_ty)
    for start in range(0, count, BLOCK):
        score = tl.load(scores + row * stride + start + at, start + at < count, -float("inf"))
        higher = tl.maximum(top, score)
        total = total * exp(top - higher) + exp(score - higher)
        top = higher
    highest = tl.max(top, 0)
    tl.store(out + row, highest + tl.log(tl.sum(total * exp(top - highest), 0)))


@triton.jit
def _merge(scores, top, total, stride, rows, count, HIGH: tl.constexpr, WIDTH: tl.constexpr):
    column = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    there = column < count
    best = tl.load(top + column, there, 0.0)
    known = tl.load(total + column, there, 0.0)
    for start in range(0, rows, HIGH):
        row = (start + tl.arange(0, HIGH)).to(tl.int64)
        inside = (row < rows)[:, None] & there[None, :]
        score = tl.load(scores + row[:, None] * stride + column[None, :], inside, -float("inf"))
        higher = tl.maximum(best, tl.max(score, 0))
        known = known * exp(best - higher) + tl.sum(exp(score - higher[None, :]), 0)
        best = higher
    tl.store(top + column, best, there)
    tl.store(total + column, known, there)


@triton.jit
def _exponentials(
    scores, rows, slope, columns, along, stride, count, BOTH: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = at < count
    score = tl.load(scores + row * stride + at, there, -float("inf"))
    value = tl.load(slope + row) * exp(score - tl.load(rows + row))
    if BOTH:
        other = exp(score - tl.load(columns + at, there, 0.0))
        value += tl.load(along + at, there, 0.0) * other
    tl.store(scores + row * stride + at, value, there)


@triton.jit
def _logistic(scores, force, out, stride, count, PULL: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), scores.dtype.element_ty)
    for start in range(0, count, BLOCK):
        there = start + at < count
        score = tl.load(scores + row * stride + start + at, there, -float("inf"))
        tail = exp(-tl.abs(score))
        total += tl.maximum(score, 0.0) + log1p(tail)
        if PULL:
            slope = tl.where(score >= 0, 1.0, tail) / (1.0 + tail)
            tl.store(scores + row * stride + start + at, tl.load(force + row) * slope, there)
    tl.store(out + row, tl.sum(total, 0))


class Kernels:
    """What :class:`lossmith.engines.matched.InPlace` does with torch's kernels."""

    @staticmethod
    def log_sum_exp(scores: Tensor) -> Tensor:
        """Of each row."""
        rows, count = scores.shape
        out = scores.new_empty(rows)
        lowest = torch.finfo(scores.dtype).min
        with torch.cuda.device_of(scores):
            _log_sum_exp[(rows,)](scores, out, scores.stride(0), count, lowest, BLOCK=WIDE)
        return out

    @staticmethod
    def merge_columns(scores: Tensor, out: tuple[Tensor, Tensor]) -> None:
        """Carry ``log sum exp`` of the columns, ``top + log(total)``, on over further rows."""
        rows, count = scores.shape
        high, width = TILE
        with torch.cuda.device_of(scores):
            _merge[(triton.cdiv(count, width),)](
                scores, *out, scores.stride(0), rows, count, HIGH=high, WIDTH=width
            )

    @staticmethod
    def exponentials(
        scores: Tensor,
        rows: Tensor,
        slope: Tensor,
        columns: Tensor | None = None,
        along: Tensor | None = None,
    ) -> None:
        """``scores`` become ``slope exp(s - rows)``, and ``along exp(s - columns)`` on top."""
        height, count = scores.shape
        both = columns is not None
        with torch.cuda.device_of(scores):
            _exponentials[(height, triton.cdiv(count, WIDE))](
                scores,
                rows,
                slope,
                columns if both else rows,
                along if both else slope,
                scores.stride(0),
                count,
                BOTH=both,
                BLOCK=WIDE,
            )

    @staticmethod
    def logistic(scores: Tensor, force: Tensor | None = None) -> Tensor:
        """Sums of softplus; with a ``force``, ``scores`` become ``force sigmoid(s)``."""
        rows, count = scores.shape
        out = scores.new_empty(rows)
        pull = force is not None
        with torch.cuda.device_of(scores):
            _logistic[(rows,)](
                scores, force if pull else out, out, scores.stride(0), count, PULL=pull, BLOCK=WIDE
            )
        return out
