"""The workers of a tournament: this process, others on this machine, others on the same folder."""

import socket
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

from lossmith.choose.errors import DataError
from lossmith.choose.executors import Executor, processes
from lossmith.choose.ledger import LEASE, Ledger
from lossmith.choose.outcome import Tournament, gather
from lossmith.choose.work import Work, todo
from lossmith.choose.worker import Progress, serve


def complete(
    work: Work,
    folder: str | Path | None = None,
    jobs: int = 1,
    executor: Executor = processes,
    lease: float = LEASE,
    progress: Progress = lambda label, share: None,
) -> Tournament:
    """Run what is missing of a tournament, and gather what is there.

    Args:
        work: What is to be done.
        folder: Where results are kept, so that the same call goes on after an interruption and
            other processes can help; None keeps them until the end only.
        jobs: Processes at work, of which this is one.
        executor: Starts the others.
        lease: Seconds after which the claim of a silent worker is taken over.
        progress: Called with the name of a loss and the share of its training that is done.

    Returns:
        The same numbers for the same work on the same machine.

    Raises:
        DataError: If the folder holds another plan.
    """
    with _folder(folder) as place:
        ledger = _open(work, place, lease)
        alone = jobs == 1 or not todo(work, ledger)
        help = partial(help_with, work, place, lease)
        with nullcontext() if alone else executor(help, jobs - 1):
            serve(work, ledger, progress)
        ledger.finish()
        return gather(work, ledger)


@contextmanager
def _folder(folder: str | Path | None) -> Generator[Path]:
    if folder is not None:
        yield Path(folder).absolute()  # helpers may have another working directory
        return
    with tempfile.TemporaryDirectory(prefix="lossmith-") as made:
        yield Path(made)


def _open(work: Work, folder: str | Path, lease: float) -> Ledger:
    """Write the plan down, or make sure that the folder holds this very plan."""
    try:
        ledger = Ledger(folder, lease)
        held = ledger.pledge(work.record)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise DataError(
            f"the folder {str(folder)!r} must be one to keep results in, got: {error}"
        ) from None
    other = [name for name, value in work.record.items() if held.get(name) != value]
    if other:
        raise DataError(
            f"the folder {str(folder)!r} must be empty or hold the same plan, got another one: "
            f"it differs in {', '.join(other)}"
        )
    return ledger


def help_with(work: Work, folder: str | Path, lease: float = LEASE) -> None:
    """Work on a tournament that another process gathers: all that an executor has to call.

    Args:
        work: The same work as the other process has.
        folder: The same folder, on any machine that sees it.
        lease: Seconds after which the claim of a silent worker is taken over.

    Raises:
        DataError: If the folder holds no plan, as where a machine does not see the one of the
            other process, or another one.
    """
    if not (Path(folder) / "plan.json").exists():
        raise DataError(
            f"the folder must be one that all machines see, got no plan in {str(folder)!r} "
            f"on {socket.gethostname()}"
        )
    serve(work, _open(work, folder, lease))
