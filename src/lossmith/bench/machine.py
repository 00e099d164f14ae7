"""What the numbers were measured on."""

import importlib.metadata
import math
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

# Packages whose version decides a result, where they are installed
PACKAGES = (
    "torch",
    "triton",
    "scikit-learn",
    "monai",
    "pytorch-metric-learning",
    "segmentation-models-pytorch",
    "liger-kernel",
)


def facts(device: torch.device) -> dict[str, Any]:
    """Date, hardware, threads, load and versions."""
    gpu = {"gpu": torch.cuda.get_device_name(device)} if device.type == "cuda" else {}
    # how much other programs were at work when the measurement began
    load = {"load": round(os.getloadavg()[0], 2)} if hasattr(os, "getloadavg") else {}
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "device": device.type,
        **gpu,
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        **load,
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
    }


def memory(device: torch.device) -> float:
    """Bytes of memory of a device; infinity where nobody says."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if not hasattr(os, "sysconf"):
        return math.inf
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _cpu() -> str:
    known = Path("/proc/cpuinfo")
    lines = known.read_text(encoding="utf-8").splitlines() if known.is_file() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
