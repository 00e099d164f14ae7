"""What a call takes besides time: memory beyond what was there, and waits for the device."""

import os
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

# The profiler announces every start and stop on standard error, unless it is told before its first
os.environ.setdefault("KINETO_LOG_LEVEL", "6")


def peak_bytes(call: Callable[[], Any], device: torch.device) -> int:
    """Most bytes that were alive at one time during a call, beyond those alive before it.

    On the CPU from the profiler's record of every allocation and release by torch; memory that
    another library takes by itself is not seen, nor the release of what was there before.
    """
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        call()
    assert recorded.profiler is not None
    events: Any = recorded.profiler.kineto_results
    memory = [event for event in events.events() if event.name() == "[memory]"]
    live = peak = 0
    for event in sorted(memory, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


def waits(call: Callable[[], Any], device: torch.device) -> int | None:
    """How often a call made the host wait for the GPU; None where there is no GPU to wait for."""
    if device.type != "cuda":
        return None
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(one.message) for one in said)
