"""Losses and their options as the search space of an Optuna study.

Needs the extra ``optuna``: ``pip install "lossmith[optuna]"``; :class:`LossObjective` also ``lab``.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from lossmith.core.card import Card
from lossmith.core.catalogue import card as find_card
from lossmith.core.catalogue import find
from lossmith.core.checks import fail, said
from lossmith.tabular.options import shaping, span

try:
    from optuna import Study, Trial, TrialPruned
    from sklearn.base import clone
    from sklearn.model_selection import cross_val_score

    from lossmith.train.estimators import LossClassifier, LossRegressor
except ImportError as _error:
    raise ImportError(
        f"lossmith.train.optuna needs pip install 'lossmith[optuna,lab]': {_error}"
    ) from None

# Ends of the search for the options of a loss: {"pinball_loss": {"quantile": (0.8, 0.95)}}
Ranges = Mapping[str, Mapping[str, tuple[float, float]]]


def suggest_loss(
    trial: Trial, losses: str | Sequence[str], *, ranges: Ranges | None = None
) -> tuple[str, dict[str, float]]:
    """Let a trial choose a loss and the options that shape it.

    The parameters of the trial are ``loss`` and, for the loss chosen, ``NAME.OPTION``. Ends come
    from the cards: a share between 0.02 and 0.98, a power between 1 and 2, a scale between a tenth
    and ten times its default, evenly in the logarithm. Numerical safeguards stay at their defaults.

    Args:
        trial: Of Optuna.
        losses: Names of the catalogue, or a task, such as ``"regression"``, whose losses of
            ``(input, target)`` all enter.
        ranges: Other ends, by loss and option; two equal ends fix an option.

    Returns:
        Name and options: ``LossRegressor(name, loss_params=options)``, or
        ``lossmith.card(name).function(input, target, **options)``.

    Raises:
        ValueError: If a name or a task is unknown, or there is no loss.

    Example:
        >>> import optuna
        >>> from lossmith.train.optuna import suggest_loss
        >>> trial = optuna.trial.FixedTrial({"loss": "huber_loss", "huber_loss.delta": 2.0})
        >>> suggest_loss(trial, ["mse", "huber"])
        ('huber_loss', {'delta': 2.0})
    """
    cards = _cards(losses)
    if not cards:
        fail("losses", "hold at least one loss", said(repr(losses)))
    name = trial.suggest_categorical("loss", list(cards))
    given = {find_card(key).name: ends for key, ends in (ranges or {}).items()}.get(name, {})
    space = {option: (value, domain) for option, value, domain in shaping(cards[name])}
    unknown = ", ".join(set(given) - set(space))
    if unknown:
        fail("ranges", f"name numeric options of {name} ({', '.join(space)})", said(unknown))
    found: dict[str, float] = {}
    for option, (value, domain) in space.items():
        low, high, even = span(value, domain)
        low, high = given.get(option, (low, high))
        found[option] = trial.suggest_float(f"{name}.{option}", low, high, log=even and low > 0)
    return name, found


def _cards(losses: str | Sequence[str]) -> dict[str, Card]:
    if not isinstance(losses, str):
        return {find_card(name).name: find_card(name) for name in losses}
    return {
        card.name: card
        for card in find(task=losses)
        if card.tensors == ("input", "target")
        and card.coupling in ("element", "row")
        and card.differentiable
    }


class LossObjective:
    """An Optuna objective: the cross-validated score of an estimator with the suggested loss.

    Scores are those of scikit-learn, of which larger ones are better: the study has to maximise.
    A trial whose loss fails on the data is pruned, with the reason in its user attribute
    ``failure``.

    Args:
        estimator: A :class:`LossRegressor` or :class:`LossClassifier`; give it a ``random_state``.
        X: Features, ``(rows, columns)``.
        y: Target, ``(rows,)``.
        losses: Names of the catalogue; None takes all that can serve the target.
        scoring: A scorer of scikit-learn or its name, such as ``"neg_mean_absolute_error"``; None
            is the estimator's own score.
        cv: Number of folds, or a splitter.
        ranges: As for :func:`suggest_loss`.

    Raises:
        ValueError: If a name is unknown.

    Example:
        >>> import numpy as np, optuna
        >>> from lossmith.train import LossRegressor
        >>> from lossmith.train.optuna import LossObjective
        >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
        >>> X = np.linspace(-1, 1, 60)[:, None]
        >>> net = LossRegressor(model="linear", epochs=20, random_state=0)
        >>> objective = LossObjective(net, X, 3 * X[:, 0], ["mse", "huber"], cv=3)
        >>> sampler = optuna.samplers.TPESampler(seed=0)
        >>> study = optuna.create_study(direction="maximize", sampler=sampler)
        >>> study.optimize(objective, n_trials=2)
        >>> objective.best(study).fit(X, 3 * X[:, 0]).predict([[0.0]]).shape
        (1,)
    """

    def __init__(
        self,
        estimator: LossRegressor | LossClassifier,
        X: Any,
        y: Any,
        losses: Sequence[str] | None = None,
        *,
        scoring: Any = None,
        cv: Any = 5,
        ranges: Ranges | None = None,
    ) -> None:
        self.estimator, self.X, self.y, self.ranges = estimator, X, y, ranges
        self.scoring, self.cv = scoring, cv
        self.losses = list(_cards(losses)) if losses is not None else _serving(estimator, y)

    def __call__(self, trial: Trial) -> float:
        """The mean score over the folds."""
        name, options = suggest_loss(trial, self.losses, ranges=self.ranges)
        trial.set_user_attr("loss", name)
        trial.set_user_attr("loss_params", options)
        model = _with(self.estimator, loss=name, loss_params=options)
        try:
            scores: NDArray[Any] = cross_val_score(
                model,
                self.X,
                self.y,
                scoring=self.scoring,
                cv=self.cv,
                error_score=cast(Any, "raise"),
            )
        except (ValueError, TypeError, RuntimeError) as error:
            trial.set_user_attr("failure", str(error))
            raise TrialPruned(f"{name}: {error}") from error
        return float(scores.mean())

    def best(self, study: Study) -> Any:
        """The estimator, not fitted, with the loss of the study's best trial."""
        found = study.best_trial.user_attrs
        return _with(self.estimator, loss=found["loss"], loss_params=found["loss_params"])


def _with(estimator: Any, **params: Any) -> Any:
    """A copy, not fitted, with other parameters."""
    copy: Any = clone(estimator)
    return copy.set_params(**params)


def _serving(estimator: Any, y: Any) -> list[str]:
    """All losses of the catalogue that the estimator can train on this target."""
    tasks = {"regression", "count"}
    if isinstance(estimator, LossClassifier):
        tasks = {"binary", "multiclass"}
    names = {name for task in tasks for name in _cards(task)}
    target = np.asarray(y)
    return sorted(name for name in names if _with(estimator, loss=name).serves(target))
