"""The cells of a repeated cross-validation: the same rows and seeds for every loss."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import (
    GroupKFold,
    GroupShuffleSplit,
    RepeatedKFold,
    RepeatedStratifiedKFold,
    StratifiedGroupKFold,
    train_test_split,
)

from lossmith.choose.diagnosis import Diagnosis
from lossmith.choose.errors import DataError
from lossmith.choose.messages import say
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
        first = [one for one in self.cells if one.repeat == 0]
        return sum(len(one.test) for one in first) / sum(len(one.train) for one in first)


def plan(
    diagnosis: Diagnosis,
    folds: str | None = None,
    seed: int = 0,
    groups: pd.Series | None = None,
    time: pd.Series | None = None,
) -> Plan:
    """Cut the rows: stratified by class, by whole groups, or the past before the future.

    Args:
        diagnosis: The data.
        folds: ``"10x3"`` is three repeats of ten folds; None takes that, or less for many rows.
        seed: Seed of the cuts and of each cell.
        groups: Rows with the same value stay together, ``(rows,)``.
        time: Numbers or dates, ``(rows,)``. Each cell trains on as many rows as half the table
            has, those right before its test rows; repeats differ in their seeds only.

    Raises:
        DataError: If ``folds`` is malformed, a class is too rare to be in every fold, or there are
            too few groups.
    """
    count, repeats, note = _size(diagnosis.rows) if folds is None else (*_parse(folds), "")
    if count > diagnosis.rows // 2:
        raise DataError(f"folds must be at most half the {diagnosis.rows} rows, got {count}")
    if groups is not None and time is not None:
        raise DataError("group and time must not be given together")
    if groups is not None and groups.nunique() < count:
        note, count = _fewer(groups.nunique(), count, "plan.fewer_groups", "group")
    if diagnosis.kind in CLASSES:
        rarest = int(np.bincount(diagnosis.target).min())
        if rarest < FEWEST_PER_CLASS:
            rare = diagnosis.classes[int(np.bincount(diagnosis.target).argmin())]
            rule = f"have at least {FEWEST_PER_CLASS} rows of each class"
            raise DataError(f"target must {rule}, got {rarest} of {rare!r}")
        if count > rarest:
            note, count = _fewer(rarest, count, "plan.fewer_rows", "class")
    if time is not None and folds is None:
        repeats, note = 1, say("plan.time", count=count)
    labels = None if groups is None else groups.to_numpy()
    cuts = _by_time(time, count) * repeats if time is not None else []
    cuts = cuts or _shuffled(diagnosis, count, repeats, seed, labels)
    seeds = [int(one) for one in np.random.SeedSequence(seed).generate_state(len(cuts))]
    parts = [
        _hold(diagnosis, train, cell_seed, labels, late=time is not None)
        for (train, _), cell_seed in zip(cuts, seeds, strict=True)
    ]
    # as many training rows in every cell, so that cells can be trained together
    size = min(len(fit) for fit, _ in parts)
    return Plan(
        count,
        repeats,
        tuple(
            Cell(index // count, fit[:size], hold, cut[1], cell_seed)
            for index, ((fit, hold), cut, cell_seed) in enumerate(
                zip(parts, cuts, seeds, strict=True)
            )
        ),
        note,
    )


def _fewer(there: int, asked: int, key: str, name: str) -> tuple[str, int]:
    if there < 2:
        raise DataError(f"folds need at least 2 {name} values, got {there}")
    return say(key, there=there, asked=asked), there


def _shuffled(
    diagnosis: Diagnosis, count: int, repeats: int, seed: int, groups: NDArray[Any] | None
) -> list[tuple[Rows, Rows]]:
    y = diagnosis.target
    stratify = diagnosis.kind in CLASSES
    if groups is None:
        splitter = RepeatedStratifiedKFold if stratify else RepeatedKFold
        cuts = splitter(n_splits=count, n_repeats=repeats, random_state=seed).split(y, y)
        return [(np.asarray(train), np.asarray(test)) for train, test in cuts]
    splitter = StratifiedGroupKFold if stratify else GroupKFold
    return [
        (np.asarray(train), np.asarray(test))
        for repeat in range(repeats)
        for train, test in splitter(n_splits=count, shuffle=True, random_state=seed + repeat).split(
            y, y, groups
        )
    ]


def _by_time(time: pd.Series, count: int) -> list[tuple[Rows, Rows]]:
    """Blocks of the later half, each with the window of rows right before it."""
    if time.nunique() == 1:
        raise DataError(f"time must vary, got {time.tolist()[0]!r} in every row")
    if not pd.api.types.is_numeric_dtype(time):
        dates = pd.to_datetime(time, errors="coerce", format="mixed", utc=True)
        if dates.isna().any():
            found = time[dates.isna()].iloc[0]
            raise DataError(f"time must be numbers or dates, got {found!r}")
        time = dates
    order = np.argsort(time.to_numpy(), kind="stable")
    window = len(order) // 2
    blocks = np.array_split(np.arange(window, len(order)), count)
    return [(order[block[0] - window : block[0]], order[block]) for block in blocks]


def _hold(
    diagnosis: Diagnosis, train: Rows, seed: int, groups: NDArray[Any] | None, *, late: bool
) -> tuple[Rows, Rows]:
    """Rows to train on and rows to stop by, cut as the test rows are."""
    size = int(FIT_SHARE * len(train))
    if late:
        return train[:size], train[size:]
    if groups is not None and len(np.unique(groups[train])) > 1:
        splitter = GroupShuffleSplit(1, train_size=FIT_SHARE, random_state=seed)
        fit, hold = next(splitter.split(train, groups=groups[train]))
        # shuffled, because only the first rows may be kept
        return np.random.default_rng(seed).permutation(train[fit]), train[hold]
    labels = diagnosis.target[train]
    strata = _strata(labels, len(train) - size) if diagnosis.kind in CLASSES else None
    fit, hold = train_test_split(train, train_size=size, random_state=seed, stratify=strata)
    return np.asarray(fit), np.asarray(hold)


def _parse(folds: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", str(folds).strip())
    count, repeats = (int(match[1]), int(match[2] or 1)) if match else (0, 0)
    if count < 2 or repeats < 1 or count * repeats > 1000:
        rule = "be KxR with at least 2 folds, 1 repeat and at most 1000 cells, as in 10x3"
        raise DataError(f"folds must {rule}, got {folds!r}")
    return count, repeats


def _size(rows: int) -> tuple[int, int, str]:
    """Fewer repeats for more rows, so that the default run stays below two minutes."""
    for most, count, repeats in ((1000, 10, 3), (3000, 10, 2), (30_000, 10, 1)):
        if rows <= most:
            words = {"count": count, "repeats": repeats, "rows": rows}
            return count, repeats, "" if repeats == 3 else say("plan.rows", **words)
    return 5, 1, say("plan.rows", count=5, repeats=1, rows=rows)


def _strata(labels: NDArray[Any], held: int) -> NDArray[Any] | None:
    """Labels to stratify by, unless a class or the held-out part is too small for that."""
    counts = np.bincount(labels)
    present = counts[counts > 0]
    return labels if present.min() >= 2 and held >= len(present) else None
