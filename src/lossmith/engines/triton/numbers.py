"""Functions of numbers that the kernels share, in few instructions and with all digits."""
# pyright: basic
# (the arguments of a kernel have the types of Triton's language, which Python cannot name)

import math

import triton
import triton.language as tl

_LOG2E = tl.constexpr(1 / math.log(2))


@triton.jit
def exp(x):
    """Of ``x <= 0``, to ``|x|`` ulp; in float32 exactly 0 below 1e-38.

    To the base of 2 it is two instructions there. ``tl.exp`` takes five for the same digits, since
    it keeps smaller numbers.
    """
    return tl.exp2(x * _LOG2E)


@triton.jit
def log1p(x):
    """Of ``x >= 0``: what ``1 + x`` rounds off is made up for."""
    whole = 1 + x
    rounded = whole == 1
    return tl.where(rounded, x, tl.log(whole) * x / tl.where(rounded, 1.0, whole - 1))


@triton.jit
def at_most(x, LARGEST: tl.constexpr):
    """The smaller of both, NaN of NaN."""
    return tl.minimum(x, LARGEST, propagate_nan=tl.PropagateNan.ALL)
