"""What a loss costs: time and memory of one training step, measured side by side."""

import contextlib
import math
import time
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor

from lossmith.choose.estimators import make
from lossmith.choose.features import features
from lossmith.choose.folds import Cell
from lossmith.choose.heads import fit_head, residual_scale
from lossmith.choose.metric import AMOUNTS
from lossmith.choose.networks import build
from lossmith.choose.outcome import Tournament
from lossmith.choose.stack import Stack
from lossmith.choose.training import Batches, Contestant, Losses
from lossmith.choose.work import Work
from lossmith.core.memory import Profiled, peak_bytes

Array = NDArray[Any]
ROUNDS = 8


class Cost(NamedTuple):
    """What a fit takes.

    Attributes:
        seconds: Of one step.
        epochs: Mean number of epochs.
        bytes: Most memory that a step takes at one time, beyond the network and its optimiser;
            NaN for an estimator, and where another profiler runs, which would be in the way.
    """

    seconds: float
    epochs: float
    bytes: float


def costs(work: Work, outcome: Tournament) -> dict[str, Cost]:
    """What a fit takes, for each loss that has scores.

    Steps are those of one network on one thread, the losses in turn, and the fastest of eight
    counts, so that a busy machine does not favour any of them. An estimator takes
    one step, its fit.

    Args:
        work: What was done.
        outcome: Its results.
    """
    done = [(one.candidate, one) for one in outcome.results if one.scores is not None]
    cell = work.plan.cells[0]
    x = features(work.table, cell)[None]
    y = work.diagnosis.target
    if work.estimators is not None:
        return {
            one.label: Cost(
                _seconds(work.estimators[one.label], one.label, x[0].numpy(), y, cell),
                1.0,
                math.nan,
            )
            for _, one in done
        }
    scale = residual_scale(x, y, [cell]) if work.diagnosis.kind in AMOUNTS else None
    rows = next(iter(Batches([cell], work.settings)))
    runs: list[tuple[Stack, Losses]] = []
    for candidate, _ in done:
        modules = build(work.model, x.shape[2], max(1, candidate.width), [cell.seed])
        rates = torch.tensor([work.settings.rate])
        stack = Stack(modules, rates, work.settings.decay, work.settings.optimiser)
        stack.probe(x[:, :2])
        head = fit_head(candidate, y, [cell], scale)
        runs.append((stack, Losses(Contestant(head, (), torch.ones(1)), torch.zeros(1).long())))
    seconds = [float("inf")] * len(runs)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for place, (stack, loss) in [*enumerate(runs)] * ROUNDS:
            started = time.thread_time()
            stack.step(loss(stack(x[:, rows[0]]), rows).sum())
            seconds[place] = min(seconds[place], time.thread_time() - started)
        memory = [_memory(stack, loss, x[:, rows[0]], rows) for stack, loss in runs]
    finally:
        torch.set_num_threads(threads)
    return {
        result.label: Cost(one, sum(result.epochs) / len(result.epochs), most)
        for (_, result), one, most in zip(done, seconds, memory, strict=True)
    }


def _memory(stack: Stack, loss: Losses, x: Tensor, rows: Tensor) -> float:
    with contextlib.suppress(Profiled):
        return peak_bytes(lambda: stack.step(loss(stack(x), rows).sum()), x.device)
    return math.nan


def _seconds(one: Any, name: str, x: Array, y: Array, cell: Cell) -> float:
    """Of one fit of an estimator, on all threads together."""
    made = make(one, name, cell.seed)
    started = time.process_time()
    made.fit(x[cell.fit], y[cell.fit])
    return time.process_time() - started
