"""Write the generated pages: the catalogue from the cards, the others from what was measured.

Nothing is measured here: benchmarks and reproductions keep their results in files.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import lossmith
from lossmith.bench import cold, results
from lossmith.bench import page as benchmarks
from lossmith.bench.catalogue import FAMILIES
from lossmith.reproduce import page as findings

DOCS = Path(__file__).parent
RESULTS = DOCS.parent / "benchmarks" / "results"
RECORD = DOCS / "reproduced.json"  # written by lossmith reproduce all --json
INTRO = """# Catalogue

Generated from the cards by `make docs`; do not edit. `lossmith list` and `lossmith show NAME` print
the same on the command line, `lossmith.find(task="regression", robust=True)` searches it in Python.
"""


def cell(text: str) -> str:
    """Text that cannot break a table row."""
    return text.replace("|", "\\|").replace("\n", " ")


def table(cards: Iterable[lossmith.Card]) -> str:
    """Name, link to the section, and when to use the loss."""
    rows = [
        f"| [`{c.name}`](#{c.name}) | {cell(c.use_when)} | {cell(c.avoid_when)} |" for c in cards
    ]
    return "\n".join(["| loss | use when | avoid when |", "|---|---|---|", *rows]) + "\n"


def section(card: lossmith.Card) -> str:
    """Everything the card claims about one loss."""
    yes = [
        word
        for word, holds in (
            ("convex", card.convex),
            ("symmetric", card.symmetric),
            ("zero at the target", card.zero_at_target),
            ("never negative", card.nonnegative),
            ("robust", card.robust),
        )
        if holds
    ]
    facts = [
        ("shapes", "; ".join(f"`{way.describe()}`" for way in card.signatures)),
        ("options", ", ".join(f"`{name}`" for name in card.options)),
        ("properties", ", ".join(yes)),
        ("gradient at most", f"`{card.gradient_bound}`" if card.gradient_bound is not None else ""),
        ("minimised by", card.elicits or ""),
        ("prediction from raw output", "" if card.link == "none" else card.link),
        ("equals", f"`{card.same_as}`" if card.same_as else ""),
        ("also called", ", ".join(f"`{alias}`" for alias in card.aliases)),
        ("source", card.source),
    ]
    lines = "\n".join(f"- {name}: {value}" for name, value in facts if value)
    return f"### {card.name}\n\n```math\n{card.formula}\n```\n\n{lines}\n"


def catalogue(cards: list[lossmith.Card]) -> str:
    """The page of all losses."""
    tasks = sorted({task for card in cards for task in card.tasks})
    parts = [INTRO]
    for task in tasks:
        parts += [f"## {task}\n", table(card for card in cards if task in card.tasks)]
    parts += ["## Each loss\n", *(section(card) for card in cards)]
    return "\n".join(parts)


def pages() -> dict[str, str]:
    """Every generated file by its name in this folder."""
    others = {f"benchmarks-{f.name}": f for f in sorted(RESULTS.iterdir()) if f.is_dir()}
    made = {
        "catalogue.md": catalogue(list(lossmith.cards().values())),
        "reproduced.md": findings.markdown(json.loads(RECORD.read_text(encoding="utf-8"))),
        **machine("benchmarks", RESULTS, list(others)),
    }
    for name, folder in others.items():
        made |= machine(name, folder)
    return made


def machine(name: str, folder: Path, others: Sequence[str] = ()) -> dict[str, str]:
    """The page of the benchmarks of one machine, and its plots; ``others`` are further pages."""
    measured = [folder / f"{family}.json" for family in FAMILIES]
    documents = [results.read(path) for path in measured if path.exists()]
    parts = [benchmarks.markdown(documents, f"images/{name}", others)]
    first = folder / "cold_start.json"
    if first.exists():
        parts.append(cold.markdown(json.loads(first.read_text(encoding="utf-8"))))
    plots = {
        f"images/{name}/{document['family']}.svg": benchmarks.figure(document)
        for document in documents
        if benchmarks.growing(document)
    }
    return {f"{name}.md": "\n".join(parts), **plots}


def main(arguments: list[str]) -> int:
    """Write the pages, or with ``--check`` fail if one is stale."""
    stale = 0
    for name, text in pages().items():
        path = DOCS / name
        if "--check" not in arguments:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            print(f"docs/{name} is stale: run make docs", file=sys.stderr)
            stale = 1
    return stale


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
