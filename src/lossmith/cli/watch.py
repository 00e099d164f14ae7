"""``lossmith watch``: the table of a running tournament, without touching it."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lossmith.cli.options import Unusable, complaints, plain

if TYPE_CHECKING:
    from rich.table import Table

PAUSE = 1.0


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--once", is_flag=True, help="Print the table as it is now, and end.")
def watch(folder: Path, once: bool) -> None:
    """Show the results in FOLDER as they come in, until the tournament is complete.

    FOLDER is what was given to lossmith choose --out. There is no ranking before the last cell.
    """
    from rich.console import Console
    from rich.live import Live

    seen: dict[str, Any] = {}
    console = Console()
    with complaints():
        plan = _plan(folder)
        if once or not console.is_terminal:
            console.print(_table(folder, plan, seen)[0])
            return
    with complaints(), Live(console=console, refresh_per_second=4) as live:
        while True:
            table, complete = _table(folder, plan, seen)
            live.update(table)
            if complete:
                return
            time.sleep(PAUSE)


def _plan(folder: Path) -> dict[str, Any]:
    from lossmith.choose.ledger import read

    try:
        return read(folder / "plan.json")
    except (FileNotFoundError, NotADirectoryError):
        rule = "FOLDER must be one that lossmith choose --out wrote"
        raise Unusable(f"{rule}, got {str(folder)!r}") from None


def _table(folder: Path, plan: dict[str, Any], seen: dict[str, Any]) -> "tuple[Table, bool]":
    """The means so far, and whether all is done."""
    from rich.markup import escape
    from rich.table import Table

    from lossmith.choose.ledger import read

    for path in (folder / "results").glob("*.json"):
        if path.name not in seen:  # a committed result never changes
            seen[path.name] = read(path)
    total = len(plan["seeds"])
    working = len(list((folder / "claims").glob("*")))
    complete = (folder / "complete").exists()
    state = "complete" if complete else f"{working} at work; no ranking before the end"
    table = Table(title=escape(plain(f"{plan['data']}, {plan['metric']}: {state}")))
    table.add_column("loss")
    for name in ("trials", f"cells of {total}", f"{plan['metric']}, mean so far", "failed"):
        table.add_column(name, justify="right")
    for loss in plan["losses"]:
        rows = [row for row in seen.values() if row.get("loss") == loss]
        counts = "tuned" if any(row.get("variant") == "tuned" for row in rows) else "default"
        cells = [row for row in rows if row.get("variant") == counts]
        scores = [row["score"] for row in cells if not row["failure"]]
        mean = f"{sum(scores) / len(scores):.4g}" if scores else ""
        trials = next((str(len(row["trials"])) for row in rows if "trials" in row), "")
        failed = str(sum(bool(row["failure"]) for row in cells) or "")
        table.add_row(escape(loss), trials, str(len(cells)), mean, failed)
    return table, complete
