"""What the first call with a compiler costs: seconds until a generated kernel has run once."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from lossmith.bench.machine import facts
from lossmith.engines.one_pass import missing_compiler

# In a process of its own: nothing but torch is loaded, and no kernel is at hand
CHILD = """
import json, time, torch, lossmith
def seconds(loss, count):
    input, target = torch.randn(2, count)
    start = time.perf_counter()
    lossmith.one_pass(loss)(input.requires_grad_(), target).backward()
    return time.perf_counter() - start
size = 1 << 21
torch.randn(size).requires_grad_().square().mean().backward()  # threads and autograd
times = [seconds(lossmith.huber_loss, size), seconds(lossmith.log_cosh_loss, size)]
print(json.dumps([*times, seconds(lossmith.huber_loss, 3 * size)]))
"""
SITUATIONS = (
    "first loss, no kernel on disk",
    "next loss, no kernel on disk",
    "first loss in a new process, kernel on disk",
    "next loss, kernel on disk",
    "same loss again, three times the size",
)
ROUNDS = 3


def cold_start(done: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Seconds of the first calls of a program, medians over programs.

    Args:
        done: Called after each program.

    Returns:
        A document with the machine and the seconds of each situation.

    Raises:
        RuntimeError: If there is no compiler, or a program fails.
    """
    if lacking := missing_compiler("cpu"):  # the programs would run without one, in blocks
        raise RuntimeError(f"the first call with a compiler must have one, but {lacking}")
    rounds: list[list[float]] = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory(prefix="lossmith-") as folder:
            cold, warm = (_program(folder, done) for _ in range(2))
        rounds.append([*cold[:2], *warm])
    seconds = (round(median(each), 4) for each in zip(*rounds, strict=True))
    return {
        "title": "Until the first kernel has run",
        "about": "Huber's loss, then log-cosh, 2 Mi elements in float32, forward and backward by "
        "`one_pass`. The very first kernel of a machine includes the headers of its C++ compiler.",
        "machine": facts(torch.device("cpu")),
        "rounds": ROUNDS,
        "seconds": dict(zip(SITUATIONS, seconds, strict=True)),
    }


def _program(folder: str, done: Callable[[], None]) -> list[float]:
    found = subprocess.run(
        [sys.executable, "-c", CHILD],
        env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": folder},
        capture_output=True,
        text=True,
    )
    if found.returncode:
        raise RuntimeError(f"a program to be measured failed: {found.stderr.strip()[-500:]}")
    done()
    return json.loads(found.stdout)


def markdown(document: dict[str, Any]) -> str:
    """A section of the page of benchmarks."""
    machine = document["machine"]
    rows = "".join(f"| {name} | {one:.3g} |\n" for name, one in document["seconds"].items())
    return (
        f"## {document['title']}\n\n{document['about']}\n\n"
        f"{machine['date']}, {machine['cpu']}, {machine['cores']} cores, torch "
        f"{machine['versions']['torch']}. Median of {document['rounds']} programs.\n\n"
        f"| call | seconds |\n| --- | --: |\n{rows}"
    )
