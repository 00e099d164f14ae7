"""Where a loss is better and where it is worse than the baseline: the rows in groups."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from lossmith.choose.diagnosis import Diagnosis
from lossmith.choose.messages import say
from lossmith.choose.metric import CLASSES, METRICS, Metric
from lossmith.choose.outcome import Result
from lossmith.choose.statistics import holm

# Means of fewer rows say little.
FEWEST_ROWS = 20
MOST_PARTS = 10
SIGNIFICANT = 0.05
# Metrics that are no mean over rows, and the one that is nearest to each.
STAND_INS = {"r2": "mse", "f1": "accuracy", "balanced_accuracy": "accuracy"}


def judged_rows(
    results: Sequence[Result], target: NDArray[Any], metric: Metric
) -> tuple[Metric | None, list[NDArray[np.float64]]]:
    """What the metric says of each row, mean over the repeats.

    Args:
        results: Losses that have predictions.
        target: The target of the predicted rows.
        metric: The metric.

    Returns:
        The metric, or the one that stands in where the metric is no mean over rows, and one array
        ``(rows,)`` for each result; None and empty arrays if the rows cannot be judged one by one.
    """
    one = METRICS.get(STAND_INS.get(metric.name, ""), metric)
    if one.rowwise is None:
        return None, [np.zeros(0) for _ in results]
    made: list[Any] = [result.repeats for result in results]
    # a loss that left the race has fewer repeats
    common = min(len(repeats) for repeats in made)
    rows = one.rowwise
    return one, [np.mean([rows(target, r) for r in repeats[:common]], 0) for repeats in made]


@dataclass(frozen=True)
class Group:
    """A loss and the baseline in some rows.

    Attributes:
        column: Name of the column that makes the group.
        name: Its level, class or range.
        kind: What kind of group it is, in words.
        rows: Number of rows.
        score: Score of the loss.
        reference: Score of the baseline.
        gain: Advantage of the loss.
        p: p-value of the difference, adjusted for the number of groups.
        worse: Whether the loss is worse here, beyond chance and practical equivalence.
    """

    column: str
    name: str
    kind: str
    rows: int
    score: float
    reference: float
    gain: float
    p: float
    worse: bool


def subgroups(
    result: Result, base: Result, diagnosis: Diagnosis, metric: Metric, texts: pd.DataFrame
) -> tuple[str, list[Group]]:
    """Compare a loss with the baseline inside each group of rows.

    Groups are the levels of the text columns, and the classes or up to ten parts of the target,
    of at least 20 rows. The p-values are those of paired t-tests over the rows' mean scores,
    adjusted by Holm for the number of groups; rows of a fold share their networks, so these
    values are a warning and no proof.

    Args:
        result: The loss.
        base: The baseline.
        diagnosis: The data; its target belongs to the predicted rows.
        metric: The metric.
        texts: Text columns of these rows.

    Returns:
        Name of the metric that the scores are in, and the groups; none if the metric cannot judge
        rows one by one.
    """
    one, (mine, others) = judged_rows((result, base), diagnosis.target, metric)
    if one is None:
        return "", []
    found: list[Group] = []
    for column, name, kind, rows in (*_parts(diagnosis), *_levels(texts)):
        score, reference = (one.of_mean(float(part[rows].mean())) for part in (mine, others))
        gap = one.advantage(mine[rows], others[rows])
        error = float(gap.std(ddof=1)) / np.sqrt(len(gap))
        p = 2 * float(stats.t.sf(abs(gap.mean()) / error, len(gap) - 1)) if error else 1.0
        gain = float(one.advantage(score, reference))
        worse = gain < -one.rope(reference)
        found.append(Group(column, name, kind, len(gap), score, reference, gain, p, worse))
    adjusted = holm([group.p for group in found])
    return one.name, [
        replace(group, p=p, worse=group.worse and p < SIGNIFICANT)
        for group, p in zip(found, adjusted, strict=True)
    ]


def _parts(diagnosis: Diagnosis) -> list[tuple[str, str, str, NDArray[np.bool_]]]:
    """Classes of the target, or parts with as many rows each."""
    y, name = diagnosis.target, diagnosis.target_name
    if diagnosis.kind in CLASSES:
        masks = [(y == code, diagnosis.classes[code]) for code in range(len(diagnosis.classes))]
        kind = say("guard.classes")
        return [(name, group, kind, m) for m, group in masks if m.sum() >= FEWEST_ROWS]
    count = min(MOST_PARTS, len(y) // FEWEST_ROWS)
    edges = np.unique(np.quantile(y, np.linspace(0, 1, count + 1)))
    if len(edges) < 3:
        return []
    place = np.clip(np.searchsorted(edges, y, side="right") - 1, 0, len(edges) - 2)
    found: list[tuple[str, str, str, NDArray[np.bool_]]] = []
    for part in range(len(edges) - 1):
        rows = place == part
        if rows.sum() >= FEWEST_ROWS:
            span = say("guard.range", low=float(y[rows].min()), high=float(y[rows].max()))
            found.append((name, span, say("guard.tenths"), rows))
    return found


def _levels(texts: pd.DataFrame) -> list[tuple[str, str, str, NDArray[np.bool_]]]:
    kind = say("guard.levels")
    return [
        (str(column)[:40], str(level)[:40], kind, (texts[column] == level).to_numpy())
        for column in texts
        for level, rows in texts[column].value_counts().items()
        if FEWEST_ROWS <= rows < len(texts)
    ]
