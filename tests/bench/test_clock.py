"""Statistics of rounds, on a clock that only the calls move."""

import itertools

import pytest
import torch

from lossmith.bench import clock
from lossmith.bench.clock import ROUNDS, TURN, Clock, clock_for, interleaved, ratio, summary


class Fake:
    """A clock, and calls that take the time they are told to."""

    def __init__(self) -> None:
        self.now, self.log, self.pace = 0.0, "", 1.0
        self.clock = Clock("fake", lambda: self.now)

    def call(self, name: str, seconds: float):
        def run() -> None:
            self.log += name
            self.now += seconds * self.pace

        return run


def test_time_per_call_is_what_a_call_takes():
    fake = Fake()
    times = interleaved(
        {"a": fake.call("a", 2e-4), "b": fake.call("b", 3.0)}, fake.clock, seconds=0
    )
    assert times["a"] == pytest.approx([2e-4] * ROUNDS)
    assert times["b"] == pytest.approx([3.0] * ROUNDS)


def test_a_turn_of_a_quick_call_is_long_enough_to_be_read():
    fake = Fake()
    interleaved({"a": fake.call("a", TURN / 10)}, fake.clock, seconds=0)
    assert len(fake.log) == 1 + 10 * ROUNDS


def test_rounds_come_in_new_orders_and_their_reverse(monkeypatch):
    fake = Fake()
    monkeypatch.setattr(clock, "ROUNDS", 200)
    interleaved({name: fake.call(name, 1.0) for name in "abc"}, fake.clock, seconds=0)
    rounds = [fake.log[at : at + 3] for at in range(3, 603, 3)]
    assert all(set(each) == set("abc") for each in rounds)
    assert [each[::-1] for each in rounds[::2]] == rounds[1::2]
    assert all(rounds.count("".join(each)) > 20 for each in itertools.permutations("abc"))


def test_a_machine_that_slows_down_does_not_touch_the_ratio():
    fake = Fake()

    def slower() -> None:
        fake.call("b", 2.0)()
        fake.pace *= 3

    times = interleaved({"a": fake.call("a", 1.0), "b": slower}, fake.clock, seconds=0)
    found = ratio(times["a"], times["b"])
    assert found["ratio_low"] == pytest.approx(0.5, rel=0.7)
    assert max(times["a"]) > 20 * min(times["a"])


def test_ratio_is_of_neighbours_and_not_of_medians():
    ours, theirs = [1.0, 2.0, 30.0, 4.0, 5.0], [2.0, 4.0, 60.0, 8.0, 10.0]
    found = ratio(ours, theirs)
    assert [found[key] for key in ("ratio_low", "ratio", "ratio_high")] == [0.5, 0.5, 0.5]
    assert ratio([1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0])["ratio"] == pytest.approx(13 / 12)
    assert ratio([9.0, 2.0, 9.0], [5.0, 8.0, 5.0])["ratio_of_best"] == pytest.approx(0.4)


def test_summary_is_in_milliseconds():
    assert summary([1.0, 2.0, 3.0]) == {"ms": 2000.0, "ms_low": 1000.0, "ms_high": 3000.0}


@pytest.mark.parametrize(("threads", "name"), [(1, "processor time of the thread"), (2, "wall")])
def test_the_clock_fits_the_threads(monkeypatch, threads, name):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert clock_for(torch.device("cpu")).name == name
