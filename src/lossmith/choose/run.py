"""From a table to a verdict: the two entry points of the workbench."""

import inspect
import platform
import shlex
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from numbers import Integral
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from lossmith.choose.cost import costs
from lossmith.choose.crew import complete
from lossmith.choose.data import load
from lossmith.choose.diagnosis import Diagnosis, examine
from lossmith.choose.errors import DataError
from lossmith.choose.estimators import Estimators, enter
from lossmith.choose.executors import EXECUTORS
from lossmith.choose.folds import plan
from lossmith.choose.messages import say
from lossmith.choose.metric import DEFAULTS, resolve
from lossmith.choose.result import Choice
from lossmith.choose.shortlist import shortlist
from lossmith.choose.training import Settings
from lossmith.choose.verdict import judge
from lossmith.choose.work import Work
from lossmith.choose.worker import Progress
from lossmith.tabular.networks import MODELS, Model

LIMITS = {
    "epochs": (1, 100_000),
    "trials": (1, 1000),
    "seed": (0, 2**31 - 1),
    "jobs": (1, 1000),
}
PACKAGES = ("lossmith", "torch", "numpy", "scikit-learn", "scipy", "pandas")


def diagnose(
    data: str | Path | pd.DataFrame, target: str | None = None, *, task: str | None = None
) -> Diagnosis:
    """Say what the data tell about the choice of a loss, without training anything.

    Args:
        data: A CSV or Parquet file, the name of a bundled set, or a DataFrame.
        target: Name of the target column; bundled sets have a default.
        task: ``"continuous"``, ``"positive"``, ``"proportion"``, ``"count"``, ``"binary"``,
            ``"multiclass"``, ``"ordinal"`` or ``"multilabel"``; None reads it off the target
            column.

    Returns:
        The diagnosis: ``.verdict`` in a sentence, ``.table`` with one finding in each row.

    Raises:
        DataError: If the data cannot be used (a ``ValueError``).

    Example:
        >>> from lossmith.choose import diagnose
        >>> found = diagnose("breast_cancer")
        >>> found.kind, found.classes
        ('binary', ('benign', 'malignant'))
        >>> found.table["finding"].tolist()
        ['classes', 'imbalance', 'label_noise']
    """
    return examine(load(data, target), kind=task)


def choose(
    data: str | Path | pd.DataFrame,
    target: str | None = None,
    *,
    metric: str | None = None,
    losses: str | Sequence[str] = "auto",
    task: str | None = None,
    folds: str | None = None,
    group: str | None = None,
    time: str | None = None,
    epochs: int | None = None,
    model: str | Model | Estimators = "mlp",
    trials: int = 8,
    seed: int = 0,
    out: str | Path | None = None,
    jobs: int = 1,
    executor: str = "processes",
    progress: Progress = lambda label, share: None,
) -> Choice:
    """Let the losses that fit the data compete on them, and say what may be concluded.

    Every loss is trained on the same folds, from the same weights, in the same batch order, with
    the same optimiser and as many trials of step sizes and options, and stopped by the same metric.
    Differences from the baseline are tested with a correction for the overlap of the training sets
    and for the number of losses. Losses without a chance leave the race after a repeat; the
    baseline never does.

    Args:
        data: A CSV or Parquet file, the name of a bundled set, or a DataFrame.
        target: Name of the target column; bundled sets have a default.
        metric: What matters to you: ``"mae"``, ``"rmse"``, ``"mse"``, ``"r2"``, ``"pinball:0.9"``,
            ``"poisson_deviance"``, ``"accuracy"``, ``"balanced_accuracy"``, ``"f1"``,
            ``"log_loss"``, ``"auc"``; None takes the default of the target's kind.
        losses: ``"auto"``, or names of the catalogue as a list or joined by commas.
        task: ``"continuous"``, ``"positive"``, ``"proportion"``, ``"count"``, ``"binary"``,
            ``"multiclass"``, ``"ordinal"`` or ``"multilabel"``; None reads it off the target
            column.
        folds: ``"10x3"`` is three repeats of ten folds; None takes that, or less for many rows.
        group: Column whose values must not be torn between training and test rows.
        time: Column of numbers or dates; then the past predicts the future.
        epochs: Most passes over the training rows, 1 to 100,000; None takes 100, or less for many
            rows.
        model: ``"mlp"``, a linear path and one hidden layer of 32 units, or ``"linear"``, or a
            factory ``model(inputs, outputs)`` of modules that map ``(rows, inputs)`` to
            ``(rows, outputs)``. Modules that ``torch.vmap`` cannot run are trained one by one.
            Losses share initial weights, batch orders and what a module draws in its forward pass,
            as dropout does. Or estimators of scikit-learn by name, or functions that make them, the
            baseline first: they compete in place of ``losses``, fitted to what a network would be
            trained on, with the cell's seed as ``random_state`` where they have none; ``epochs``
            and ``trials`` are their own affair.
        trials: Step sizes and options tried for each loss on held-out rows, 1 to 1000.
        seed: Seed of folds, initial weights and batch orders, 0 to ``2**31 - 1``.
        out: Folder that keeps every result, so that the same call goes on after an interruption
            and other processes can help; None keeps nothing.
        jobs: Processes at work, 1 to 1000, of which this is one. A script that asks for more than
            one needs the usual ``if __name__ == "__main__":``.
        executor: Who starts the others: ``"processes"`` on this machine, or ``"ray"`` on the
            cluster that the environment variable RAY_ADDRESS names, else on a Ray of its own. All
            machines of a cluster must see the folder ``out``.
        progress: Called with the name of a loss and the share of its training that is done.

    Returns:
        The choice: ``.verdict`` in words, ``.table`` with one loss in each row, ``.winner``.

    Raises:
        DataError: If the data or the request cannot be used (a ``ValueError``).
        TournamentFailed: If the baseline fails.

    Example:
        >>> from lossmith.choose import choose
        >>> done = choose("stackloss", metric="mae", losses=["huber_loss"], folds="5x1", epochs=2)
        >>> sorted(done.table["loss"])
        ['huber_loss', 'mse_loss', 'mse_loss + shift']
    """
    for key, name in (("group", group), ("time", time)):
        if not isinstance(name, str | None):
            raise DataError(f"{key} must be the name of a column, got {type(name).__name__}")
    if not isinstance(out, str | PathLike | None):
        raise DataError(f"out must be the path of a folder or None, got {out!r}")
    table = load(data, target, [name for name in (group, time) if name is not None])
    judged_by = None if metric is None else resolve(metric)
    diagnosis = examine(table, judged_by, task)
    reason = say("kind.requested")
    if judged_by is None:
        kind = diagnosis.kind
        judged_by, why = resolve(DEFAULTS[kind]), say(f"metric.why.{kind}")
        reason = say("metric.default", kind=say(f"kind.{kind}"), why=why)
    trials, seed, jobs = _whole("trials", trials), _whole("seed", seed), _whole("jobs", jobs)
    epochs = None if epochs is None else _whole("epochs", epochs)
    if executor not in EXECUTORS:
        raise DataError(f"executor must be one of {', '.join(EXECUTORS)}, got {executor!r}")
    if executor != "processes" and jobs < 2:
        raise DataError(f"jobs must be >= 2 for the executor {executor}, got {jobs}: one is here")
    if isinstance(model, str) and model not in MODELS:
        raise DataError(f"model must be mlp or linear, got {model!r}")
    if not isinstance(model, (str, Mapping)) and not callable(model):
        raise DataError(f"model must be a name, a factory or estimators by name, got {model!r}")
    estimators = model if isinstance(model, Mapping) else None
    if estimators is not None and losses != "auto":
        raise DataError("losses must be auto if model names the contestants, got names")
    entries = shortlist(diagnosis, judged_by, losses) if estimators is None else enter(estimators)
    grouped, timed = (None if name is None else table.aside[name] for name in (group, time))
    cells = plan(diagnosis, folds, seed, grouped, timed)
    settings = Settings(epochs=epochs or _epochs(diagnosis.rows), trials=trials)
    if estimators is not None:
        settings = Settings(epochs=1, trials=1)
    work = Work(
        table=table,
        diagnosis=diagnosis,
        metric=judged_by,
        candidates=entries.candidates,
        plan=cells,
        settings=settings,
        model="mlp" if isinstance(model, Mapping) else model,
        estimators=estimators,
        versions={"python": platform.python_version(), **{one: version(one) for one in PACKAGES}},
    )
    outcome = complete(work, out, jobs, EXECUTORS[executor], progress=progress)
    words = ["lossmith", "choose", table.name, "--target", table.target_name]
    words += ["--metric", judged_by.name, "--task", diagnosis.reading]
    words += ["--losses", losses if isinstance(losses, str) else ",".join(losses)]
    words += ["--folds", f"{cells.folds}x{cells.repeats}", "--epochs", str(work.settings.epochs)]
    words += ["--group", group] if group else []
    words += ["--time", time] if time else []
    words += ["--model", model if isinstance(model, str) else "..."]
    words += ["--trials", str(trials), "--seed", str(seed)]
    return Choice(
        data=table,
        diagnosis=diagnosis,
        metric=judged_by,
        metric_reason=reason,
        shortlist=entries,
        plan=cells,
        settings=work.settings,
        model=work.words,
        seed=seed,
        tournament=outcome,
        outcome=judge(outcome, diagnosis, judged_by, cells, table.features[table.text]),
        costs=costs(work, outcome),
        command=shlex.join(words),
        versions=work.versions,
        networks=estimators is None,
    )


def tournament(x: Any, y: Any, **asked: Any) -> Choice:
    """Let losses compete on features and a target in memory.

    Args:
        x: Features, ``(rows, columns)``: a DataFrame, an array or a tensor.
        y: Target, ``(rows,)``.
        **asked: As for :func:`lossmith.choose.choose`: ``metric``, ``losses``, ``folds``,
            ``model``, ``trials``, ``out``, ``jobs``, ``executor`` and the others.

    Returns:
        The choice: ``.verdict`` in words, ``.table`` with one loss in each row, ``.cells`` with one
        trained model in each row, ``.pairwise`` with each pair of losses, ``.winner``.

    Raises:
        DataError: If the data or the request cannot be used (a ``ValueError``).
        TournamentFailed: If the baseline fails.

    Example:
        >>> import torch, lossmith
        >>> x = torch.arange(40.0)[:, None]
        >>> done = lossmith.tournament(
        ...     x, 2 * x[:, 0], metric="mae", losses="l1_loss", folds="4x1", epochs=2, trials=1
        ... )
        >>> sorted(done.cells.columns)
        ['cell', 'loss', 'mae', 'repeat']
    """
    if not isinstance(x, pd.DataFrame) and _array(x).ndim != 2:
        raise DataError(f"x must have shape (rows, columns), got {_array(x).shape}")
    frame = x.copy() if isinstance(x, pd.DataFrame) else pd.DataFrame(_array(x))
    if not isinstance(x, pd.DataFrame):
        frame.columns = [f"x{place}" for place in range(frame.shape[1])]
    name = "target" if getattr(y, "name", None) is None else str(y.name)
    if name in frame:
        raise DataError(f"y must have a name that no column of x has, got {name!r}")
    target = _array(y)
    if target.shape != (len(frame),):
        raise DataError(f"y must have shape ({len(frame)},) as x has rows, got {target.shape}")
    known = [key for key in inspect.signature(choose).parameters if key not in ("data", "target")]
    for key in asked:
        if key not in known:
            raise TypeError(f"tournament() takes {', '.join(known)} by keyword, got {key}")
    return choose(frame.assign(**{name: target}), name, **asked)


def _whole(name: str, value: Any) -> int:
    low, high = LIMITS[name]
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or not low <= int(value) <= high:
        raise DataError(f"{name} must be a whole number from {low} to {high}, got {value!r}")
    return int(value)


def _array(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def _epochs(rows: int) -> int:
    """Large tables take more steps in an epoch and need fewer epochs."""
    return 100 if rows <= 3000 else 40 if rows <= 10_000 else 25
