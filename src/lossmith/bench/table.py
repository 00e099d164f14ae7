"""Measurements as text for a terminal."""

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from lossmith.bench.measure import OURS

LEGEND = """\
ratio: time of lossmith over the time of the other, median and quartiles over rounds; below 1 \
lossmith is faster. limit: what memory and matrix products allow at best, as a share of the time; \
above 100 % the data stayed in the cache. MiB: peak beyond the inputs, gradients included. error: \
largest error of a gradient against float64, in units of its largest entry."""


def head(console: Console, document: dict[str, Any]) -> None:
    """What was measured, and on what."""
    machine, limits = document["machine"], document["limits"]
    threads = machine["threads"]
    console.print(f"[bold]{document['title']}[/]")
    console.print(
        f"{machine.get('gpu', machine['cpu'])}, {threads} thread{'s' * (threads > 1)}, "
        f"torch {machine['versions']['torch']}. {document['clock'].capitalize()}. At best "
        f"{limits['bandwidth_gbytes']:.0f} GB/s, {limits['float32_gflops']:.0f} GFLOP/s in float32,"
        f" {limits['bfloat16_gflops']:.0f} in bfloat16.",
        style="dim",
        highlight=False,
    )


def table(name: str, dtype: str, rows: list[dict[str, Any]]) -> Table:
    """One row of the benchmark in one dtype, over its sizes."""
    shown = Table(title=f"{name}, {dtype}", box=SIMPLE_HEAD, title_justify="left", pad_edge=False)
    shown.add_column(" × ".join(rows[0]["dims"]), no_wrap=True)
    shown.add_column("by", no_wrap=True)
    for heading in ("ms", "ratio", "quartiles", "limit", "MiB", "error"):
        shown.add_column(heading, justify="right", no_wrap=True)
    notes: dict[str, str] = {}
    for row in rows:
        size = "×".join(str(n) for n in row["dims"].values())
        for by, entry in row["entries"].items():
            if "absent" in entry:
                notes[by] = entry["absent"]
                continue
            shown.add_row(size, by, *cells(entry), style="bold" if by == OURS else "")
            size = ""
        shown.add_section()
    if notes:
        shown.caption = "\n".join(f"{by}: {why}" for by, why in notes.items())
        shown.caption_justify = "left"
    return shown


def cells(entry: dict[str, Any]) -> list[str]:
    """The numbers of one way to compute a loss."""
    quartiles = ("ratio_low", "ratio_high")
    return [
        _number(entry["ms"]),
        f"{entry['ratio']:.2f}" if "ratio" in entry else "",
        "–".join(f"{entry[q]:.2f}" for q in quartiles) if "ratio" in entry else "",
        f"{entry['limit_percent']:.0f} %",
        _number(entry["peak_mib"]),
        f"{entry['gradient_error']:.0e}" if "gradient_error" in entry else "",
    ]


def _number(value: float) -> str:
    """Three digits, without a power of ten."""
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}" if value >= 0.001 else "0"
