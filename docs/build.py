"""Write docs/catalogue.md from the cards: one table to choose from, one section per loss."""

import sys
from collections.abc import Iterable
from pathlib import Path

import lossmith

PAGE = Path(__file__).parent / "catalogue.md"
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


def page(cards: list[lossmith.Card]) -> str:
    """The whole page."""
    tasks = sorted({task for card in cards for task in card.tasks})
    parts = [INTRO]
    for task in tasks:
        parts += [f"## {task}\n", table(card for card in cards if task in card.tasks)]
    parts += ["## Each loss\n", *(section(card) for card in cards)]
    return "\n".join(parts)


def main(arguments: list[str]) -> int:
    """Write the page, or with ``--check`` fail if it is stale."""
    text = page(list(lossmith.cards().values()))
    if "--check" in arguments:
        current = PAGE.exists() and PAGE.read_text(encoding="utf-8") == text
        if not current:
            print("docs/catalogue.md is stale: run make docs", file=sys.stderr)
        return 0 if current else 1
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
