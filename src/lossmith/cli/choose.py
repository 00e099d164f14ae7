"""``lossmith choose``: the tournament, its verdict in the terminal and on one page."""

import json
import math
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lossmith.cli.options import DATA, JSON, TARGET, TASK, Unusable, complaints, plain

if TYPE_CHECKING:
    from rich.table import Table

    from lossmith.choose import Choice

# Nobody wraps lines of a pipe or a file.
PIPED_WIDTH = 120
NO_WINNER, TERMINATED = 4, 143


@click.command()
@DATA
@TARGET
@TASK
@click.option("--metric", metavar="M", help="mae, rmse, pinball:0.9, accuracy, log_loss ...")
@click.option("--losses", default="auto", show_default=True, metavar="A,B", help="Names to enter.")
@click.option("--folds", metavar="KxR", help="Folds x repeats; 10x3, less for many rows.")
@click.option("--group", metavar="COL", help="Keep rows with the same value here together.")
@click.option("--time", metavar="COL", help="Let the past predict the future.")
@click.option("--epochs", type=click.IntRange(min=1), help="Most epochs of each training.")
@click.option("--model", type=click.Choice(["mlp", "linear"]), default="mlp", show_default=True)
@click.option("--trials", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Keep every result here; the same command goes on where it was stopped.",
)
@click.option(
    "--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Processes at work."
)
@click.option(
    "--executor",
    type=click.Choice(["processes", "ray"]),
    default="processes",
    show_default=True,
    help="Who starts them; RAY_ADDRESS names a cluster.",
)
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="OUT",
    help="Write one offline page.",
)
@click.option("--lang", type=click.Choice(["en", "zh"]), default="en", help="Of the page.")
@click.option("--require-winner", is_flag=True, help="End with code 4 unless a loss is better.")
@click.option("--suite", is_flag=True, help="DATA is a list A,B,...; compare over all of them.")
@JSON
def choose(
    data: str,
    target: str | None,
    task: str | None,
    metric: str | None,
    losses: str,
    folds: str | None,
    group: str | None,
    time: str | None,
    epochs: int | None,
    model: str,
    trials: int,
    seed: int,
    out: Path | None,
    jobs: int,
    executor: str,
    html: Path | None,
    lang: str,
    require_winner: bool,
    suite: bool,
    as_json: bool,
) -> None:
    """Let the losses that fit DATA compete on it.

    DATA is a CSV or Parquet file, or a bundled set: diabetes, digits, breast_cancer, wine, iris,
    linnerud; with statsmodels also engel, randhie, fair, stackloss, star98, statecrime.
    """
    asked = {
        "metric": metric,
        "losses": losses,
        "task": task,
        "folds": folds,
        "group": group,
        "time": time,
        "epochs": epochs,
        "model": model,
        "trials": trials,
        "seed": seed,
        "jobs": jobs,
        "executor": executor,
    }
    # asked to end (by a scheduler, say), give back the claims
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    if suite:
        if html is not None or target is not None or require_winner:
            raise Unusable("--suite must be given without --html, --target and --require-winner")
        _suite(data.split(","), out, asked, as_json=as_json)
        return
    done = _run(data, target, {**asked, "out": out})
    if html is not None:
        _write_page(done, html, lang)
    if as_json:
        click.echo(json.dumps(done.to_dict(), indent=2, allow_nan=False))
    else:
        _print(done)
    if require_winner and done.winner is None:
        raise SystemExit(NO_WINNER)


def _run(data: str, target: str | None, asked: dict[str, Any]) -> "Choice":
    """One tournament, with a bar for each loss on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    bars = Progress(*columns, console=Console(stderr=True))
    known: dict[str, int] = {}
    with complaints(), ExitStack() as stack:
        from lossmith.choose import choose as run

        def progress(label: str, share: float) -> None:
            if not known:  # a complaint before the first bar is the only line
                stack.enter_context(bars)
            if label not in known:
                known[label] = bars.add_task(label, total=1.0)  # pyright: ignore[reportArgumentType]
            bars.update(known[label], completed=share)  # pyright: ignore[reportArgumentType]

        return run(data, target, progress=progress, **asked)


def _suite(names: list[str], out: Path | None, asked: dict[str, Any], *, as_json: bool) -> None:
    """A tournament on each data set, then one comparison over all of them."""
    with complaints():
        from lossmith.choose.suite import ready

        ready(names, asked["metric"], asked["task"])
    done = [
        _run(name, None, {**asked, "out": None if out is None else out / Path(name).name})
        for name in names
    ]
    with complaints():
        from lossmith.choose import collect

        found = collect(done)
    rows = found.table.to_dict(orient="records")
    if as_json:
        friedman = None if math.isnan(found.friedman) else found.friedman
        content = {"verdict": found.verdict, "friedman": friedman, "table": rows}
        gains = found.gains.to_dict(orient="index")
        click.echo(json.dumps({**content, "gains": gains}, indent=2, allow_nan=False))
        return
    click.echo(f"{found.verdict}\n")
    click.echo(found.table.to_string(index=False, float_format="{:.3g}".format))


def _write_page(done: "Choice", path: Path, language: str) -> None:
    from lossmith.report import write

    try:
        write(done, path, language)
    except OSError as error:
        raise click.ClickException(f"the page cannot be written: {error}") from None
    click.echo(f"page: {path}", err=True)


def _print(done: "Choice") -> None:
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False)
    if not console.is_terminal:
        console = Console(soft_wrap=True, highlight=False, width=PIPED_WIDTH)
    console.print(f"[bold]{clean(done.verdict)}[/bold]\n")
    console.print(clean(done.diagnosis.verdict))
    console.print(
        f"Metric {clean(done.metric.name)} ({done.metric.direction}), {done.metric_reason}. "
        f"{done.plan.folds}x{done.plan.repeats} folds, at most {done.settings.epochs} epochs, "
        f"seed {done.seed}."
    )
    if done.plan.note:
        console.print(f"Reduced: {clean(done.plan.note)}.")
    console.print(_table(done, odds=console.width >= PIPED_WIDTH))
    console.print(f"Predicting one constant: {done.metric.name} {done.constant:.4g}.")
    console.print(
        f"Best score on new rows, corrected for having been chosen: {done.metric.name} "
        f"{done.outcome.expected:.4g}."
    )
    for label, guards in done.told.items():
        for guard in guards:
            mark = "Warning, " if guard.alarm else ""
            console.print(clean(f"{mark}{label}: {guard.sentence}"))
    for refusal in done.shortlist.refusals:
        console.print(clean(f"Not entered: {refusal.name}, {refusal.reason}"), style="dim")


def clean(text: str) -> str:
    """Text of the data as it is, for rich and for the terminal."""
    from rich.markup import escape

    return escape(plain(text))


def _table(done: "Choice", *, odds: bool) -> "Table":
    """The ranking; the three probabilities only where the line has room for ``odds``."""
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(box=SIMPLE, pad_edge=False)
    table.add_column("loss", no_wrap=True)
    for column in (done.metric.name, "gain", "95 %", *["better / same / worse"] * odds):
        table.add_column(column, justify="right", no_wrap=True)
    # at the least its longest word: of a narrow terminal the other columns give way
    table.add_column("verdict", min_width=11)
    for one in done.outcome.standings:
        if (test := one.comparison) is None:
            score = "" if one.word == "failed" else f"{one.score:.4g}"
            word = one.sentence if one.word == "failed" else one.word
            table.add_row(one.label, score, "", "", *[""] * odds, word)
            continue
        table.add_row(
            one.label,
            f"{one.score:.4g}",
            f"{test.difference:+.3g}",
            f"{test.low:+.3g} .. {test.high:+.3g}",
            *[f"{test.better:.2f} / {test.same:.2f} / {test.worse:.2f}"] * odds,
            one.word,
        )
    return table
