"""``lossmith reproduce``: published findings about losses, measured here."""

import json
from typing import TYPE_CHECKING

import click

from lossmith.cli.options import JSON, Unusable, complaints

if TYPE_CHECKING:
    from lossmith.reproduce import Outcome, Reproduction

ALL = "all"
NOT_HELD = 1


@click.command()
@click.argument("name", required=False)
@JSON
def reproduce(name: str | None, as_json: bool) -> None:
    """Measure a published finding again, and end with code 1 if it does not hold.

    NAME is a reproduction, or "all"; without it they are listed. Each takes less than two minutes
    on two cores. Ranges were declared before anything was measured.
    """
    from lossmith.reproduce import REPRODUCTIONS, record

    if name is None:
        _list(REPRODUCTIONS, as_json=as_json)
        return
    if name not in REPRODUCTIONS and name != ALL:
        known = ", ".join([*REPRODUCTIONS, ALL])
        raise Unusable(f"NAME must be one of {known}, got {name!r}")
    chosen = list(REPRODUCTIONS.values()) if name == ALL else [REPRODUCTIONS[name]]
    outcomes = _run(chosen)
    if as_json:
        click.echo(json.dumps(record(outcomes), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        for outcome in outcomes:
            _print(outcome, full=len(outcomes) == 1)
    if not all(outcome.held for outcome in outcomes):
        raise SystemExit(NOT_HELD)


def _list(known: "dict[str, Reproduction]", *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({one.name: one.finding for one in known.values()}, indent=2))
        return
    width = max(map(len, known))
    for one in known.values():
        click.echo(f"{one.name:<{width}}  {one.finding}")


def _run(chosen: "list[Reproduction]") -> "list[Outcome]":
    """One after the other, with a bar for each on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from lossmith.reproduce import run

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    outcomes: list[Outcome] = []
    with complaints(), Progress(*columns, console=Console(stderr=True)) as bars:
        for one in chosen:
            bar = bars.add_task(one.name, total=1.0)

            def tick(share: float, bar: object = bar) -> None:
                bars.update(bar, completed=share)  # pyright: ignore[reportArgumentType]

            outcomes.append(run(one, tick=tick))
    return outcomes


def _print(outcome: "Outcome", *, full: bool) -> None:
    about = outcome.reproduction
    if full:
        click.echo(about.finding)
        click.echo(f"Source: {about.source}")
        click.echo(f"Published: {about.published}")
        click.echo(f"Here: {about.setting}")
        click.echo(f"Losses: {', '.join(about.losses)}. Metric: {about.metric}.")
        for label, value in outcome.beside.items():
            click.echo(f"  {label}: {value:.4g}")
    for finding in outcome.findings:
        if full or not finding.held:
            click.echo(f"  {finding.sentence}")
    if about.remark and (full or not outcome.held):
        click.echo(f"  Remark: {about.remark}")
    click.echo(outcome.line)
