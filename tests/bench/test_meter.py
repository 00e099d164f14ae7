"""The memory meter on calls whose allocations are known."""

import gc

import pytest
import torch

from lossmith.bench.meter import waits
from lossmith.core.memory import peak_bytes

CPU = torch.device("cpu")
SIZE = 1 << 18  # elements of a MiB in float32
MIB = 1 << 20


def nothing():
    return None


def one_after_the_other():
    for _ in range(5):
        torch.empty(SIZE)


def two_at_once():
    first = torch.empty(SIZE)
    second = torch.empty(SIZE)
    return first, second


def three_of_which_one_goes_early():
    first = torch.empty(SIZE)
    second = torch.empty(2 * SIZE)
    del first
    return second, torch.empty(SIZE)


def backward():
    leaf = torch.ones(SIZE, requires_grad=True)
    leaf.sum().backward()  # the gradient of a sum is one number, spread only when it is stored


@pytest.mark.parametrize(
    ("call", "mebibytes"),
    [
        (nothing, 0),
        (one_after_the_other, 1),
        (two_at_once, 2),
        (three_of_which_one_goes_early, 3),
        (backward, 2),
    ],
)
def test_peak_is_what_is_alive_at_once(call, mebibytes):
    assert peak_bytes(call, CPU) == pytest.approx(mebibytes * MIB, abs=256)


def test_what_was_there_before_does_not_count():
    held = torch.ones(2 * SIZE)
    assert peak_bytes(lambda: held + 1, CPU) == pytest.approx(2 * MIB, abs=256)


def test_what_is_released_meanwhile_hides_nothing() -> None:
    """Garbage of a measurement before, found by a collection, which may come at any moment."""

    def litter() -> None:
        ring: list[object] = [torch.empty(4 * MIB, dtype=torch.uint8)]
        ring.append(ring)

    def call() -> None:
        gc.collect()
        torch.empty(2 * MIB, dtype=torch.uint8)

    gc.disable()  # no other collection than that of the call
    try:
        peak_bytes(litter, CPU)
        assert peak_bytes(call, CPU) == pytest.approx(2 * MIB, abs=256)
    finally:
        gc.enable()


def test_nobody_waits_for_a_gpu_on_the_cpu():
    assert waits(nothing, CPU) is None


@pytest.mark.gpu
def test_memory_and_waits_on_a_gpu():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    gpu = torch.device("cuda")
    x = torch.ones(SIZE, device=gpu)
    assert peak_bytes(lambda: x + 1, gpu) == MIB
    assert waits(lambda: x + 1, gpu) == 0
    assert waits(lambda: x.sum().item(), gpu) == 1
