"""Documents of results as a page: a table of each family, and plots of cost against size."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lossmith.bench.measure import OURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INTRO = """# Benchmarks

Generated from `benchmarks/results` by `make docs`; do not edit. `make bench` measures again, and
`lossmith bench huber` measures one row. A folder in there holds the results of another machine.
Forward and backward together. All ways to compute a loss take turns in one process, on the same
tensors, and a number is the median over the rounds.

- **±**: half of what the middle half of the rounds differs by, as a share of lossmith's time.
- **limit**: what memory bandwidth and matrix products, measured in the same run, allow at best, as
  a share of lossmith's time. Above 100 % the data stayed in the cache.
- **MiB**: most memory alive at one time beyond the inputs, gradients included.
- **error**: largest error of a gradient against float64, in units of its largest entry.
- **Peers**: time of lossmith over time of the peer, then memory over memory. Below 1 lossmith is
  better. The files of results hold the quartiles and the peers' own numbers.
"""
DASH = "–"
WIDTH, HEIGHT = 9.0, 3.2


def markdown(documents: Sequence[dict[str, Any]], folder: str, others: Sequence[str] = ()) -> str:
    """The page; pictures are looked for in ``folder``, ``others`` are pages of other machines."""
    links = [f"Another machine: [{name}]({name}.md).\n" for name in others]
    return "\n".join([INTRO, *links, *(_section(document, folder) for document in documents)])


def _section(document: dict[str, Any], folder: str) -> str:
    parts = [f"## {document['title']}\n", f"{document['about']}\n", _machine(document) + "\n"]
    if growing(document):
        parts.append(f"![Cost against size]({folder}/{document['family']}.svg)\n")
    parts.append(_table(document))
    if document["options"]:
        parts.append(_options(document))
    return "\n".join(parts)


def _machine(document: dict[str, Any]) -> str:
    machine, limits = document["machine"], document["limits"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    threads = f"{machine['threads']} thread{'s' * (machine['threads'] > 1)}"
    load = f" Load at the start {machine['load']}." if "load" in machine else ""
    return (
        f"{machine['date']}, {machine.get('gpu', machine['cpu'])}, {threads}, Python "
        f"{machine['python']}, {versions}. Clock: {document['clock']}.{load} At best "
        f"{limits['bandwidth_gbytes']} GB/s, {limits['float32_gflops']} GFLOP/s in float32, "
        f"{limits['bfloat16_gflops']} in bfloat16."
    )


def _table(document: dict[str, Any]) -> str:
    entries = [row["entries"] for row in document["rows"]]
    peers = list(dict.fromkeys(name for entry in entries for name in entry if name != OURS))
    head = ["loss", "dtype", "size", "ms", "±", "limit", "MiB", "error", *peers]
    lines = [head, ["---", "---", "---", *["--:"] * (len(head) - 3)]]
    for row in document["rows"]:
        ours = row["entries"][OURS]
        lines.append(
            [
                row["row"],
                row["dtype"],
                ", ".join(f"{name} {size}" for name, size in row["dims"].items()),
                f"{ours['ms']:.3g}",
                f"{50 * (ours['ms_high'] - ours['ms_low']) / ours['ms']:.0f} %",
                f"{ours['limit_percent']:.0f} %",
                f"{ours['peak_mib']:.3g}",
                f"{ours['gradient_error']:.0e}" if "gradient_error" in ours else DASH,
                *(_against(ours, row["entries"].get(peer, {})) for peer in peers),
            ]
        )
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    absent = {
        f"- {name}: {found['absent']}\n"
        for entry in entries
        for name, found in entry.items()
        if "absent" in found
    }
    return table + ("\n" + "".join(sorted(absent)) if absent else "")


def _against(ours: dict[str, Any], peer: dict[str, Any]) -> str:
    if "ratio" not in peer:
        return DASH
    if not peer["peak_mib"]:
        return f"{peer['ratio']:.2f}"
    return f"{peer['ratio']:.2f} · {ours['peak_mib'] / peer['peak_mib']:.2f}"


def _options(document: dict[str, Any]) -> str:
    options = document["options"]
    names = list(dict.fromkeys(name for who in options.values() for name in who))
    counts = [sum(name in who for who in options.values()) for name in names]
    lines = [["option", *names], ["---", *[":-:"] * len(names)]]
    lines += [[o, *("yes" if n in who else "" for n in names)] for o, who in options.items()]
    lines.append(["**count**", *(f"**{count}**" for count in counts)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def growing(document: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Rows whose cost is drawn against their size, by name, in float32."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in document["rows"]:
        if row["grows"] and row["dtype"] == "float32":
            found.setdefault(row["row"], []).append(row)
    return found


def figure(document: dict[str, Any]) -> str:
    """Time and memory against size as SVG: the same text for the same document."""
    import matplotlib
    from matplotlib.figure import Figure

    rows = growing(document)
    # fixed names of the parts, letters as text, and no date
    with matplotlib.rc_context({"svg.hashsalt": "lossmith", "svg.fonttype": "none"}):
        drawn = Figure(figsize=(WIDTH, HEIGHT * len(rows)), layout="constrained")
        grid: Any = drawn.subplots(len(rows), 2, squeeze=False)
        for (name, measured), (time, memory) in zip(rows.items(), grid, strict=True):
            _lines(time, measured, "ms")
            least = [row["work"]["ms"] for row in measured]
            time.plot(_sizes(measured), least, "k--", linewidth=1, label="limit")
            _lines(memory, measured, "peak_mib")
            time.set(title=name, ylabel="ms")
            memory.set(title=name, ylabel="MiB beyond the inputs")
            time.legend(frameon=False, fontsize=8)
        text = io.StringIO()
        drawn.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return "".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())


def _lines(axes: "Axes", rows: list[dict[str, Any]], what: str) -> None:
    names = dict.fromkeys(name for row in rows for name in row["entries"])
    for number, name in enumerate(names):
        points = [
            (size, row["entries"][name][what])
            for size, row in zip(_sizes(rows), rows, strict=True)
            if row["entries"].get(name, {}).get(what)
        ]
        if points:
            wide = 2.5 if name == OURS else 1.2
            axes.plot(*zip(*points, strict=True), color=f"C{number}", linewidth=wide, label=name)
    axes.set(xscale="log", yscale="log", xlabel="numbers in the inputs")
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _sizes(rows: list[dict[str, Any]]) -> list[int]:
    return [row["elements"] for row in rows]
