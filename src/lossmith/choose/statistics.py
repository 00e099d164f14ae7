"""Statistics of cross-validated differences: corrected for the overlap of the training sets.

The scores of the cells of a repeated cross-validation share training rows, so their differences
are not independent, and the ordinary paired t-test calls equal models different in more than half
of all 10x10 runs. Everything here carries the correction of Nadeau and Bengio: the variance of the
mean difference is ``(1/J + rho) s^2`` with ``rho = n_test / n_train``, instead of ``s^2 / J``.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """One candidate against the baseline. Positive differences favour the candidate.

    Attributes:
        difference: Mean over the cells of the score advantage, in the unit of the metric.
        low: Lower end of the 95 % interval of the difference.
        high: Upper end of it.
        p: Two-sided p-value of the corrected t-test, before any correction for many tests.
        better: Posterior probability of an advantage above the ROPE.
        same: Posterior probability that the difference lies inside the ROPE.
        worse: Posterior probability of a disadvantage beyond the ROPE.
        won: Share of the cells in which the candidate scores better.
        detectable: Smallest difference that this design finds with 80 % power, at the level of
            the hardest step of Holm's adjustment.
        doubled: The same for twice as many cells.
        cells: Number of cells.
        spread: Standard deviation of the differences over the cells.
    """

    difference: float
    low: float
    high: float
    p: float
    better: float
    same: float
    worse: float
    won: float
    detectable: float
    doubled: float
    cells: int
    spread: float


def compare(advantage: Floats, rho: float, rope: float, tests: int = 1) -> Comparison:
    """Corrected t-test and Bayesian correlated t-test of paired differences.

    Args:
        advantage: Score advantage of the candidate in each cell, ``(J,)``, at least 2 cells.
        rho: Test rows divided by training rows of a cell, ``1/(k-1)`` for k folds.
        rope: Half-width of the region of practical equivalence, ``>= 0``, unit of the metric.
        tests: Number of comparisons made together; the detectable difference allows for them.

    Returns:
        The comparison. Sources: Nadeau and Bengio 2003, Inference for the Generalization Error,
        Machine Learning 52, 239-281; Benavoli, Corani, Demsar and Zaffalon 2017, Journal of
        Machine Learning Research 18(77).

    Example:
        >>> import numpy as np
        >>> result = compare(np.array([1.0, 2.0, 3.0, 2.0]), rho=1 / 3, rope=0.1)
        >>> round(result.difference, 2), round(result.p, 3)
        (2.0, 0.049)
    """
    cells = len(advantage)
    mean = float(advantage.mean())
    spread = float(advantage.std(ddof=1))
    error = spread * math.sqrt(1 / cells + rho)
    won = float((advantage > 0).mean())
    if error == 0:  # the same number in every cell; the distributions shrink to a point
        return Comparison(
            difference=mean,
            low=mean,
            high=mean,
            p=1.0 if mean == 0 else 0.0,
            better=float(mean > rope),
            same=float(abs(mean) <= rope),
            worse=float(mean < -rope),
            won=won,
            detectable=0.0,
            doubled=0.0,
            cells=cells,
            spread=spread,
        )
    freedom = cells - 1

    def below(t: float) -> float:  # as stats.t.cdf, in a hundredth of its time
        return float(special.stdtr(freedom, t))

    half = float(special.stdtrit(freedom, 0.975)) * error
    better, worse = below((mean - rope) / error), below((-mean - rope) / error)
    return Comparison(
        difference=mean,
        low=mean - half,
        high=mean + half,
        p=2 * below(-abs(mean) / error),
        better=better,
        same=max(0.0, 1 - better - worse),
        worse=worse,
        won=won,
        detectable=detectable_effect(cells, rho, alpha=0.05 / tests) * spread,
        doubled=detectable_effect(2 * cells, rho, alpha=0.05 / tests) * spread,
        cells=cells,
        spread=spread,
    )


@lru_cache(maxsize=1024)
def detectable_effect(cells: int, rho: float, power: float = 0.8, alpha: float = 0.05) -> float:
    """Smallest effect, in standard deviations of the cell differences, found with this power.

    From the noncentral t distribution with noncentrality ``effect / sqrt(1/J + rho)``.

    Example:
        >>> round(detectable_effect(30, 1 / 9), 2)
        1.1
    """
    freedom = cells - 1
    critical = float(stats.t.ppf(1 - alpha / 2, freedom))

    def missing_power(noncentrality: float) -> float:
        # The chance of a significant result of the wrong sign is below 1e-5 here and left out.
        return float(stats.nct.sf(critical, freedom, noncentrality)) - power

    found = cast(float, optimize.brentq(missing_power, 0.0, 10 * critical))
    return found * math.sqrt(1 / cells + rho)


def cells_needed(effect: float, rho: float, fold: int, alpha: float = 0.05) -> int | None:
    """Fewest cells, in whole repeats, that find an effect with 80 % power; None if none do.

    The overlap of the training sets puts a floor under the variance, so more repeats alone never
    find effects below about ``2.8 sqrt(rho)`` standard deviations.

    Args:
        effect: In standard deviations of the cell differences.
        rho: Test rows divided by training rows of a cell.
        fold: Cells of one repeat.
        alpha: Level of the two-sided test.

    Example:
        >>> cells_needed(1.2, 1 / 9, 10)
        20
        >>> cells_needed(0.5, 1 / 9, 10) is None
        True
    """
    most = fold * max(2, -(-1000 // fold))
    if detectable_effect(most, rho, alpha=alpha) > effect:
        return None
    return next(
        cells
        for cells in range(max(fold, 2), most + 1, fold)
        if detectable_effect(cells, rho, alpha=alpha) <= effect
    )


def holm(p_values: list[float]) -> list[float]:
    """Holm's step-down adjustment of several p-values; they keep their order.

    Source: Holm 1979, A simple sequentially rejective multiple test procedure, Scandinavian
    Journal of Statistics 6(2), 65-70.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    count = len(p_values)
    adjusted = [0.0] * count
    highest = 0.0
    for rank, index in enumerate(sorted(range(count), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (count - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted
