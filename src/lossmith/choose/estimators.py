"""Contestants that are estimators of scikit-learn: fitted one by one, judged like networks."""

import re
import traceback
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.base import clone

from lossmith.choose.errors import DataError
from lossmith.choose.folds import Cell
from lossmith.choose.ledger import pack
from lossmith.choose.metric import AMOUNTS, Metric
from lossmith.choose.posthoc import rival
from lossmith.choose.shortlist import Candidate, Shortlist

# name of a contestant -> estimator, or a function without arguments that makes one
Estimators = Mapping[str, Any]
Array = NDArray[Any]
SMALLEST = 1e-12


def enter(estimators: Estimators) -> Shortlist:
    """The contestants, the first one being the baseline.

    Raises:
        DataError: If there are none, a name is no text, or a factory makes no estimator.
    """
    if not estimators:
        raise DataError("model must name at least one estimator, got none")
    entries: list[Candidate] = []
    for name, one in estimators.items():
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"model must have names of contestants as keys, got {name!r}")
        kind = type(make(one, name)).__name__
        entries.append(Candidate(name, _no_function, {}, "raw", "identity", 0, reasons=(kind,)))
    return Shortlist(tuple(entries), ())


def _no_function(*tensors: Any, **options: Any) -> Any:
    raise TypeError("an estimator has a loss of its own, which cannot be called")


def make(one: Any, name: str, seed: int | None = None) -> Any:
    """A fresh estimator; those of its parameters that ask for a seed and have none get one."""
    ready = hasattr(one, "fit") and not isinstance(one, type)
    made: Any = clone(one) if ready else one() if callable(one) else one
    if not hasattr(made, "fit") or not hasattr(made, "predict"):
        got = type(made).__name__
        raise DataError(f"model must give an estimator with fit and predict for {name}, got {got}")
    if seed is not None and hasattr(made, "get_params"):
        params: dict[str, Any] = made.get_params(deep=True)
        open_ = [key for key in params if key.split("__")[-1] == "random_state"]
        made.set_params(**{key: seed % 2**31 for key in open_ if params[key] is None})
    return made


def describe_estimators(estimators: Estimators) -> str:
    """Words that tell two sets of estimators apart, for the plan."""
    return "; ".join(f"{name}: {_words(make(one, name))}" for name, one in estimators.items())


def _words(made: Any) -> str:
    params = made.get_params(deep=True) if hasattr(made, "get_params") else made
    text = f"{type(made).__module__}.{type(made).__qualname__} {params!r}"
    return re.sub(r" at 0x[0-9a-f]+", "", text)  # where an object lies in memory says nothing


def fit_cell(
    one: Any, name: str, x: Array, y: Array, cell: Cell, metric: Metric, *, base: bool
) -> dict[str, Any]:
    """The result of one estimator in one cell; what fails is a result as well.

    It is fitted to the rows that a network is trained on. A correction of the baseline is fitted
    to the rows held out, which an estimator has no other use for.

    Args:
        one: The estimator, or what makes it.
        name: Of the contestant.
        x: Features ``(rows, width)``.
        y: Target ``(rows,)`` as the metric sees it.
        cell: The cell.
        metric: The metric.
        base: Whether this is the baseline.
    """
    try:
        # as the user would call it, not with the checks of his own parameters turned off
        with config_context(assume_finite=False, skip_parameter_validation=False):
            made = make(one, name, cell.seed).fit(x[cell.fit], y[cell.fit])
            best = predicted(made, x, metric)
            seen = best if metric.kinds == AMOUNTS else logits(made, x, metric)
    except (MemoryError, OSError, DataError):  # the machine's trouble, or no estimator at all
        raise
    except Exception as error:
        return {"failure": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
    score = metric(y[cell.test], best[cell.test])
    if np.isnan(score):
        return {"failure": f"{metric.name} of its predictions is undefined"}
    rivals: dict[str, Any] = {}
    if base and seen is not None:
        tells = hasattr(made, "predict_proba")
        if (found := rival(seen, y, cell.hold, metric, logits=tells)) is not None:
            kind, moved = found
            test = moved[cell.test]
            rivals[kind] = {"score": metric(y[cell.test], test), "test": pack(test)}
    return {
        "failure": "",
        "score": score,
        "last": score,
        "hold": metric(y[cell.hold], best[cell.hold]),
        "best_epoch": 1,
        "epochs": [1],
        "losses": [float("nan")],
        "trained": [metric(y[cell.fit], best[cell.fit])] if cell.repeat == 0 else [],
        "held": [metric(y[cell.hold], best[cell.hold])],
        "test": pack(best[cell.test]),
        "rivals": rivals,
    }


def predicted(made: Any, x: Array, metric: Metric) -> Array:
    """What the metric wants of a fitted estimator: amounts, labels, scores or probabilities."""
    if metric.needs == "value":
        return _shaped(made.predict(x), x, np.float64)
    if metric.needs == "label":
        return _shaped(made.predict(x), x, np.int64)
    if metric.needs == "score" and not hasattr(made, "predict_proba"):
        return np.asarray(made.decision_function(x), dtype=np.float64)
    rows = np.asarray(made.predict_proba(x), dtype=np.float64)
    return rows[:, 1] if rows.shape[1] == 2 else rows


def logits(made: Any, x: Array, metric: Metric) -> Array | None:
    """Logits or margins for a correction after training; None if there are none that serve."""
    if hasattr(made, "predict_proba"):
        rows = np.log(np.maximum(np.asarray(made.predict_proba(x), np.float64), SMALLEST))
        return rows[:, 1] - rows[:, 0] if rows.shape[1] == 2 else rows
    found = np.asarray(made.decision_function(x)) if hasattr(made, "decision_function") else None
    return found if found is not None and found.ndim == 1 and metric.needs == "label" else None


def _shaped(values: Any, x: Array, dtype: type) -> Array:
    found = np.asarray(values)
    if found.shape != (len(x),):
        raise ValueError(f"predict must give {len(x)} numbers, got shape {found.shape}")
    return found.astype(dtype)
