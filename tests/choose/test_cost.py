"""The memory of a step: a count, the same each time, and none where another profiler runs."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.autograd import profiler

from lossmith.choose.cost import costs
from lossmith.choose.data import load
from lossmith.choose.diagnosis import examine
from lossmith.choose.folds import plan
from lossmith.choose.metric import resolve
from lossmith.choose.outcome import Result, Tournament
from lossmith.choose.shortlist import shortlist
from lossmith.choose.training import Settings
from lossmith.choose.work import Work
from lossmith.core.memory import peak_bytes


def greedy(input, target, **options):
    """The squared error, and a megabyte of nothing that it holds until the gradient is there."""
    return (input - target) ** 2 + 0 * (input.sum() * torch.zeros(2**18)).exp().sum()


@pytest.fixture(scope="module")
def tournament():
    table, metric = load("stackloss"), resolve("mae")
    diagnosis = examine(table, metric)
    first = shortlist(diagnosis, metric, "l1_loss").candidates[0]
    candidates = (first, replace(first, name="greedy", function=greedy))
    cells, settings = plan(diagnosis, "3x1"), Settings(epochs=1, trials=1)
    work = Work(table, diagnosis, metric, candidates, cells, settings, "linear", {})
    results = [Result(one, one.label, scores=np.zeros(3), epochs=(1,)) for one in candidates]
    return work, Tournament(tuple(results), (), np.zeros(3), np.arange(diagnosis.rows))


def test_memory_counts_what_a_loss_holds_and_is_the_same_each_time(tournament):
    found, again = costs(*tournament), costs(*tournament)
    plain, more = found["mse_loss"].bytes, found["greedy"].bytes
    # outputs, targets and gradients of 16 rows and 4 parameters
    assert 3 * 16 * 4 <= plain < 2000
    # the product, its exponential and, on the way back, the gradient of one of them: 1 MiB each
    assert 2 * 2**20 < more - plain < 4 * 2**20
    assert [one.bytes for one in found.values()] == [one.bytes for one in again.values()]


def test_under_another_profiler_there_is_no_memory_and_the_profiler_goes_on(tournament):
    with profiler.profile() as outer:
        found = costs(*tournament)
        torch.ones(3).erfinv()
    assert all(np.isnan(one.bytes) for one in found.values())
    assert "aten::erfinv" in {event.name for event in outer.function_events}
    with profiler.profile(), pytest.raises(RuntimeError, match="no other profiler runs"):
        peak_bytes(lambda: None, torch.device("cpu"))
