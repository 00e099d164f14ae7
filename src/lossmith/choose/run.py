"""From a table to a verdict: the two entry points of the workbench."""

import platform
import shlex
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import pandas as pd

from lossmith.choose.data import load
from lossmith.choose.diagnosis import Diagnosis, examine
from lossmith.choose.errors import DataError
from lossmith.choose.folds import plan
from lossmith.choose.metric import DEFAULTS, resolve
from lossmith.choose.result import Choice
from lossmith.choose.shortlist import shortlist
from lossmith.choose.tournament import Progress, tournament
from lossmith.choose.training import Settings
from lossmith.choose.verdict import judge

Model = Literal["mlp", "linear"]
PACKAGES = ("lossmith", "torch", "numpy", "scikit-learn", "scipy", "pandas")


def diagnose(
    data: str | Path | pd.DataFrame, target: str | None = None, *, task: str | None = None
) -> Diagnosis:
    """Say what the data tell about the choice of a loss, without training anything.

    Args:
        data: A CSV or Parquet file, the name of a bundled set, or a DataFrame.
        target: Name of the target column; bundled sets have a default.
        task: ``"continuous"``, ``"count"``, ``"binary"`` or ``"multiclass"``; None reads it off the
            target column.

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
        ['classes', 'imbalance']
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
    epochs: int | None = None,
    model: Model = "mlp",
    seed: int = 0,
    progress: Progress = lambda label, share: None,
) -> Choice:
    """Let the losses that fit the data compete on them, and say what may be concluded.

    Every loss is trained on the same folds, from the same weights, in the same batch order, with
    the same optimiser, and stopped by the same metric. Differences from the baseline are tested
    with a correction for the overlap of the training sets and for the number of losses.

    Args:
        data: A CSV or Parquet file, the name of a bundled set, or a DataFrame.
        target: Name of the target column; bundled sets have a default.
        metric: What matters to you: ``"mae"``, ``"rmse"``, ``"mse"``, ``"r2"``, ``"pinball:0.9"``,
            ``"poisson_deviance"``, ``"accuracy"``, ``"balanced_accuracy"``, ``"f1"``,
            ``"log_loss"``, ``"auc"``; None takes the default of the target's kind.
        losses: ``"auto"``, or names of the catalogue as a list or joined by commas.
        task: ``"continuous"``, ``"count"``, ``"binary"`` or ``"multiclass"``; None reads it off the
            target column.
        folds: ``"10x3"`` is three repeats of ten folds; None takes that, or less for many rows.
        epochs: Most passes over the training rows, ``>= 1``; None takes 100, or less for many rows.
        model: ``"mlp"``, a linear path and one hidden layer of 32 units, or ``"linear"``.
        seed: Seed of folds, initial weights and batch orders.
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
        ['huber_loss', 'mse_loss']
    """
    table = load(data, target)
    judged_by = None if metric is None else resolve(metric)
    diagnosis = examine(table, judged_by, task)
    reason = "as requested"
    if judged_by is None:
        name, why = DEFAULTS[diagnosis.kind]
        judged_by, reason = resolve(name), f"default for a {diagnosis.kind} target: {why}"
    if epochs is not None and epochs < 1:
        raise DataError(f"epochs must be >= 1, got {epochs}")
    if model not in ("mlp", "linear"):
        raise DataError(f"model must be mlp or linear, got {model!r}")
    settings = Settings(epochs=epochs or _epochs(diagnosis.rows))
    if model == "linear":
        settings = replace(settings, hidden=0)
    entries = shortlist(diagnosis, judged_by, losses)
    cells = plan(diagnosis, folds, seed)
    outcome = tournament(table, diagnosis, entries.candidates, judged_by, cells, settings, progress)
    words = ["lossmith", "choose", table.name, "--target", table.target_name]
    words += ["--metric", judged_by.name, "--task", diagnosis.kind]
    words += ["--losses", losses if isinstance(losses, str) else ",".join(losses)]
    words += ["--folds", f"{cells.folds}x{cells.repeats}", "--epochs", str(settings.epochs)]
    words += ["--model", model, "--seed", str(seed)]
    return Choice(
        data=table,
        diagnosis=diagnosis,
        metric=judged_by,
        metric_reason=reason,
        shortlist=entries,
        plan=cells,
        settings=settings,
        seed=seed,
        tournament=outcome,
        outcome=judge(outcome, diagnosis, judged_by, cells.rho),
        command=shlex.join(words),
        versions={"python": platform.python_version(), **{one: version(one) for one in PACKAGES}},
    )


def _epochs(rows: int) -> int:
    """Large tables take more steps in an epoch and need fewer epochs."""
    return 100 if rows <= 3000 else 40 if rows <= 10_000 else 25
