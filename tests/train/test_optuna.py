"""Losses as a search space, under the real Optuna."""

import numpy as np
import optuna
import pytest
from optuna.samplers import TPESampler
from optuna.trial import FixedTrial, TrialState
from sklearn.metrics import mean_pinball_loss

import lossmith as lm
from lossmith.tabular.options import shaping, span
from lossmith.train import LossClassifier, LossRegressor
from lossmith.train.optuna import LossObjective, suggest_loss

NET = LossRegressor(model="linear", epochs=60, learning_rate=0.1, random_state=0)


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def _study(objective, trials: int = 10) -> optuna.Study:
    study = optuna.create_study(direction="maximize", sampler=TPESampler(seed=3))
    study.optimize(objective, n_trials=trials)
    return study


def _skewed() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    X = draw.normal(size=(240, 2))
    return X, X @ [1.0, -1.0] + draw.exponential(2.0, 240)


def _pinball(level: float):
    def score(estimator, X, y) -> float:
        return -mean_pinball_loss(y, estimator.predict(X), alpha=level)

    return score


def test_a_study_finds_the_loss_of_its_metric_and_repeats_itself() -> None:
    X, y = _skewed()
    losses = ["mse_loss", "l1_loss", "pinball_loss"]
    objective = LossObjective(NET, X, y, losses, scoring=_pinball(0.9), cv=3)
    study = _study(objective)
    assert study.best_params["loss"] == "pinball_loss"
    assert 0.75 < study.best_params["pinball_loss.quantile"] < 0.98
    best = objective.best(study).fit(X, y)
    assert best.loss == "pinball_loss"
    assert np.mean(y < best.predict(X)) > 0.75
    again = _study(objective)
    assert [one.params for one in again.trials] == [one.params for one in study.trials]
    assert [one.value for one in again.trials] == [one.value for one in study.trials]


def test_all_losses_that_serve_enter_by_themselves() -> None:
    X, y = _skewed()
    real = LossObjective(NET, X, y).losses
    assert {"mse_loss", "huber_loss", "pinball_loss"} <= set(real)
    assert not {"gamma_nll_loss", "poisson_nll_loss", "hinge_loss", "rmse_loss"} & set(real)
    assert "gamma_nll_loss" in LossObjective(NET, X, np.exp(y)).losses
    flags = LossObjective(LossClassifier(), X, y > y.mean()).losses
    assert {"cross_entropy", "hinge_loss", "sigmoid_focal_loss"} <= set(flags)
    assert not {"zero_one_loss", "binary_dice_loss", "mse_loss"} & set(flags)
    for names, estimator in ((real, NET), (flags, LossClassifier(epochs=2))):
        target = y if estimator is NET else y > y.mean()
        for name in names:  # none of them fails at its defaults
            estimator.__class__(name, epochs=2).fit(X, target)


def test_a_loss_that_fails_is_pruned_with_the_reason() -> None:
    X, y = _skewed()
    objective = LossObjective(NET, X, y, ["gamma_nll_loss"], cv=3)
    study = _study(objective, 1)
    assert study.trials[0].state is TrialState.PRUNED
    assert "target must be > 0" in study.trials[0].user_attrs["failure"]


def test_a_task_brings_its_losses_and_ranges_replace_the_ends_of_the_cards() -> None:
    found = _study(lambda trial: float(len(suggest_loss(trial, "multiclass")[0])), 30)
    names = {one.params["loss"] for one in found.trials}
    assert {"cross_entropy", "focal_loss"} <= {*found.trials[0].distributions["loss"].choices}
    assert len(names) > 3
    ranges = {"pinball": {"quantile": (0.9, 0.9)}}
    fixed = _study(lambda trial: suggest_loss(trial, ["pinball"], ranges=ranges)[1]["quantile"], 2)
    assert fixed.best_value == 0.9


@pytest.mark.parametrize("name", sorted(lm.cards()))
def test_the_ends_of_a_search_lie_in_the_domain_of_the_option(name) -> None:
    for option, value, domain in shaping(lm.card(name)):
        low, high, even = span(value, domain)
        assert domain.contains(low), option
        assert domain.contains(high), option
        assert low <= value <= high or domain.high <= 1, option
        assert low > 0 or not even, option


def test_bad_requests_are_refused() -> None:
    trial = FixedTrial({"loss": "huber_loss", "huber_loss.delta": 1.0})
    with pytest.raises(ValueError, match=r"ranges must name numeric options of huber_loss \(delt"):
        suggest_loss(trial, ["huber"], ranges={"huber": {"gamma": (0, 1)}})
    with pytest.raises(ValueError, match=r"losses must hold at least one loss, got \[\]"):
        suggest_loss(trial, [])
    with pytest.raises(ValueError, match=r"task must be one of"):
        suggest_loss(trial, "regresion")
