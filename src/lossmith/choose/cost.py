"""What a loss costs: seconds of one training step, measured side by side."""

import time

import torch

from lossmith.choose.features import features
from lossmith.choose.heads import fit_head, residual_scale
from lossmith.choose.metric import AMOUNTS
from lossmith.choose.networks import build
from lossmith.choose.outcome import Tournament
from lossmith.choose.stack import Stack
from lossmith.choose.training import Batches, Contestant, Losses
from lossmith.choose.work import Work

ROUNDS = 8


def costs(work: Work, outcome: Tournament) -> dict[str, tuple[float, float]]:
    """Seconds of a step and mean number of epochs of a fit, for each loss that has scores.

    Steps are those of one network on one thread, the losses in turn, and the fastest of eight
    counts, so that a busy machine does not favour any of them.

    Args:
        work: What was done.
        outcome: Its results.
    """
    done = [(one.candidate, one) for one in outcome.results if one.scores is not None]
    cell = work.plan.cells[0]
    x = features(work.table, cell)[None]
    y = work.diagnosis.target
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
