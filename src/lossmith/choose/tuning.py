"""As many trials for each loss: step sizes, and the options that shape the loss."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lossmith.choose.metric import Metric
from lossmith.choose.shortlist import Candidate
from lossmith.core.catalogue import card as find_card
from lossmith.core.domain import Interval
from lossmith.tabular.options import shaping

# Steps between neighbouring step sizes, and how far the trials reach for a loss without options.
FACTOR = 2.0
# The training fold's held-out rows of this many cells judge a trial.
TUNING_CELLS = 3


@dataclass(frozen=True)
class Trial:
    """A step size and options that are tried.

    Attributes:
        rate: Step size.
        options: Options of the loss beside those that the metric fixes.
    """

    rate: float
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Tuned:
    """What the trials of one loss found.

    Attributes:
        rate: The step size of the best trial.
        options: Its options.
        trials: Number of trials, with those beyond the edge.
        note: What a reader should know about the search; empty if nothing.
    """

    rate: float
    options: Mapping[str, Any]
    trials: int
    note: str = ""


def trials(candidate: Candidate, rate: float, count: int) -> list[Trial]:
    """The trials of a loss, the default setting first.

    A loss without options of its own spends all of them on the step size. Otherwise a quarter of
    them try options at the default step size, one option at a time, and the others step sizes.

    Example:
        >>> from lossmith.choose.shortlist import Candidate
        >>> plain = Candidate("mse_loss", None, {}, "standard", "identity", 0)
        >>> [round(one.rate, 5) for one in trials(plain, 0.004, 4)]
        [0.004, 0.008, 0.002, 0.001]
    """
    settings = _alternatives(candidate)[: count // 4]
    found = [Trial(rate, {})]
    powers = (power for far in range(1, count + 1) for power in _around(far))
    while len(found) < count - len(settings):
        found.append(Trial(rate * FACTOR ** next(powers), {}))
    return found + [Trial(rate, options) for options in settings]


def _around(far: int) -> tuple[int, ...]:
    """Two smaller steps for each larger one: too large a step fails, too small a one is slow."""
    return (far, 1 - 2 * far, -2 * far)


def _alternatives(candidate: Candidate) -> list[Mapping[str, Any]]:
    """Other values of each numeric option inside its domain, one option at a time."""
    try:
        card = find_card(candidate.name)
    except ValueError:  # not of the catalogue: nothing is known about its options
        return []
    wide: list[list[Mapping[str, Any]]] = [
        [{key: one} for one in _values(value, domain) if domain.contains(one)]
        for key, value, domain in shaping(card)
        if key not in candidate.options
    ]
    # the first alternatives of every option before the second ones of any
    return [row[far] for far in range(4) for row in wide if far < len(row)]


def _values(value: float, domain: Interval) -> list[float]:
    if domain.high <= 1:  # a share: a smoothing, an exponent q
        near = [0.05, 0.1, 0.2, 0.3] if value == 0 else [value / 2, (1 + value) / 2, 0.9 * value]
        return [round(one, 3) for one in near]
    if value == 0:
        return [0.5, 1.0, 2.0, -1.0]
    if domain.low == 1 and value < 2:  # a power between 1 and 2
        return [1.2, 1.8, 1.35]
    return [value / 2, value * 2, value / 4, value * 4]


def beyond(made: Sequence[Trial], scores: Sequence[float], metric: Metric) -> list[Trial]:
    """Two more step sizes if the best one is the smallest or the largest that was tried."""
    best = pick(scores, metric)
    if best is None or len(made) < 3:
        return []
    rates = [one.rate for one in made]
    chosen = made[best]
    if chosen.rate == max(rates):
        return [replace(chosen, rate=chosen.rate * FACTOR**power) for power in (1, 2)]
    if chosen.rate == min(rates):
        return [replace(chosen, rate=chosen.rate / FACTOR**power) for power in (1, 2)]
    return []


def pick(scores: Sequence[float], metric: Metric) -> int | None:
    """The place of the best score, the first among equals; None if all are undefined."""
    gains = np.array([metric.advantage(score, 0.0) for score in scores], dtype=float)
    return None if np.isnan(gains).all() else int(np.nanargmax(gains))


def conclude(made: Sequence[Trial], extra: int, scores: Sequence[float], metric: Metric) -> Tuned:
    """The best trial; the last ``extra`` ones went beyond the edge of the others."""
    best = pick(scores, metric)
    if best is None:
        return Tuned(made[0].rate, {}, len(made), "no trial came through; defaults are kept")
    chosen, note = made[best], ""
    if extra:
        where = "above" if made[-1].rate > made[0].rate else "below"
        ends = "is still at the edge" if best == len(made) - 1 else "lies inside"
        note = f"step sizes {where} the first {len(made) - extra} were tried; the best {ends}"
    return Tuned(chosen.rate, chosen.options, len(made), note)
