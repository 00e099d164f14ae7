"""Many data sets: whether a loss is better in general, from one gain per loss and set."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from lossmith.choose.data import load
from lossmith.choose.diagnosis import examine
from lossmith.choose.errors import DataError
from lossmith.choose.metric import DEFAULTS, Kind, resolve
from lossmith.choose.result import Choice
from lossmith.choose.shortlist import BASELINES
from lossmith.choose.statistics import holm

Floats = NDArray[np.float64]
DRAWS = 20_000
FEWEST_SETS = 5


@dataclass(frozen=True)
class Suite:
    """Losses over data sets.

    Attributes:
        gains: Relative advantage over the baseline, one data set in each row, one loss in each
            column; positive favours the loss.
        friedman: p-value of the Friedman test that all losses, the baseline among them, rank alike.
        table: One loss in each row: median gain, data sets won, Wilcoxon p adjusted by Holm, and
            the probabilities of the Bayesian signed-rank test.
        rope: Half-width of practical equivalence of the relative gains.
    """

    gains: pd.DataFrame
    friedman: float
    table: pd.DataFrame
    rope: float

    @property
    def verdict(self) -> str:
        """What may be concluded over the data sets, in words."""
        sets, losses = self.gains.shape
        better = self.table[(self.table["p"] < 0.05) & (self.table["better"] > 0.95)]
        start = f"{losses} losses against the baseline on {sets} data sets: "
        if len(better):
            names = " and ".join(better["loss"])
            return f"{start}better in general: {names} (Wilcoxon with Holm and Bayesian)."
        same = self.table[self.table["same"] > 0.95]
        if len(same) == losses:
            return f"{start}all practically the same as the baseline."
        if self.friedman >= 0.05:
            return f"{start}cannot tell; the losses rank alike (Friedman p = {self.friedman:.2g})."
        return (
            f"{start}cannot tell which is better than the baseline, though the losses do not rank "
            f"alike (Friedman p = {self.friedman:.2g})."
        )


def ready(names: Sequence[str], metric: str | None = None, task: str | None = None) -> None:
    """Refuse a suite before anything is trained.

    Raises:
        DataError: If there are fewer than five sets, one of them cannot be used, or they differ in
            the baseline or the metric.
    """
    if (found := len(set(names))) < FEWEST_SETS:
        rule = f"have at least {FEWEST_SETS} different data sets"
        raise DataError(f"a suite must {rule}, got {found}")
    judged_by = None if metric is None else resolve(metric)
    kinds: list[Kind] = [examine(load(name), judged_by, task).kind for name in names]
    _one_scale({BASELINES[kind] for kind in kinds}, {metric or DEFAULTS[kind] for kind in kinds})


def _one_scale(baselines: set[str], metrics: set[str]) -> None:
    if len(baselines) > 1 or len(metrics) > 1:
        found = ", ".join(sorted(baselines | metrics))
        raise DataError(f"data sets of a suite must share baseline and metric, got {found}")


def collect(done: Sequence[Choice]) -> Suite:
    """Compare over data sets the losses that have scores on all of them.

    Gains are relative to the baseline's score, and absolute for scores from 0 to 1.

    Raises:
        DataError: If the baselines or metrics differ, or fewer than five sets or no losses are
            left.
    """
    _one_scale({one.outcome.baseline for one in done}, {one.metric.name for one in done})
    rows: dict[str, dict[str, float]] = {}
    for one in done:
        base = next(at.score for at in one.outcome.standings if at.word == "baseline")
        unit = 1.0 if one.metric.bounded else abs(base) or 1.0
        rows[one.data.name] = {
            at.label: at.comparison.difference / unit
            for at in one.outcome.standings
            if at.comparison is not None
        }
    gains = pd.DataFrame.from_dict(rows, orient="index").dropna(axis="columns")
    if len(gains) < FEWEST_SETS or not len(gains.columns):
        raise DataError(
            f"a suite must have at least {FEWEST_SETS} different data sets and a loss that has "
            f"scores on all, got {len(gains)} and {len(gains.columns)}"
        )
    return compare_suite(gains)


def compare_suite(gains: pd.DataFrame, rope: float = 0.01, seed: int = 0) -> Suite:
    """Friedman test, then every loss against the baseline over the data sets.

    Args:
        gains: Relative advantage over the baseline, data sets in the rows, losses in the columns.
        rope: Half-width of practical equivalence, ``>= 0``.
        seed: Seed of the Bayesian test's draws.

    Returns:
        The comparison. Sources: Demsar 2006, Statistical comparisons of classifiers over multiple
        data sets, Journal of Machine Learning Research 7, 1-30; Benavoli, Corani, Demsar and
        Zaffalon 2017, Journal of Machine Learning Research 18(77).

    Raises:
        ValueError: If there are fewer than five data sets.

    Example:
        >>> import pandas as pd
        >>> rows = pd.DataFrame({"huber_loss": [0.05, 0.08, 0.04, 0.06, 0.07, 0.05, 0.09, 0.06]})
        >>> found = compare_suite(rows)
        >>> found.table["won"].tolist(), bool(found.table["better"][0] > 0.95)
        ([8], True)
    """
    if len(gains) < FEWEST_SETS:
        raise ValueError(f"gains must have at least {FEWEST_SETS} data sets, got {len(gains)}")
    columns = [gains[name].to_numpy(dtype=float) for name in gains]
    wilcoxon = [_wilcoxon(column) for column in columns]
    odds = [signed_rank(column, rope, seed) for column in columns]
    table = pd.DataFrame(
        {
            "loss": list(gains),
            "gain": [float(np.median(column)) for column in columns],
            "won": [int((column > 0).sum()) for column in columns],
            "p": holm(wilcoxon),
            "better": [one[0] for one in odds],
            "same": [one[1] for one in odds],
            "worse": [one[2] for one in odds],
        }
    )
    return Suite(gains, _friedman(columns), table, rope)


def _friedman(columns: list[Floats]) -> float:
    """The baseline's gain over itself is 0; two treatments are left to Wilcoxon's test."""
    if len(columns) < 2 or all(not column.any() for column in columns):
        return float("nan") if len(columns) < 2 else 1.0
    return float(stats.friedmanchisquare(np.zeros(len(columns[0])), *columns).pvalue)


def _wilcoxon(column: Floats) -> float:
    if not column.any():
        return 1.0
    found: Any = stats.wilcoxon(column)
    return float(found.pvalue)


def signed_rank(differences: Floats, rope: float, seed: int = 0) -> tuple[float, float, float]:
    """Bayesian signed-rank test: probabilities of better, practically the same and worse.

    A Dirichlet process whose prior observation sits at 0; the statistic is the mean of two
    independent draws, which lies above, inside or below the region of practical equivalence.

    Args:
        differences: One for each data set, positive favours the candidate.
        rope: Half-width of the region.
        seed: Seed of the draws.

    Returns:
        The share of draws in which each of the three regions has the most weight. Source: Benavoli,
        Corani, Mangili, Zaffalon and Ruggeri 2014, A Bayesian Wilcoxon signed-rank test based on
        the Dirichlet process, ICML.
    """
    whole = np.concatenate([[0.0], differences])
    means = (whole[:, None] + whole[None, :]) / 2
    above, below = (means > rope).astype(float), (means < -rope).astype(float)
    # the prior observation weighs one half, every data set one
    weights = np.random.default_rng(seed).dirichlet([0.5, *np.ones(len(differences))], size=DRAWS)
    better = np.einsum("di,ij,dj->d", weights, above, weights, optimize=True)
    worse = np.einsum("di,ij,dj->d", weights, below, weights, optimize=True)
    most = np.argmax([better, 1 - better - worse, worse], axis=0)
    shares = np.bincount(most, minlength=3) / DRAWS
    return float(shares[0]), float(shares[1]), float(shares[2])
