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


class Outside(click.ClickException):
    """Data outside the domain of the losses that were asked for: one line, exit code 3."""

    exit_code = 3


class Unusable(click.ClickException):
    """Data or arguments that cannot be used: one line, exit code 2."""

    exit_code = 2


@contextmanager
def complaints() -> Generator[None]:
    """Unusable data end in one line and exit code 2 or 3, failures of the run in exit code 1."""
    from lossmith.choose import DataError, OutsideDomain, TournamentFailed

    try:
        yield
    except OutsideDomain as error:
        raise Outside(str(error)) from None
    except DataError as error:
        raise Unusable(str(error)) from None
    except (TournamentFailed, OSError) as error:  # a full disk, say
        raise click.ClickException(str(error)) from None
