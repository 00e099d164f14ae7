"""The command line: a thin layer over the packages that do the work.

stdout is the result, stderr is progress and complaints. Exit codes: 0 done, 1 failed, 2 wrong usage
or unusable data, 3 data outside the domain of the losses asked for, 4 no winner where one was
required. Subcommands are imported when they are called, so ``lossmith --help`` needs
neither torch nor pandas.
"""

import importlib
from typing import Any

try:
    import click
except ImportError as _error:
    raise SystemExit(f"the command needs pip install 'lossmith[lab]': {_error}") from None

# name -> (module that holds a command of that name, one line for the help)
COMMANDS = {
    "bench": ("lossmith.cli.bench", "Measure losses against their peers and against the machine."),
    "choose": ("lossmith.cli.choose", "Let losses compete on your data; verdict and page."),
    "diagnose": ("lossmith.cli.diagnose", "Say what the data tell about the choice of a loss."),
    "explain": ("lossmith.cli.explain", "Work out one loss step by step, with your numbers."),
    "list": ("lossmith.cli.list", "List the losses of the catalogue."),
    "plot": ("lossmith.cli.plot", "Draw losses and their gradients."),
    "reproduce": ("lossmith.cli.reproduce", "Measure published findings about losses again."),
    "show": ("lossmith.cli.show", "Show the card of one loss."),
    "watch": ("lossmith.cli.watch", "Show the results of a running tournament."),
}


class _LazyGroup(click.Group):
    """A group whose commands are looked up by name and imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, sorted."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of one command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[cmd_name][0])
        command: click.Command = getattr(module, cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; what is wrong with its words is told in one line, without the usage."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            error.ctx = None
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands from the table, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in sorted(COMMANDS)])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lossmith")
def main() -> None:
    """The loss-function layer for PyTorch.

    Start with: lossmith choose diabetes --metric mae --html report.html
    """
