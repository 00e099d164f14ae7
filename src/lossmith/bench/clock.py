"""Ratios that survive a shared machine: peers take turns in one process, round after round."""

import math
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

# One turn of a call lasts at least so long, so that reading the clock does not matter
TURN = 1e-3
# Calls before the first turn, if they are quick: caches fill, threads start, allocators learn
WARM = 3
# Fewer rounds have no quartiles worth the name
ROUNDS = 5


@dataclass(frozen=True)
class Clock:
    """A way to read the time in seconds.

    Attributes:
        name: What it counts, for the record.
        read: The seconds so far.
        settle: Waits until the device has done what it was told; called before each reading.
    """

    name: str
    read: Callable[[], float]
    settle: Callable[[], object] = lambda: None


def clock_for(device: torch.device) -> Clock:
    """The steadiest clock that counts all the work.

    With one thread the backward pass runs in the thread of its caller, and the processor time of
    that thread leaves out what other programs take. Several threads, or a GPU, need the wall.
    """
    if device.type == "cuda":
        return Clock("wall, synchronised", time.perf_counter, torch.cuda.synchronize)
    if torch.get_num_threads() == 1:
        return Clock("processor time of the thread", time.thread_time)
    return Clock("wall", time.perf_counter)


def interleaved(
    calls: Mapping[str, Callable[[], Any]], clock: Clock, *, seconds: float
) -> dict[str, list[float]]:
    """Time each call in turn, round after round, for about ``seconds``.

    What disturbs the machine disturbs all peers of a round alike. Every second round has a new
    order and the next one its reverse, so that nobody always finds the caches as the same neighbour
    left them, nor is first more often than last.

    Returns:
        Seconds per call, one number for each round.
    """
    repeats: dict[str, int] = {}
    for name, call in calls.items():
        spent = [_turn(call, 1, clock)]
        while len(spent) < WARM and sum(spent) < seconds:
            spent.append(_turn(call, 1, clock))
        repeats[name] = math.ceil(TURN / max(spent[-1], 1e-6))
    times: dict[str, list[float]] = {name: [] for name in calls}
    names, luck, rounds, start = list(calls), random.Random(0), 0, time.perf_counter()
    while rounds < ROUNDS or time.perf_counter() - start < seconds:
        names = names[::-1] if rounds % 2 else luck.sample(names, len(names))
        for name in names:
            times[name].append(_turn(calls[name], repeats[name], clock))
        rounds += 1
    return times


def _turn(call: Callable[[], Any], repeats: int, clock: Clock) -> float:
    clock.settle()
    start = clock.read()
    for _ in range(repeats):
        call()
    clock.settle()
    return (clock.read() - start) / repeats


def summary(times: list[float]) -> dict[str, float]:
    """Median and quartiles in milliseconds."""
    low, middle, high = (1e3 * t for t in statistics.quantiles(times, n=4))
    return {"ms": middle, "ms_low": low, "ms_high": high}


def ratio(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """Median of the ratios of neighbouring rounds with its quartiles, and the ratio of the best."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {
        "ratio": middle,
        "ratio_low": low,
        "ratio_high": high,
        "ratio_of_best": min(ours) / min(theirs),
    }
