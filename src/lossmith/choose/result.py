"""The outcome of :func:`lossmith.choose.choose`, as plain data."""

import itertools
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lossmith.choose.cost import Cost
from lossmith.choose.data import Table
from lossmith.choose.diagnosis import Diagnosis
from lossmith.choose.folds import Plan
from lossmith.choose.guards import DEGENERATE, Guard, cost, memory
from lossmith.choose.metric import Metric
from lossmith.choose.outcome import Result, Tournament
from lossmith.choose.shortlist import Shortlist
from lossmith.choose.statistics import Comparison, compare, holm
from lossmith.choose.subgroups import Group, subgroups
from lossmith.choose.training import Settings
from lossmith.choose.verdict import Standing, Verdict


@dataclass(frozen=True)
class Choice:
    """Everything that was seen and concluded.

    Attributes:
        data: The table.
        diagnosis: What the data say.
        metric: What the losses were judged by.
        metric_reason: Why this metric.
        shortlist: Candidates and refusals.
        plan: The cells.
        settings: How every loss was trained.
        model: Name of the network that was trained, or what a factory of the user builds, or the
            estimators that were fitted.
        seed: The seed.
        tournament: The results.
        outcome: What may be concluded.
        costs: Time and memory of a step and mean number of epochs of each loss.
        command: The command that repeats the run.
        versions: Versions of Python and of the packages that the numbers depend on.
        networks: Whether networks were trained, whose losses and courses can be drawn.
    """

    data: Table
    diagnosis: Diagnosis
    metric: Metric
    metric_reason: str
    shortlist: Shortlist
    plan: Plan
    settings: Settings
    model: str
    seed: int
    tournament: Tournament
    outcome: Verdict
    costs: dict[str, Cost]
    command: str
    versions: dict[str, str]
    networks: bool = True

    @property
    def verdict(self) -> str:
        """What may be concluded, in words."""
        return self.outcome.sentence

    @property
    def winner(self) -> str | None:
        """The loss that is shown to be better; None if none is."""
        return self.outcome.winner

    @property
    def table(self) -> pd.DataFrame:
        """One row for each candidate, best mean score first; differences favour the candidate."""
        return pd.DataFrame([_row(one, self.metric.name) for one in self.outcome.standings])

    @property
    def pairwise(self) -> pd.DataFrame:
        """Every pair of losses, best first, on the cells that both have.

        Positive differences favour ``first``. ``p`` is adjusted by Holm over all pairs.
        """
        done = [one.result for one in self.outcome.standings if one.result.scores is not None]
        pairs = list(itertools.combinations(done, 2))
        found = [self._compare(*pair, len(pairs)) for pair in pairs]
        adjusted = holm([one.p for one in found])
        rows = [
            {"first": first.label, "second": second.label, **vars(one), "p": p}
            for (first, second), one, p in zip(pairs, found, adjusted, strict=True)
        ]
        shown = ["first", "second", "difference", "low", "high", "p", "better", "same", "worse"]
        return pd.DataFrame(rows, columns=[*shown, "won", "cells"])

    def _compare(self, first: Result, second: Result, tests: int) -> Comparison:
        assert first.scores is not None
        assert second.scores is not None
        both = min(len(first.scores), len(second.scores))
        gain = self.metric.advantage(first.scores[:both], second.scores[:both])
        return compare(np.asarray(gain), self.plan.rho, self.outcome.rope, tests)

    @property
    def cells(self) -> pd.DataFrame:
        """One row for each trained model that counts: loss, repeat, cell and score."""
        rows = [
            {
                "loss": one.label,
                "repeat": self.plan.cells[cell].repeat,
                "cell": cell,
                self.metric.name: float(score),
            }
            for one in (*self.tournament.results, *self.tournament.rivals)
            if one.scores is not None
            for cell, score in enumerate(one.scores)
        ]
        return pd.DataFrame(rows)

    @property
    def tested(self) -> NDArray[Any]:
        """The target of the rows to which out-of-fold predictions belong."""
        return self.diagnosis.target[self.tournament.tested]

    @property
    def constant(self) -> float:
        """Mean score of the best constant prediction."""
        return float(self.tournament.constant.mean())

    def cost(self, label: str) -> float:
        """Time of a fit of a loss, in fits of the baseline; NaN for corrections and failures."""
        return next((one.value for one in self._cost(label) if one.name == "cost"), math.nan)

    def guards(self, label: str) -> tuple[Guard, ...]:
        """All that a reader should know beside the score of a loss, its cost included.

        Args:
            label: The loss as in the table.
        """
        one = next(one for one in self.outcome.standings if one.label == label)
        return one.guards if one.word == "baseline" else (*one.guards, *self._cost(label))

    def _cost(self, label: str) -> list[Guard]:
        if label not in self.costs:
            return []
        mine = self.costs[label]
        step, epochs, room = np.divide(mine, self.costs[self.outcome.baseline]).tolist()
        found = [cost(step, epochs, networks=self.networks)]
        return found if math.isnan(room) else [*found, memory(mine.bytes, room)]

    @property
    def told(self) -> dict[str, tuple[Guard, ...]]:
        """The guards worth printing of each loss: all of a winner, else those that alarm.

        Where a loss stands behind, only signs of a degenerate predictor are worth a word.
        """
        first = self.winner or self.outcome.standings[0].label
        found: dict[str, tuple[Guard, ...]] = {}
        for one in self.outcome.standings:
            whole = self.guards(one.label)
            if one.label == first:
                kept = [guard for guard in whole if guard.alarm or self.winner]
            else:
                kept = [guard for guard in whole if guard.alarm and guard.name in DEGENERATE]
            found[one.label] = tuple(kept)
        return found

    def subgroups(self, label: str) -> pd.DataFrame:
        """A loss against the baseline in groups of rows; see :mod:`lossmith.choose.subgroups`.

        Args:
            label: The loss as in the table.
        """
        return pd.DataFrame([vars(group) for group in self.groups(label)[1]])

    def groups(self, label: str) -> tuple[str, list[Group]]:
        """The same as objects, and the name of the metric that the scores are in."""
        one = next(one for one in self.outcome.standings if one.label == label)
        tested = replace(self.diagnosis, target=self.tested)
        texts = self.data.features[self.data.text].iloc[self.tournament.tested]
        return subgroups(one.result, self.tournament.results[0], tested, self.metric, texts)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON; numbers that do not exist are None.

        The time is left out, which is measured anew each time: the same call gives the same data.
        The memory is a count, and the same each time.
        """
        cells = {
            one.label: None if one.scores is None else one.scores.tolist()
            for one in (*self.tournament.results, *self.tournament.rivals)
        }
        return _finite(
            {
                "data": self.data.name,
                "target": self.data.target_name,
                "rows": self.diagnosis.rows,
                "columns": self.diagnosis.columns,
                "kind": self.diagnosis.kind,
                "reading": self.diagnosis.reading,
                "metric": self.metric.name,
                "metric_reason": self.metric_reason,
                "direction": self.metric.direction,
                "verdict": self.outcome.word,
                "sentence": self.verdict,
                "winner": self.winner,
                "baseline": self.outcome.baseline,
                "rope": self.outcome.rope,
                "expected": self.outcome.expected,
                "constant": self.constant,
                "table": self.table.to_dict(orient="records"),
                "sentences": {one.label: one.sentence for one in self.outcome.standings},
                "guards": {
                    one.label: {guard.name: guard.value for guard in one.guards}
                    for one in self.outcome.standings
                },
                "memory": {label: one.bytes for label, one in self.costs.items()},
                "findings": self.diagnosis.table.to_dict(orient="records"),
                "refusals": {one.name: one.reason for one in self.shortlist.refusals},
                "folds": f"{self.plan.folds}x{self.plan.repeats}",
                "folds_note": self.plan.note,
                "settings": vars(self.settings),
                "model": self.model,
                "seed": self.seed,
                "scores": cells,
                "command": self.command,
                "versions": self.versions,
            }
        )


def _row(one: Standing, metric: str) -> dict[str, Any]:
    comparison = one.comparison
    guards = {guard.name: guard.value for guard in one.guards}
    return {
        "loss": one.label,
        metric: one.score,
        "difference": comparison.difference if comparison else math.nan,
        "low": comparison.low if comparison else math.nan,
        "high": comparison.high if comparison else math.nan,
        "p": one.p if comparison else math.nan,
        "better": comparison.better if comparison else math.nan,
        "same": comparison.same if comparison else math.nan,
        "worse": comparison.worse if comparison else math.nan,
        "won": comparison.won if comparison else math.nan,
        "detectable": comparison.detectable if comparison else math.nan,
        "more_cells": math.nan if one.more is None else one.more,
        "cells": 0 if one.result.scores is None else len(one.result.scores),
        "dropped": one.result.dropped,
        "default": _mean(one.result.default),
        "last_epoch": _mean(one.result.last),
        "setting": one.result.setting,
        "gradient": one.result.gradient,
        "beats_constant": one.beats_constant,
        "mean_ratio": guards.get("mean ratio", math.nan),
        "verdict": one.word,
    }


def _mean(scores: Any) -> float:
    return math.nan if scores is None else float(scores.mean())


def _finite(value: Any) -> Any:
    """JSON knows neither NaN nor infinity."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
