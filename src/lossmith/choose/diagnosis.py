"""What the data say before any model is trained: each finding is a number and a sentence."""

from dataclasses import dataclass
from typing import Any, cast, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from lossmith.choose.data import Table
from lossmith.choose.errors import DataError
from lossmith.choose.messages import say
from lossmith.choose.metric import AMOUNTS, CLASSES, Kind, Metric
from lossmith.core.catalogue import cards

# A numeric target with this few different whole numbers, each seen this often, is read as classes.
MOST_CLASSES = 10
FEWEST_PER_CLASS = 10
TASKS = {
    "continuous": ("regression", "count"),
    "count": ("regression", "count"),
    "binary": ("binary",),
    "multiclass": ("multiclass",),
}


@dataclass(frozen=True)
class Finding:
    """One observation about the data.

    Attributes:
        code: Stable word for programs.
        value: The number behind the sentence.
        sentence: What a colleague would say.
        speaks_for: Losses of the catalogue that the finding favours.
        speaks_against: Losses that it disfavours.
    """

    code: str
    value: float
    sentence: str
    speaks_for: tuple[str, ...] = ()
    speaks_against: tuple[str, ...] = ()


@dataclass(frozen=True)
class Diagnosis:
    """The target's kind and the findings.

    Attributes:
        name: Where the data come from.
        target_name: Name of the target column.
        rows: Number of rows.
        columns: Number of feature columns.
        kind: ``"continuous"``, ``"count"``, ``"binary"`` or ``"multiclass"``.
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
            kind=say(f"kind.{self.kind}"),
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
        findings = _class_findings(target, classes)
    else:
        target = table.target.to_numpy(dtype=float, copy=True)
        findings = _amount_findings(target, found) + _spread_findings(table, target)
    return Diagnosis(
        name=table.name,
        target_name=table.target_name,
        rows=len(target),
        columns=table.features.shape[1],
        kind=found,
        reason=reason,
        classes=classes,
        target=target,
        findings=tuple(_missing(table) + findings),
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
    kinds = get_args(Kind)
    if kind not in kinds:
        raise DataError(f"task must be one of {', '.join(kinds)}, got {kind!r}")
    if kind in AMOUNTS and not pd.api.types.is_numeric_dtype(target):
        raise DataError(f"target must be numeric for the task {kind}, got {target.iloc[0]!r}")
    if kind == "binary" and target.nunique() != 2:
        raise DataError(f"target must have 2 values for the task binary, got {target.nunique()}")
    return cast(Kind, kind), say("kind.requested")


def _class_name(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _missing(table: Table) -> list[Finding]:
    notes = [Finding("column_left_out", 1, note) for note in table.notes]
    gaps = int(table.features.isna().to_numpy().sum())
    if not gaps:
        return notes
    sentence = say("find.missing", gaps=gaps, share=gaps / table.features.size)
    return [*notes, Finding("missing_values", gaps, sentence)]


def _losses(kind: Kind, **claims: Any) -> tuple[str, ...]:
    """Names of the losses for this kind of target whose cards make all the claims."""
    return tuple(
        name
        for name, card in cards().items()
        if set(card.tasks) & set(TASKS[kind])
        and card.tensors == ("input", "target")
        and all(getattr(card, claim) == value for claim, value in claims.items())
    )


def _amount_findings(y: NDArray[Any], kind: Kind) -> list[Finding]:
    found: list[Finding] = []
    zeros = float((y == 0).mean())
    if zeros > 0.1 and y.min() >= 0:
        sentence = say("find.zeros", share=zeros)
        found.append(Finding("zeros", zeros, sentence, _losses(kind, link="log")))
    skew = float(stats.skew(y))
    if skew > 1 and y.min() >= 0:
        sentence = say("find.skew_long", skew=skew)
        found.append(Finding("skew", skew, sentence, _losses(kind, link="log")))
    else:
        key = "find.skew_none" if abs(skew) <= 1 else "find.skew_tail"
        found.append(Finding("skew", skew, say(key, skew=skew)))
    low, high = np.quantile(y, [0.25, 0.75])
    reach = 1.5 * (high - low)
    outside = float(((y < low - reach) | (y > high + reach)).mean())
    if outside > 0.02:
        found.append(
            Finding(
                "outliers",
                outside,
                say("find.outliers", outside=outside),
                _losses(kind, robust=True),
                _losses(kind, robust=False, link="identity", elicits="mean"),
            )
        )
    else:
        found.append(Finding("outliers", outside, say("find.no_outliers", outside=outside)))
    if kind == "count":
        found.append(_dispersion(y, kind))
    return found


def _dispersion(y: NDArray[Any], kind: Kind) -> Finding:
    ratio = float(y.var(ddof=1) / y.mean())
    key = "find.overdispersed" if ratio > 1.5 else "find.dispersed"
    return Finding("dispersion", ratio, say(key, ratio=ratio), _losses(kind, link="log"))


def _spread_findings(table: Table, y: NDArray[Any]) -> list[Finding]:
    """Breusch-Pagan test in Koenker's studentised form, on the numeric features.

    Sources: Breusch and Pagan 1979, doi:10.2307/1911963; Koenker 1981, A note on studentizing a
    test for heteroscedasticity, Journal of Econometrics, 107-112.
    """
    numeric = table.features[table.numeric]
    numeric = numeric.fillna(numeric.median())
    rows, columns = numeric.shape
    if columns == 0 or rows < 2 * (columns + 1):
        return []
    spread = numeric.std().replace(0.0, 1.0)
    design = np.column_stack([np.ones(rows), ((numeric - numeric.mean()) / spread).to_numpy()])
    squares = _residuals(design, y) ** 2
    total = float(((squares - squares.mean()) ** 2).sum())
    freedom = int(np.linalg.matrix_rank(design)) - 1
    if total == 0 or freedom == 0:
        return []
    explained = max(0.0, 1 - float((_residuals(design, squares) ** 2).sum()) / total)
    p = float(stats.chi2.sf(rows * explained, freedom))
    if p < 0.01:
        favoured = tuple(
            name for name, card in cards().items() if (card.elicits or "").startswith("quantile")
        )
        return [Finding("uneven_spread", p, say("find.uneven", p=p), favoured)]
    return [Finding("uneven_spread", p, say("find.even", p=p))]


def _residuals(design: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    return y - design @ np.linalg.lstsq(design, y, rcond=None)[0]


def _class_findings(y: NDArray[Any], classes: tuple[str, ...]) -> list[Finding]:
    counts = np.bincount(y, minlength=len(classes))
    shown = ", ".join(f"{name}: {count}" for name, count in zip(classes, counts, strict=True))
    if len(classes) > 12:
        shown = say("find.class_range", low=int(counts.min()), high=int(counts.max()))
    ratio = float(counts.max() / counts.min())
    key = (
        "find.imbalanced" if ratio >= 3 else "find.balanced" if counts.min() > 1 else "find.single"
    )
    return [
        Finding("classes", len(classes), say("find.classes", count=len(classes), shown=shown)),
        Finding("imbalance", ratio, say(key, ratio=ratio)),
    ]
