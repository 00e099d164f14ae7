"""``lossmith explain``: one loss worked out with numbers from the command line."""

import inspect
from typing import TYPE_CHECKING, Any

import click

from lossmith.cli.options import literal

if TYPE_CHECKING:
    from torch import Tensor

    from lossmith.core.card import Card


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.option("--markdown", is_flag=True, help="Write Markdown with the formula as mathematics.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="--TENSOR NUMBERS ...")
def explain(name: str, markdown: bool, arguments: tuple[str, ...]) -> None:
    """Work out the loss NAME step by step.

    Tensors and options go by their names in the loss. Commas separate numbers, semicolons rows:

    \b
      lossmith explain huber_loss --input 0.5,3 --target 0,0 --delta 1
      lossmith explain cross_entropy --input "2,0,0; 0,0,5" --target 0,1
    """  # noqa: D301 (click reads the escape: the lines after it are not rewrapped)
    from lossmith.core.catalogue import card as find
    from lossmith.teach.explain import explain as work_out

    try:
        card = find(name)
        pairs = _pairs(arguments)
        assert card.function is not None
        known = inspect.signature(card.function).parameters
        for key in pairs:
            if key not in known:
                names = ", ".join(f"--{name.replace('_', '-')}" for name in known)
                raise ValueError(f"an argument of {card.name} must be one of {names}, got --{key}")
        given = {key: _read(card, key, text) for key, text in pairs.items()}
        missing = [f"--{key}" for key in card.tensors if key not in given]
        if missing:
            raise ValueError(f"{card.name} also needs {', '.join(missing)}")
        tensors = [given.pop(key) for key in card.tensors]
        explanation = work_out(card.name, *tensors, **given)
    except (ValueError, TypeError) as error:
        raise click.UsageError(str(error)) from None
    click.echo(explanation.markdown() if markdown else str(explanation))


def _pairs(arguments: tuple[str, ...]) -> dict[str, str]:
    """``--name value`` and ``--name=value`` as a dictionary; inner dashes are underscores."""
    words = [part for word in arguments for part in _split(word)]
    pairs: dict[str, str] = {}
    for key, text in zip(words[::2], words[1::2], strict=False):
        if not key.startswith("--"):
            raise ValueError(f"arguments must come as --NAME VALUE, got {key!r}")
        pairs[key[2:].replace("-", "_")] = text
    if len(words) % 2:
        raise ValueError(f"{words[-1]} must be followed by a value")
    return pairs


def _split(word: str) -> list[str]:
    return word.split("=", 1) if word.startswith("--") and "=" in word else [word]


def _read(card: "Card", name: str, text: str) -> Any:
    """A tensor where the loss wants one, else a Python literal, else the word itself."""
    from lossmith.core.domain import Vector

    if name in card.tensors:
        kinds = {way.tensors[name].floating for way in card.signatures}
        whole = kinds == {False} or (False in kinds and "." not in text and "e" not in text)
        return _tensor(name, text, whole=whole)
    if name == "sample_weight" or isinstance(card.options.get(name), Vector):
        return _tensor(name, text, whole=False)
    return literal(text)


def _tensor(name: str, text: str, *, whole: bool) -> "Tensor":
    import torch

    convert = int if whole else float
    lines = [row for row in text.split(";") if row.strip()]
    try:
        rows = [[convert(cell) for cell in line.split(",")] for line in lines]
    except ValueError:
        kind = "whole numbers" if whole else "numbers"
        raise ValueError(f"{name} must be {kind} separated by commas, got {text!r}") from None
    if not rows:
        raise ValueError(f"{name} must hold numbers, got {text!r}")
    if len({len(row) for row in rows}) != 1:
        raise ValueError(f"{name} must have rows of one length, got {text!r}")
    return torch.tensor(rows if ";" in text else rows[0])
