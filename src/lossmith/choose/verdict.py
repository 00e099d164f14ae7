"""What may be concluded, in words: better, practically the same, or cannot tell."""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lossmith.choose.diagnosis import Diagnosis
from lossmith.choose.folds import Plan
from lossmith.choose.metric import AMOUNTS, Metric
from lossmith.choose.outcome import Result, Tournament
from lossmith.choose.selection import expected
from lossmith.choose.statistics import Comparison, cells_needed, compare, holm

# "worse" is "better" said of the baseline.
Word = Literal["better", "practically the same", "cannot tell", "worse", "baseline", "failed"]
SIGNIFICANT = 0.05
SURE = 0.95
# Guards: a prediction repeated for more than this share of the rows; sums off by more than this.
REPEATED = 0.5
RATIO = 1.25


class TournamentFailed(RuntimeError):
    """Nothing can be compared; the message says why."""


@dataclass(frozen=True)
class Guard:
    """A number beside the score that shows a degenerate winner.

    Attributes:
        name: What is measured.
        value: The number.
        alarm: Whether a reader should worry.
        sentence: In words.
    """

    name: str
    value: float
    alarm: bool
    sentence: str


@dataclass(frozen=True)
class Standing:
    """One candidate's place.

    Attributes:
        result: What it did.
        score: Mean test score; NaN if it failed.
        comparison: Against the baseline; None for the baseline and for failures.
        p: p-value of the comparison, adjusted by Holm for the number of candidates.
        beats_constant: Whether it beats the best constant, by the corrected test with Holm.
        word: The verdict in a word.
        sentence: The verdict in a sentence.
        guards: Degeneracy checks on the out-of-fold predictions.
    """

    result: Result
    score: float
    comparison: Comparison | None
    p: float
    beats_constant: bool
    word: Word
    sentence: str
    guards: tuple[Guard, ...]

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


def judge(outcome: Tournament, diagnosis: Diagnosis, metric: Metric, plan: Plan) -> Verdict:
    """Compare every candidate with the baseline (the first) and word what may be concluded.

    A candidate is called better only if the corrected t-test, adjusted by Holm over all
    candidates, is significant at 5 %, and its mean advantage exceeds the region of practical
    equivalence. It is called practically the same if the difference lies inside that region with
    posterior probability 95 %. Anything else is "cannot tell".

    Raises:
        TournamentFailed: If the baseline has no scores.
    """
    base, rho = outcome.results[0], plan.rho
    name = base.label
    # predictions belong to the tested rows
    diagnosis = replace(diagnosis, target=diagnosis.target[outcome.tested])
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
    standings = [_baseline(base, beats[0], diagnosis, metric)]
    said = _Speaker(name, base.scores, metric, rope, len(rivals), rho, plan.folds)
    for result, comparison, p, above in zip(rivals, comparisons, adjusted, beats[1:], strict=True):
        word = _word(comparison, p, rope)
        sentence = said.sentence(result.label, word, comparison, p)
        guards = guard(result, diagnosis, metric)
        score = float(np.mean(_scores(result)))
        standings.append(Standing(result, score, comparison, p, above, word, sentence, guards))
    # a mean over fewer cells is no place in a ranking
    standings.sort(key=lambda one: (one.result.dropped, metric.advantage(0.0, one.score)))
    failed = [
        Standing(one, float("nan"), None, 1.0, False, "failed", f"failed: {one.failure}", ())
        for one in outcome.results
        if one.scores is None
    ]
    word, sentence, winner = _overall(standings, name, rope, metric, outcome.constant)
    if winner is not None:
        sentence += _after_training(winner, standings, outcome, metric, rho, rope)
    stayed = [one.result.repeats for one in standings if not one.result.dropped]
    found = expected([one for one in stayed if one is not None], diagnosis.target, metric)
    if winner is not None and winner != name and word == "better":
        sentence += f" Expected on new rows, corrected for the choice: {metric.name} {found:.4g}."
    return Verdict(word, sentence, winner, name, rope, (*standings, *failed), found)


def _after_training(
    winner: str,
    standings: list[Standing],
    outcome: Tournament,
    metric: Metric,
    rho: float,
    rope: float,
) -> str:
    """Whether a correction of the baseline after training would do as well as the winner."""
    first = next(one.result for one in standings if one.label == winner)
    fixes = [one for one in standings if one.result in outcome.rivals and one.label != winner]
    if first in outcome.rivals or first is outcome.results[0] or not fixes:
        return ""
    fix = fixes[0]
    gap = compare(_gain(first, _scores(fix.result), metric), rho, rope)
    if gap.p < SIGNIFICANT and gap.difference > rope:
        return f" It also beats {fix.label}, which needs no other loss ({fix.score:.4g})."
    return (
        f" But it is not shown to beat {fix.label} ({metric.name} {fix.score:.4g}), a correction "
        "after training that needs no other loss."
    )


def _scores(result: Result) -> NDArray[np.float64]:
    assert result.scores is not None
    return result.scores


def _gain(result: Result, reference: NDArray[np.float64], metric: Metric) -> NDArray[np.float64]:
    """Advantage in the cells that the result has, which are the first ones of the reference."""
    scores = _scores(result)
    return np.asarray(metric.advantage(scores, reference[: len(scores)]))


def _baseline(result: Result, beats: bool, diagnosis: Diagnosis, metric: Metric) -> Standing:
    score = float(_scores(result).mean())
    guards = guard(result, diagnosis, metric)
    sentence = "the baseline that the others are compared with"
    return Standing(result, score, None, 1.0, beats, "baseline", sentence, guards)


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

    def sentence(self, name: str, word: Word, comparison: Comparison, p: float) -> str:
        percent = self._percent(comparison.difference)
        side = "better" if comparison.difference >= 0 else "worse"
        effect = (
            f"{self.metric.name} {side} by {abs(comparison.difference):.4g}{percent}, 95 % "
            f"interval {comparison.low:.3g} to {comparison.high:.3g} (positive favours {name})"
        )
        if word in ("better", "worse"):
            sure = comparison.better if word == "better" else comparison.worse
            return (
                f"{name} is {word} than {self.baseline}: {effect}; adjusted p = {p:.2g}, "
                f"probability of a difference beyond {self.rope:.3g} = {sure:.2f}."
            )
        if word == "practically the same":
            return (
                f"{name} is practically the same as {self.baseline}: the difference lies within "
                f"{self.rope:.3g} with probability {comparison.same:.2f}; {effect}."
            )
        missed = self._percent(comparison.detectable)
        return (
            f"cannot tell {name} from {self.baseline}: {effect}; adjusted p = {p:.2g}; this design "
            f"finds a difference of {comparison.detectable:.3g}{missed} in 4 of 5 runs; "
            f"{self._more(comparison)}."
        )

    def _more(self, comparison: Comparison) -> str:
        """How many cells would show a difference as large as the one that was seen."""
        seen = abs(comparison.difference) / comparison.spread if comparison.spread else 0.0
        needed = cells_needed(seen, self.rho, self.fold, 0.05 / self.tests)
        if needed is None:
            return "no number of repeats would show one as small as this, more rows would"
        more = max(self.fold, needed - comparison.cells)
        return f"about {more} more cells would show one as large as this"

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
) -> tuple[Word, str, str | None]:
    if not any(one.beats_constant for one in standings):
        level = float(constant.mean())
        return (
            "cannot tell",
            f"Cannot tell: no loss is shown to beat predicting one constant ({metric.name} "
            f"{level:.4g}), so there is nothing to choose between.",
            None,
        )
    better = [one for one in standings if one.word == "better" and one.beats_constant]
    if better:
        first, *others = better
        sentence = first.sentence
        if others:
            names = " and ".join(one.label for one in others)
            verb = "is" if len(others) == 1 else "are"
            sentence += f" So {verb} {names}; the winners are not ranked among each other."
        return "better", sentence, first.label
    rivals = [one for one in standings if one.comparison is not None]
    worse = [one for one in rivals if one.word == "worse"]
    if rivals and len(worse) == len(rivals):
        return "better", f"The baseline {baseline} is better than every other loss.", baseline
    aside = f" Worse than the baseline: {', '.join(one.label for one in worse)}." if worse else ""
    open_ = [one for one in rivals if one.word == "cannot tell"]
    if not open_ and rivals:
        return (
            "practically the same",
            f"Practically the same: no loss differs from the baseline {baseline} by more than "
            f"{rope:.3g} {metric.name}; keep the baseline.{aside}",
            None,
        )
    if not rivals:
        return "cannot tell", f"Cannot tell: only the baseline {baseline} has scores.", None
    missed = [one.comparison.detectable for one in open_ if one.comparison]
    base = next(one.score for one in standings if one.word == "baseline")
    low, high = (f"{end:.3g}{_percent(end, base, metric)}" for end in (min(missed), max(missed)))
    return (
        "cannot tell",
        f"Cannot tell: no loss is shown to be better than the baseline {baseline}. With these rows "
        f"and folds a difference in {metric.name} of {low} at best and {high} at worst, depending "
        f"on the loss, would be found in 4 of 5 runs; smaller ones stay hidden.{aside}",
        None,
    )


def guard(result: Result, diagnosis: Diagnosis, metric: Metric) -> tuple[Guard, ...]:
    """Degeneracy checks on the out-of-fold predictions of the first repeat."""
    made: Any = result.predictions
    y = diagnosis.target
    if metric.needs == "label" or made.ndim == 2:
        labels = made if made.ndim == 1 else made.argmax(1)
        counts = np.bincount(labels.astype(int), minlength=len(diagnosis.classes))
        top = int(counts.argmax())
        share, truth = counts[top] / len(y), float((y == top).mean())
        sentence = (
            f"{share:.0%} of the predictions are {diagnosis.classes[top]!r}; {truth:.0%} of the "
            "rows are."
        )
        return (Guard("largest predicted class", float(share), bool(share > 0.99), sentence),)
    share = float(np.unique(np.round(made, 6), return_counts=True)[1].max() / len(made))
    sentence = f"{share:.1%} of the predictions are one and the same number."
    guards = [Guard("constant share", share, share > REPEATED, sentence)]
    sums = diagnosis.kind in AMOUNTS or metric.needs == "probability"
    if sums and y.min() >= 0:
        ratio = float(made.sum() / y.sum())
        what = "predictions" if diagnosis.kind in AMOUNTS else "predicted probabilities"
        sentence = f"The {what} sum to {ratio:.0%} of the truth."
        alarm = not 1 / RATIO <= ratio <= RATIO
        guards.append(Guard("mean ratio", ratio, alarm, sentence))
    return tuple(guards)
