"""The results of a complete tournament, read from its ledger."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lossmith.choose.diagnosis import Diagnosis
from lossmith.choose.folds import Cell
from lossmith.choose.ledger import Ledger, unpack
from lossmith.choose.metric import Metric
from lossmith.choose.shortlist import Candidate
from lossmith.choose.work import Variant, Work, racing, todo


@dataclass(frozen=True)
class Curves:
    """What was seen on the way, means over the cells of the first repeat.

    A cell that has stopped keeps its last value.

    Attributes:
        epochs: Epochs at which the metric was looked at.
        loss: The loss's own value on the training rows, mean over the batches since the last
            look; NaN at epoch 0.
        train: The metric on the training rows.
        hold: The metric on the rows held out for early stopping.
    """

    epochs: list[int]
    loss: list[float]
    train: list[float]
    hold: list[float]


@dataclass(frozen=True)
class Result:
    """What one candidate did.

    Attributes:
        candidate: The loss.
        label: Its name, with the correction after training if it is a rival of that kind.
        scores: Test score of each cell it took part in, as tuned, ``(cells,)``; None if it failed.
        default: The same at the default step size and options.
        last: The scores of the states at the end of the training; empty for rivals.
        predictions: Out-of-fold predictions of the first repeat as the metric sees them, one for
            each tested row; None if it failed.
        repeats: The same for every repeat that is complete, ``(repeats, rows)``.
        curves: Curves of the training; None if it failed.
        best_epochs: Epoch of the kept state in each cell; empty if it failed.
        epochs: Last epoch of each cell; empty if it failed.
        setting: Step size and options in words.
        note: What a reader should know about the trials.
        gradient: Median length of its first gradients over those of the baseline.
        dropped: Whether it left the race early.
        failure: Why there are no scores; empty if there are.
    """

    candidate: Candidate
    label: str
    scores: NDArray[np.float64] | None = None
    default: NDArray[np.float64] | None = None
    last: NDArray[np.float64] | None = None
    predictions: NDArray[Any] | None = None
    repeats: NDArray[Any] | None = None
    curves: Curves | None = None
    best_epochs: tuple[int, ...] = ()
    epochs: tuple[int, ...] = ()
    setting: str = ""
    note: str = ""
    gradient: float = 1.0
    dropped: bool = False
    failure: str = ""


@dataclass(frozen=True)
class Tournament:
    """Results in the order of the candidates, and the constant predictor's scores.

    Attributes:
        results: One for each loss.
        rivals: The baseline with a correction after training.
        constant: Scores of the best constant of each cell's training rows.
        tested: The rows that some cell of a repeat tests, to which predictions belong: all of
            them, but for the first half of a time.
    """

    results: tuple[Result, ...]
    rivals: tuple[Result, ...]
    constant: NDArray[np.float64]
    tested: NDArray[np.int64]


def gather(work: Work, ledger: Ledger) -> Tournament:
    """Read the results of a complete plan; an incomplete one has no ranking.

    Raises:
        RuntimeError: If cells are missing.
    """
    missing = sum(len(task.cells) * len(task.losses) for task in todo(work, ledger))
    if missing:
        raise RuntimeError(f"at least {missing} cells are missing, and there is no ranking of some")
    rounds = [set(racing(work, ledger, number)) for number in range(len(work.rounds))]
    results: list[Result] = []
    rivals: list[Result] = []
    for loss, candidate in enumerate(work.candidates):
        taken = [number for number, left in enumerate(rounds) if loss in left]
        cells = [cell for number in taken for cell in work.rounds[number]]
        variants = work.variants(loss, ledger)
        rows = {
            variant: [ledger.read(work.cell_key(loss, variant, cell)) for cell in cells]
            for variant in variants
        }
        final = rows[variants[-1]]
        about = _about(work, ledger, loss, variants[-1])
        broken = [row["failure"] for row in final if row["failure"]]
        if broken:
            reason = f"{len(broken)} of {len(cells)} cells failed, the first: {broken[0]}"
            results.append(Result(candidate, candidate.label, failure=reason, **about))
            continue
        default = [row.get("score", np.nan) for row in rows["default"]]
        results.append(
            Result(
                candidate,
                candidate.label,
                scores=np.array([row["score"] for row in final]),
                default=np.array(default),
                last=np.array([row["last"] for row in final]),
                **_outside(work, cells, [row["test"] for row in final]),
                curves=_curves(final, [work.plan.cells[cell] for cell in cells]),
                best_epochs=tuple(row["best_epoch"] for row in final),
                epochs=tuple(row["epochs"][-1] for row in final),
                dropped=len(taken) < len(rounds),
                **about,
            )
        )
        for name in final[0]["rivals"] if loss == 0 else ():
            made = [row["rivals"][name] for row in final]
            scores = np.array([one["score"] for one in made])
            outside = _outside(work, cells, [one["test"] for one in made])
            rivals.append(Result(candidate, f"{candidate.label} + {name}", scores, **outside))
    constant = np.array([_constant(work.diagnosis, cell, work.metric) for cell in work.plan.cells])
    return Tournament(tuple(results), tuple(rivals), constant, _tested(work))


def _about(work: Work, ledger: Ledger, loss: int, variant: Variant) -> dict[str, Any]:
    """The setting of a loss and what its trials said."""
    if work.estimators is not None:
        return {"setting": work.candidates[loss].reasons[0], "gradient": float("nan")}
    rate, options, note, gradient = work.settings.rate, {}, "", 1.0
    if work.settings.trials > 1:
        tuned = ledger.read(work.tune_key(loss))
        note, gradient = tuned.get("note", ""), tuned.get("gradient", float("nan"))
        if variant == "tuned":
            rate, options = tuned["rate"], tuned["options"]
    words = [f"step size {rate:.3g}", *(f"{key}={value:g}" for key, value in options.items())]
    return {"setting": ", ".join(words), "note": note, "gradient": gradient}


def _outside(work: Work, cells: list[int], packed: list[Any]) -> dict[str, Any]:
    """Predictions of every row by networks that have not seen it, for each repeat."""
    made = [unpack(one) for one in packed]
    plan = work.plan
    repeats = sorted({plan.cells[cell].repeat for cell in cells})
    shape = (len(repeats), work.diagnosis.rows, *made[0].shape[1:])
    whole = np.zeros(shape, dtype=made[0].dtype)
    for cell, one in zip(cells, made, strict=True):
        whole[repeats.index(plan.cells[cell].repeat), plan.cells[cell].test] = one
    whole = whole[:, _tested(work)]
    return {"predictions": whole[0], "repeats": whole}


def _tested(work: Work) -> NDArray[np.int64]:
    return np.unique(np.concatenate([one.test for one in work.plan.cells if one.repeat == 0]))


def _curves(rows: list[dict[str, Any]], cells: list[Cell]) -> Curves:
    first = [row for row, cell in zip(rows, cells, strict=True) if cell.repeat == 0]
    epochs = max((row["epochs"] for row in first), key=len)

    def mean(name: str) -> list[float]:
        # the last value stands for the looks that a stopped cell did not take
        whole = [row[name] + row[name][-1:] * (len(epochs) - len(row[name])) for row in first]
        return [float(one) for one in np.mean(whole, axis=0)]

    return Curves(epochs, mean("losses"), mean("trained"), mean("held"))


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
