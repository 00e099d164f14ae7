"""What the machine could do at best: how fast it moves bytes and multiplies matrices."""

import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lossmith.bench.clock import clock_for

# Beyond the last cache of any machine, and a small part of its memory
MEBIBYTES = {"cpu": 128, "cuda": 1024}
# Side of the square matrices: enough work that the launch does not count
SIDE = {"cpu": 1024, "cuda": 8192}
SECONDS = 0.5


@dataclass(frozen=True)
class Work:
    """What a loss has to do at least, however it is computed: see :meth:`Limits.seconds`.

    Attributes:
        bytes: That must come from or go to memory.
        flops: Of matrix products.
    """

    bytes: float = 0.0
    flops: float = 0.0


@dataclass(frozen=True)
class Limits:
    """Rates measured on this machine, by the clock and the threads that the losses get.

    Attributes:
        bandwidth: Bytes per second, read and written, of a copy or a sum of two tensors.
        flops: Per second in a matrix product, for each dtype.
    """

    bandwidth: float
    flops: dict[torch.dtype, float]

    def seconds(self, work: Work, dtype: torch.dtype) -> float:
        """The least time: memory and arithmetic at full rate, at once."""
        return max(work.bytes / self.bandwidth, work.flops / self.flops[dtype])


@functools.cache
def measured(device: torch.device) -> Limits:
    """The rates of a device; measured once in a process."""
    single, half = (_product(device, dtype) for dtype in (torch.float32, torch.bfloat16))
    # where half precision has no units of its own, its products go faster by way of float32
    flops = {torch.float32: single, torch.bfloat16: max(single, half)}
    return Limits(_bandwidth(device), flops)


def _bandwidth(device: torch.device) -> float:
    size = MEBIBYTES[device.type] << 18  # float32
    a, b, c = (torch.ones(size, device=device) for _ in range(3))
    copy = _best(lambda: c.copy_(a), device)
    triad = _best(lambda: torch.add(a, b, alpha=0.5, out=c), device)
    return max(8.0 * size / copy, 12.0 * size / triad)


def _product(device: torch.device, dtype: torch.dtype) -> float:
    side = SIDE[device.type]
    a, b, c = (torch.ones(side, side, device=device, dtype=dtype) for _ in range(3))
    return 2.0 * side**3 / _best(lambda: torch.mm(a, b, out=c), device)


def _best(call: Callable[[], Tensor], device: torch.device) -> float:
    """Seconds of the fastest of many calls: a limit is what was reached once."""
    clock = clock_for(device)
    best, calls, end = math.inf, 0, time.perf_counter() + SECONDS
    while calls < 3 or time.perf_counter() < end:
        clock.settle()
        start = clock.read()
        call()
        clock.settle()
        best, calls = min(best, clock.read() - start), calls + 1
    return best
