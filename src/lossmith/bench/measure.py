"""One row at one size: time, memory and error of every way to compute it."""

import statistics
import sys
import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lossmith.bench.clock import clock_for, interleaved, ratio, summary
from lossmith.bench.limits import Limits
from lossmith.bench.machine import memory
from lossmith.bench.meter import waits
from lossmith.bench.row import Absent, Dims, Direct, Loss, Peer, Row
from lossmith.core.memory import peak_bytes

OURS = "lossmith"
# Above so many elements a reference in float64, made of plain operations, would not fit the memory
MOST = {"cpu": 1 << 26, "cuda": 1 << 30}
# Tensors of the largest size that plain computations of our rows have alive at one time, and a
# reserve: without memory for more, a system ends the process instead of refusing
ALIVE = 8

Step = Callable[[], Tensor]


class Outcome(NamedTuple):
    """The value of a loss, and the gradient of each tensor that wants one.

    Attributes:
        value: Of the loss.
        gradients: Of the tensors that want one.
        spoilt: Whether a tensor was written into.
    """

    value: Tensor
    gradients: tuple[Tensor, ...]
    spoilt: bool


def measure(
    row: Row,
    dims: Dims,
    dtype: torch.dtype,
    *,
    device: torch.device,
    limits: Limits,
    seconds: float,
    without: Collection[str] = (),
) -> dict[str, Any]:
    """Run a row at one size.

    Args:
        row: The row.
        dims: One of its settings of the dimensions.
        dtype: One of its dtypes.
        device: Where.
        limits: What the device can do.
        seconds: For all rounds of timing together; a handful of rounds are run in any case.
        without: Names of peers to leave out.

    Returns:
        What the JSON results hold of it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what peers have to say about their arguments
        return _measure(row, dims, dtype, device, limits, seconds, without)


def _measure(
    row: Row,
    dims: Dims,
    dtype: torch.dtype,
    device: torch.device,
    limits: Limits,
    seconds: float,
    without: Collection[str],
) -> dict[str, Any]:
    if "torch._dynamo" in sys.modules:  # which takes seconds to load
        torch.compiler.reset()  # so that the limit on recompilations meets no peer
    tensors = row.tensors(dims, dtype, device)
    bulk = sum(t.numel() for t in tensors) if row.bulk is None else row.bulk(**dims)
    truth = _truth(row, tensors) if bulk <= MOST[device.type] else None
    largest = bulk * dtype.itemsize
    room = ALIVE * largest <= memory(device)
    # Peers compute on the same tensors, as the one before has left them. Copies of its own each
    # would have to fetch from memory, where the others have driven them to, and that would be most
    # of what is measured: Huber of 4 Mi elements would take 2.7 ms in place of 1.8.
    leaves = _leaves(tensors, row.wanted)
    entries: dict[str, dict[str, Any]] = {}
    steps: dict[str, Step] = {}
    peers: Mapping[str, Peer] = {OURS: lambda: row.ours, **row.peers}
    for name, peer in peers.items():
        if name in without:
            continue
        entries[name] = {}
        try:
            if name != OURS and not room:
                raise Absent(f"no room for tensors of {largest / 2**30:.0f} GiB")
            loss = peer()
            outcome = _outcome(loss, tensors, row.wanted)
        except Absent as reason:
            entries[name]["absent"] = str(reason)
            continue
        except Exception as error:  # whatever a peer may raise; an error of ours is an error
            if name == OURS:
                raise
            entries[name]["absent"] = f"failed: {_line(error)}"
            continue
        if truth is not None:
            entries[name].update(_errors(outcome, truth))
        own = _leaves(tensors, row.wanted) if outcome.spoilt else leaves
        steps[name] = _step(loss, own, row.wanted)
        del outcome
    del truth
    times = interleaved(steps, clock_for(device), seconds=seconds)
    work = row.work(dtype.itemsize, **dims)
    least = limits.seconds(work, dtype)
    for name, spent in times.items():
        entry = entries[name]
        entry.update(summary(spent))
        if name != OURS:
            entry.update(ratio(times[OURS], spent))
        entry["limit_percent"] = 100 * least / statistics.median(spent)
        entry["peak_mib"] = peak_bytes(steps[name], device) / 2**20
        if (count := waits(steps[name], device)) is not None:
            entry["waits"] = count
    return {
        "row": row.name,
        "dims": dict(dims),
        "dtype": str(dtype).removeprefix("torch."),
        "elements": sum(t.numel() for t in tensors if t.is_floating_point()),
        "gradient_mib": sum(tensors[i].nbytes for i in row.wanted) / 2**20,
        "work": {"bytes": work.bytes, "flops": work.flops, "ms": 1e3 * least},
        "rounds": len(times[OURS]),
        "grows": row.grows,
        "entries": {name: _rounded(entry) for name, entry in entries.items()},
    }


def _leaves(tensors: tuple[Tensor, ...], wanted: tuple[int, ...]) -> list[Tensor]:
    """Copies, of which those that are wanted ask for a gradient."""
    return [t.detach().clone().requires_grad_(i in wanted) for i, t in enumerate(tensors)]


def _step(loss: Loss | Direct, leaves: list[Tensor], wanted: tuple[int, ...]) -> Step:
    """One forward and backward pass, which leaves no gradient behind."""
    if isinstance(loss, Direct):
        bare = [leaf.detach() for leaf in leaves]
        return lambda: loss.function(*bare)[0]
    asked = [leaves[i] for i in wanted]

    def run() -> Tensor:
        value = loss(*leaves)
        value.backward()
        for leaf in asked:
            leaf.grad = None
        return value

    return run


def _outcome(loss: Loss | Direct, tensors: tuple[Tensor, ...], wanted: tuple[int, ...]) -> Outcome:
    if isinstance(loss, Direct):
        value, gradient = loss.function(*tensors)
        return Outcome(value, (gradient,), spoilt=False)
    leaves = _leaves(tensors, wanted)
    value = loss(*leaves)
    gradients = torch.autograd.grad(value, [leaves[i] for i in wanted])
    spoilt = not all(map(torch.equal, leaves, tensors))
    return Outcome(value.detach(), gradients, spoilt)


def _truth(row: Row, tensors: tuple[Tensor, ...]) -> Outcome:
    """In float64, from the inputs as they were rounded."""
    exact = tuple(t.double() if t.is_floating_point() else t for t in tensors)
    return _outcome(row.truth, exact, row.wanted)


def _errors(outcome: Outcome, truth: Outcome) -> dict[str, float]:
    """Largest error of a gradient, in units of its largest entry; relative error of the value."""
    gradients = zip(outcome.gradients, truth.gradients, strict=True)
    return {
        "gradient_error": max(_relative(found, right) for found, right in gradients),
        "value_error": _relative(outcome.value, truth.value),
    }


def _relative(found: Tensor, right: Tensor) -> float:
    gap = (found.double() - right.view_as(found)).abs().amax().item()
    size = right.abs().amax().item()
    return gap / size if size else gap


def _line(error: Exception) -> str:
    """The first line of a message, not too long."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:120]


def _rounded(entry: dict[str, Any]) -> dict[str, Any]:
    """Four digits: more would be noise, and a change in every file."""
    return {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in entry.items()}
