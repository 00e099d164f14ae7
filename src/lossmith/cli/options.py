"""Options and complaints that several commands share."""

from collections.abc import Generator
from contextlib import contextmanager

import click

DATA = click.argument("data")
TARGET = click.option("--target", metavar="COL", help="Target column; bundled sets have a default.")
TASK = click.option(
    "--task",
    metavar="KIND",
    help="continuous, count, binary or multiclass; read off the target if not given.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Write JSON instead of text.")


class Unusable(click.ClickException):
    """Data or arguments that cannot be used: one line, exit code 2."""

    exit_code = 2


@contextmanager
def complaints() -> Generator[None]:
    """Unusable data end in one line and exit code 2, failures of the run in exit code 1."""
    from lossmith.choose import DataError, TournamentFailed

    try:
        yield
    except DataError as error:
        raise Unusable(str(error)) from None
    except TournamentFailed as error:
        raise click.ClickException(str(error)) from None
