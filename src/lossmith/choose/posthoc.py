"""Corrections after training: what the baseline gains without any other loss.

Each is fitted on the held-out rows of the training fold and costs no training.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_softmax, softmax

from lossmith.choose.metric import AMOUNTS, Metric

Rows = NDArray[np.int64]
TEMPERATURES = np.exp(np.linspace(-1.5, 2.5, 81))
PRIOR = np.log(TEMPERATURES) ** 2 / 2
STRENGTHS = np.linspace(0.0, 2.0, 21)
MOST_THRESHOLDS = 100


def rival(
    seen: NDArray[Any], target: NDArray[Any], hold: Rows, metric: Metric, *, logits: bool
) -> tuple[str, NDArray[Any]] | None:
    """The correction that fits the metric: its name and the corrected predictions of all rows.

    Args:
        seen: Predicted amounts ``(rows,)``; of classes logits, or margins, ``(rows,)`` or
            ``(rows, outputs)``.
        target: The target as the metric sees it.
        hold: The held-out rows.
        metric: The metric.
        logits: Whether these are logits, of which probabilities can be made.

    Returns:
        None where no correction can change the score.
    """
    if metric.kinds == AMOUNTS:
        return _amounts(seen, target, hold, metric)
    if metric.needs == "score":
        return None
    if metric.needs == "probability":
        return ("temperature", _tempered(seen, target, hold)) if logits else None
    if seen.ndim == 1:
        return "threshold", _threshold(seen, target, hold, metric)
    return ("logit adjustment", _adjusted(seen, target, hold, metric)) if logits else None


def _amounts(
    made: NDArray[Any], target: NDArray[Any], hold: Rows, metric: Metric
) -> tuple[str, NDArray[Any]]:
    if metric.name == "poisson_deviance":
        return "factor", made * (target[hold].sum() / max(made[hold].sum(), 1e-12))
    gaps = target[hold] - made[hold]
    level = 0.5 if metric.asks_for[0] == "median" else metric.quantile
    shift = gaps.mean() if level is None else np.quantile(gaps, level)
    return "shift", made + shift


def _tempered(seen: NDArray[Any], target: NDArray[Any], hold: Rows) -> NDArray[Any]:
    """Divide the logits by the temperature that gives the held-out rows the best log loss.

    A normal prior of width 1 on the log temperature keeps few held-out rows, all on their right
    side, from claiming certainty. Source: Guo, Pleiss, Sun and Weinberger 2017, On calibration
    of modern neural networks, arXiv 1706.04599.
    """
    seen = seen.astype(np.float64)
    if seen.ndim == 1:
        sign = 1 - 2 * target[hold]
        costs = [np.logaddexp(0, sign * seen[hold] / t).sum() for t in TEMPERATURES]
        return expit(seen / TEMPERATURES[int(np.argmin(costs + PRIOR))])
    rows = np.arange(len(hold))
    costs = [-log_softmax(seen[hold] / t, axis=1)[rows, target[hold]].sum() for t in TEMPERATURES]
    made = softmax(seen / TEMPERATURES[int(np.argmin(costs + PRIOR))], axis=1)
    return made[:, 1] if made.shape[1] == 2 else made


def _threshold(
    seen: NDArray[Any], target: NDArray[Any], hold: Rows, metric: Metric
) -> NDArray[Any]:
    """Move the threshold to where the held-out rows score best."""
    levels = np.unique(seen[hold])
    if len(levels) > MOST_THRESHOLDS:
        levels = np.quantile(levels, np.linspace(0, 1, MOST_THRESHOLDS))
    between = [levels[0] - 1, *(levels[1:] + levels[:-1]) / 2]
    scores = [metric(target[hold], (seen[hold] > one).astype(np.int64)) for one in between]
    gains = np.array([metric.advantage(score, 0.0) for score in scores])
    best = np.flatnonzero(gains == gains.max())
    return (seen > between[int(best[len(best) // 2])]).astype(np.int64)


def _adjusted(seen: NDArray[Any], target: NDArray[Any], hold: Rows, metric: Metric) -> NDArray[Any]:
    """Take a multiple of the log class shares off the logits.

    Source: Menon, Jayasumana, Rawat, Jain, Veit and Kumar 2021, Long-tail learning via logit
    adjustment, arXiv 2007.07314.
    """
    shares = (np.bincount(target[hold], minlength=seen.shape[1]) + 1.0) / (
        len(hold) + seen.shape[1]
    )
    made = [(seen - one * np.log(shares)).argmax(1) for one in STRENGTHS]
    gains = [metric.advantage(metric(target[hold], one[hold]), 0.0) for one in made]
    return made[int(np.argmax(gains))]
