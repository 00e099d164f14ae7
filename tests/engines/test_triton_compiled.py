"""What the compiler makes of Triton's kernels for GPUs that need not be there."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not importlib.util.find_spec("triton"), reason="Triton is not installed"),
]
CAPABILITIES = (80, 90, 100)
# Instructions of a thread for each element that a kernel reads or, of two tensors, for each pair.
# In the time of one an H200 reads about 0.16 bytes: 4.8 TB/s for 132 x 128 lanes at some 1.8 GHz.
BUDGET = {
    ("cross-entropy 8192x32000 float32", "_gauge"): 17,
    ("cross-entropy 8192x32000 bfloat16", "_gauge"): 17,
    ("cross-entropy 8192x32000 bfloat16", "_slopes"): 21,
    ("cross-entropy 8x19x1024x2048 bfloat16", "_gauge"): 23,
    ("cross-entropy 8x19x1024x2048 bfloat16", "_slopes"): 26,
    ("cross-entropy 32768x1000 bfloat16", "_gauge"): 18,
    ("kl 8192x32000 bfloat16", "_gauge"): 11,
    ("kl 8192x32000 bfloat16", "_divergence"): 48,
    ("js 8192x32000 bfloat16", "_divergence"): 71,
    ("js 8192x32000 bfloat16", "_divergence_slopes"): 69,
    ("dice and cross-entropy 2x4x160^3 float32", "_label_sums"): 58,
    ("dice and cross-entropy 2x4x160^3 float32", "_label_slopes"): 52,
    ("masks 2x1x512^3 float32", "_mask_sums"): 40,
    ("pairs 512x16384", "_log_sum_exp"): 13,
    ("pairs 512x16384", "_exponentials"): 19,
}

Costs = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module", params=CAPABILITIES)
def costs(request: pytest.FixtureRequest) -> Costs:
    script = Path(__file__).with_name("ahead_of_time.py")
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, str(script), str(request.param)],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    found: Costs = json.loads(done.stdout)
    return found


def test_hardly_a_register_is_spilt(costs: Costs) -> None:
    found = [(name, k) for name, kernels in costs.items() for k in kernels]
    # the assembler trades a register or two for one more program at a time
    assert not [each for each in found if each[1]["spills"] > 2]


def test_every_gpu_has_the_shared_memory(costs: Costs) -> None:
    assert max(k["shared"] for kernels in costs.values() for k in kernels) <= 48 * 1024


def test_grids_are_within_the_limits_of_cuda(costs: Costs) -> None:
    for kernels in costs.values():
        for kernel in kernels:
            first, *others = kernel["grid"]
            assert 0 < first < 2**31
            assert all(0 < size < 2**16 for size in others)


@pytest.mark.parametrize(("case", "kernel"), BUDGET)
def test_instructions_stay_within_their_budget(case: str, kernel: str, costs: Costs) -> None:
    found = max(k["instructions"] for k in costs[case] if k["kernel"] == kernel)
    assert 0 < found <= BUDGET[case, kernel]
