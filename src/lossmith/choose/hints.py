"""What the columns tell beside the target: gaps, copies, groups, times, censoring."""

import re

import pandas as pd

from lossmith.choose.data import Table
from lossmith.choose.findings import Finding
from lossmith.choose.messages import say

GROUPS = {
    *("id", "group", "subject", "patient", "person", "user", "customer", "household", "family"),
    *("site", "hospital", "school", "batch", "session", "firm", "store", "country"),
}
TIMES = {"time", "date", "day", "week", "month", "quarter", "year", "timestamp", "datetime"}
CENSORING = {
    "censor",
    "censors",
    "censored",
    "cens",
    "event",
    "status",
    "observed",
    "death",
    "died",
}


def hints(table: Table) -> list[Finding]:
    """Findings about the columns, none of them about the target's values."""
    notes = [Finding("column_left_out", 1, note) for note in table.notes]
    return [*notes, *_missing(table), *_copies(table), *_roles(table)]


def _missing(table: Table) -> list[Finding]:
    gaps = table.features.isna().sum()
    total = int(gaps.sum())
    if not total:
        return []
    column = str(gaps.idxmax())
    sentence = say(
        "find.missing",
        gaps=total,
        share=total / table.features.size,
        column=column,
        most=float(gaps.max() / len(table.features)),
    )
    return [Finding("missing_values", total, sentence)]


def _copies(table: Table) -> list[Finding]:
    """Rows that repeat an earlier one, and those of them that have another target."""
    whole = table.features.assign(**{"\0target": table.target.to_numpy()})
    copies = table.features.duplicated()
    count = int(copies.sum())
    if not count:
        return []
    other = count - int(whole.duplicated().sum())
    sentence = say("find.copies", count=count, share=count / len(copies), other=other)
    return [Finding("duplicates", count, sentence)]


def _roles(table: Table) -> list[Finding]:
    """Columns whose names and values say that they are no ordinary feature."""
    found: list[Finding] = []
    for name, column in pd.concat([table.features, table.left], axis=1).items():
        words = set(re.findall("[a-z]+", str(name).lower()))
        levels = int(column.nunique())
        if pd.api.types.is_datetime64_any_dtype(column) or (
            words & TIMES and levels > 2 and column.is_monotonic_increasing
        ):
            found.append(Finding("time_column", levels, say("find.time", column=str(name))))
        elif words & GROUPS and 2 < levels <= len(column) / 2:
            rows = len(column) / levels
            sentence = say("find.group", column=str(name), levels=levels, rows=rows)
            found.append(Finding("group_column", levels, sentence))
        elif words & CENSORING and levels == 2 and set(column.unique()) <= {0.0, 1.0}:
            share = float((column == 0).mean())
            sentence = say("find.censored", column=str(name), share=share)
            found.append(Finding("censored_flag", share, sentence))
    return found
