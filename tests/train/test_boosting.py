"""Objectives against the native ones of the real libraries."""

import math
import pickle
import warnings

import lightgbm
import numpy as np
import pytest
import xgboost
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine

import lossmith
from lossmith.train.boosting import boosting_objective


def _xgb(kind, objective, data, **options):
    X, y = data(return_X_y=True)
    y = y / y.std() if kind is xgboost.XGBRegressor else y
    model = kind(n_estimators=15, objective=objective, base_score=0.5, n_jobs=1, **options)
    return model.fit(X, y).predict(X, output_margin=True)


def test_logistic_trees_of_xgboost_are_its_own() -> None:
    ours = boosting_objective(lossmith.binary_cross_entropy_with_logits)
    native = _xgb(xgboost.XGBClassifier, "binary:logistic", load_breast_cancer)
    # a base score of 0.5 is a probability there, and a logit here
    found = _xgb(xgboost.XGBClassifier, ours, load_breast_cancer)
    assert np.abs(found - native).max() < 1e-4


def test_squared_trees_of_xgboost_are_its_own() -> None:
    found = _xgb(xgboost.XGBRegressor, boosting_objective("half_mse"), load_diabetes)
    native = _xgb(xgboost.XGBRegressor, "reg:squarederror", load_diabetes)
    np.testing.assert_allclose(found, native, rtol=1e-4)


def test_pseudo_huber_trees_of_xgboost_are_its_own() -> None:
    ours = boosting_objective(lossmith.PseudoHuberLoss(delta=1.0))
    native = _xgb(xgboost.XGBRegressor, "reg:pseudohubererror", load_diabetes)
    np.testing.assert_allclose(_xgb(xgboost.XGBRegressor, ours, load_diabetes), native, rtol=1e-3)


def test_huber_trees_of_lightgbm_are_its_own() -> None:
    X, y = load_diabetes(return_X_y=True)
    y = (y - y.mean()) / y.std()
    kind = {"n_estimators": 15, "boost_from_average": False, "verbose": -1, "n_jobs": 1}
    ours = lightgbm.LGBMRegressor(objective=boosting_objective("huber", delta=0.9), **kind)
    native = lightgbm.LGBMRegressor(objective="huber", alpha=0.9, **kind)
    found, wanted = (model.fit(X, y).predict(X) for model in (ours, native))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [xgboost.XGBClassifier, lightgbm.LGBMClassifier])
def test_classes_have_a_tree_each(kind) -> None:
    X, y = load_wine(return_X_y=True)
    quiet = {"verbose": -1} if kind is lightgbm.LGBMClassifier else {}
    objective = boosting_objective(lossmith.CrossEntropyLoss(label_smoothing=0.1))
    model = kind(n_estimators=10, objective=objective, n_jobs=1, **quiet)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lightgbm: predict_proba knows no link of ours
        raw = model.fit(X, y, sample_weight=np.ones(len(y))).predict(
            X, **({"raw_score": True} if quiet else {"output_margin": True})
        )
    assert raw.shape == (len(y), 3)
    assert (raw.argmax(1) == y).mean() > 0.97


def test_derivatives_of_cross_entropy_are_those_of_the_softmax() -> None:
    logits, label = np.random.default_rng(0).normal(size=(5, 3)), np.array([0, 1, 2, 1, 0])
    weight = np.arange(1.0, 6.0)
    slope, curvature = boosting_objective("cross_entropy")(label, logits, weight)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(slope, (p - np.eye(3)[label]) * weight[:, None], rtol=1e-12)
    np.testing.assert_allclose(curvature, p * (1 - p) * weight[:, None], rtol=1e-12)


def test_without_a_second_derivative_the_step_is_a_gradient_step() -> None:
    slope, curvature = boosting_objective("pinball", quantile=0.9)(np.zeros(2), np.array([-1.0, 1]))
    np.testing.assert_allclose(slope, [-0.9, 0.1])
    assert curvature.tolist() == [1.0, 1.0]


def test_it_pickles() -> None:
    objective = pickle.loads(pickle.dumps(boosting_objective("huber", delta=2.0)))
    assert objective(np.zeros(1), np.ones(1))[0].tolist() == [1.0]


def test_other_losses_and_options_are_refused() -> None:
    with pytest.raises(ValueError, match="loss must be an element or row loss of two tensors"):
        boosting_objective("info_nce")
    with pytest.raises(TypeError, match=r"huber_loss takes delta by keyword, got gamma"):
        boosting_objective("huber", gamma=1.0)
    with pytest.raises(ValueError, match=r"target must be a class index in \[0, 1\], got 2"):
        boosting_objective("cross_entropy")(np.array([2]), np.zeros((1, 2)))


def test_a_row_of_weight_zero_is_absent_whatever_its_label() -> None:
    for name in ("mse", "pinball"):  # with a second derivative, and without
        label, weight = np.array([np.nan, 1.0]), np.array([0.0, 3.0])
        slope, curvature = boosting_objective(name)(label, np.zeros(2), weight)
        alone = boosting_objective(name)(label[1:], np.zeros(1))
        assert slope.tolist() == [0.0, 3 * alone[0][0]]
        assert curvature.tolist() == [0.0, 3 * alone[1][0]]
    slope, curvature = boosting_objective("cross_entropy")(
        np.array([np.nan, 1.0]), np.zeros((2, 3)), np.array([0.0, 1.0])
    )
    assert not slope[0].any()
    assert not curvature[0].any()
    assert slope[1, 1] < 0


@pytest.mark.parametrize(
    ("label", "weight", "message"),
    [
        ([0.9, 1.0], None, "y_true must hold whole numbers, which name classes, got 0.9"),
        ([math.nan, 1.0], None, "y_true must hold whole numbers, which name classes, got nan"),
        ([1.0, 0.0], [-1.0, 1.0], "sample_weight must be >= 0 and finite, got -1.0"),
        ([1.0, 0.0], [math.nan, 1.0], "sample_weight must be >= 0 and finite, got nan"),
        ([1.0, 0.0], [1.0], r"sample_weight must have the shape \(2,\) of y_true, got \(1,\)"),
    ],
)
def test_labels_and_weights_are_checked(label, weight, message) -> None:
    with pytest.raises(ValueError, match=message):
        boosting_objective("cross_entropy")(np.array(label), np.zeros((2, 3)), weight)
