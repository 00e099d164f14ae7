"""``lossmith bench``: losses against their peers and against the limits of the machine."""

from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import click

from lossmith.cli.options import Unusable


@click.command()
@click.argument("rows", nargs=-1, metavar="[ROW ...]")
@click.option("--list", "listing", is_flag=True, help="List families and rows; measure nothing.")
@click.option(
    "--seconds",
    type=click.FloatRange(0.01),
    default=1.0,
    show_default=True,
    help="Timing of a row at one size.",
)
@click.option("--json", "path", metavar="PATH", help="File to write, or folder: a file per family.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="A GPU, if there is one.")
@click.option("--small", is_flag=True, help="Tiny sizes: to see that all runs.")
@click.option("--cold-start", is_flag=True, help="Measure first calls with a compiler instead.")
@click.option("--without", multiple=True, metavar="PEER", help="Leave out a peer, like compile.")
def bench(
    rows: tuple[str, ...],
    listing: bool,
    seconds: float,
    path: str | None,
    device: str | None,
    small: bool,
    cold_start: bool,
    without: tuple[str, ...],
) -> None:
    """Measure losses and their peers: time, memory, error, and the distance to the limit.

    ROW is a family or a row of --list, or the beginning of one; all of them if not given. Peers
    that are not installed are left out, and named.
    """
    from lossmith.bench.catalogue import chosen, families

    if cold_start:
        if rows:
            raise Unusable(f"--cold-start must stand without rows, got {rows[0]!r}")
        _first_calls(path)
        return
    try:
        parts = chosen(rows)
    except ValueError as error:
        raise Unusable(str(error)) from None
    if listing:
        for family in parts:
            click.echo("\n  ".join([f"{family.name}:", *(row.name for row in family.rows)]))
        return

    peers = {peer for family in families() for row in family.rows for peer in row.peers}
    if strange := set(without) - peers:
        raise Unusable(f"--without must be a peer of some row, got {', '.join(sorted(strange))}")
    if path is not None and not path.endswith(".json") and any(p not in families() for p in parts):
        raise Unusable(f"--json must be a file for a part of a family, got {path!r}")
    _must_be_writable(path)

    import torch
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from lossmith.bench.run import Point, points, run
    from lossmith.bench.table import LEGEND, head, table

    gpu = torch.cuda.is_available()
    if device == "cuda" and not gpu:
        raise Unusable("--device must be there, got cuda without a GPU")
    place = torch.device(device or ("cuda" if gpu else "cpu"))
    scale = "small" if small else "gpu" if place.type == "cuda" else "cpu"
    total = sum(len(points(family, scale)) for family in parts)
    documents: dict[str, dict[str, Any]] = {}
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("limits of the machine", total=total)

        def starting(point: Point) -> None:
            size = "×".join(str(n) for n in point.dims.values())
            progress.update(task, description=f"{point.row.name} {size}")

        for document in run(
            parts,
            device=place,
            scale=scale,
            seconds=seconds,
            without=without,
            starting=starting,
        ):
            documents[document["family"]] = document
            progress.advance(task)
            if path is not None:
                _save(Path(path), documents)

    console = Console()
    for document in documents.values():
        head(console, document)
        tables: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for row in document["rows"]:
            tables.setdefault((row["row"], row["dtype"]), []).append(row)
        for (name, dtype), measured in tables.items():
            console.print(table(name, dtype, measured))
    console.print(LEGEND, style="dim", highlight=False)


def _first_calls(path: str | None) -> None:
    from rich.console import Console
    from rich.markdown import Markdown
    from rich.progress import Progress

    from lossmith.bench import cold
    from lossmith.bench.results import write

    _must_be_writable(path)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("programs", total=2 * cold.ROUNDS)
        try:
            found = cold.cold_start(lambda: progress.advance(task))
        except RuntimeError as error:
            raise Unusable(str(error)) from None
    if path is not None:
        write(Path(path) if path.endswith(".json") else Path(path) / "cold_start.json", found)
    Console().print(Markdown(cold.markdown(found)))


def _must_be_writable(path: str | None) -> None:
    """Before anything is measured: the folder is made, and a file without a name put there."""
    if path is None:
        return
    folder = Path(path).parent if path.endswith(".json") else Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise Unusable(f"--json must be a path to write to, got {path!r}: {reason}") from None


def _save(path: Path, documents: dict[str, dict[str, Any]]) -> None:
    """A file with all documents, or in a folder one for the family at work."""
    from lossmith.bench.results import write

    if path.suffix == ".json":
        write(path, list(documents.values()))
    else:
        name, document = list(documents.items())[-1]
        write(path / f"{name}.json", document)
