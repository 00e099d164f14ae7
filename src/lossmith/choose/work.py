"""The plan of a tournament as tasks: fixed before the first result, the same for every worker.

What is trained together in one stack is decided by the plan and by committed results alone, never
by who is free. So any number of workers, killed and started again, write the same numbers.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd

from lossmith.choose.data import Table
from lossmith.choose.diagnosis import Diagnosis
from lossmith.choose.estimators import Estimators, describe_estimators
from lossmith.choose.folds import Plan
from lossmith.choose.ledger import Ledger
from lossmith.choose.metric import Metric
from lossmith.choose.networks import describe
from lossmith.choose.shortlist import Candidate
from lossmith.choose.statistics import compare
from lossmith.choose.training import Settings
from lossmith.choose.tuning import TUNING_CELLS
from lossmith.tabular.networks import Model

Variant = Literal["default", "tuned"]
# Models in one stack: enough to make the overhead of a step small, few enough for two workers.
MOST_MODELS = 96
# Numbers in the hidden layer of a stack over all rows, a quarter of a gigabyte.
MOST_NUMBERS = 2**26
# Cells after which losses may be dropped, and how sure one must be.
FIRST_LOOK = 8
HOPELESS = 0.975


@dataclass(frozen=True)
class Task:
    """What one worker does in one go.

    Attributes:
        stage: ``"tune"`` or ``"cells"``.
        losses: Places of the candidates.
        cells: Places of the cells.
    """

    stage: Literal["tune", "cells"]
    losses: tuple[int, ...]
    cells: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Work:
    """Everything that decides the numbers of a tournament.

    Attributes:
        table: The data.
        diagnosis: What they are.
        metric: What the losses are judged by.
        candidates: The losses, the baseline first.
        plan: The cells.
        settings: How every loss is trained.
        model: Name or factory of the network.
        versions: Versions of the packages.
        estimators: What is fitted instead of networks, by the name of the candidate.
    """

    table: Table
    diagnosis: Diagnosis
    metric: Metric
    candidates: tuple[Candidate, ...]
    plan: Plan
    settings: Settings
    model: str | Model
    versions: dict[str, str]
    estimators: Estimators | None = None

    @cached_property
    def record(self) -> dict[str, Any]:
        """The plan as plain data, to be written down before the first result."""
        hashed = pd.util.hash_pandas_object(self.table.features, index=False).to_numpy()
        cells = [part.astype("<i8") for one in self.plan.cells for part in (one.fit, one.test)]
        return {
            "data": self.table.name,
            "rows": _digest([hashed.tobytes(), self.diagnosis.target.tobytes()]),
            "columns": list(self.table.features),
            "target": self.table.target_name,
            "kind": self.diagnosis.reading,
            "metric": self.metric.name,
            "losses": [one.label for one in self.candidates],
            "folds": f"{self.plan.folds}x{self.plan.repeats}",
            "cells": _digest([part.tobytes() for part in cells]),
            "seeds": [one.seed for one in self.plan.cells],
            "settings": asdict(self.settings),
            "model": self.words,
            "versions": self.versions,
        }

    @property
    def words(self) -> str:
        """The network, or the estimators."""
        if self.estimators is not None:
            return describe_estimators(self.estimators)
        return describe(self.model, self.table.features.shape[1])

    @cached_property
    def digest(self) -> str:
        """Hash of the plan; a part of every key."""
        return _digest([json.dumps(self.record, sort_keys=True).encode()])

    def key(self, *coordinates: Any) -> str:
        """Name of a result or a claim in the ledger."""
        return _digest([json.dumps([self.digest, *coordinates]).encode()])[:32]

    def cell_key(self, loss: int, variant: Variant, cell: int) -> str:
        """Name of the result of one loss in one cell."""
        return self.key(self.candidates[loss].label, variant, cell)

    def tune_key(self, loss: int) -> str:
        """Name of the result of one loss's trials."""
        return self.key(self.candidates[loss].label, "tune")

    def claim_key(self, task: Task) -> str:
        """Name of the claim on a task."""
        return self.key(task.stage, task.losses, task.cells)

    def parts(self, task: Task, ledger: Ledger) -> dict[str, dict[str, Any]]:
        """Name and subject of each result of a task."""
        names = {loss: self.candidates[loss].label for loss in task.losses}
        if task.stage == "tune":
            return {self.tune_key(loss): {"loss": names[loss]} for loss in task.losses}
        return {
            self.cell_key(loss, variant, cell): {
                "loss": names[loss],
                "variant": variant,
                "cell": cell,
            }
            for loss in task.losses
            for variant in self.variants(loss, ledger)
            for cell in task.cells
        }

    def variants(self, loss: int, ledger: Ledger) -> tuple[Variant, ...]:
        """How the loss is trained: once if its trials found nothing better than the defaults."""
        same = self.settings.trials == 1 or ledger.read(self.tune_key(loss))["default"]
        return ("default",) if same else ("default", "tuned")

    @cached_property
    def rounds(self) -> list[list[int]]:
        """Places of the cells of each round, whole repeats; losses are dropped between rounds."""
        rounds: list[list[int]] = [[]]
        for repeat in range(self.plan.repeats):
            if len(rounds[-1]) >= FIRST_LOOK:
                rounds.append([])
            rounds[-1] += [i for i, one in enumerate(self.plan.cells) if one.repeat == repeat]
        return rounds

    def tuning(self) -> list[Task]:
        """The tasks that come first."""
        if self.settings.trials == 1:
            return []
        cells = range(min(TUNING_CELLS, self.plan.folds))
        losses = range(len(self.candidates))
        return self._tasks("tune", losses, cells, self.settings.trials)

    def round(self, number: int, losses: Sequence[int]) -> list[Task]:
        """The tasks of one round."""
        return self._tasks("cells", losses, self.rounds[number], 2)

    def _tasks(
        self,
        stage: Literal["tune", "cells"],
        losses: Sequence[int],
        cells: Sequence[int],
        models: int,
    ) -> list[Task]:
        """Cut into stacks of bounded size; ``models`` are trained for each loss and cell."""
        if self.estimators is not None:  # fitted one by one, and committed so
            return [Task(stage, (loss,), (cell,)) for cell in cells for loss in losses]
        features = self.table.features.shape[1] + 20 * len(self.table.text)
        width = max(64, features, 2 * len(self.diagnosis.classes))
        most = max(1, min(MOST_MODELS, MOST_NUMBERS // (self.diagnosis.rows * width)))
        at_once = max(1, min(len(cells), most // models))
        chunks = [cells[i : i + at_once] for i in range(0, len(cells), at_once)]
        together = max(1, most // (models * at_once))
        widths = sorted({self.candidates[loss].width for loss in losses})
        groups: list[list[int]] = []
        for one in widths:
            fit = [loss for loss in losses if self.candidates[loss].width == one]
            parts = -(-len(fit) // together)
            groups += [list(part) for part in np.array_split(fit, parts)]
        return [
            Task(stage, tuple(int(one) for one in group), tuple(chunk))
            for chunk in chunks
            for group in groups
        ]


def _digest(parts: Sequence[bytes]) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "little") + part)
    return found.hexdigest()


def todo(work: Work, ledger: Ledger) -> list[Task]:
    """The tasks that can be done now; empty if the tournament is complete."""
    have = ledger.keys()

    def open_(tasks: list[Task]) -> list[Task]:
        return [task for task in tasks if not have.issuperset(work.parts(task, ledger))]

    if found := open_(work.tuning()):
        return found
    for number in range(len(work.rounds)):
        if found := open_(work.round(number, racing(work, ledger, number))):
            return found
    return []


def racing(work: Work, ledger: Ledger, number: int) -> list[int]:
    """The losses that take part in a round: the baseline, and all that still have a chance.

    A loss is dropped when, by the correlated Bayesian t-test, it is worse than the leader by more
    than practical equivalence with probability 97.5 %; or when a cell of it failed.
    """
    left = list(range(len(work.candidates)))
    for past in range(number):
        cells = [cell for one in work.rounds[: past + 1] for cell in one]
        scores = {loss: headline(work, ledger, loss, cells) for loss in left}
        whole = {loss: row for loss, row in scores.items() if not np.isnan(row).any()}
        if not whole:
            return [0]
        leader = max(whole, key=lambda loss: work.metric.advantage(whole[loss].mean(), 0.0))
        rope = work.metric.rope(float(whole[min(whole)].mean()))
        left = [
            loss
            for loss in left
            if loss == 0 or (loss in whole and not _hopeless(work, whole, loss, leader, rope))
        ]
    return left


def _hopeless(work: Work, scores: dict[int, Any], loss: int, leader: int, rope: float) -> bool:
    if loss == leader:
        return False
    gain = np.asarray(work.metric.advantage(scores[loss], scores[leader]))
    return compare(gain, work.plan.rho, rope).worse > HOPELESS


def headline(work: Work, ledger: Ledger, loss: int, cells: Sequence[int]) -> Any:
    """Scores of a loss as tuned; NaN where a cell failed."""
    variant = work.variants(loss, ledger)[-1]
    records = [ledger.read(work.cell_key(loss, variant, cell)) for cell in cells]
    return np.array([np.nan if one["failure"] else one["score"] for one in records])
