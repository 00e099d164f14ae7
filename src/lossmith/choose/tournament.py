"""The tournament: every candidate on the same cells, and the constant that all must beat."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn import config_context

from lossmith.choose.data import Table
from lossmith.choose.diagnosis import Diagnosis
from lossmith.choose.errors import DataError
from lossmith.choose.features import features
from lossmith.choose.folds import Cell, Plan
from lossmith.choose.heads import fit_head, residual_scale
from lossmith.choose.metric import AMOUNTS, Metric
from lossmith.choose.shortlist import Candidate
from lossmith.choose.training import Curves, Settings, Trained, TrainingFailed, train

Progress = Callable[[str, float], None]
MOST_NUMBERS = 1_000_000_000


@dataclass(frozen=True)
class Result:
    """What one candidate did.

    Attributes:
        candidate: The loss.
        scores: Test score of each cell, ``(cells,)``; None if it failed.
        predictions: Out-of-fold predictions of the first repeat as the metric sees them, one for
            each row; None if it failed.
        curves: Curves of the training; None if it failed.
        best_epochs: Epoch of the kept state in each cell; empty if it failed.
        failure: Why there are no scores; empty if there are.
    """

    candidate: Candidate
    scores: NDArray[np.float64] | None = None
    predictions: NDArray[Any] | None = None
    curves: Curves | None = None
    best_epochs: tuple[int, ...] = ()
    failure: str = ""


@dataclass(frozen=True)
class Tournament:
    """Results in the order of the candidates, and the constant predictor's scores."""

    results: tuple[Result, ...]
    constant: NDArray[np.float64]


def tournament(
    table: Table,
    diagnosis: Diagnosis,
    candidates: Sequence[Candidate],
    metric: Metric,
    plan: Plan,
    settings: Settings,
    progress: Progress = lambda label, share: None,
) -> Tournament:
    """Train and score every candidate on every cell; the first one is the baseline.

    Returns:
        The same numbers for the same arguments on the same machine.

    Raises:
        DataError: If the features of all cells would not fit into memory.
    """
    cells = list(plan.cells)
    y = diagnosis.target
    results: list[Result] = []
    with _one_thread(), config_context(assume_finite=True, skip_parameter_validation=True):
        x = _features(table, cells)
        scale = None
        for candidate in candidates:
            label = candidate.label
            head = fit_head(candidate, y, cells, scale)
            try:
                trained = train(
                    head, x, y, cells, metric, settings, lambda share, to=label: progress(to, share)
                )
            except TrainingFailed as reason:
                progress(label, 1.0)
                results.append(Result(candidate, failure=str(reason)))
                continue
            if scale is None and diagnosis.kind in AMOUNTS:
                scale = residual_scale(trained.predictions, y, cells)
            results.append(_score(candidate, trained, y, cells, metric))
        constant = np.array([_constant(diagnosis, cell, metric) for cell in cells])
    return Tournament(tuple(results), constant)


def _features(table: Table, cells: list[Cell]) -> torch.Tensor:
    first = features(table, cells[0])
    if first.numel() * len(cells) > MOST_NUMBERS:
        size = 4 * first.numel() * len(cells) / 2**30
        raise DataError(
            f"folds must be fewer for a table of this size, got {len(cells)} cells "
            f"of together {size:.1f} GiB"
        )
    return torch.stack([first, *(features(table, cell) for cell in cells[1:])])


def _score(
    candidate: Candidate, trained: Trained, y: NDArray[Any], cells: list[Cell], metric: Metric
) -> Result:
    pairs = list(zip(cells, trained.predictions, strict=True))
    scores = np.array([metric(y[cell.test], made[cell.test]) for cell, made in pairs])
    undefined = int(np.isnan(scores).sum())
    if undefined:
        reason = (
            f"{metric.name} of its predictions is undefined in {undefined} of {len(cells)} cells"
        )
        return Result(candidate, failure=reason)
    outside = np.zeros_like(trained.predictions[0])
    for cell, made in pairs:
        if cell.repeat == 0:
            outside[cell.test] = made[cell.test]
    return Result(candidate, scores, outside, trained.curves, tuple(trained.best_epochs))


def _constant(diagnosis: Diagnosis, cell: Cell, metric: Metric) -> float:
    """Score of the best constant of the training rows: what can be had without any feature."""
    y, rows = diagnosis.target[cell.train], len(cell.test)
    if metric.needs == "value":
        asked = metric.asks_for[0]
        level = metric.quantile if metric.quantile is not None else 0.5
        value = float(y.mean() if asked == "mean" else np.quantile(y, level))
        return metric(diagnosis.target[cell.test], np.full(rows, value))
    shares = np.bincount(y, minlength=len(diagnosis.classes)) / len(y)
    if metric.needs == "label":
        return metric(diagnosis.target[cell.test], np.full(rows, shares.argmax()))
    made = np.tile(shares, (rows, 1)) if len(shares) > 2 else np.full(rows, shares[1])
    return metric(diagnosis.target[cell.test], made)


@contextmanager
def _one_thread() -> Generator[None]:
    """The matrices are small: a second thread gains little and makes sums depend on the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
