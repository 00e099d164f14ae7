"""The user's metric: resolved through scikit-learn, with its direction and what it needs."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlogy
from sklearn import metrics

from lossmith.choose.errors import DataError
from lossmith.choose.messages import say

Kind = Literal["continuous", "count", "binary", "multiclass"]
Needs = Literal["value", "label", "score", "probability"]
Array = NDArray[Any]
AMOUNTS: tuple[Kind, ...] = ("continuous", "count")
CLASSES: tuple[Kind, ...] = ("binary", "multiclass")
# A deviance needs positive predictions; losses without a log link may predict below this.
SMALLEST_RATE = 1e-3


@dataclass(frozen=True)
class Metric:
    """How predictions are judged.

    Attributes:
        name: As the user wrote it.
        greater_is_better: Direction.
        needs: What a prediction must be: a value, a class label, a score or probabilities.
        kinds: The target kinds it fits.
        asks_for: Which property of the target's distribution has the best expected score, in the
            words of the cards' ``elicits``; empty if none of them does.
        bounded: On a scale from 0 to 1, such as accuracy; one percent then means 0.01.
        note: What the user should know about it.
        function: ``function(target, prediction) -> float``.
        quantile: The level of a pinball metric.
        rowwise: ``rowwise(target, prediction) -> (rows,)``, whose mean makes the score, in a
            fraction of the time that ``function`` takes; None if the score is no mean over rows.
        of_mean: How that mean becomes the score.
    """

    name: str
    greater_is_better: bool
    needs: Needs
    kinds: tuple[Kind, ...]
    asks_for: tuple[str, ...]
    function: Callable[[Array, Array], float]
    bounded: bool = False
    note: str = ""
    quantile: float | None = None
    rowwise: Callable[[Array, Array], Array] | None = None
    of_mean: Callable[[float], float] = float

    def __call__(self, target: Array, prediction: Array) -> float:
        """The score; NaN where the metric is undefined (one class only, say)."""
        if not np.isfinite(prediction).all():
            return math.nan
        with warnings.catch_warnings():
            # an undefined score comes back as NaN, which the caller reports
            warnings.simplefilter("ignore")
            if self.rowwise is not None:
                return self.of_mean(float(self.rowwise(target, prediction).mean()))
            return float(self.function(target, prediction))

    def advantage(self, score: Any, reference: Any) -> Any:
        """By how much ``score`` is better than ``reference``; positive is better."""
        return score - reference if self.greater_is_better else reference - score

    def rope(self, baseline: float) -> float:
        """Half-width of practical equivalence: 0.01 if bounded, else 1 % of the baseline."""
        return 0.01 if self.bounded else 0.01 * abs(baseline)

    @property
    def direction(self) -> str:
        """In words."""
        return say("metric.higher" if self.greater_is_better else "metric.lower")


def _poisson_deviance(target: Array, prediction: Array) -> float:
    return float(metrics.mean_poisson_deviance(target, np.maximum(prediction, SMALLEST_RATE)))


def _absolute(target: Array, prediction: Array) -> Array:
    return np.abs(target - prediction)


def _square(target: Array, prediction: Array) -> Array:
    return (target - prediction) ** 2


def _pinball(target: Array, prediction: Array, alpha: float) -> Array:
    return np.maximum(alpha * (target - prediction), (alpha - 1) * (target - prediction))


def _poisson_rows(target: Array, prediction: Array) -> Array:
    made = np.maximum(prediction, SMALLEST_RATE)
    return 2 * (xlogy(target, target / made) - target + made)


def _hit(target: Array, prediction: Array) -> Array:
    return (target == prediction).astype(float)


def _surprise(target: Array, prediction: Array) -> Array:
    if prediction.ndim == 1:
        told = np.where(target == 1, prediction, 1 - prediction)
    else:
        told = prediction[np.arange(len(target)), target]
    return -np.log(np.clip(told, np.finfo(float).eps, 1.0))


def _log_loss(target: Array, prediction: Array) -> float:
    classes = 2 if prediction.ndim == 1 else prediction.shape[1]
    return float(metrics.log_loss(target, prediction, labels=np.arange(classes)))


def _auc(target: Array, score: Array) -> float:
    if score.ndim == 1:
        return float(metrics.roc_auc_score(target, score))
    labels = np.arange(score.shape[1])
    return float(metrics.roc_auc_score(target, score, multi_class="ovr", labels=labels))


def _less(name: str, ask: tuple[str, ...], function: Callable[..., Any], **more: Any) -> Metric:
    return Metric(name, False, "value", AMOUNTS, ask, function, **more)


def _share(name: str, ask: tuple[str, ...], needs: Needs, function: Any, **more: Any) -> Metric:
    return Metric(name, True, needs, CLASSES, ask, function, bounded=True, **more)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        _less("mae", ("median",), metrics.mean_absolute_error, rowwise=_absolute),
        _less(
            "rmse",
            ("mean",),
            metrics.root_mean_squared_error,
            rowwise=_square,
            of_mean=math.sqrt,
        ),
        _less("mse", ("mean",), metrics.mean_squared_error, rowwise=_square),
        Metric("r2", True, "value", AMOUNTS, ("mean",), metrics.r2_score, bounded=True),
        _less(
            "poisson_deviance",
            ("mean",),
            _poisson_deviance,
            rowwise=_poisson_rows,
            note=f"predictions below {SMALLEST_RATE} count as {SMALLEST_RATE}",
        ),
        _share("accuracy", ("mode", "distribution"), "label", metrics.accuracy_score, rowwise=_hit),
        _share("balanced_accuracy", (), "label", metrics.balanced_accuracy_score),
        _share(
            "f1",
            (),
            "label",
            partial(cast(Any, metrics.f1_score), average="macro", zero_division=0.0),
            note="mean of the F1 scores of the classes (macro)",
        ),
        _share(
            "auc",
            ("distribution",),
            "score",
            _auc,
            note="one class against the rest if there are several",
        ),
        Metric(
            "log_loss",
            False,
            "probability",
            CLASSES,
            ("distribution",),
            _log_loss,
            rowwise=_surprise,
        ),
    )
}

DEFAULTS: dict[Kind, str] = {
    "continuous": "rmse",
    "count": "poisson_deviance",
    "binary": "log_loss",
    "multiclass": "accuracy",
}


def resolve(name: str) -> Metric:
    """The metric of a name such as ``"mae"`` or ``"pinball:0.9"``.

    Raises:
        DataError: If there is no such metric, or the level of a pinball metric is not in (0, 1).

    Example:
        >>> resolve("mae").direction
        'lower is better'
        >>> resolve("pinball:0.9").quantile
        0.9
    """
    if not isinstance(name, str):
        raise DataError(f"metric must be a name, got {name!r}")
    word, _, level = name.partition(":")
    if word == "pinball":
        try:
            quantile = float(level)
        except ValueError:
            quantile = math.nan
        if not 0 < quantile < 1:
            raise DataError(f"metric must be pinball:Q with Q in (0, 1), got {name!r}")
        loss = partial(metrics.mean_pinball_loss, alpha=quantile)
        asks = ("median", "quantile") if quantile == 0.5 else ("quantile",)
        rows = partial(_pinball, alpha=quantile)
        return _less(name, asks, loss, quantile=quantile, rowwise=rows)
    if name not in METRICS:
        known = ", ".join([*METRICS, "pinball:Q"])
        raise DataError(f"metric must be one of {known}, got {name!r}")
    return METRICS[name]
