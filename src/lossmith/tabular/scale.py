"""The unit in which losses with an inner unit, such as Huber's delta, measure residuals."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
# Turns a median absolute deviation into the standard deviation of a normal distribution.
MAD_TO_SD = 1.4826


def residual_scale(features: Array, target: Array, weight: Array) -> float:
    """Robust scale of the residuals of a ridge regression, ``> 0``.

    The closed form of the squared error, so no loss waits for the training of another one.

    Args:
        features: Standardised, ``(rows, width)``.
        target: ``(rows,)``.
        weight: Weights of the rows, ``> 0``, ``(rows,)``.
    """
    y = target - np.average(target, weights=weight)
    weighted = features * weight[:, None]
    gram = weighted.T @ features + np.eye(features.shape[1])
    residual = y - features @ np.linalg.solve(gram, weighted.T @ y)
    gap = np.abs(residual - weighted_median(residual, weight))
    # more than half the rows fitted exactly: fall back on the ordinary deviation
    return MAD_TO_SD * weighted_median(gap, weight) or deviation(residual, weight) or 1.0


def weighted_median(values: Array, weight: Array) -> float:
    """The median of values that occur as often as their weights say.

    Example:
        >>> import numpy as np
        >>> weighted_median(np.array([3.0, 1.0, 2.0]), np.array([2.0, 1.0, 1.0]))
        2.5
    """
    order = np.argsort(values, kind="stable")
    upto = np.cumsum(weight[order])
    ends = [np.searchsorted(upto, upto[-1] / 2, side=side) for side in ("left", "right")]
    return float(values[order][ends].mean())


def deviation(values: Array, weight: Array) -> float:
    """Weighted standard deviation."""
    mean = np.average(values, weights=weight)
    return float(np.sqrt(np.average((values - mean) ** 2, weights=weight)))
