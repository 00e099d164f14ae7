"""The winner's curse: what the chosen loss will score on new rows, without further training."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lossmith.choose.metric import Metric

Floats = NDArray[np.float64]
BOOTSTRAPS = 200
# Metrics that are no mean over rows are computed anew for each bootstrap, which takes time.
SLOW_BOOTSTRAPS = 50


def expected(
    candidates: Sequence[NDArray[Any]], target: NDArray[Any], metric: Metric, seed: int = 0
) -> float:
    """Expected score of the best of several candidates on new rows.

    The best of many scores is too good, because it was chosen for it. Here the choice is repeated
    on bootstrap samples of the rows, and each chosen candidate is scored on the rows left out.

    Args:
        candidates: Out-of-fold predictions of each candidate, ``(repeats, rows)`` or with classes.
        target: The target as the metric sees it, ``(rows,)``.
        metric: The metric.
        seed: Seed of the bootstrap.

    Returns:
        The expected score. Source: Tsamardinos, Greasidou and Borboudakis 2018, Bootstrapping the
        out-of-sample predictions for efficient and accurate cross-validation, Machine Learning
        107, 1895-1922, doi:10.1007/s10994-018-5714-4.
    """
    if metric.rowwise is not None:
        rows = metric.rowwise
        losses = np.stack([np.mean([rows(target, r) for r in one], 0) for one in candidates])
        return metric.of_mean(bbc(losses, metric.greater_is_better, seed))
    repeat = [one[0] for one in candidates]

    def score(chosen: NDArray[np.int64]) -> Floats:
        return np.array([metric(target[chosen], one[chosen]) for one in repeat])

    return _bbc(score, len(target), metric.greater_is_better, SLOW_BOOTSTRAPS, seed)


def bbc(losses: Floats, greater_is_better: bool = False, seed: int = 0) -> float:
    """Bootstrap bias corrected cross-validation of scores that are means over rows.

    Args:
        losses: Loss of each candidate on each row, ``(candidates, rows)``.
        greater_is_better: Whether the largest mean is chosen.
        seed: Seed of the bootstrap.

    Example:
        >>> import numpy as np
        >>> noise = np.random.default_rng(0).standard_normal((8, 100)) ** 2
        >>> bool(noise.mean(1).min() < bbc(noise))
        True
    """

    def mean(chosen: NDArray[np.int64]) -> Floats:
        return losses[:, chosen].mean(1)

    return _bbc(mean, losses.shape[1], greater_is_better, BOOTSTRAPS, seed)


def _bbc(
    score: Callable[[NDArray[np.int64]], Floats],
    rows: int,
    greater_is_better: bool,
    count: int,
    seed: int,
) -> float:
    """What the chosen one has over the mean of all, on rows left out, beside that mean.

    The plain mean over the bootstraps of the chosen one's score has the same expectation, but
    also the noise of which rows were left out, which can hide the correction.
    """
    rng = np.random.default_rng(seed)
    found: list[float] = []
    for _ in range(count):
        bag = rng.integers(rows, size=rows)
        left = np.setdiff1d(np.arange(rows), bag, assume_unique=False)
        inside = score(bag) if greater_is_better else -score(bag)
        if np.isnan(inside).all() or not len(left):
            continue
        outside = score(left)
        found.append(float(outside[int(np.nanargmax(inside))] - np.nanmean(outside)))
    return float(np.nanmean(score(np.arange(rows))) + np.nanmean(found))
