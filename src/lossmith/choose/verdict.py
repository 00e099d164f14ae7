"""What may be concluded, in words: better, practically the same, or cannot tell."""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lossmith.choose.diagnosis import Diagnosis
from lossmith.choose.folds import Plan
from lossmith.choose.guards import Guard, guards
from lossmith.choose.messages import join, say
from lossmith.choose.metric import Metric
from lossmith.choose.outcome import Result, Tournament
from lossmith.choose.selection import expected
from lossmith.choose.statistics import Comparison, cells_needed, compare, holm

# "worse" is "better" said of the baseline.
Word = Literal["better", "practically the same", "cannot tell", "worse", "baseline", "failed"]
SIGNIFICANT = 0.05
SURE = 0.95


class TournamentFailed(RuntimeError):
    """Nothing can be compared; the message says why."""


@dataclass(frozen=True)
class Standing:
    """One candidate's place.

    Attributes:
        result: What it did.
        score: Mean test score; NaN if it failed.
        comparison: Against the baseline; None for the baseline and for failures.
        more: Cells, beyond those there are, that a difference as large as the one seen takes to be
            found in 4 of 5 runs; 0 if these suffice, None if no number of repeats does or there
            is no comparison.
        p: p-value of the comparison, adjusted by Holm for the number of candidates.
        beats_constant: Whether it beats the best constant, by the corrected test with Holm.
        word: The verdict in a word.
        sentence: The verdict in a sentence.
        guards: What a reader of the score should know beside it.
    """

    result: Result
    score: float
    comparison: Comparison | None
    p: float
    beats_constant: bool
    word: Word
    sentence: str
    guards: tuple[Guard, ...]
    more: int | None = None

    @property
    def label(self) -> str:
        """The candidate's name with its options and its correction."""
        return self.result.label


@dataclass(frozen=True)
class Verdict:
    """The whole outcome.

    Attributes:
        word: One of the three outcomes of the tournament.
        sentence: What may be concluded.
        winner: The loss that is shown to be better; None if none is.
        baseline: Name of the baseline.
        rope: Half-width of practical equivalence, in the unit of the metric.
        standings: All candidates, best mean score first, failures last.
        expected: Score on new rows of the candidate with the best score, corrected for its having
            been chosen for it; NaN if there is no choice.
    """

    word: Word
    sentence: str
    winner: str | None
    baseline: str
    rope: float
    standings: tuple[Standing, ...]
    expected: float = math.nan


def judge(
    outcome: Tournament,
    diagnosis: Diagnosis,
    metric: Metric,
    plan: Plan,
    texts: pd.DataFrame | None = None,
) -> Verdict:
    """Compare every candidate with the baseline (the first) and word what may be concluded.

    A candidate is called better only if the corrected t-test, adjusted by Holm over all
    candidates, is significant at 5 %, and its mean advantage exceeds the region of practical
    equivalence. It is called practically the same if the difference lies inside that region with
    posterior probability 95 %. Anything else is "cannot tell".

    Args:
        outcome: The results.
        diagnosis: The data.
        metric: The metric.
        plan: The cells.
        texts: Text columns, whose levels are groups for the guards.

    Raises:
        TournamentFailed: If the baseline has no scores.
    """
    base, rho = outcome.results[0], plan.rho
    name = base.label
    # predictions belong to the tested rows
    diagnosis = replace(diagnosis, target=diagnosis.target[outcome.tested])
    texts = pd.DataFrame() if texts is None else texts.iloc[outcome.tested]
    if base.scores is None:
        raise TournamentFailed(f"the baseline {name} failed: {base.failure}")
    rope = metric.rope(float(base.scores.mean()))
    rivals = [one for one in (*outcome.results[1:], *outcome.rivals) if one.scores is not None]
    comparisons = [
        compare(_gain(one, base.scores, metric), rho, rope, len(rivals)) for one in rivals
    ]
    adjusted = holm([comparison.p for comparison in comparisons])
    floor = [compare(_gain(one, outcome.constant, metric), rho, 0.0) for one in (base, *rivals)]
    floor_p = holm([comparison.p for comparison in floor])
    beats = [c.difference > 0 and p < SIGNIFICANT for c, p in zip(floor, floor_p, strict=True)]
    standings = [_baseline(base, beats[0], guards(base, base, diagnosis, metric, texts))]
    said = _Speaker(name, base.scores, metric, rope, len(rivals), rho, plan.folds)
    for result, comparison, p, above in zip(rivals, comparisons, adjusted, beats[1:], strict=True):
        word = _word(comparison, p, rope)
        more = said.more(comparison)
        sentence = said.sentence(result.label, word, comparison, p, more)
        found = guards(result, base, diagnosis, metric, texts)
        score = float(np.mean(_scores(result)))
        standings.append(Standing(result, score, comparison, p, above, word, sentence, found, more))
    # a mean over fewer cells is no place in a ranking
    standings.sort(key=lambda one: (one.result.dropped, metric.advantage(0.0, one.score)))
    failed = [
        Standing(one, float("nan"), None, 1.0, False, "failed", _failed(one), ())
        for one in outcome.results
        if one.scores is None
    ]
    word, sentence, winner = _overall(standings, name, rope, metric, outcome.constant)
    if winner is not None:
        sentence += _after_training(winner, standings, outcome, metric, rho, rope)
    stayed = [one.result.repeats for one in standings if not one.result.dropped]
    found = expected([one for one in stayed if one is not None], diagnosis.target, metric)
    if winner is not None and winner != name and word == "better":
        sentence.append(say("verdict.expected", metric=metric.name, score=found))
    return Verdict(word, join(sentence), winner, name, rope, (*standings, *failed), found)


def _after_training(
    winner: str,
    standings: list[Standing],
    outcome: Tournament,
    metric: Metric,
    rho: float,
    rope: float,
) -> list[str]:
    """Whether a correction of the baseline after training would do as well as the winner."""
    first = next(one.result for one in standings if one.label == winner)
    fixes = [one for one in standings if one.result in outcome.rivals and one.label != winner]
    if first in outcome.rivals or first is outcome.results[0] or not fixes:
        return []
    fix = fixes[0]
    gap = compare(_gain(first, _scores(fix.result), metric), rho, rope)
    if gap.p < SIGNIFICANT and gap.difference > rope:
        return [say("verdict.beats_fix", fix=fix.label, score=fix.score)]
    words = {"fix": fix.label, "metric": metric.name, "score": fix.score}
    return [say("verdict.not_beats_fix", **words)]


def _failed(result: Result) -> str:
    return say("verdict.failed", failure=result.failure)


def _scores(result: Result) -> NDArray[np.float64]:
    assert result.scores is not None
    return result.scores


def _gain(result: Result, reference: NDArray[np.float64], metric: Metric) -> NDArray[np.float64]:
    """Advantage in the cells that the result has, which are the first ones of the reference."""
    scores = _scores(result)
    return np.asarray(metric.advantage(scores, reference[: len(scores)]))


def _baseline(result: Result, beats: bool, found: tuple[Guard, ...]) -> Standing:
    score = float(_scores(result).mean())
    sentence = say("verdict.baseline")
    return Standing(result, score, None, 1.0, beats, "baseline", sentence, found)


def _word(comparison: Comparison, p: float, rope: float) -> Word:
    if p < SIGNIFICANT and comparison.difference > rope:
        return "better"
    if p < SIGNIFICANT and comparison.difference < -rope:
        return "worse"
    return "practically the same" if comparison.same >= SURE else "cannot tell"


@dataclass(frozen=True)
class _Speaker:
    """Words for one comparison with the baseline."""

    baseline: str
    reference: NDArray[np.float64]
    metric: Metric
    rope: float
    tests: int
    rho: float
    fold: int

    def sentence(
        self, name: str, word: Word, comparison: Comparison, p: float, more: int | None
    ) -> str:
        words: dict[str, Any] = {"name": name, "baseline": self.baseline, "rope": self.rope}
        words["effect"] = say(
            "verdict.effect",
            metric=self.metric.name,
            side=say("word.better" if comparison.difference >= 0 else "word.worse"),
            size=abs(comparison.difference),
            percent=self._percent(comparison.difference),
            low=comparison.low,
            high=comparison.high,
            name=name,
        )
        if word in ("better", "worse"):
            sure = comparison.better if word == "better" else comparison.worse
            return say("verdict.differs", word=say(f"word.{word}"), p=p, sure=sure, **words)
        if word == "practically the same":
            return say("verdict.same", sure=comparison.same, **words)
        return say(
            "verdict.open",
            name=name,
            baseline=self.baseline,
            effect=words["effect"],
            p=p,
            detectable=comparison.detectable,
            percent=self._percent(comparison.detectable),
            cells=comparison.cells,
            doubled=comparison.doubled,
            less=self._percent(comparison.doubled),
            more=say("verdict.more_cells", more=more) if more else self._no_more(more),
        )

    def more(self, comparison: Comparison) -> int | None:
        """How many more cells find a difference as large as the one that was seen."""
        seen = abs(comparison.difference) / comparison.spread if comparison.spread else 0.0
        needed = cells_needed(seen, self.rho, self.fold, 0.05 / self.tests)
        return None if needed is None else max(0, needed - comparison.cells)

    def _no_more(self, more: int | None) -> str:
        return say("verdict.no_repeats" if more is None else "verdict.enough_cells")

    def _percent(self, difference: float) -> str:
        return _percent(difference, float(self.reference.mean()), self.metric)


def _percent(difference: float, reference: float, metric: Metric) -> str:
    if metric.bounded or reference == 0:
        return ""
    return f" ({abs(difference / reference):.1%})"


def _overall(
    standings: list[Standing],
    baseline: str,
    rope: float,
    metric: Metric,
    constant: NDArray[np.float64],
) -> tuple[Word, list[str], str | None]:
    if not any(one.beats_constant for one in standings):
        level = float(constant.mean())
        said = say("verdict.constant", metric=metric.name, level=level)
        return "cannot tell", [said], None
    better = [one for one in standings if one.word == "better" and one.beats_constant]
    if better:
        first, *others = better
        names = join([one.label for one in others], "gap.and")
        key = "verdict.other_winner" if len(others) == 1 else "verdict.other_winners"
        return "better", [first.sentence, *[say(key, names=names)] * bool(others)], first.label
    rivals = [one for one in standings if one.comparison is not None]
    worse = [one for one in rivals if one.word == "worse"]
    if rivals and len(worse) == len(rivals):
        return "better", [say("verdict.baseline_wins", baseline=baseline)], baseline
    behind = join([one.label for one in worse], "gap.list")
    aside = [say("verdict.aside", names=behind)] if worse else []
    open_ = [one for one in rivals if one.word == "cannot tell"]
    if not open_ and rivals:
        said = say("verdict.all_same", baseline=baseline, rope=rope, metric=metric.name)
        return "practically the same", [said, *aside], None
    if not rivals:
        return "cannot tell", [say("verdict.alone", baseline=baseline)], None
    left = [one.comparison for one in open_ if one.comparison]
    base = next(one.score for one in standings if one.word == "baseline")

    def ends(missed: list[float]) -> list[str]:
        return [f"{end:.3g}{_percent(end, base, metric)}" for end in (min(missed), max(missed))]

    low, high = ends([one.detectable for one in left])
    less, most = ends([one.doubled for one in left])
    words = {"low": low, "high": high, "less": less, "most": most, "cells": len(constant)}
    said = say("verdict.none", baseline=baseline, metric=metric.name, **words)
    return "cannot tell", [said, *aside], None
