"""Estimators of scikit-learn as contestants: same folds, metric, ledger and statistics."""

import json
from functools import partial

import numpy as np
import pandas as pd
import pytest
from lightgbm import LGBMRegressor
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.metrics import mean_absolute_error
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures

from lossmith.choose import DataError, choose, tournament
from lossmith.choose.data import load
from lossmith.choose.diagnosis import examine
from lossmith.choose.estimators import describe_estimators
from lossmith.choose.features import features
from lossmith.choose.folds import plan
from lossmith.choose.metric import resolve
from lossmith.report import render
from lossmith.train import LossRegressor
from lossmith.train.boosting import boosting_objective

SMALL = {"metric": "mae", "folds": "4x2"}


class Failing(RegressorMixin, BaseEstimator):
    """Fails in the cells whose first row is not positive."""

    def fit(self, X, y):
        if X[0, 0] < 0:
            raise ValueError("the first row is negative")
        self.mean_ = y.mean()
        return self

    def predict(self, X):
        return np.full(len(X), self.mean_)


def test_scores_are_those_of_the_estimator_on_the_same_cells() -> None:
    done = choose("diabetes", model={"line": LinearRegression(), "mean": DummyRegressor()}, **SMALL)
    table = load("diabetes")
    diagnosis = examine(table, resolve("mae"))
    for cell, score in zip(
        plan(diagnosis, "4x2").cells, done.tournament.results[0].scores, strict=True
    ):
        x, y = features(table, cell).numpy(), diagnosis.target
        made = LinearRegression().fit(x[cell.fit], y[cell.fit]).predict(x[cell.test])
        assert score == pytest.approx(mean_absolute_error(y[cell.test], made))
    assert done.outcome.baseline == "line"
    assert set(done.table["loss"]) == {"line", "mean", "line + shift"}
    assert done.table.set_index("loss").loc["mean", "worse"] > 0.99
    assert done.cost("mean") < 1


def test_losses_of_other_libraries_and_of_lossmith_compete() -> None:
    draw = np.random.default_rng(0)
    X = pd.DataFrame(draw.normal(size=(240, 2)), columns=["a", "b"])
    y = 3 * X["a"] + draw.standard_t(1.5, 240)
    trees = partial(LGBMRegressor, n_estimators=20, min_child_samples=5, verbosity=-1, n_jobs=1)
    line = {"model": "linear", "epochs": 40, "learning_rate": 0.1}
    done = tournament(
        X,
        pd.Series(y, name="y"),
        model={
            "net mse": LossRegressor("mse_loss", **line),
            "net l1": LossRegressor("l1_loss", **line),
            "trees huber": partial(trees, objective=boosting_objective("huber_loss", delta=1.0)),
            "trees mae": HistGradientBoostingRegressor(loss="absolute_error", max_iter=20),
        },
        **SMALL,
    )
    table = done.table.set_index("loss")
    assert (table["verdict"] != "failed").all()
    assert table.loc["net l1", "difference"] > 0
    page = render(done)
    assert "trees huber" in page
    assert "Every estimator was fitted on the same folds" in page
    assert "AdamW" not in page
    assert "估计器" in render(done, "zh")
    assert "processor time" in done.guards("net l1")[-1].sentence
    assert "Infinity" not in json.dumps(done.to_dict(), allow_nan=False)


def test_the_ledger_goes_on_where_it_was_and_refuses_other_estimators(tmp_path) -> None:
    objective = boosting_objective("huber_loss", delta=30.0)
    make = partial(LGBMRegressor, n_estimators=5, verbosity=-1, n_jobs=1)
    entered = {"base": make(), "huber": partial(make, objective=objective)}
    done = choose("diabetes", model=entered, out=tmp_path, **SMALL)
    results = sorted((tmp_path / "results").glob("*.json"))
    assert len(results) == 2 * 8
    written = {path: path.stat().st_mtime_ns for path in results}
    for path in results[:5]:
        path.unlink()
    again = choose("diabetes", model=entered, out=tmp_path, **SMALL)
    pd.testing.assert_frame_equal(again.table, done.table)
    kept = results[5:]
    assert all(path.stat().st_mtime_ns == written[path] for path in kept)
    with pytest.raises(DataError, match=r"it differs in .*model"):
        choose("diabetes", model={**entered, "base": make(max_depth=2)}, out=tmp_path, **SMALL)


@pytest.mark.slow
def test_other_processes_help(tmp_path) -> None:
    entered = {"line": LinearRegression(), "trees": HistGradientBoostingRegressor(max_iter=200)}
    alone = choose("diabetes", model=entered, **SMALL)
    helped = choose("diabetes", model=entered, out=tmp_path, jobs=2, **SMALL)
    pd.testing.assert_frame_equal(helped.table, alone.table)


def test_a_plan_names_parameters_and_no_places_in_memory() -> None:
    objective = boosting_objective("huber_loss", delta=30.0)
    own = LGBMRegressor(objective=lambda y, made: (made - y, 1.0 + 0 * y))
    entered = {"a": LGBMRegressor(objective=objective), "b": Failing, "c": own}
    words = describe_estimators(entered)
    assert "boosting_objective('huber_loss', delta=30.0)" in words
    assert "0x" not in words
    assert "max_depth" in words


def test_failed_cells_are_counted_and_the_others_go_on() -> None:
    entered = {"line": LinearRegression(), "failing": Failing(), "mean": DummyRegressor()}
    done = choose("diabetes", model=entered, **SMALL)
    failed = done.tournament.results[1]
    assert "cells failed, the first: ValueError: the first row is negative" in failed.failure
    assert done.tournament.results[2].scores is not None


@pytest.mark.parametrize(
    ("metric", "rivals"),
    [
        ("log_loss", {"a + temperature"}),
        ("accuracy", {"a + threshold"}),
        ("auc", set()),
    ],
)
def test_classes_are_judged_by_what_the_metric_needs(metric, rivals) -> None:
    entered = {
        "a": LogisticRegression(),
        "b": make_pipeline(PolynomialFeatures(1), LogisticRegression(C=1e-6)),
    }
    done = choose("breast_cancer", metric=metric, folds="4x1", model=entered)
    assert {*done.table["loss"]} == {"a", "b"} | rivals
    row = done.table.set_index("loss").loc["a"]
    assert row[metric] < 0.2 if metric == "log_loss" else row[metric] > 0.9


def test_margins_serve_labels_and_scores_but_no_probabilities() -> None:
    entered = {"line": RidgeClassifier(), "other": RidgeClassifier(alpha=10.0)}
    done = choose("breast_cancer", metric="accuracy", folds="3x1", model=entered)
    assert "line + threshold" in set(done.table["loss"])
    done = choose("breast_cancer", metric="auc", folds="3x1", model=entered)
    assert done.table["auc"].min() > 0.9
    entered = {"line": LogisticRegression(), "margin": RidgeClassifier()}
    done = choose("wine", metric="log_loss", folds="3x1", model=entered)
    assert "predict_proba" in done.tournament.results[1].failure


def test_seeds_are_those_of_the_cells_where_none_is_given() -> None:
    class Noisy(RegressorMixin, BaseEstimator):
        def __init__(self, random_state=None):
            self.random_state = random_state

        def fit(self, X, y):
            self.guess_ = float(self.random_state)
            return self

        def predict(self, X):
            return np.full(len(X), self.guess_)

    entered = {"line": LinearRegression(), "open": Noisy(), "fixed": Noisy(random_state=7)}
    done = choose("diabetes", model=entered, metric="mae", folds="3x1", seed=1)
    opened, fixed = done.tournament.results[1:]
    assert (fixed.predictions == 7.0).all()
    assert set(opened.predictions) == {float(cell.seed % 2**31) for cell in done.plan.cells}


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"model": {}}, r"model must name at least one estimator"),
        ({"model": {3: LinearRegression()}}, r"model must have names of contestants as keys"),
        ({"model": {"a": 3}}, r"must give an estimator with fit and predict for a, got int"),
        ({"model": {"a": lambda: 3}}, r"must give an estimator with fit and predict for a"),
        (
            {"model": {"a": LinearRegression()}, "losses": "l1_loss"},
            r"losses must be auto if model names the contestants",
        ),
    ],
)
def test_bad_requests_are_refused(asked, found) -> None:
    with pytest.raises(DataError, match=found):
        choose("diabetes", metric="mae", **asked)
