"""Who else works on a tournament: other processes of this machine, or the tasks of a Ray cluster.

An executor only starts and ends helpers. What is done and what was done stands in the ledger, so
helpers may die at any moment, and the process that gathers the results works beside them.
"""

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from multiprocessing.context import SpawnProcess
from typing import Any

from lossmith.choose.errors import DataError

# It starts ``count`` calls of ``help`` elsewhere, and ends what is left of them after the block.
Help = Callable[[], None]
Executor = Callable[[Help, int], AbstractContextManager[None]]

# Bytes that a local Ray may set aside for objects: it carries one table, not the results.
STORE = 200 * 2**20
# Seconds in which a task gives back its claim and ends, when the work is done.
GRACE = 2.0


@contextmanager
def processes(help: Help, count: int) -> Generator[None]:
    """Processes on this machine, which end with this one."""
    # spawned: a forked child must not use torch after its parent has
    context = multiprocessing.get_context("spawn")
    started: list[SpawnProcess] = []
    try:
        for _ in range(count):
            one = context.Process(target=_child, args=(help, os.getpid()), daemon=True)
            try:
                one.start()
            except (pickle.PicklingError, AttributeError, TypeError) as error:
                raise DataError(
                    "model must be importable by other processes, as no lambda is, "
                    f"if jobs > 1: {error}"
                ) from None
            started.append(one)
        yield
    finally:
        for one in started:  # at any moment, as the ledger allows
            one.terminate()
            one.join()


def _child(help: Help, parent: int) -> None:
    """Help the process that started this one, and end with it."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    try:
        help()
    except (DataError, OSError) as error:  # the parent goes on alone, or meets the same trouble
        sys.exit(f"a helper ended: {error}")


@contextmanager
def ray_tasks(help: Help, count: int) -> Generator[None]:
    """Tasks of the Ray cluster that ``RAY_ADDRESS`` names, or of a Ray of this block's own.

    A task whose worker dies is started again by Ray. One that fails for a reason of its own, such
    as a folder that its machine does not see, is told of in a warning.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to anybody
    try:
        import ray
    except ImportError:
        raise DataError("the executor ray needs Ray: pip install 'lossmith[ray]'") from None
    here: Any = ray
    own = not here.is_initialized()
    if own:
        _connect(here, count)
    try:
        try:
            sent = here.put(help)
        except (TypeError, AttributeError, pickle.PicklingError) as error:
            reason = str(error).strip().splitlines()[0]
            raise DataError(f"model must be one that pickle can send to Ray: {reason}") from None
        task = here.remote(num_cpus=1, max_retries=-1)(_call)
        tasks = [task.remote(sent) for _ in range(count)]
        try:
            yield
        finally:
            _end(here, tasks)
    finally:
        if own:
            here.shutdown()


def _connect(ray: Any, count: int) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    before = signal.getsignal(signal.SIGTERM)
    try:
        if os.environ.get("RAY_ADDRESS"):
            ray.init(**quiet)
        else:
            size = {"num_cpus": count, "object_store_memory": STORE}
            ray.init("local", include_dashboard=False, **size, **quiet)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(f"the executor ray must reach a cluster, got: {reason}") from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # Ray puts its own in the place of the caller's


def _call(help: Help) -> None:
    help()


def _end(ray: Any, tasks: list[Any]) -> None:
    """End the tasks that do not end now that all is done; tell of those that failed."""
    over, left = ray.wait(tasks, num_returns=len(tasks), timeout=GRACE)
    for one in left:
        with contextlib.suppress(ray.exceptions.RayError):
            ray.cancel(one, force=True)
    failures: list[str] = []
    for one in over:
        try:
            ray.get(one)
        except ray.exceptions.RayTaskError as error:
            failures.append(str(error.cause).strip().splitlines()[0])
        except ray.exceptions.RayError as error:
            failures.append(str(error).strip().splitlines()[0])
    if failures:
        said = f"{len(failures)} of {len(tasks)} tasks on Ray failed, the first: {failures[0]}"
        warnings.warn(said, RuntimeWarning, stacklevel=2)


EXECUTORS: dict[str, Executor] = {"processes": processes, "ray": ray_tasks}
