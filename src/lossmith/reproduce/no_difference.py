"""Negative control: where no loss is shown to be better, the verdict must not name one."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.model_selection import RepeatedKFold

from lossmith.choose.data import load
from lossmith.choose.diagnosis import examine
from lossmith.choose.folds import Cell, Plan
from lossmith.choose.metric import resolve
from lossmith.choose.outcome import Result, Tournament
from lossmith.choose.shortlist import shortlist
from lossmith.choose.verdict import judge
from lossmith.reproduce.claims import Claim, Measured, Reproduction, Tick

FOLDS, REPEATS = 10, 3
# loss of the catalogue -> scikit-learn's name of it; the first is the baseline
LOSSES = {"mse_loss": "squared_error", "l1_loss": "absolute_error", "poisson_nll_loss": "poisson"}
Array = NDArray[np.float64]


def _predictions(x: Array, y: Array, cells: Sequence[Cell], tick: Tick) -> dict[str, Array]:
    """Out-of-fold predictions of boosted trees with each loss, ``(repeats, rows)``."""
    made = {name: np.zeros((REPEATS, len(y))) for name in LOSSES}
    for done, cell in enumerate(cells, 1):
        for name, loss in LOSSES.items():
            trees = HistGradientBoostingRegressor(
                loss=loss,
                max_iter=60,
                learning_rate=0.1,
                max_leaf_nodes=15,
                random_state=0,
                early_stopping=False,  # pyright: ignore[reportArgumentType]
            )
            made[name][cell.repeat, cell.test] = trees.fit(x[cell.fit], y[cell.fit]).predict(
                x[cell.test]
            )
        tick(done / len(cells))
    return made


def _measure(seeds: Sequence[int], tick: Tick) -> Measured:
    table, metric = load("diabetes"), resolve("mae")
    diagnosis = examine(table, metric)
    x, y = table.features.to_numpy(), table.target.to_numpy()
    (seed,) = seeds
    cuts = RepeatedKFold(n_splits=FOLDS, n_repeats=REPEATS, random_state=seed).split(x)
    none = np.zeros(0, dtype=np.int64)
    cells = [
        Cell(place // FOLDS, train, none, test, seed) for place, (train, test) in enumerate(cuts)
    ]
    made = _predictions(x, y, cells, tick)
    results = tuple(
        Result(
            one,
            one.label,
            scores=np.array([metric(y[c.test], made[one.name][c.repeat, c.test]) for c in cells]),
            predictions=made[one.name][0],
            repeats=made[one.name],
        )
        for one in shortlist(diagnosis, metric, list(LOSSES)).candidates
    )
    constant = np.array([np.abs(y[c.test] - np.median(y[c.fit])).mean() for c in cells])
    outcome = Tournament(results, (), constant, np.arange(len(y)))
    plan = Plan(FOLDS, REPEATS, tuple(cells))
    verdict = judge(outcome, diagnosis, metric, plan)
    tests = {one.label: one.comparison for one in verdict.standings if one.comparison is not None}
    adjusted = {one.label: one.p for one in verdict.standings}
    # the same with a rival whose every error is a tenth smaller, which must be found
    better = replace(results[1], scores=0.9 * _scores(results[0]))
    sure = judge(replace(outcome, results=(results[0], better)), diagnosis, metric, plan)
    beside: dict[str, float] = {}
    for one in results[1:]:
        pair = _scores(results[0]), _scores(one)
        gain = 100 * (1 - float(pair[1].mean() / pair[0].mean()))
        beside[f"{one.label}, gain over mse_loss in MAE, %"] = gain
        beside[f"{one.label}, p of the uncorrected t-test"] = float(stats.ttest_rel(*pair).pvalue)
        beside[f"{one.label}, p of the corrected t-test"] = tests[one.label].p
    return Measured(
        {
            "absolute": [adjusted["l1_loss"]],
            "poisson": [adjusted["poisson_nll_loss"]],
            "verdict": [float(verdict.word == "cannot tell" and verdict.winner is None)],
            "teeth": [float(sure.winner == better.label)],
        },
        beside,
    )


def _scores(result: Result) -> Array:
    assert result.scores is not None
    return result.scores


REPRODUCTION = Reproduction(
    name="no-difference",
    finding="Negative control: on the diabetes data no loss is shown to be better, and the verdict "
    "says so.",
    source="none, a control; the test is that of Nadeau and Bengio 2003, Machine Learning "
    "52:239-281",
    published="nothing: whoever names a winner here is wrong to be sure.",
    setting="diabetes; boosted trees of scikit-learn (60 trees of 15 leaves, step 0.1) with "
    "squared, absolute and Poisson loss; 10 folds, 3 repeats; p-values adjusted by Holm",
    losses=("mse_loss", "l1_loss", "poisson_nll_loss"),
    metric="mean absolute error",
    seeds=1,
    claims=(
        # first check, before Holm: 0.21 and 0.62
        Claim("absolute", "adjusted p, absolute against squared", 0.05, 1.0),
        Claim("poisson", "adjusted p, Poisson against squared", 0.05, 1.0),
        Claim("verdict", 'the verdict is "cannot tell" and names no loss (1 = so)', 1.0, 1.0),
        Claim("teeth", "a rival with errors a tenth smaller is named (1 = so)", 1.0, 1.0),
    ),
    measure=_measure,
)
