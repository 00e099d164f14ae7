"""Compiles Triton's kernels for a GPU that need not be there, and prints what they cost, as JSON.

``python ahead_of_time.py 90`` does so for compute capability 9.0. Each launch is caught, compiled
by all of Triton and by NVIDIA's assembler, and taken apart again.
"""

import collections
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import triton.backends.nvidia
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from lossmith.engines.passes import COLUMNS, Measure
from lossmith.engines.rows.head import Head
from lossmith.engines.triton import ctc, divergences, pairs, rows, statistics

TOOLS = Path(triton.backends.nvidia.__file__).parent / "bin"
LABEL = re.compile(r"\s*(\.L_x_\d+):")
INSTRUCTION = re.compile(r"\s*/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)(.*)")
TARGET = re.compile(r"`\((\.L_x_\d+)\)")


class Absent:
    """What Triton asks of a device when it launches."""

    def __init__(self, capability: int) -> None:
        self.target = GPUTarget("cuda", capability, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return self.target


def told(tool: str, *options: str, code: bytes) -> str:
    """What a tool says of compiled code."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(code)
        file.flush()
        line = [str(TOOLS / tool), *options, file.name]
        return subprocess.run(line, capture_output=True, text=True, check=True).stdout


def taken_apart(code: bytes) -> tuple[list[str], list[str]]:
    """All instructions, and those of the longest loop, or all again where there is none."""
    found: list[str] = []
    labels: dict[str, int] = {}
    loop: list[str] = []
    for line in told("nvdisasm", "-c", code=code).splitlines():
        if label := LABEL.match(line):
            labels[label[1]] = len(found)
        elif instruction := INSTRUCTION.match(line):
            found.append(instruction[1])
            back = TARGET.search(line) if instruction[1].startswith("BRA") else None
            start = labels.get(back[1]) if back else None
            # a branch to itself ends the code
            if start is not None and len(loop) < len(found) - start > 2:
                loop = found[start:]
    return found, loop or found


def cost(kernel: Any, grid: tuple[int, ...], elements: int) -> dict[str, Any]:
    """Of a compiled kernel; instructions are those of a thread for each of its elements."""
    code = kernel.asm["cubin"]
    whole, loop = taken_apart(code)
    usage = told("cuobjdump", "--dump-resource-usage", code=code)
    kinds = collections.Counter(name.split(".")[0] for name in whole)
    each = elements / (32 * kernel.metadata.num_warps)
    return {
        "registers": int(re.findall(r"REG:(\d+)", usage)[0]),
        "spills": kinds["LDL"] + kinds["STL"],
        "shared": kernel.metadata.shared,
        "instructions": round(len(loop) / each, 1),
        "grid": list(grid),
    }


def entropy(
    shape: tuple[int, ...], dtype: torch.dtype, *, bent: bool = False, deep: bool = False
) -> None:
    logits = torch.empty(shape, dtype=dtype)
    logits = logits if len(shape) > 2 else logits.T.unsqueeze(0)
    index = torch.empty(logits[:, 0].numel(), dtype=torch.int64)
    factors = torch.ones(shape[1]) if bent else None
    head = Head(2.0, 30.0, factors) if bent else Head()
    labels = rows.Labels(index, each=torch.empty(len(index)) if bent else None)
    found = rows.gauge(logits, labels, factors, head=head, deep=deep)
    options = (0.1, 0.1) if deep else (0.0, 0.0)
    terms, numbers = rows.settle(found, labels, shape[1], factors, *options)
    mass, grad = terms[1, 0], torch.empty(())
    rows.slopes(logits, labels, factors, numbers, grad, mass, logits, head=head, deep=deep)


def divergence(shape: tuple[int, int], dtype: torch.dtype, kind: int) -> None:
    first = torch.empty(shape, dtype=dtype)
    teacher = kind not in (divergences.FORWARD, divergences.REVERSE)  # else it learns nothing
    numbers = divergences.divergence(first, first, kind, 1.0, (True, teacher))[1]
    divergences.divergence_slopes(first, first, numbers, numbers[0], kind, 1.0, (True, teacher))


def region(shape: tuple[int, int, int], dtype: torch.dtype, gamma: float | None) -> None:
    by_class, squared = shape[1] > 1, gamma is not None and gamma > 0
    measure = Measure(lambda input, target: input, by_class, -100, squared, gamma)
    logits = torch.empty(shape, dtype=dtype)
    target = torch.empty(shape[0], shape[2], dtype=torch.int64) if by_class else logits
    kernels = statistics.Kernels(measure)
    kernels.sums(logits, target)
    kernels.slopes(logits, target, torch.empty(*shape[:2], COLUMNS), (True,))


def stripe(shape: tuple[int, int]) -> None:
    scores, (height, width) = torch.empty(shape), shape
    down, along = torch.empty(height), torch.empty(width)
    pairs.Kernels.log_sum_exp(scores)
    pairs.Kernels.merge_columns(scores, (along, along))
    pairs.Kernels.exponentials(scores, down, down, along, along)
    pairs.Kernels.logistic(scores, down)


def alignment(steps: int, batch: int, symbols: int) -> None:
    emit = torch.empty(steps, batch, symbols + 1, dtype=torch.float64)
    differs = torch.empty(batch, symbols, dtype=torch.bool)
    counts = torch.empty(batch, dtype=torch.int64)
    ctc.on_device(emit, differs, counts, counts, posterior=True)


single, half = torch.float32, torch.bfloat16
CASES: dict[str, Callable[[], None]] = {
    "cross-entropy 8192x32000 float32": lambda: entropy((8192, 32000), single),
    "cross-entropy 8192x32000 bfloat16": lambda: entropy((8192, 32000), half),
    "cross-entropy 32x128256 bfloat16": lambda: entropy((32, 128256), half),
    "cross-entropy 32768x1000 bfloat16": lambda: entropy((32768, 1000), half),
    "cross-entropy 65536x10 float32": lambda: entropy((65536, 10), single),
    "cross-entropy 8x19x1024x2048 bfloat16": lambda: entropy((8, 19, 1024 * 2048), half),
    "smoothing 8192x32000 bfloat16": lambda: entropy((8192, 32000), half, deep=True),
    "all options 8192x1271 bfloat16": lambda: entropy((8192, 1271), half, bent=True, deep=True),
    "kl 8192x32000 bfloat16": lambda: divergence((8192, 32000), half, divergences.FORWARD),
    "reverse kl 8192x32000 bfloat16": lambda: divergence((8192, 32000), half, divergences.REVERSE),
    "js 8192x32000 bfloat16": lambda: divergence((8192, 32000), half, divergences.JENSEN_SHANNON),
    "js 8192x32000 float32": lambda: divergence((8192, 32000), single, divergences.JENSEN_SHANNON),
    "variation 8192x1271 float32": lambda: divergence(
        (8192, 1271), single, divergences.TOTAL_VARIATION
    ),
    "dice 2x4x160^3 float32": lambda: region((2, 4, 160**3), single, None),
    "dice and cross-entropy 2x4x160^3 float32": lambda: region((2, 4, 160**3), single, 0.0),
    "dice and cross-entropy 2x4x160^3 bfloat16": lambda: region((2, 4, 160**3), half, 0.0),
    "dice and focal 2x14x128^3 float32": lambda: region((2, 14, 128**3), single, 2.0),
    "dice 8x150x1024^2 bfloat16": lambda: region((8, 150, 1024**2), half, None),
    "masks 2x1x512^3 float32": lambda: region((2, 1, 512**3), single, None),
    "masks and focal 2x1x160^3 float32": lambda: region((2, 1, 160**3), single, 2.0),
    "pairs 512x16384": lambda: stripe((512, 16384)),
    "ctc 400x16x40": lambda: alignment(400, 16, 40),
    "ctc 400x2x1024": lambda: alignment(400, 2, 1024),
}


def main(capability: int) -> None:
    driver.set_active(Absent(capability))
    launch = JITFunction.run
    found: list[dict[str, Any]] = []

    def caught(self: Any, *args: Any, grid: tuple[int, ...], warmup: bool, **options: Any) -> Any:
        kernel = launch(self, *args, grid=grid, warmup=True, **options)
        sizes = [options.get(name, 1) for name in ("HIGH", "WIDTH", "WIDE", "BLOCK")]
        elements = torch.Size(sizes).numel()
        found.append({"kernel": self.fn.__name__, **cost(kernel, grid, elements)})
        return kernel

    JITFunction.run = caught
    costs = {}
    with torch._subclasses.FakeTensorMode():
        for name, case in CASES.items():
            case()
            costs[name], found = found, []
    print(json.dumps(costs))


if __name__ == "__main__":
    main(int(sys.argv[1]))
