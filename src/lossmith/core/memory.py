"""What a call takes of the memory, beyond what was there before it."""

import gc
import os
from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import profiler

# The profiler announces every start and stop on standard error, unless it is told before its first
os.environ.setdefault("KINETO_LOG_LEVEL", "6")


class Profiled(RuntimeError):
    """Another profiler runs, which measuring would end."""


def peak_bytes(call: Callable[[], Any], device: torch.device) -> int:
    """Most bytes that were alive at one time during a call, beyond those alive before it.

    On the CPU from the profiler's record of every allocation and release by torch; memory that
    another library takes by itself is not seen. What nobody refers to any more is released before.

    Raises:
        Profiled: If another profiler runs, which this one would end.
    """
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    if torch.autograd._profiler_enabled():  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
        raise Profiled("memory must be measured while no other profiler runs, got one")
    gc.collect()  # released during the call, it would hide as much of what the call takes
    # not torch.profiler.profile, which imports the compiler on its first use: two seconds
    recorded: Any = profiler.profile(use_kineto=True, profile_memory=True)
    with recorded:
        call()
    memory = [event for event in recorded.kineto_results.events() if event.name() == "[memory]"]
    live = peak = 0
    for event in sorted(memory, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak
