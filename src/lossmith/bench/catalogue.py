"""All rows, and how a word on the command line names some of them."""

import functools
import importlib
from collections.abc import Iterable
from dataclasses import replace

from lossmith.bench.row import Family

FAMILIES = (
    "torch_losses",
    "one_pass",
    "pointwise",
    "samples",
    "cross_entropy",
    "linear_cross_entropy",
    "divergence",
    "region",
    "pairs",
    "sequence",
)


@functools.cache
def families() -> tuple[Family, ...]:
    """In the order of the documentation."""
    modules = (importlib.import_module(f"lossmith.bench.rows.{name}") for name in FAMILIES)
    return tuple(module.FAMILY for module in modules)


def chosen(words: Iterable[str]) -> tuple[Family, ...]:
    """Families with the rows that some words name; all of them without a word.

    A word is the name of a family, of a row, or the beginning of one.

    Raises:
        ValueError: If a word names nothing.
    """
    found: dict[str, list[str]] = {}
    for word in words:
        matches = _matches(word.lower())
        if not matches:
            raise ValueError(f"ROW must be a family or a row of --list, got {word!r}")
        for family, rows in matches.items():
            found.setdefault(family, []).extend(rows)
    if not found:
        return families()
    return tuple(_part(family, found[family.name]) for family in families() if family.name in found)


def _matches(word: str) -> dict[str, list[str]]:
    """Names of families and their rows: by an exact name if there is one, else by a beginning."""
    for fits in (str.__eq__, str.startswith):
        found = {
            family.name: [row.name for row in family.rows]
            for family in families()
            if fits(family.name, word)
        }
        if found:
            return found
        for family in families():
            if rows := [row.name for row in family.rows if fits(row.name.lower(), word)]:
                found[family.name] = rows
        if found:
            return found
    return {}


def _part(family: Family, names: list[str]) -> Family:
    return replace(family, rows=tuple(row for row in family.rows if row.name in names))
