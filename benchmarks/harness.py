"""Ratios that survive a shared machine: peers interleaved in one process, medians of many."""

import json
import platform
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def interleaved(calls: dict[str, Callable[[], Any]], *, seconds: float) -> dict[str, list[float]]:
    """Time each call in turn, again and again, until ``seconds`` have passed.

    One round runs each call often enough to last about a millisecond, so that the clock does not
    matter; what disturbs the machine disturbs all peers of a round alike.
    """
    repeats: dict[str, int] = {}
    for name, call in calls.items():
        for _ in range(3):
            call()
        start = time.perf_counter()
        call()
        repeats[name] = max(1, int(1e-3 / max(time.perf_counter() - start, 1e-7)))
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(times.values()))) < 7:
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            times[name].append((time.perf_counter() - start) / repeats[name])
    return times


def ratio(times: dict[str, list[float]], ours: str, peer: str) -> dict[str, float]:
    """Median of the ratios of neighbouring rounds, with its quartiles, and the medians in ms."""
    ratios = [a / b for a, b in zip(times[ours], times[peer], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {
        "ratio": round(middle, 3),
        "ratio_low": round(low, 3),
        "ratio_high": round(high, 3),
        "ratio_of_best": round(min(times[ours]) / min(times[peer]), 3),
        "ms": round(1e3 * statistics.median(times[ours]), 4),
        "peer_ms": round(1e3 * statistics.median(times[peer]), 4),
        "rounds": len(ratios),
    }


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": cpu,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def write(name: str, rows: list[dict[str, Any]]) -> Path:
    """Save a table with its provenance."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")
    return path
