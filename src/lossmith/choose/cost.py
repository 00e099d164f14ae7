"""What a loss costs: seconds of one training step, measured side by side."""

import time
from typing import Any

import torch
from numpy.typing import NDArray

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

Array = NDArray[Any]
ROUNDS = 8


def _seconds(one: Any, name: str, x: Array, y: Array, cell: Cell) -> float:
    """Of one fit of an estimator, on all threads together."""
    made = make(one, name, cell.seed)
    started = time.process_time()
    made.fit(x[cell.fit], y[cell.fit])
    return time.process_time() - started


def costs(work: Work, outcome: Tournament) -> dict[str, tuple[float, float]]:
    """Seconds of a step and mean number of epochs of a fit, for each loss that has scores.

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
            one.label: (_seconds(work.estimators[one.label], one.label, x[0].numpy(), y, cell), 1.0)
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
        with torch.random.fork_rng(devices=[]):  # for models that draw numbers, as dropout does
            for place, (stack, loss) in [*enumerate(runs)] * ROUNDS:
                started = time.thread_time()
                stack.step(loss(stack(x[:, rows[0]]), rows).sum())
                seconds[place] = min(seconds[place], time.thread_time() - started)
    finally:
        torch.set_num_threads(threads)
    return {
        result.label: (one, sum(result.epochs) / len(result.epochs))
        for (_, result), one in zip(done, seconds, strict=True)
    }
