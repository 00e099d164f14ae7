"""Read a table from a file or from the bundled sets, and refuse what cannot be learned from."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lossmith.choose.errors import DataError
from lossmith.choose.messages import say

FEWEST_ROWS = 20
MOST_LEVELS = 20
# What float32 can hold, with room for squares of what is standardised
MOST = 1e30


@dataclass(frozen=True)
class Table:
    """Features and target of a supervised problem.

    Attributes:
        name: Where the rows come from, as the user wrote it.
        target_name: Name of the target column.
        features: Numeric and text columns; text is one-hot encoded inside each training fold.
        target: The target column, numeric or text, nothing missing.
        notes: What was done to the table on the way in, in sentences.
        aside: Columns that are no features: groups, times.
        left: Columns that were left out, with a note.
    """

    name: str
    target_name: str
    features: pd.DataFrame
    target: pd.Series
    notes: tuple[str, ...] = ()
    aside: pd.DataFrame = field(default_factory=pd.DataFrame)
    left: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def numeric(self) -> list[str]:
        """Names of the numeric feature columns."""
        names = map(str, self.features)
        return [c for c in names if pd.api.types.is_numeric_dtype(self.features[c])]

    @property
    def text(self) -> list[str]:
        """Names of the text feature columns."""
        numeric = set(self.numeric)
        return [c for c in map(str, self.features) if c not in numeric]


def _sklearn(name: str, target: str = "target") -> Callable[[], tuple[pd.DataFrame, str]]:
    def load() -> tuple[pd.DataFrame, str]:
        from sklearn import datasets

        bunch: Any = getattr(datasets, f"load_{name}")(as_frame=True)
        frame: pd.DataFrame = bunch.frame
        if target == "target" and hasattr(bunch, "target_names"):  # classes by name, not number
            words = [str(word) for word in bunch.target_names]
            frame = frame.assign(target=[words[int(code)] for code in frame["target"]])
        # of several targets the first is kept; the others would give the answer away
        others = [c for c in getattr(bunch.target, "columns", ()) if c != target]
        return frame.drop(columns=others), target

    return load


def _statsmodels(
    name: str, target: str, without: tuple[str, ...] = ()
) -> Callable[[], tuple[pd.DataFrame, str]]:
    def load() -> tuple[pd.DataFrame, str]:
        try:
            from statsmodels import datasets
        except ImportError:
            raise DataError(
                f"the bundled set {name!r} needs statsmodels: pip install 'lossmith[datasets]'"
            ) from None
        frame: pd.DataFrame = getattr(datasets, name).load_pandas().data
        return frame.drop(columns=list(without)), target

    return load


BUNDLED: dict[str, Callable[[], tuple[pd.DataFrame, str]]] = {
    **{name: _sklearn(name) for name in ("diabetes", "digits", "breast_cancer", "wine", "iris")},
    "linnerud": _sklearn("linnerud", "Weight"),
    "engel": _statsmodels("engel", "foodexp"),
    "randhie": _statsmodels("randhie", "mdvis"),
    "fair": _statsmodels("fair", "affairs"),
    "stackloss": _statsmodels("stackloss", "STACKLOSS"),
    # the number above the median is judged; the number below it would give the answer away
    "star98": _statsmodels("star98", "NABOVE", ("NBELOW",)),
    "statecrime": _statsmodels("statecrime", "murder", ("violent",)),
}


def load(
    source: str | Path | pd.DataFrame, target: str | None = None, aside: Sequence[str] = ()
) -> Table:
    """Read and check a table.

    Args:
        source: A CSV or Parquet file, the name of a bundled set, or a DataFrame.
        target: Name of the target column; bundled sets have a default.
        aside: Names of columns that are no features.

    Raises:
        DataError: If the file, the target column or the rows cannot be used.

    Example:
        >>> table = load("diabetes")
        >>> table.features.shape, table.target_name
        ((442, 10), 'target')
    """
    default = None
    if isinstance(source, pd.DataFrame):
        name, frame = "DataFrame", source
    elif str(source) in BUNDLED:
        name = str(source)
        frame, default = BUNDLED[name]()
    else:
        name, frame = str(source), _read(Path(source))
    return check(name, frame, target or default, aside)


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        sets, found = ", ".join(sorted(BUNDLED)), "a folder, " * path.is_dir()
        rule = f"be a file that exists or one of {sets}"
        raise DataError(f"DATA must {rule}, got {found}{str(path)!r}")
    if path.suffix.lower() in {".parquet", ".pq"}:
        try:
            return pd.read_parquet(path)
        except (ValueError, OSError) as error:
            raise DataError(f"{path} must be a Parquet file, reading it failed: {error}") from None
    columns: list[str] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            header = pd.read_csv(lines, header=None, nrows=1, dtype=str).iloc[0]
        columns = [str(column) for column in header]
        if any("\0" in column for column in columns):
            raise DataError(f"{path} must be a CSV file, got zero bytes, as in binary files")
        # checked here because read_csv would rename the second of two equal columns
        _refuse_duplicates(columns)
        with warnings.catch_warnings():
            # rows longer than the header, of which pandas would drop what is too much
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(path, encoding="utf-8-sig", index_col=False)
    except pd.errors.ParserWarning:
        rule = f"have as many values in each row as names in the header, which has {len(columns)}"
        raise DataError(f"{path} must {rule}, got rows with more") from None
    except pd.errors.EmptyDataError:
        raise DataError(f"{path} must hold a header and rows, got an empty file") from None
    except UnicodeDecodeError as error:
        byte, place = error.object[error.start], error.start
        rule = "be a CSV file in UTF-8"
        raise DataError(f"{path} must {rule}, got byte 0x{byte:02x} at place {place}") from None
    except (pd.errors.ParserError, OSError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise DataError(f"{path} must be a CSV file, reading it failed: {reason}") from None


def _refuse_duplicates(columns: list[str]) -> None:
    repeated = sorted({column for column in columns if columns.count(column) > 1})
    if repeated:
        raise DataError(f"column names must differ, got {repeated[0]!r} more than once")


def check(name: str, frame: pd.DataFrame, target: str | None, aside: Sequence[str] = ()) -> Table:
    """Refuse unusable rows and columns; split features from target."""
    frame = frame.rename(columns=str).reset_index(drop=True)
    columns = list(frame.columns)
    _refuse_duplicates(columns)
    if target is None:
        raise DataError(f"--target must name the target column, one of {_some(columns)}")
    if target not in columns:
        raise DataError(f"target must be a column of {name} ({_some(columns)}), got {target!r}")
    if len(frame) < FEWEST_ROWS:
        raise DataError(f"data must have at least {FEWEST_ROWS} rows, got {len(frame)}")
    _refuse_huge(frame, target)
    frame = frame.replace([np.inf, -np.inf], np.nan)
    empty = np.flatnonzero(frame.isna().all(axis=1).to_numpy())
    if len(empty):
        raise DataError(f"rows must hold values, got {_rows(empty)} without any")
    for column in columns:
        if frame[column].isna().all():
            raise DataError(f"columns must hold values, got {column!r} without any")
    missing = np.flatnonzero(frame[target].isna().to_numpy())
    if len(missing):
        raise DataError(f"target {target!r} must not be missing, got {_rows(missing)} without it")
    if frame[target].nunique() == 1:
        only = frame[target].tolist()[0]
        raise DataError(f"target {target!r} must vary, got {only!r} in every row")
    for column in aside:
        if column not in columns or column == target:
            raise DataError(
                f"group and time must be columns of {name} beside the target "
                f"({_some([one for one in columns if one != target])}), got {column!r}"
            )
        gaps = np.flatnonzero(frame[column].isna().to_numpy())
        if len(gaps):
            raise DataError(f"column {column!r} must not be missing, got {_rows(gaps)} without it")
    notes: list[str] = []
    features = {
        column: kept
        for column in columns
        if column not in (target, *aside) and (kept := _feature(frame[column], notes)) is not None
    }
    if not features:
        raise DataError(f"data must have a feature column beside the target {target!r}, got none")
    return Table(
        name=name,
        target_name=target,
        features=pd.DataFrame(features),
        target=_target(frame[target]),
        notes=tuple(notes),
        aside=frame[list(aside)],
        left=frame.drop(columns=[*features, target, *aside]),
    )


def _refuse_huge(frame: pd.DataFrame, target: str) -> None:
    """Infinite features count as missing; an infinite target, or a huge number, is a mistake."""
    for column in frame:
        values = frame[column]
        if not pd.api.types.is_float_dtype(values):
            continue
        size = np.abs(values.to_numpy(dtype=float, na_value=np.nan))
        wrong = size > MOST if column == target else (size > MOST) & np.isfinite(size)
        if wrong.any():
            place = int(wrong.argmax())
            raise DataError(
                f"column {column!r} must hold numbers up to {MOST:.0e}, got {values.iloc[place]} "
                f"in row {_line(place)}"
            )


def _feature(column: pd.Series, notes: list[str]) -> pd.Series | None:
    """A numeric or text column ready for use, or None with a note why it is left out."""
    if pd.api.types.is_datetime64_any_dtype(column):
        notes.append(say("find.dates_left", column=str(column.name)))
        return None
    if column.nunique() == 1 and not column.isna().any():
        notes.append(say("find.same_left", column=str(column.name)))
        return None
    if pd.api.types.is_numeric_dtype(column):
        return column.astype(float)
    _refuse_stray_text(column)
    if _is_written_out(column):
        return pd.to_numeric(column).astype(float)
    levels = column.nunique()
    if levels > MOST_LEVELS and levels > len(column) / 20:
        words = {"column": str(column.name), "levels": levels, "rows": len(column)}
        notes.append(say("find.texts_left", **words))
        return None
    # missing text is a level of its own
    return column.map(str, na_action="ignore").astype(object).where(column.notna(), "missing")


def _refuse_stray_text(column: pd.Series) -> None:
    """Text among mostly numbers is a mistake in the file, not a category."""
    texts = column.dropna()
    strays = texts[pd.to_numeric(texts, errors="coerce").isna()]
    if 0 < len(strays) < len(texts) / 2:
        raise DataError(
            f"column {column.name!r} must hold numbers throughout, got {strays.iloc[0]!r} "
            f"in row {_line(strays.index[0])}"
        )


def _is_written_out(column: pd.Series) -> bool:
    """Whether a text column holds nothing but numbers."""
    return bool(pd.to_numeric(column.dropna(), errors="coerce").notna().all())


def _target(column: pd.Series) -> pd.Series:
    if pd.api.types.is_bool_dtype(column):
        return column.map({False: "False", True: "True"}).astype(object)
    if pd.api.types.is_numeric_dtype(column):
        return column.astype(float)
    _refuse_stray_text(column)
    if _is_written_out(column):
        return pd.to_numeric(column).astype(float)
    return column.map(str).astype(object)


def _line(index: Any) -> int:
    """Rows are counted from 1, without the header."""
    return int(index) + 1


def _rows(indices: Any) -> str:
    shown = ", ".join(str(_line(index)) for index in indices[:3])
    more = f" and {len(indices) - 3} more" if len(indices) > 3 else ""
    return f"row{'s' if len(indices) > 1 else ''} {shown}{more}"


def _some(columns: list[str]) -> str:
    shown = ", ".join(columns[:8])
    return f"{shown} and {len(columns) - 8} more" if len(columns) > 8 else shown
