"""Options and complaints that several commands share."""

import ast
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import click

DATA = click.argument("data")
TARGET = click.option("--target", metavar="COL", help="Target column; bundled sets have a default.")
TASK = click.option(
    "--task",
    metavar="KIND",
    help="continuous, positive, proportion, count, binary, multiclass, ordinal or multilabel; "
    "read off the target if not given.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Write JSON instead of text.")


# Characters of a complaint; names in it may be of any length
MOST = 1000


class Outside(click.ClickException):
    """Data outside the domain of the losses that were asked for: one line, exit code 3."""

    exit_code = 3


class Unusable(click.ClickException):
    """Data or arguments that cannot be used: one line, exit code 2."""

    exit_code = 2


def literal(text: str) -> Any:
    """A number or another Python literal, else the word itself."""
    for read in (ast.literal_eval, float):  # no literal spells infinity
        try:
            return read(text)
        except (ValueError, SyntaxError):
            pass
    return text


def plain(text: str) -> str:
    """Text for a terminal, in one line: nothing in it that a terminal would obey."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def _line(error: Exception) -> str:
    said = plain(str(error))
    return said if len(said) <= MOST else f"{said[: MOST // 2]} ... {said[-MOST // 2 :]}"


@contextmanager
def complaints() -> Generator[None]:
    """Unusable data end in one line and exit code 2 or 3, failures of the run in exit code 1."""
    from lossmith.choose import DataError, OutsideDomain, TournamentFailed

    try:
        yield
    except OutsideDomain as error:
        raise Outside(_line(error)) from None
    except DataError as error:
        raise Unusable(_line(error)) from None
    except (TournamentFailed, OSError) as error:  # a full disk, say
        raise click.ClickException(_line(error)) from None
