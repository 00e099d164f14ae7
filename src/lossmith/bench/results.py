"""Results as JSON: one document for each family, with the machine it was measured on."""

import json
from pathlib import Path
from typing import Any

from lossmith.bench.limits import Limits
from lossmith.bench.row import Family

SCHEMA = 1
# What every document, row and entry has; an entry of an absent peer has its reason instead
DOCUMENT = {"schema", "family", "title", "about", "options", "machine", "clock", "limits", "rows"}
ROW = {"row", "dims", "dtype", "elements", "gradient_mib", "work", "rounds", "grows", "entries"}
ENTRY = {"ms", "ms_low", "ms_high", "limit_percent", "peak_mib"}


def document(
    family: Family,
    rows: list[dict[str, Any]],
    *,
    machine: dict[str, Any],
    clock: str,
    limits: Limits,
) -> dict[str, Any]:
    """Everything that is known about the measurements of a family."""
    rates = {f"{str(d).removeprefix('torch.')}_gflops": f / 1e9 for d, f in limits.flops.items()}
    return {
        "schema": SCHEMA,
        "family": family.name,
        "title": family.title,
        "about": family.about,
        "options": {option: who.split() for option, who in family.options.items()},
        "machine": machine,
        "clock": clock,
        "limits": {
            "bandwidth_gbytes": round(limits.bandwidth / 1e9, 1),
            **{name: round(rate, 1) for name, rate in rates.items()},
        },
        "rows": rows,
    }


def write(path: Path, content: Any) -> None:
    """Save a document, or several."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    """Load one document.

    Raises:
        ValueError: If it does not hold what a page of results is made of.
    """
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise ValueError(f"{path.name} must have schema {SCHEMA}")
    _need(path, found, DOCUMENT)
    for row in found["rows"]:
        _need(path, row, ROW)
        for entry in row["entries"].values():
            _need(path, entry, {"absent"} if "absent" in entry else ENTRY)
    return found


def _need(path: Path, found: dict[str, Any], names: set[str]) -> None:
    missing = sorted(names - found.keys())
    if missing:
        raise ValueError(f"{path.name} must have {', '.join(missing)}")
