"""What the data say before any model is trained: each finding is a number and a sentence."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lossmith.choose.data import Table
from lossmith.choose.errors import DataError
from lossmith.choose.findings import Finding, amount_findings, spread_findings
from lossmith.choose.hints import hints
from lossmith.choose.labels import (
    class_findings,
    multilabel_findings,
    noise_findings,
    order_findings,
)
from lossmith.choose.messages import join, say
from lossmith.choose.metric import AMOUNTS, CLASSES, Kind, Metric

# A numeric target with this few different whole numbers, each seen this often, is read as classes.
MOST_CLASSES = 10
FEWEST_PER_CLASS = 10
# What a caller may say of the target, and the kind that it is then trained as.
READINGS: dict[str, Kind] = {
    "continuous": "continuous",
    "positive": "continuous",
    "proportion": "continuous",
    "count": "count",
    "binary": "binary",
    "multiclass": "multiclass",
    "ordinal": "multiclass",
    "multilabel": "multiclass",
}


@dataclass(frozen=True)
class Diagnosis:
    """The target's kind and the findings.

    Attributes:
        name: Where the data come from.
        target_name: Name of the target column.
        rows: Number of rows.
        columns: Number of feature columns.
        kind: ``"continuous"``, ``"count"``, ``"binary"`` or ``"multiclass"``.
        reading: The same in finer words: ``"positive"`` or ``"proportion"`` for continuous
            targets, ``"ordinal"`` or ``"multilabel"`` for classes; else the kind.
        reason: Why the target is read as that kind.
        classes: Names of the classes in the order of their index; empty for amounts.
        target: Amounts as float64, classes as their index; ``(rows,)``.
        findings: What was seen.
    """

    name: str
    target_name: str
    rows: int
    columns: int
    kind: Kind
    reading: str
    reason: str
    classes: tuple[str, ...]
    target: NDArray[Any]
    findings: tuple[Finding, ...]

    @property
    def table(self) -> pd.DataFrame:
        """The findings, one in each row."""
        return pd.DataFrame(
            [
                {
                    "finding": found.code,
                    "value": found.value,
                    "meaning": found.sentence,
                    "speaks_for": ", ".join(found.speaks_for),
                    "speaks_against": ", ".join(found.speaks_against),
                }
                for found in self.findings
            ]
        )

    @property
    def verdict(self) -> str:
        """The kind of problem in one sentence."""
        return say(
            "data.verdict",
            rows=self.rows,
            columns=self.columns,
            target=self.target_name,
            kind=join(
                [say(f"kind.{one}") for one in dict.fromkeys((self.kind, self.reading))], "gap.list"
            ),
            reason=self.reason,
        )


def examine(table: Table, metric: Metric | None = None, kind: str | None = None) -> Diagnosis:
    """Read the target's kind off the data (or take it from the caller) and collect findings.

    Raises:
        DataError: If the metric or the given kind does not fit the target.
    """
    found, reason = _kind(table.target, metric) if kind is None else _given(table.target, kind)
    if metric is not None and found not in metric.kinds:
        fitting = ", ".join(metric.kinds)
        raise DataError(
            f"metric must fit the {found} target {table.target_name!r}, got {metric.name!r}, "
            f"which is for {fitting} targets"
        )
    classes: tuple[str, ...] = ()
    if found in CLASSES:
        words = sorted(table.target.unique())
        classes = tuple(_class_name(word) for word in words)
        target = np.searchsorted(np.asarray(words), table.target.to_numpy()).astype(np.int64)
        findings = class_findings(target, classes)
        findings += order_findings(table.target, told=kind == "ordinal") * (found != "binary")
        findings += multilabel_findings(table.target) + noise_findings(table, target, found)
    else:
        target = table.target.to_numpy(dtype=float, copy=True)
        findings = amount_findings(target, found) + spread_findings(table, target)
    seen = {one.code for one in findings} - {"ordinal"}  # an order is a guess
    finer = [name for name, one in READINGS.items() if one == found and name in seen]
    reading = kind or (finer[0] if finer else found)
    if kind is not None:  # the caller knows better than the finer guesses
        others = set(READINGS) - {kind}
        findings = [one for one in findings if one.code not in others]
    return Diagnosis(
        name=table.name,
        target_name=table.target_name,
        rows=len(target),
        columns=table.features.shape[1],
        kind=found,
        reading=reading,
        reason=reason,
        classes=classes,
        target=target,
        findings=tuple(hints(table) + findings),
    )


def _kind(target: pd.Series, metric: Metric | None) -> tuple[Kind, str]:
    distinct = target.nunique()
    if not pd.api.types.is_numeric_dtype(target):
        return ("binary" if distinct == 2 else "multiclass"), say("kind.texts", distinct=distinct)
    values = target.to_numpy(dtype=float)
    whole = bool((values == np.round(values)).all())
    wants_amounts = metric is not None and metric.kinds == AMOUNTS
    wants_classes = metric is not None and metric.kinds == CLASSES
    if distinct == 2 and not wants_amounts:
        return "binary", say("kind.two")
    few = distinct <= MOST_CLASSES and len(values) >= FEWEST_PER_CLASS * distinct
    if whole and not wants_amounts and (few or (wants_classes and distinct <= len(values) / 10)):
        return "multiclass", say("kind.whole", distinct=distinct, rows=len(values))
    low, high = float(values.min()), float(values.max())
    if whole and low in (0.0, 1.0):
        return "count", say("kind.counted", low=low, high=high)
    return "continuous", say("kind.numbers", distinct=distinct, low=low, high=high)


def _given(target: pd.Series, kind: str) -> tuple[Kind, str]:
    if kind not in READINGS:
        raise DataError(f"task must be one of {', '.join(READINGS)}, got {kind!r}")
    if READINGS[kind] in AMOUNTS and not pd.api.types.is_numeric_dtype(target):
        raise DataError(f"target must be numeric for the task {kind}, got {target.iloc[0]!r}")
    if kind == "binary" and target.nunique() != 2:
        raise DataError(f"target must have 2 values for the task binary, got {target.nunique()}")
    if kind == "count":
        wrong = target[(target < 0) | (target != target.round())]
        if len(wrong):
            rule = "hold whole numbers from 0 up for the task count"
            raise DataError(f"target must {rule}, got {wrong.iloc[0]:g}")
    if kind == "positive" and target.min() <= 0:
        raise DataError(f"target must be above 0 for the task positive, got {target.min():g}")
    if kind == "proportion" and not target.between(0, 1).all():
        wrong = target[~target.between(0, 1)].iloc[0]
        raise DataError(f"target must be in [0, 1] for the task proportion, got {wrong:g}")
    return READINGS[kind], say("kind.requested")


def _class_name(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
