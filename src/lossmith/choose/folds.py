"""The cells of a repeated cross-validation: the same rows and seeds for every loss."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import RepeatedKFold, RepeatedStratifiedKFold, train_test_split

from lossmith.choose.diagnosis import Diagnosis
from lossmith.choose.errors import DataError
from lossmith.choose.metric import CLASSES

Rows = NDArray[np.int64]
FIT_SHARE = 0.85
FEWEST_PER_CLASS = 4


@dataclass(frozen=True)
class Cell:
    """One training run: which rows do what, and the seed of everything random in it.

    Attributes:
        repeat: Number of the repeat, from 0.
        fit: Rows that the network is trained on; as many in every cell.
        hold: Rows of the training fold kept aside to stop early.
        test: Rows that are scored.
        seed: Seed of initial weights and batch order.
    """

    repeat: int
    fit: Rows
    hold: Rows
    test: Rows
    seed: int

    @property
    def train(self) -> Rows:
        """All rows of the training fold."""
        return np.concatenate([self.fit, self.hold])


@dataclass(frozen=True)
class Plan:
    """The cells, and what was reduced to keep the run short.

    Attributes:
        folds: Number of folds k.
        repeats: Number of repeats.
        cells: All k x repeats cells.
        note: Why the plan is smaller than 10x3; empty if it is not.
    """

    folds: int
    repeats: int
    cells: tuple[Cell, ...]
    note: str = ""

    @property
    def rho(self) -> float:
        """Test rows divided by training rows."""
        return 1 / (self.folds - 1)


def plan(diagnosis: Diagnosis, folds: str | None = None, seed: int = 0) -> Plan:
    """Cut the rows.

    Args:
        diagnosis: The data.
        folds: ``"10x3"`` is three repeats of ten folds; None takes that, or less for many rows.
        seed: Seed of the cuts and of each cell.

    Raises:
        DataError: If ``folds`` is malformed, or a class is too rare to be in every fold.
    """
    count, repeats, note = _size(diagnosis.rows) if folds is None else (*_parse(folds), "")
    if count > diagnosis.rows // 2:
        raise DataError(f"folds must be at most half the {diagnosis.rows} rows, got {count}")
    y = diagnosis.target
    stratify = diagnosis.kind in CLASSES
    if stratify:
        rarest = int(np.bincount(y).min())
        if rarest < FEWEST_PER_CLASS:
            rare = diagnosis.classes[int(np.bincount(y).argmin())]
            rule = f"have at least {FEWEST_PER_CLASS} rows of each class"
            raise DataError(f"target must {rule}, got {rarest} of {rare!r}")
        if count > rarest:
            note = f"{rarest} folds instead of {count}: the rarest class has {rarest} rows"
            count = rarest
    splitter = RepeatedStratifiedKFold if stratify else RepeatedKFold
    cuts = list(splitter(n_splits=count, n_repeats=repeats, random_state=seed).split(y, y))
    fit_size = int(FIT_SHARE * min(len(train) for train, _ in cuts))
    seeds = np.random.SeedSequence(seed).generate_state(len(cuts))
    cells: list[Cell] = []
    for index, (train, test) in enumerate(cuts):
        cell_seed = int(seeds[index])
        fit, hold = train_test_split(
            train,
            train_size=fit_size,
            random_state=cell_seed,
            stratify=_strata(y[train], len(train) - fit_size) if stratify else None,
        )
        cells.append(Cell(index // count, np.asarray(fit), np.asarray(hold), test, cell_seed))
    return Plan(count, repeats, tuple(cells), note)


def _parse(folds: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", folds.strip())
    count, repeats = (int(match[1]), int(match[2] or 1)) if match else (0, 0)
    if count < 2 or repeats < 1 or count * repeats > 1000:
        rule = "be KxR with at least 2 folds, 1 repeat and at most 1000 cells, as in 10x3"
        raise DataError(f"folds must {rule}, got {folds!r}")
    return count, repeats


def _size(rows: int) -> tuple[int, int, str]:
    """Fewer repeats for more rows, so that the default run stays below two minutes."""
    for most, count, repeats in ((1000, 10, 3), (3000, 10, 2), (30_000, 10, 1)):
        if rows <= most:
            note = "" if repeats == 3 else f"10x{repeats} folds instead of 10x3: {rows} rows"
            return count, repeats, note
    return 5, 1, f"5x1 folds instead of 10x3: {rows} rows"


def _strata(labels: NDArray[Any], held: int) -> NDArray[Any] | None:
    """Labels to stratify by, unless a class or the held-out part is too small for that."""
    counts = np.bincount(labels)
    present = counts[counts > 0]
    return labels if present.min() >= 2 and held >= len(present) else None
