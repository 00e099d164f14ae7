"""A worker: takes tasks that nobody else has, does them, and commits every cell."""

import time
import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from sklearn import config_context
from torch import Tensor

from lossmith.choose.errors import DataError
from lossmith.choose.estimators import fit_cell
from lossmith.choose.features import features
from lossmith.choose.heads import Head, fit_head, residual_scale
from lossmith.choose.ledger import Ledger, pack
from lossmith.choose.metric import AMOUNTS
from lossmith.choose.posthoc import rival
from lossmith.choose.training import Contestant, Fitted, gradient_norms, train
from lossmith.choose.tuning import Trial, beyond, conclude, trials
from lossmith.choose.work import Task, Work, todo

Progress = Callable[[str, float], None]
PAUSE = 0.2


def serve(work: Work, ledger: Ledger, progress: Progress = lambda label, share: None) -> None:
    """Work until the tournament is complete, beside any number of other workers."""
    with _one_thread(), config_context(assume_finite=True, skip_parameter_validation=True):
        while tasks := todo(work, ledger):
            idle = True
            for task in tasks:
                with ledger.claim(work.claim_key(task)) as mine:
                    # the claim may have been given back just now, with the work done
                    if mine and not ledger.keys().issuperset(work.parts(task, ledger)):
                        idle = False
                        _do(work, task, ledger, progress)
                _report(work, ledger, progress)
            if idle:
                time.sleep(PAUSE)
    _features.cache_clear()
    for one in work.candidates:
        progress(one.label, 1.0)


def _report(
    work: Work, ledger: Ledger, progress: Progress, task: Task | None = None, share: float = 0.0
) -> None:
    """Tell how far each loss is: its trials count as much as one round."""
    have = ledger.keys()
    cells = range(len(work.plan.cells))
    tuning = work.settings.trials > 1
    for place, one in enumerate(work.candidates):
        done = sum(work.cell_key(place, "default", cell) in have for cell in cells)
        rounds = done / len(work.rounds[0]) + (tuning and work.tune_key(place) in have)
        if task and place in task.losses:
            rounds += share * (len(task.cells) / len(work.rounds[0]) if task.stage != "tune" else 1)
        progress(one.label, min(0.999, rounds / (len(work.rounds) + tuning)))


def _do(work: Work, task: Task, ledger: Ledger, progress: Progress) -> None:
    started = time.perf_counter()
    parts = work.parts(task, ledger)
    records = _records(
        work, task, ledger, lambda share: _report(work, ledger, progress, task, share)
    )
    seconds = (time.perf_counter() - started) / len(parts)
    for (key, part), record in zip(parts.items(), records, strict=True):
        ledger.commit(key, {**part, **record, "seconds": seconds})


def _records(
    work: Work, task: Task, ledger: Ledger, tick: Callable[[float], None]
) -> list[dict[str, Any]]:
    """The results of a task; what fails is a result as well, of the loss that failed alone."""
    act = _tune if task.stage == "tune" else _train
    try:
        return act(work, task, ledger, tick)
    except (MemoryError, OSError):  # the machine's trouble, not the cell's: nothing is committed
        raise
    except DataError:  # the model of the user cannot be built at all
        raise
    except Exception as error:
        if len(task.losses) > 1:  # one of them breaks the common step: each by itself
            alone = [replace(task, losses=(loss,)) for loss in task.losses]
            return [one for part in alone for one in _records(work, part, ledger, tick)]
        reason = {"failure": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
        return [{**reason, "default": True} for _ in work.parts(task, ledger)]


@dataclass(frozen=True)
class _Request:
    """A loss with the setting it is to be trained with."""

    loss: int
    rate: float
    options: Mapping[str, Any]


class _Bench:
    """Some cells with what the losses need in them."""

    def __init__(self, work: Work, cells: Sequence[int]) -> None:
        self.work = work
        self.cells = [work.plan.cells[cell] for cell in cells]
        self.x = torch.stack([_features(work, cell) for cell in cells])
        self.y = work.diagnosis.target
        amounts = work.diagnosis.kind in AMOUNTS
        self.scale = residual_scale(self.x, self.y, self.cells) if amounts else None

    def head(self, loss: int, options: Mapping[str, Any]) -> Head:
        """The loss in the units of the cells; the squared error keeps its standard deviation."""
        one = self.work.candidates[loss]
        one = replace(one, options={**one.options, **options})
        return fit_head(one, self.y, self.cells, self.scale)

    def norms(self, loss: int) -> Tensor:
        """Median gradient norm of a loss at the start, ``(cells,)``."""
        work = self.work
        return gradient_norms(self.head(loss, {}), work.model, self.x, self.cells, work.settings)

    def fit(
        self, requests: Sequence[_Request], tick: Callable[[float], None]
    ) -> list[tuple[Head, list[Fitted]]]:
        """For each request its head and one trained model for each cell."""
        work = self.work
        groups: dict[str, list[int]] = {}
        for place, one in enumerate(requests):
            groups.setdefault(repr((one.loss, dict(one.options))), []).append(place)
        contestants: list[Contestant] = []
        for places in groups.values():
            first = requests[places[0]]
            weights = torch.ones(len(self.cells))
            if work.settings.equalise:
                weights = self.norms(0) / self.norms(first.loss)
            rates = tuple(requests[place].rate for place in places)
            contestants.append(Contestant(self.head(first.loss, first.options), rates, weights))
        trained = train(
            contestants, work.model, self.x, self.y, self.cells, work.metric, work.settings, tick
        )
        found: dict[int, tuple[Head, list[Fitted]]] = {}
        for places, one, rows in zip(groups.values(), contestants, trained, strict=True):
            found |= {place: (one.head, row) for place, row in zip(places, rows, strict=True)}
        return [found[place] for place in range(len(requests))]


@lru_cache(maxsize=32)
def _features(work: Work, cell: int) -> Tensor:
    return features(work.table, work.plan.cells[cell])


def _tune(
    work: Work, task: Task, ledger: Ledger, tick: Callable[[float], None]
) -> list[dict[str, Any]]:
    """Try the settings of some losses, and go on beyond the edge where the best one lies there."""
    del ledger
    bench, settings = _Bench(work, task.cells), work.settings
    made = {
        loss: trials(work.candidates[loss], settings.rate, settings.trials) for loss in task.losses
    }
    scores = _scores(bench, made, tick)
    more = {loss: beyond(made[loss], scores[loss], work.metric) for loss in task.losses}
    if any(more.values()):
        for loss, row in _scores(bench, more, tick).items():
            scores[loss] += row
    base = bench.norms(0)
    records: list[dict[str, Any]] = []
    for loss in task.losses:
        tried = made[loss] + more[loss]
        best = conclude(tried, len(more[loss]), scores[loss], work.metric)
        records.append(
            {
                "default": best.rate == settings.rate and not best.options,
                "rate": best.rate,
                "options": dict(best.options),
                "note": best.note,
                "trials": [
                    {"rate": one.rate, "options": dict(one.options), "score": score}
                    for one, score in zip(tried, scores[loss], strict=True)
                ],
                "gradient": float((bench.norms(loss) / base).median()),
                "failure": "",
            }
        )
    return records


def _scores(
    bench: _Bench, made: Mapping[int, Sequence[Trial]], tick: Callable[[float], None]
) -> dict[int, list[float]]:
    """The metric of each trial on the held-out rows, mean over the cells; NaN if one failed."""
    requests = [_Request(loss, one.rate, one.options) for loss, row in made.items() for one in row]
    found = iter(bench.fit(requests, tick))
    return {
        loss: [
            float(np.mean([np.nan if one.failure else one.hold for one in next(found)[1]]))
            for _ in row
        ]
        for loss, row in made.items()
    }


def _train(
    work: Work, task: Task, ledger: Ledger, tick: Callable[[float], None]
) -> list[dict[str, Any]]:
    """Train some losses in some cells, at the defaults and as tuned."""
    if work.estimators is not None:
        return [_fit(work, loss, cell) for loss in task.losses for cell in task.cells]
    bench = _Bench(work, task.cells)
    requests: list[_Request] = []
    for loss in task.losses:
        for variant in work.variants(loss, ledger):
            rate, options = work.settings.rate, {}
            if variant == "tuned":
                found = ledger.read(work.tune_key(loss))
                rate, options = found["rate"], found["options"]
            requests.append(_Request(loss, rate, options))
    records: list[dict[str, Any]] = []
    for request, (head, row) in zip(requests, bench.fit(requests, tick), strict=True):
        for place, (cell, fitted) in enumerate(zip(task.cells, row, strict=True)):
            setting = {"rate": request.rate, "options": dict(request.options)}
            one = head.at(torch.tensor([place]))
            records.append(setting | _record(work, one, fitted, cell, base=request.loss == 0))
    return records


def _fit(work: Work, loss: int, cell: int) -> dict[str, Any]:
    """Fit an estimator in a cell."""
    assert work.estimators is not None
    name = work.candidates[loss].label
    x, y = _features(work, cell).numpy(), work.diagnosis.target
    one = work.estimators[name]
    return fit_cell(one, name, x, y, work.plan.cells[cell], work.metric, base=loss == 0)


def _record(work: Work, head: Head, fitted: Fitted, place: int, *, base: bool) -> dict[str, Any]:
    """What is kept of one trained model."""
    if fitted.failure or fitted.best is None or fitted.last is None:
        return {"failure": fitted.failure}
    y, cell, metric = work.diagnosis.target, work.plan.cells[place], work.metric
    best, last = (head.predict(one[None], metric)[0] for one in (fitted.best, fitted.last))
    score = metric(y[cell.test], best[cell.test])
    if np.isnan(score):
        return {"failure": f"{metric.name} of its predictions is undefined"}
    rivals: dict[str, Any] = {}
    if base:
        logits = head.candidate.link in ("logit", "softmax")
        seen = head.logits(head.input(fitted.best[None]))[0].numpy()
        seen = best if metric.kinds == AMOUNTS else seen
        if (other := rival(seen, y, cell.hold, metric, logits=logits)) is not None:
            name, made = other
            rivals[name] = {
                "score": metric(y[cell.test], made[cell.test]),
                "test": pack(made[cell.test]),
            }
    return {
        "failure": "",
        "score": score,
        "last": metric(y[cell.test], last[cell.test]),
        "hold": fitted.hold,
        "best_epoch": fitted.best_epoch,
        "epochs": fitted.epochs,
        "losses": fitted.losses,
        "trained": fitted.trained,
        "held": fitted.held,
        "test": pack(best[cell.test]),
        "rivals": rivals,
    }


@contextmanager
def _one_thread() -> Generator[None]:
    """The matrices are small: a second thread gains little and makes sums depend on the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
