"""Numbers beside the score that show when a winner is not worth its win."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lossmith.choose.diagnosis import Diagnosis
from lossmith.choose.messages import join, say
from lossmith.choose.metric import AMOUNTS, Metric
from lossmith.choose.outcome import Result
from lossmith.choose.subgroups import judged_rows, subgroups

# A prediction repeated for more than this share of the rows; sums off by more than this.
REPEATED = 0.5
RATIO = 1.25
# Probabilities, shares and coverage off by this are worth a word; a slope off by that.
OFF, SLOPE_OFF = 0.05, 0.2
SHARES_OFF = 0.1
BINS = 15
DRAWS = 200
# Guards that speak of any loss; the others compare a winner with the baseline.
DEGENERATE = ("largest predicted class", "constant share", "mean ratio")
NAMED_GROUPS = 3


@dataclass(frozen=True)
class Guard:
    """A number beside the score that a reader of the score should know.

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


def guards(
    result: Result, base: Result, diagnosis: Diagnosis, metric: Metric, texts: pd.DataFrame
) -> tuple[Guard, ...]:
    """Look at the out-of-fold predictions of a loss.

    Args:
        result: The loss.
        base: The baseline.
        diagnosis: The data; its target belongs to the predicted rows.
        metric: The metric.
        texts: Text columns of these rows, whose levels make groups.
    """
    found = [*_degenerate(result, diagnosis, metric), *_calibration(result, diagnosis, metric)]
    if result is not base:
        found += [*_worst_rows(result, base, diagnosis, metric)]
        found += [*_groups(result, base, diagnosis, metric, texts)]
    return tuple(found)


def cost(step: float, epochs: float, *, networks: bool = True) -> Guard:
    """How long a fit takes, in fits of the baseline."""
    ratio = step * epochs
    words = {"ratio": ratio, "step": step, "epochs": epochs} if networks else {"ratio": ratio}
    sentence = say("guard.cost" if networks else "guard.cost_fit", **words)
    return Guard("cost", ratio, False, sentence)


def memory(most: float, ratio: float) -> Guard:
    """How many bytes a step takes, and how many times those of the baseline."""
    sentence = say("guard.memory", size=most / 2**20, ratio=ratio)
    return Guard("memory", most, False, sentence)


def _degenerate(result: Result, diagnosis: Diagnosis, metric: Metric) -> list[Guard]:
    """Whether the predictions are nearly constant, or far too small or large in sum."""
    made: Any = result.predictions
    y = diagnosis.target
    if metric.needs == "label" or made.ndim == 2:
        shares = _shares(made if made.ndim == 1 else made.argmax(1), diagnosis)
        top = int(shares.argmax())
        share, truth = float(shares[top]), float((y == top).mean())
        sentence = say("guard.class", share=share, name=diagnosis.classes[top], truth=truth)
        return [Guard("largest predicted class", share, share > 0.99, sentence)]
    share = float(np.unique(np.round(made, 6), return_counts=True)[1].max() / len(made))
    found = [
        Guard("constant share", share, share > REPEATED, say("guard.constant", share=share)),
    ]
    sums = diagnosis.kind in AMOUNTS or metric.needs == "probability"
    if sums and y.min() >= 0:
        ratio = float(made.sum() / y.sum())
        key = "guard.sum" if diagnosis.kind in AMOUNTS else "guard.sum_probabilities"
        alarm = not 1 / RATIO <= ratio <= RATIO
        found.append(Guard("mean ratio", ratio, alarm, say(key, ratio=ratio)))
    return found


def _shares(labels: NDArray[Any], diagnosis: Diagnosis) -> NDArray[np.float64]:
    counts = np.bincount(labels.astype(int), minlength=len(diagnosis.classes))
    return counts / len(labels)


def _calibration(result: Result, diagnosis: Diagnosis, metric: Metric) -> list[Guard]:
    """Whether predictions mean what they say."""
    made: Any = result.predictions
    y = diagnosis.target
    if diagnosis.kind in AMOUNTS:
        return [_coverage(made, y, diagnosis, metric), *_slope(made, y, metric)]
    if metric.needs == "label":
        shares, truth = _shares(made, diagnosis), _shares(y, diagnosis)
        worst = int(np.abs(shares - truth).argmax())
        gap = float(shares[worst] - truth[worst])
        sentence = say(
            "guard.shares",
            name=diagnosis.classes[worst],
            share=float(shares[worst]),
            truth=float(truth[worst]),
        )
        return [Guard("class shares", gap, abs(gap) > SHARES_OFF, sentence)]
    if metric.needs == "score" and made.ndim == 1:
        return [Guard("calibration", float("nan"), False, say("guard.order", metric=metric.name))]
    sure = made if made.ndim == 1 else made.max(1)
    hit = (y if made.ndim == 1 else made.argmax(1) == y).astype(float)
    gap, chance = calibration_error(sure, hit), _chance(sure)
    sentence = say("guard.ece", gap=gap, chance=chance, bins=BINS)
    return [Guard("calibration", gap, gap > max(OFF, chance), sentence)]


def calibration_error(sure: NDArray[Any], hit: NDArray[Any]) -> float:
    """Expected calibration error: mean gap between probability and frequency in equal bins.

    Args:
        sure: Predicted probabilities, ``(rows,)``.
        hit: 1 where the predicted event came true, else 0, ``(rows,)``.

    Returns:
        The gap, between 0 and 1. Source: Guo, Pleiss, Sun and Weinberger 2017, On calibration of
        modern neural networks, arXiv 1706.04599.

    Example:
        >>> calibration_error(np.array([0.9, 0.9]), np.array([1.0, 0.0]))
        0.4
    """
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, sure - hit, BINS)
    return float(np.abs(gaps).sum() / len(sure))


def _chance(sure: NDArray[Any]) -> float:
    """What exact probabilities stay below in 95 of 100 samples of as many rows."""
    rng = np.random.default_rng(0)
    drawn = [calibration_error(sure, rng.random(len(sure)) < sure) for _ in range(DRAWS)]
    return float(np.quantile(drawn, 0.95))


def _coverage(made: NDArray[Any], y: NDArray[Any], diagnosis: Diagnosis, metric: Metric) -> Guard:
    """Share of the targets below their predictions; a quantile metric says how many it wants.

    A target that equals its prediction may count on either side; counts are compared with the
    nearest count.
    """
    near = np.round(made) if diagnosis.kind == "count" else made
    below = float((y < near).mean())
    if "mean" in metric.asks_for:
        sentence = say("guard.coverage_of_mean", below=below, metric=metric.name)
        return Guard("coverage", below, False, sentence)
    level = 0.5 if metric.quantile is None else metric.quantile
    low, high = below, float((y <= near).mean())
    below = float(np.clip(level, low, high))
    # as far as chance may carry it, in 99 of 100 samples
    margin = max(OFF, 2.58 * float(np.sqrt(level * (1 - level) / len(y))))
    sentence = say("guard.coverage", below=below, level=level, metric=metric.name)
    return Guard("coverage", below, abs(below - level) > margin, sentence)


def _slope(made: NDArray[Any], y: NDArray[Any], metric: Metric) -> list[Guard]:
    """Slope of the target on the prediction, which is 1 for exact means; robust interval."""
    x = made - made.mean()
    total = float((x**2).sum())
    if "mean" not in metric.asks_for or total < 1e-12 * max(1.0, float((made**2).sum())):
        return []
    slope = float((x * y).sum() / total)
    rest = y - y.mean() - slope * x
    margin = 1.96 * float(np.sqrt(((x * rest) ** 2).sum())) / total
    low, high = slope - margin, slope + margin
    alarm = abs(slope - 1) > SLOPE_OFF and not low <= 1 <= high
    sentence = say("guard.slope", slope=slope, low=low, high=high)
    return [Guard("slope", slope, alarm, sentence)]


def _worst_rows(result: Result, base: Result, diagnosis: Diagnosis, metric: Metric) -> list[Guard]:
    """The score of the worst tenth of the rows, each loss having its own."""
    stand_in, (mine, others) = judged_rows((result, base), diagnosis.target, metric)
    if stand_in is None or stand_in.greater_is_better:  # a row is right or wrong
        return []
    count = max(1, len(mine) // 10)
    score, reference = (
        stand_in.of_mean(float(np.sort(one)[-count:].mean())) for one in (mine, others)
    )
    ratio = score / reference if reference else float("nan")
    sentence = say("guard.decile", metric=stand_in.name, score=score, reference=reference)
    return [Guard("worst decile", ratio, ratio > 1.1, sentence)]


def _groups(
    result: Result, base: Result, diagnosis: Diagnosis, metric: Metric, texts: pd.DataFrame
) -> list[Guard]:
    """Where the loss is worse than the baseline."""
    unit, table = subgroups(result, base, diagnosis, metric, texts)
    if not table:
        return []
    worse = sorted((group for group in table if group.worse), key=lambda group: group.p)
    kinds = join(dict.fromkeys(group.kind for group in table), "gap.and")
    if not worse:
        sentence = say("guard.no_group", groups=len(table), kinds=kinds)
        return [Guard("subgroups", 0, False, sentence)]
    named = [
        say(
            "guard.group",
            column=group.column,
            group=group.name,
            metric=unit,
            score=group.score,
            reference=group.reference,
            rows=group.rows,
        )
        for group in worse[:NAMED_GROUPS]
    ]
    if len(worse) > NAMED_GROUPS:
        named.append(say("guard.more", count=len(worse) - NAMED_GROUPS))
    words = {"groups": len(table), "kinds": kinds, "named": join(named, "gap.clause")}
    sentence = say("guard.groups", worse=len(worse), **words)
    return [Guard("subgroups", len(worse), True, sentence)]
