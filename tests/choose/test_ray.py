"""Ray as an executor: what is killed is made again, and the table is that of an undisturbed run."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from lossmith.choose import DataError, choose, executors
from lossmith.choose.executors import ray_tasks

ASKED = {"metric": "mae", "losses": "l1_loss,huber_loss", "folds": "5x6", "epochs": 40, "trials": 4}
# A process that gathers and leaves all the work to Ray, so that no cell escapes the kills
DRIVER = """
import json, sys, time
from lossmith.choose import choose, crew
from lossmith.choose.work import todo

def wait(work, ledger, progress):
    while todo(work, ledger):
        time.sleep(0.05)

crew.serve = wait
asked, folder, output = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
done = choose("stackloss", **asked, executor="ray", jobs=3, out=folder)
open(output, "w").write(json.dumps(done.to_dict()))
"""


def test_without_ray_the_complaint_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DataError, match=r"needs Ray: pip install 'lossmith\[ray\]'"):
        choose("stackloss", **ASKED, executor="ray", jobs=2)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"executor": "slurm"}, "executor must be one of processes, ray, got 'slurm'"),
        ({"executor": "ray"}, "jobs must be >= 2 for the executor ray, got 1"),
    ],
)
def test_an_executor_that_cannot_help_is_refused(asked, message):
    with pytest.raises(DataError, match=message):
        choose("stackloss", **ASKED, **asked)


def _at_work(folder):
    """Processes that hold a claim."""
    found = []
    for path in (folder / "claims").glob("*"):
        try:
            found.append(int(path.read_text().split()[-1]))
        except (FileNotFoundError, IndexError):  # given back just now
            continue
    return found


def _workers(driver):
    """Processes of a driver's Ray that have taken a task, which may still import what it needs."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended just now
            worker = int(path.name)
            named = "ray::_call" in (path / "cmdline").read_text()
            if named and _parent(_parent(worker)) == driver:
                found.append(worker)
    return found


def _parent(process):
    return int(Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[-1].split()[1])


def _gone(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[-1].split()[0] == "Z"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")
def test_kills_of_ray_workers_and_of_the_driver_leave_the_table_of_an_undisturbed_run(tmp_path):
    pytest.importorskip("ray")
    folder, whole, output = (tmp_path / name for name in ("killed", "whole", "output"))
    expected = json.dumps(choose("stackloss", **ASKED, out=whole).to_dict())
    command = [sys.executable, "-c", DRIVER, json.dumps(ASKED), str(folder), str(output)]
    # ten kills, one of them of the driver
    rng, driver, killed = random.Random(0), subprocess.Popen(command), []
    try:
        while len(killed) < 9:
            assert driver.poll() is None, f"the run was over after {len(killed)} kills"
            # every other one at work, the rest wherever they are, at their imports as well
            found = _workers(driver.pid) if len(killed) % 2 else _at_work(folder)
            if not (left := sorted(set(found) - set(killed))):
                time.sleep(0.005)
                continue
            time.sleep(0.1 * rng.random())
            one = rng.choice(left)
            assert one != driver.pid
            if _gone(one):  # with the driver, before its claim was taken over
                continue
            os.kill(one, signal.SIGKILL)
            killed.append(one)
            if len(killed) == 5:
                driver.kill()
                driver.wait()
                driver = subprocess.Popen(command)
        assert driver.wait(timeout=120) == 0
    finally:
        driver.kill()
        driver.wait()
    assert output.read_text() == expected
    names = [sorted(path.name for path in (one / "results").iterdir()) for one in (folder, whole)]
    assert names[0] == names[1]
    assert list((folder / "aside").iterdir()) == list((folder / "claims").iterdir()) == []
    assert all(_gone(one) for one in killed)


@pytest.mark.slow
def test_ray_leaves_signals_alone_and_tells_what_failed_or_cannot_travel(monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(executors, "GRACE", 60.0)  # a worker that starts takes seconds
    before = signal.getsignal(signal.SIGTERM)
    told = pytest.warns(RuntimeWarning, match="2 of 2 tasks on Ray failed, the first: invalid")
    refused = pytest.raises(DataError, match="model must be one that pickle can send to Ray")
    with told, ray_tasks(partial(int, "no number"), 2):
        assert signal.getsignal(signal.SIGTERM) is before
        with refused, ray_tasks(threading.Lock().acquire, 1):
            pass
        assert ray.is_initialized()
    assert not ray.is_initialized()
