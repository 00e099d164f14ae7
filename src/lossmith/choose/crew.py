"""The workers of a tournament: this process, others on this machine, others on the same folder."""

import multiprocessing
import os
import pickle
import tempfile
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from multiprocessing.context import SpawnProcess
from pathlib import Path

from lossmith.choose.errors import DataError
from lossmith.choose.ledger import LEASE, Ledger
from lossmith.choose.outcome import Tournament, gather
from lossmith.choose.work import Work, todo
from lossmith.choose.worker import Progress, serve


def complete(
    work: Work,
    folder: str | Path | None = None,
    jobs: int = 1,
    lease: float = LEASE,
    progress: Progress = lambda label, share: None,
) -> Tournament:
    """Run what is missing of a tournament, and gather what is there.

    Args:
        work: What is to be done.
        folder: Where results are kept, so that the same call goes on after an interruption and
            other processes can help; None keeps them until the end only.
        jobs: Processes on this machine.
        lease: Seconds after which the claim of a silent worker is taken over.
        progress: Called with the name of a loss and the share of its training that is done.

    Returns:
        The same numbers for the same work on the same machine.

    Raises:
        DataError: If the folder holds another plan.
    """
    with _folder(folder) as place:
        ledger = _open(work, place, lease)
        workers: list[SpawnProcess] = []
        try:
            while todo(work, ledger) and len(workers) < jobs - 1:
                workers.append(_start(work, place, lease))
            serve(work, ledger, progress)
        finally:
            for worker in workers:  # at any moment, as the ledger allows
                worker.terminate()
                worker.join()
        ledger.finish()
        return gather(work, ledger)


@contextmanager
def _folder(folder: str | Path | None) -> Generator[Path]:
    if folder is not None:
        yield Path(folder)
        return
    with tempfile.TemporaryDirectory(prefix="lossmith-") as made:
        yield Path(made)


def _open(work: Work, folder: str | Path, lease: float) -> Ledger:
    """Write the plan down, or make sure that the folder holds this very plan."""
    try:
        ledger = Ledger(folder, lease)
        held = dict(ledger.pledge(work.record))
    except (OSError, ValueError, TypeError) as error:
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


def _start(work: Work, folder: Path, lease: float) -> SpawnProcess:
    # spawned: a forked child must not use torch after its parent has
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_child, args=(work, folder, lease, os.getpid()), daemon=True)
    try:
        process.start()
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise DataError(
            f"model must be importable by other processes, as no lambda is, if jobs > 1: {error}"
        ) from None
    return process


def _child(work: Work, folder: Path, lease: float, parent: int) -> None:
    """Help the process that started this one, and end with it."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    help_with(work, folder, lease)


def help_with(work: Work, folder: str | Path, lease: float = LEASE) -> None:
    """Work on a tournament that another process gathers: all that an executor has to call.

    Args:
        work: The same work as the other process has.
        folder: The same folder, on any machine that sees it.
        lease: Seconds after which the claim of a silent worker is taken over.

    Raises:
        DataError: If the folder holds another plan.
    """
    serve(work, _open(work, folder, lease))
