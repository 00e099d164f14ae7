"""How logits ``(samples, C, positions)`` are shared out among programs; each position is a row."""

# pyright: basic, reportArgumentType=false
# (Triton's arithmetic has the types of its language)

import math
from typing import NamedTuple

import triton
from torch import Tensor

TILE = 4096  # elements that a program reads at once: more would spill the registers
NEXT = 64  # classes among them, where it is positions that lie next to each other
PROGRAMS = 1024  # enough for each processor of a GPU to have several: rows are cut up to here


class Share(NamedTuple):
    """What is whose.

    Attributes:
        high, width: Positions and classes that a program takes at once.
        span: Classes of a part.
        tall, parts: Programs along the positions of all samples, and for each of those along a row.
    """

    high: int
    width: int
    span: int
    tall: int
    parts: int

    @classmethod
    def of(cls, logits: Tensor, tile: int = TILE) -> "Share":
        """Rows are cut where they are too few for all processors."""
        samples, classes, positions = logits.shape
        most = tile if logits.stride(1) == 1 else NEXT  # what lies together is read together
        width = min(most, triton.next_power_of_2(classes))
        high = min(tile // width, triton.next_power_of_2(positions))
        tall, blocks = samples * triton.cdiv(positions, high), triton.cdiv(classes, width)
        span = triton.cdiv(blocks, max(1, PROGRAMS // tall)) * width
        return cls(high, width, span, tall, triton.cdiv(classes, span))

    @property
    def options(self) -> dict[str, int]:
        """For the kernels."""
        return {"HIGH": self.high, "WIDTH": self.width}


def together(logits: Tensor) -> Tensor:
    """Logits whose classes or whose positions lie next to each other; a copy of others."""
    return logits if 1 in logits.stride()[1:] else logits.contiguous()


def aligned(*tensors: Tensor) -> tuple[int, ...]:
    """The strides of samples and positions of each, and classes, as multiples of a number; and it.

    Told of that, the compiler reads several classes at once, if they lie next to each other.
    """
    samples, classes, positions = tensors[0].shape
    sizes: list[int] = []
    for tensor in tensors:  # of one there is no next
        sizes.append(tensor.stride(0) if samples > 1 else 0)
        sizes.append(tensor.stride(2) if positions > 1 else 0)
    beside = all(tensor.stride(1) == 1 for tensor in tensors)
    common = math.gcd(16, classes, *sizes) if beside else 1
    return *(size // common for size in (*sizes, classes)), common
