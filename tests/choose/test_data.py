"""Bad data end in one clear sentence; good data are read as what they are."""

import numpy as np
import pandas as pd
import pytest

from lossmith.choose import DataError, choose, diagnose
from lossmith.choose.data import load
from lossmith.choose.diagnosis import examine
from lossmith.choose.metric import resolve
from lossmith.choose.shortlist import shortlist


def frame(rows=40, **columns):
    rng = np.random.default_rng(0)
    base = {"x": rng.standard_normal(rows), "y": rng.standard_normal(rows)}
    return pd.DataFrame({**base, **columns})


def spoiled(column, row, value):
    table = frame().astype(object)
    table.loc[row, column] = value
    return table


EMPTY_ROW = frame()
EMPTY_ROW.loc[4] = np.nan
NO_TARGET = frame()
NO_TARGET.loc[4, "y"] = np.nan


@pytest.mark.parametrize(
    ("table", "target", "message"),
    [
        (frame(), "z", "target must be a column of DataFrame .x, y., got 'z'"),
        (frame(), None, "--target must name the target column"),
        (frame(rows=3), "y", "at least 20 rows, got 3"),
        (
            spoiled("x", 4, "abc"),
            "y",
            "column 'x' must hold numbers throughout, got 'abc' in row 5",
        ),
        (
            spoiled("y", 4, "abc"),
            "y",
            "column 'y' must hold numbers throughout, got 'abc' in row 5",
        ),
        (EMPTY_ROW, "y", "rows must hold values, got row 5 without any"),
        (NO_TARGET, "y", "must not be missing, got row 5 without it"),
        (frame(z=np.nan), "y", "columns must hold values, got 'z' without any"),
        (frame(y=1.0), "y", "target 'y' must vary, got 1.0 in every row"),
        (frame()[["y"]], "y", "must have a feature column beside the target"),
        (pd.concat([frame(), frame()["x"]], axis=1), "y", "must differ, got 'x' more than once"),
    ],
)
def test_unusable_tables_are_refused_with_the_place(table, target, message):
    with pytest.raises(DataError, match=message):
        load(table, target)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "speed"}, "metric must be one of mae, .* got 'speed'"),
        ({"metric": "pinball:2"}, "metric must be pinball:Q with Q in .0, 1., got 'pinball:2'"),
        ({"metric": "accuracy"}, "metric must fit the continuous target 'y', got 'accuracy'"),
        ({"losses": "l7_loss"}, "loss must be a name in the catalogue"),
        ({"folds": "ten"}, "folds must be KxR .* got 'ten'"),
        ({"folds": "1x3"}, "folds must be KxR .* got '1x3'"),
        ({"folds": "30x1"}, "folds must be at most half the 40 rows, got 30"),
        ({"epochs": 0}, "epochs must be a whole number from 1 to 100000, got 0"),
        ({"trials": 0}, "trials must be a whole number from 1 to 1000, got 0"),
        ({"jobs": 0}, "jobs must be a whole number from 1 to 1000, got 0"),
        ({"trials": "a"}, "trials must be a whole number from 1 to 1000, got 'a'"),
        ({"seed": 0.5}, "seed must be a whole number from 0 to 2147483647, got 0.5"),
        ({"epochs": True}, "epochs must be a whole number from 1 to 100000, got True"),
        ({"model": "tree"}, "model must be mlp or linear, got 'tree'"),
        ({"model": 3}, "model must be a name, a factory or estimators by name, got 3"),
        ({"metric": 3}, "metric must be a name, got 3"),
        ({"group": np.arange(50)}, "group must be the name of a column, got ndarray"),
        ({"out": 3}, "out must be the path of a folder or None, got 3"),
        (
            {"group": "z"},
            r"group and time must be columns of DataFrame beside the target \(x, one, day\), got",
        ),
        ({"group": "one"}, "folds need at least 2 group values, got 1"),
        ({"time": "one"}, "time must vary, got 1.5 in every row"),
        ({"time": "day"}, "time must be numbers or dates, got 'soon'"),
        ({"group": "one", "time": "day"}, "group and time must not be given together"),
    ],
)
def test_requests_that_cannot_be_met_are_refused(options, message):
    with pytest.raises(DataError, match=message):
        choose(frame(one=1.5, day=["soon", "late"] * 20), "y", **options)


def test_a_text_target_is_fine_for_classes_and_refused_for_amounts():
    table = frame(y=["a", "b"] * 20)
    assert diagnose(table, "y").kind == "binary"
    with pytest.raises(DataError, match="metric must fit the binary target"):
        choose(table, "y", metric="mae")


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        (np.linspace(0, 1, 200), "continuous"),
        (np.arange(200) % 30, "count"),
        (np.arange(200) % 30 + 25, "continuous"),
        (np.arange(200) % 2, "binary"),
        (np.arange(200) % 4, "multiclass"),
        (["low", "mid", "high", "mid"] * 50, "multiclass"),
    ],
)
def test_the_kind_of_the_target_is_read_off(target, kind):
    assert diagnose(frame(rows=200, y=target), "y").kind == kind


def test_text_features_are_one_hot_encoded_inside_the_run():
    table = frame(rows=60, color=["red", "green", None] * 20)
    done = choose(table, "y", metric="mae", losses="l1_loss", folds="3x1", epochs=2)
    assert done.data.text == ["color"]
    assert np.isfinite(done.table["mae"]).all()


def test_findings_say_what_the_engel_data_are_known_for():
    findings = {found.code: found for found in diagnose("engel").findings}
    assert findings["uneven_spread"].value < 1e-20  # published: 1.4e-25
    assert "pinball_loss" in findings["uneven_spread"].speaks_for
    assert findings["skew"].value > 1


def test_a_count_loss_is_refused_for_a_negative_target_with_the_value():
    table = frame()
    table.loc[0, "y"] = -3.25
    entries = shortlist(examine(load(table, "y")), resolve("mae"))
    reasons = {one.name: one.reason for one in entries.refusals}
    assert reasons["poisson_nll_loss"] == "target must be >= 0, got -3.25"
    assert entries.candidates[0].name == "mse_loss"
    assert 4 <= len(entries.candidates) <= 8


def test_a_margin_loss_is_refused_where_probabilities_are_judged():
    diagnosis = examine(load("breast_cancer"))
    by_probability = shortlist(diagnosis, resolve("log_loss"))
    assert "probabilities" in {r.name: r.reason for r in by_probability.refusals}["hinge_loss"]
    by_label = shortlist(diagnosis, resolve("accuracy"), "hinge_loss")
    hinge = by_label.candidates[1]
    assert (hinge.coding, sorted(hinge.code(diagnosis.target).unique().tolist())) == (
        "sign",
        [-1, 1],
    )


def test_the_pinball_metric_sets_the_quantile_of_the_pinball_loss():
    diagnosis = examine(load("engel"))
    pinball = shortlist(diagnosis, resolve("pinball:0.9"), "pinball_loss").candidates[1]
    assert (pinball.options, pinball.agrees) == ({"quantile": 0.9}, True)


@pytest.mark.parametrize("name", ["mae", "rmse", "r2", "accuracy", "log_loss", "auc"])
def test_a_perfect_prediction_has_the_best_score(name):
    metric = resolve(name)
    y = np.array([0, 1, 1, 0])
    good, bad = metric(y, y.astype(float)), metric(y, 1.0 - y)
    assert metric.advantage(good, bad) > 0
