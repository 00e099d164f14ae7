"""The scikit-learn estimators against scikit-learn itself: its checks, and its solutions."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.linear_model import (
    GammaRegressor,
    LogisticRegression,
    PoissonRegressor,
    QuantileRegressor,
    TweedieRegressor,
)
from sklearn.metrics import log_loss, mean_pinball_loss
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import lossmith as lm
from lossmith.train import LossClassifier, LossRegressor
from lossmith.train.loop import Recipe, train

# All rows in each step and no decay: what is left is the minimum of the loss itself.
EXACT = {
    "model": "linear",
    "batch_size": 10_000,
    "epochs": 400,
    "learning_rate": 0.1,
    "weight_decay": 0.0,
    "early_stopping": False,
    "random_state": 0,
}


# as long as it takes scikit-learn's checks to see something learnt
@parametrize_with_checks(
    [
        LossRegressor(model="linear", epochs=250, learning_rate=0.03, random_state=0),
        LossClassifier(hidden=8, epochs=20, learning_rate=0.1, random_state=0),
        LossClassifier("hinge_loss", hidden=8, epochs=20, learning_rate=0.1, random_state=0),
    ]
)
def test_scikit_learn_finds_an_estimator(estimator, check) -> None:
    check(estimator)


def _amounts(rows: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, and the mean of a target with a log link."""
    draw = np.random.default_rng(seed)
    X = draw.normal(size=(rows, 3)) * [1.0, 10.0, 0.1] + [0.0, 5.0, 1.0]
    return X, np.exp(0.5 + X @ [0.3, -0.05, 2.0]), draw.gamma(2.0, 0.5, rows)


@pytest.mark.parametrize(
    ("loss", "params", "theirs"),
    [
        ("poisson_nll_loss", None, PoissonRegressor(alpha=0, tol=1e-10, max_iter=1000)),
        ("gamma_nll_loss", None, GammaRegressor(alpha=0, tol=1e-10, max_iter=1000)),
        (
            "tweedie_loss",
            {"power": 1.5},
            TweedieRegressor(power=1.5, link="log", alpha=0, tol=1e-10, max_iter=1000),
        ),
    ],
)
@pytest.mark.parametrize("weighted", [False, True])
def test_losses_with_a_log_link_predict_the_mean_that_scikit_learn_finds(
    loss, params, theirs, weighted
) -> None:
    X, mean, noise = _amounts()
    y = np.random.default_rng(1).poisson(mean) if "poisson" in loss else mean * noise
    weight = np.random.default_rng(2).integers(0, 4, len(y)) if weighted else None
    mine = LossRegressor(loss, loss_params=params, **EXACT).fit(X, y, weight)
    theirs = theirs.fit(X, y, weight)
    np.testing.assert_allclose(mine.predict(X), theirs.predict(X), rtol=1e-3)


@pytest.mark.parametrize("scale_target", [True, False])
@pytest.mark.parametrize("level", [0.1, 0.8])
def test_pinball_predicts_the_quantile_that_scikit_learn_finds(level, scale_target) -> None:
    X, mean, noise = _amounts()
    y = 100 * mean * noise
    mine = LossRegressor(
        lm.PinballLoss, loss_params={"quantile": level}, scale_target=scale_target, **EXACT
    ).fit(X, y)
    theirs = QuantileRegressor(quantile=level, alpha=0).fit(X, y)
    best = mean_pinball_loss(y, theirs.predict(X), alpha=level)
    assert mean_pinball_loss(y, mine.predict(X), alpha=level) < best * 1.001
    assert np.mean(y < mine.predict(X)) == pytest.approx(level, abs=0.02)


def _classes(rows: int = 2500) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, the probability of a 1, and labels drawn from it."""
    draw = np.random.default_rng(0)
    X = draw.normal(size=(rows, 2)) * [1.0, 20.0]
    truth = 1 / (1 + np.exp(1.0 - X @ [1.5, -0.04]))
    return X, truth, (draw.uniform(size=rows) < truth).astype(int)


@pytest.mark.parametrize(
    ("loss", "params"),
    [
        ("cross_entropy", None),
        ("cross_entropy", {"logit_scale": 3.0}),
        ("binary_cross_entropy_with_logits", None),
        ("soft_margin_loss", None),
        ("kl_div_with_logits_loss", None),
        (lm.CrossEntropyLoss() + 0.5 * lm.CrossEntropyLoss(), None),
    ],
)
def test_probabilities_are_those_of_the_logistic_truth(loss, params) -> None:
    X, truth, y = _classes()
    mine = LossClassifier(loss, loss_params=params, **EXACT).fit(X, y)
    found = mine.predict_proba(X)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-12)
    np.testing.assert_allclose(found[:, 1], truth, atol=0.06)
    theirs = LogisticRegression(C=np.inf, tol=1e-8).fit(X, y)
    np.testing.assert_allclose(found, theirs.predict_proba(X), atol=1e-4)
    np.testing.assert_allclose(
        mine.decision_function(X), theirs.decision_function(X), rtol=1e-3, atol=1e-3
    )
    # calibrated: in each tenth of the rows as many ones as predicted, within 3 standard errors
    for rows in np.array_split(np.argsort(found[:, 1]), 10):
        expected = found[rows, 1]
        error = np.sqrt((expected * (1 - expected)).sum()) / len(rows)
        assert abs(y[rows].mean() - expected.mean()) < 3 * error


def test_softmax_over_more_classes_is_multinomial_regression() -> None:
    X, y = make_classification(
        600, 5, n_informative=4, n_redundant=0, n_classes=3, flip_y=0.2, random_state=0
    )
    names = np.array(["a", "b", "c"])[y]
    mine = LossClassifier(**EXACT).fit(X, names)
    theirs = LogisticRegression(C=np.inf, tol=1e-8).fit(X, names)
    np.testing.assert_allclose(mine.predict_proba(X), theirs.predict_proba(X), atol=1e-4)
    assert (mine.predict(X) == theirs.predict(X)).all()


def test_one_logit_for_each_class_gives_probabilities_that_sum_to_one() -> None:
    X, y = make_classification(600, 5, n_informative=4, n_redundant=0, n_classes=3, random_state=0)
    mine = LossClassifier("binary_cross_entropy_with_logits", **EXACT).fit(X, y)
    found, logits = mine.predict_proba(X), mine.decision_function(X)
    each = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(found, each / each.sum(1, keepdims=True), rtol=1e-10)
    for label in range(3):
        rest = LogisticRegression(C=np.inf, tol=1e-8).fit(X, y == label)
        np.testing.assert_allclose(each[:, label], rest.predict_proba(X)[:, 1], atol=1e-3)


def test_sizes_of_the_classes_come_from_the_weighted_training_rows() -> None:
    X, _, y = _classes(1000)
    weight = np.where(y == 1, 3.0, 1.0)
    given = {"prior": torch.tensor([(y == 0).sum(), 3.0 * (y == 1).sum()])}
    short = EXACT | {"epochs": 100}
    mine = LossClassifier("logit_adjusted_loss", **short).fit(X, y, weight)
    told = LossClassifier("logit_adjusted_loss", loss_params=given, **short).fit(X, y, weight)
    np.testing.assert_allclose(mine.predict_proba(X), told.predict_proba(X), rtol=1e-6)


@pytest.mark.parametrize("loss", ["hinge_loss", "multi_margin_loss", "squared_hinge_loss"])
def test_margins_give_no_probabilities(loss) -> None:
    X, _, y = _classes(500)
    mine = LossClassifier(loss, **(EXACT | {"epochs": 100})).fit(X, y)
    assert not hasattr(mine, "predict_proba")
    assert ((mine.decision_function(X) > 0) == mine.predict(X)).all()
    assert mine.score(X, y) > 0.7


@pytest.mark.parametrize(
    ("estimator", "loss"),
    [
        (LossRegressor, "l1_loss"),
        (LossRegressor, "huber_loss"),
        (LossRegressor, "poisson_nll_loss"),
        (LossRegressor, "rmse_loss"),
        (LossRegressor, "gaussian_nll_loss"),
        (LossClassifier, "cross_entropy"),
        (LossClassifier, "hinge_loss"),
        (LossClassifier, "binary_cross_entropy_with_logits"),
    ],
)
def test_a_weight_is_a_number_of_copies_and_weight_0_is_absence(estimator, loss) -> None:
    X, mean, _ = _amounts(150)
    draw = np.random.default_rng(3)
    y = draw.poisson(mean).clip(0, 2 if estimator is LossClassifier else None)
    weight = draw.integers(0, 4, len(y))
    far = X.copy()
    far[weight == 0] = 1e6
    short = EXACT | {"epochs": 300, "learning_rate": 0.02}
    weighed = estimator(loss, **short).fit(far, y, weight)
    copied = estimator(loss, **short).fit(np.repeat(X, weight, 0), np.repeat(y, weight))
    ask = "predict" if estimator is LossRegressor else "decision_function"
    np.testing.assert_allclose(
        getattr(weighed, ask)(X), getattr(copied, ask)(X), rtol=1e-3, atol=2e-3
    )


def test_a_likelihood_with_a_spread_predicts_it_in_the_unit_of_the_target() -> None:
    draw, short = np.random.default_rng(0), EXACT | {"epochs": 200}
    x = draw.uniform(-1, 1, 3000)
    y = 1000 + 300 * x + 50 * np.exp(x) * draw.normal(size=len(x))
    for scale_target in (True, False):
        model = LossRegressor("gaussian_nll_loss", scale_target=scale_target, **short)
        model.fit(x[:, None], y)
        at = np.array([[-1.0], [0.0], [1.0]])
        np.testing.assert_allclose(model.predict(at), [700, 1000, 1300], atol=10)
        np.testing.assert_allclose(
            np.sqrt(model.predict_spread(at)), 50 * np.exp(at[:, 0]), rtol=0.1
        )
    assert not hasattr(LossRegressor("mse_loss"), "predict_spread")
    scale = LossRegressor("laplace_nll_loss", **short).fit(x[:, None], y).predict_spread(at)
    # the mean absolute deviation of a normal distribution
    np.testing.assert_allclose(scale, 50 * np.exp(at[:, 0]) * np.sqrt(2 / np.pi), rtol=0.1)


def test_inner_units_are_the_robust_spread_of_the_residuals_or_those_of_the_target() -> None:
    draw = np.random.default_rng(0)
    X = draw.normal(size=(400, 2))
    y = 1000 * (X @ [1.0, 2.0] + 0.1 * draw.normal(size=400))
    y[:20] += 1e5
    residual = y - 1000 * X @ [1.0, 2.0]
    own = LossRegressor("huber_loss", loss_params={"delta": 135.0}, scale_target=False, **EXACT)
    scaled = LossRegressor("huber_loss", loss_params={"delta": 1.35}, **EXACT)
    for model in (own, scaled):
        # the outliers move it by their share of the pull at most
        off = model.fit(X, y).predict(X) - (y - residual)
        assert np.abs(off).max() < 300
    wide = LossRegressor("huber_loss", loss_params={"delta": 1e9}, **EXACT).fit(X, y)
    assert np.abs(wide.predict(X) - (y - residual)).max() > 1000


def test_a_grid_searches_losses_and_their_options_inside_a_pipeline() -> None:
    X, mean, noise = _amounts(200)
    y = mean * noise
    model = make_pipeline(MinMaxScaler(), LossRegressor(**(EXACT | {"epochs": 60})))
    grid = [
        {"lossregressor__loss": ["mse_loss", lm.L1Loss()]},
        {"lossregressor__loss": ["pinball_loss"], "lossregressor__loss__quantile": [0.1, 0.9]},
    ]
    score = "neg_mean_absolute_error"
    search = GridSearchCV(model, grid, scoring=score, cv=3).fit(X, y)
    assert isinstance(search.best_params_["lossregressor__loss"], lm.L1Loss)
    tail = search.cv_results_["param_lossregressor__loss__quantile"]
    assert list(tail[2:]) == [0.1, 0.9]
    assert len(set(search.cv_results_["mean_test_score"])) == 4


def test_parameters_survive_clone_set_and_pickle() -> None:
    model = LossRegressor("huber_loss", loss_params={"delta": 2.0}, random_state=0, epochs=5)
    model.set_params(loss__delta=3.0)
    assert model.get_params()["loss__delta"] == 3.0
    assert model.get_params(deep=False)["loss_params"] == {"delta": 3.0}
    assert clone(model).get_params() == model.get_params()
    X, mean, _ = _amounts(50)
    for loss in ("huber_loss", lm.HuberLoss, lm.HuberLoss(), lm.huber_loss, lm.L1Loss() * 2.0):
        kept = LossRegressor(loss, random_state=0, epochs=5).fit(X, mean)
        again = pickle.loads(pickle.dumps(kept))
        np.testing.assert_array_equal(again.predict(X), kept.predict(X))
        assert type(clone(kept).loss) is type(loss)


def test_what_a_loss_learns_is_trained_and_the_module_given_is_left_alone() -> None:
    draw = np.random.default_rng(0)
    X = draw.normal(size=(500, 1))
    y = X[:, 0] + draw.standard_cauchy(500)
    given = lm.AdaptiveBarronLoss(alpha=1.5)
    model = LossRegressor(given, **(EXACT | {"epochs": 200})).fit(X, y)
    assert model.loss_.alpha.item() < 0.8  # a Cauchy distribution has shape 0
    assert given.alpha.item() == pytest.approx(1.5)
    assert model.predict([[1.0]]) == pytest.approx(1.0, abs=0.3)


def test_held_out_rows_stop_the_training_and_keep_its_best_epoch() -> None:
    X, _, y = _classes(300)
    noise = np.random.default_rng(0).normal(size=(300, 30))
    model = LossClassifier(hidden=64, random_state=0, epochs=500, patience=7)
    model.fit(np.hstack([X, noise]), y)
    held = model.validation_loss_curve_
    assert model.n_iter_ == len(held) == len(model.loss_curve_) == model.best_epoch_ + 7 < 500
    assert model.best_epoch_ == np.argmin(held) + 1
    x = np.hstack([X, noise])
    assert log_loss(y, model.predict_proba(x)) < 0.7
    assert not LossClassifier(epochs=2, early_stopping=False).fit(X, y).validation_loss_curve_


def test_the_loop_gives_back_the_weights_of_the_best_epoch() -> None:
    torch.manual_seed(0)
    x, network = torch.randn(40, 20), torch.nn.Linear(20, 1)
    target, hold = torch.randn(40), torch.arange(20, 40)

    def cost(output: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return lm.mse_loss(output[:, 0], target[rows])

    recipe = Recipe(epochs=100, batch=20, rate=0.1, decay=0.0, patience=100)
    order = torch.Generator().manual_seed(0)
    course = train(network, [], x, torch.ones(40), cost, torch.arange(20), hold, recipe, order)
    assert course.best < 50
    assert cost(network(x[hold]), hold).item() == min(course.held)


def test_the_loop_gives_back_what_the_loss_had_learned_in_the_best_epoch() -> None:
    torch.manual_seed(0)
    x, network = torch.randn(40, 20), torch.nn.Linear(20, 1)
    target, hold = torch.randn(40), torch.arange(20, 40)
    loss = lm.AdaptiveBarronLoss()

    def cost(output: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return loss(output[:, 0], target[rows])

    recipe = Recipe(epochs=100, batch=20, rate=0.05, decay=0.0, patience=100)
    order, learnt = torch.Generator().manual_seed(0), list(loss.parameters())
    course = train(network, learnt, x, torch.ones(40), cost, torch.arange(20), hold, recipe, order)
    assert course.best < 50
    with torch.no_grad():
        assert cost(network(x[hold]), hold).item() == min(course.held)


def test_a_scale_of_the_logits_that_is_learned_belongs_to_the_prediction() -> None:
    X, _, y = _classes(300)
    given = lm.CrossEntropyLoss(logit_scale=torch.nn.Parameter(torch.tensor(0.1)))
    model = LossClassifier(given, random_state=0, epochs=20, standardize=False)
    model.fit(X, y)
    scale = model.loss_.logit_scale.item()
    assert scale != pytest.approx(0.1, rel=0.1)
    outputs = model.module_(torch.as_tensor(X)).detach().numpy()
    wanted = scale * (outputs[:, 1] - outputs[:, 0])
    np.testing.assert_allclose(model.decision_function(X), wanted, rtol=1e-4, atol=1e-6)


def _dropout(inputs: int, outputs: int) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(inputs, outputs), torch.nn.Dropout(0.5))


def test_a_factory_makes_the_network_and_dropout_is_off_in_prediction() -> None:
    X, mean, _ = _amounts(60)
    one, other = (
        LossRegressor(model=_dropout, epochs=3, random_state=4).fit(X, mean).predict(X)
        for _ in range(2)
    )
    np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match=r"model must map \(2, 3\) to \(2, 1\), got \(2, 2\)"):
        LossRegressor(model=lambda inputs, outputs: torch.nn.Linear(inputs, 2)).fit(X, mean)


def test_single_precision_stays_so() -> None:
    X, mean, _ = _amounts(60)
    model = LossRegressor(epochs=3).fit(X.astype("float32"), mean)
    assert model.predict(X.astype("float32")).dtype == np.float32
    assert LossRegressor(epochs=3).fit(X, mean).predict(X).dtype == np.float64


@pytest.mark.parametrize(
    ("estimator", "loss", "params", "found"),
    [
        (LossRegressor, "hinge_loss", None, r"hinge_loss: it does not take one number"),
        (LossRegressor, "cross_entropy", None, r"cross_entropy: it is for multiclass and"),
        (LossRegressor, "pearson_loss", None, r"it is one value of a whole batch"),
        (LossRegressor, "gamma_nll_loss", None, r"gamma_nll_loss: target must be > 0, got -1"),
        (LossRegressor, "poisson_nll_loss", {"log_input": False}, r"its input must be >= 0"),
        (LossRegressor, lm.MSELoss() + lm.PoissonNLLLoss(), None, r"target must be >= 0, got -1"),
        (LossRegressor, lm.MSELoss() + lm.GaussianNLLLoss(), None, r"its parts differ in their"),
        (LossRegressor, lm.MSELoss(reduction="sum"), None, r"loss must have the reduction 'mean'"),
        (LossRegressor, lm.HuberLoss(), {"delta": 2.0}, r"loss_params must be empty for a Module"),
        (LossRegressor, "hubber", None, r"loss must be a name in the catalogue \(close: huber"),
        (LossRegressor, torch.nn.MSELoss(), None, r"loss must be a loss registered with"),
        (LossRegressor, "huber_loss", {"delta": -1.0}, r"delta must be > 0, got -1.0"),
        (LossClassifier, "mse_loss", None, r"mse_loss: it is for regression"),
        (LossClassifier, "nll_loss", None, r"nll_loss: its input must be log-probabilities"),
        (LossClassifier, "zero_one_loss", None, r"its gradient is 0 almost everywhere"),
        (LossClassifier, "binary_dice_loss", None, r"it is one value of a whole batch"),
    ],
)
def test_what_cannot_serve_is_refused_in_words(estimator, loss, params, found) -> None:
    with pytest.raises(ValueError, match=found):
        estimator(loss, loss_params=params, epochs=2).fit([[0.0], [1.0], [2.0]], [-1, 1, 1])


def test_an_unknown_option_is_a_type_error() -> None:
    with pytest.raises(TypeError, match=r"huber_loss takes delta, got delat"):
        LossRegressor("huber_loss", loss_params={"delat": 1.0}).fit([[0.0], [1.0]], [0, 1])


@pytest.mark.parametrize(
    ("name", "value"), [("epochs", 0), ("batch_size", 0), ("learning_rate", 0.0), ("hidden", -1)]
)
def test_a_parameter_out_of_range_is_named(name, value) -> None:
    with pytest.raises(ValueError, match=name):
        LossRegressor(**{name: value}).fit([[0.0], [1.0]], [0.0, 1.0])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("standardize", "no", "standardize must be True or False, got 'no'"),
        ("early_stopping", "yes", "early_stopping must be True or False, 'auto', got 'yes'"),
        ("device", "gpu0", "device must name a device of torch that is there, got 'gpu0'"),
        ("device", "meta", "device must name a device of torch that is there, got 'meta'"),
        ("device", "cuda:77", "device must name a device of torch that is there, got 'cuda:77'"),
        ("model", 3, "model must be mlp, linear or a factory, got 3"),
        ("random_state", "x", "random_state must seed a generator: 'x' cannot be used"),
        ("loss_params", [1], r"loss_params must be a mapping or None, got \[1\]"),
    ],
)
def test_a_parameter_of_a_wrong_kind_is_named(name, value, message) -> None:
    for estimator in (LossRegressor, LossClassifier):
        with pytest.raises((ValueError, TypeError), match=message):
            estimator(**{name: value}).fit([[0.0], [1.0]], [0, 1])


def test_integers_of_numpy_are_integers() -> None:
    x, y = np.arange(20.0)[:, None], np.arange(20.0)
    sizes = {"hidden": np.int64(2), "epochs": np.int64(2), "batch_size": np.int64(8)}
    fitted = LossRegressor("huber", **sizes).fit(x, y)
    assert fitted.predict(x).shape == (20,)


def test_a_missing_target_is_refused() -> None:
    for y in ([None, 1.0, 2.0], [np.nan, 1.0, 2.0]):
        with pytest.raises(ValueError, match="Input y contains NaN"):
            LossRegressor(epochs=1).fit([[0.0], [1.0], [2.0]], y)


def test_a_training_that_blows_up_says_so() -> None:
    with pytest.raises(ValueError, match=r"the loss must stay finite, got .* in epoch"):
        LossRegressor("poisson_nll_loss", learning_rate=1e6).fit([[0.0], [1.0]], [0, 1])


def test_the_package_does_not_load_scikit_learn() -> None:
    code = "import sys, lossmith.train; print('sklearn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"
