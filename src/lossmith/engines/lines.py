"""Elements in lines of equal length, so that generated code adds them up fast and keeps digits.

Generated code adds one number after the other. Over millions of them float32 loses digits, and
float64 makes a cheap loss half as slow again. Short lines in float32 lose next to nothing, and
their few sums are then added in float64. Huber of 4 Mi elements, 2 threads, value and gradient:
1.1 ms in float32 alone (5 ulp off), 1.7 in float64, 1.3 in lines.
"""

import functools

import torch
from torch import Tensor

from lossmith.core.route import Call
from lossmith.core.signature import HALF
from lossmith.engines.separate import divisible

# Lengths between which all are as fast, multiples of a vector or not: 0.61 to 0.71 ns per element
# at 32, 37, 64, 257 and 1024, but 1.2 at 17. In longer lines more numbers are added one by one.
SHORTEST, LONGEST = 32, 1024


def line_length(call: Call, arguments: list[Tensor]) -> int:
    """How long the lines of a call are; 0 if its elements cannot lie in lines.

    On the CPU only: a GPU adds up in a tree.
    """
    if call.reduction == "none" or call.way.out != ("*",) or not divisible(call):
        return 0
    for each in arguments:  # a loop: each call waits for this
        if not (each.is_cpu and each.is_contiguous()):
            return 0
    return _divisor(arguments[0].numel())


@functools.cache
def _divisor(elements: int) -> int:
    lengths = range(LONGEST, SHORTEST - 1, -1)
    return next((length for length in lengths if elements % length == 0), 0)


def in_lines(tensors: list[Tensor], length: int) -> list[Tensor]:
    """Tensors ``(lines, length)``; single numbers stay what they are."""
    return [t.view(-1, length) if t.ndim else t for t in tensors]


def units(lined: Tensor) -> Tensor:
    """A one for each line: see :func:`added`."""
    return lined.new_ones(len(lined), dtype=torch.float32 if lined.dtype in HALF else None)


def added(values: Tensor, unit: Tensor) -> Tensor:
    """Sum of values ``(lines, length)``, in float64.

    What depends on the line keeps the compiler from flattening the loop over the gradient, which
    then would no longer run together with the loop over these sums: 1.9 ms in place of 1.3.
    """
    return (values.sum(1) * unit).sum(dtype=torch.float64)
