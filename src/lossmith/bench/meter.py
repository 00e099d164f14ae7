"""How often a call waits for the device."""

import warnings
from collections.abc import Callable
from typing import Any

import torch


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
