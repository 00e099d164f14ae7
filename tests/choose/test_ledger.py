"""The ledger: written once, whole or absent, whoever dies; killed runs end in the same table."""

import json
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from lossmith.choose import DataError, choose
from lossmith.choose.ledger import Ledger, pack, unpack

ASKED = {"metric": "mae", "losses": "l1_loss", "folds": "3x2", "epochs": 4, "trials": 2}


def test_the_first_result_stays(tmp_path):
    ledger = Ledger(tmp_path)
    assert ledger.commit("a", {"score": 1.0})
    assert not ledger.commit("a", {"score": 2.0})
    assert Ledger(tmp_path).read("a") == {"score": 1.0}
    assert list(ledger.aside.iterdir()) == []


def test_an_array_comes_back_to_the_last_bit():
    for array in (np.array([0.1, np.nan, 1e-320]), np.arange(6).reshape(2, 3)):
        back = unpack(json.loads(json.dumps(pack(array))))
        assert back.dtype == array.dtype
        np.testing.assert_array_equal(back, array)


def test_a_claim_is_held_by_one_and_given_back(tmp_path):
    first, second = Ledger(tmp_path), Ledger(tmp_path)
    with first.claim("a") as mine:
        assert mine
        with second.claim("a") as also:
            assert not also
        assert (first.claims / "a").exists()
    with second.claim("a") as mine:
        assert mine


def test_the_claim_of_a_dead_process_is_taken_over_at_once(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    path = Ledger(tmp_path).claims / "a"
    path.write_text(f"{socket.gethostname()} {dead.pid}")
    with Ledger(tmp_path, lease=1000).claim("a") as mine:
        assert not mine  # a child is alive until its end is collected
    dead.wait()
    with Ledger(tmp_path, lease=1000).claim("a") as mine:
        assert mine


def test_the_claim_of_a_silent_machine_is_taken_over_after_the_lease_only(tmp_path):
    ledger = Ledger(tmp_path, lease=100)
    path = ledger.claims / "a"
    path.write_text("elsewhere 1")
    with ledger.claim("a") as mine:
        assert not mine
    os.utime(path, (time.time() - 200,) * 2)
    with ledger.claim("a") as mine:
        assert mine


def test_a_claim_that_was_taken_over_is_not_given_back_by_its_old_owner(tmp_path):
    ledger = Ledger(tmp_path)
    with ledger.claim("a"):
        (ledger.claims / "a").write_text("elsewhere 1")
    assert (ledger.claims / "a").exists()


def test_a_held_claim_is_kept_warm(tmp_path):
    ledger = Ledger(tmp_path, lease=0.3)
    path = ledger.claims / "a"
    with ledger.claim("a"):
        os.utime(path, (0, 0))
        time.sleep(0.4)
        assert path.stat().st_mtime > 0


def test_the_same_call_reads_what_is_there_and_trains_nothing(tmp_path, monkeypatch):
    first = choose("stackloss", **ASKED, out=tmp_path)
    monkeypatch.setattr("lossmith.choose.worker.train", lambda *_: pytest.fail("trained again"))
    again = choose("stackloss", **ASKED, out=tmp_path)
    assert json.dumps(first.to_dict()) == json.dumps(again.to_dict())


def test_an_incomplete_plan_has_no_ranking(tmp_path, monkeypatch):
    choose("stackloss", **ASKED, out=tmp_path)
    next((tmp_path / "results").iterdir()).unlink()
    monkeypatch.setattr("lossmith.choose.crew.serve", lambda *_: None)
    with pytest.raises(RuntimeError, match="cells are missing, and there is no ranking"):
        choose("stackloss", **ASKED, out=tmp_path)


def test_what_the_living_have_at_hand_outlasts_the_end(tmp_path):
    ledger = Ledger(tmp_path)
    (ledger.aside / "elsewhere 1 a").touch()
    (ledger.claims / "a").write_text("elsewhere 1")
    ledger.finish()
    assert (ledger.aside / "elsewhere 1 a").exists()
    assert (ledger.claims / "a").exists()
    for path in (ledger.aside / "elsewhere 1 a", ledger.claims / "a"):
        os.utime(path, (time.time() - 2 * ledger.lease,) * 2)
    ledger.finish()
    assert list(ledger.aside.iterdir()) == list(ledger.claims.iterdir()) == []


def test_a_model_that_cannot_travel_is_refused_for_several_processes():
    with pytest.raises(DataError, match="model must be importable"):
        choose("stackloss", **ASKED, model=lambda i, o: torch.nn.Linear(i, o), jobs=2)


def test_lost_cells_are_made_again_bit_by_bit(tmp_path):
    first = choose("stackloss", **ASKED, out=tmp_path)
    results = sorted((tmp_path / "results").iterdir())
    for path in results[::3]:
        path.unlink()
    again = choose("stackloss", **ASKED, out=tmp_path)
    assert sorted((tmp_path / "results").iterdir()) == results
    assert json.dumps(first.to_dict()) == json.dumps(again.to_dict())


def test_a_folder_holds_one_plan(tmp_path):
    choose("stackloss", **ASKED, out=tmp_path)
    with pytest.raises(DataError, match="differs in folds, cells, seeds"):
        choose("stackloss", **{**ASKED, "folds": "3x1"}, out=tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [("plan.json", "must hold what a tournament wrote"), ("results", "to keep results in")],
)
def test_a_folder_of_something_else_is_refused(tmp_path, name, message):
    (tmp_path / name).write_text("no plan")
    with pytest.raises(DataError, match=message):
        choose("stackloss", **ASKED, out=tmp_path)


# runs of several seconds
KILLED = {**ASKED, "losses": "l1_loss,huber_loss", "folds": "5x4", "epochs": 40, "trials": 4}


def _run(folder, output):
    done = choose("stackloss", **KILLED, out=folder)
    output.write_text(json.dumps(done.to_dict()))


def _same_cells(folder, whole):
    names = [sorted(path.name for path in (one / "results").iterdir()) for one in (folder, whole)]
    assert names[0] == names[1]
    assert list((folder / "aside").iterdir()) == list((folder / "claims").iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="forks workers from a warm server")
def test_ten_kills_of_two_workers_leave_the_table_of_an_undisturbed_run(tmp_path):
    folder, whole = tmp_path / "killed", tmp_path / "whole"
    _run(whole, tmp_path / "expected")
    context = multiprocessing.get_context("forkserver")
    warm = ("lossmith.", "torch.", "sklearn.", "statsmodels.")
    context.set_forkserver_preload([name for name in sys.modules if name.startswith(warm)])

    def start(place):
        output = tmp_path / f"found-{place}"
        process = context.Process(target=_run, args=(folder, output), daemon=True)
        process.start()
        return process

    def at_work(process):
        owners = [path.read_text().split() for path in (folder / "claims").glob("*")]
        return str(process.pid) in [words[-1] for words in owners]

    rng = random.Random(0)
    workers, kills = [start(0), start(1)], 0
    while kills < 10:
        assert not (folder / "complete").exists(), f"the run was over after {kills} kills"
        place = rng.randrange(2)
        if not at_work(workers[place]):
            time.sleep(0.002)
            continue
        time.sleep(0.1 * rng.random())
        workers[place].kill()
        workers[place].join()
        assert workers[place].exitcode == -signal.SIGKILL
        workers[place] = start(place)
        kills += 1
    for worker in workers:
        worker.join()
    for place in range(2):
        assert (tmp_path / f"found-{place}").read_text() == (tmp_path / "expected").read_text()
    _same_cells(folder, whole)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the children of a process from /proc")
def test_a_killed_command_takes_its_helper_along_and_goes_on_when_it_is_given_again(tmp_path):
    options = [f"--{key}={value}" for key, value in KILLED.items()]
    folder = tmp_path / "killed"
    command = [sys.executable, "-m", "lossmith", "choose", "stackloss", "--json", *options]
    command = [*command, "--out", str(folder)]
    first = subprocess.Popen([*command, "--jobs=2"], stdout=subprocess.DEVNULL)
    children = Path(f"/proc/{first.pid}/task/{first.pid}/children")
    while not list((folder / "claims").glob("*")):
        assert first.poll() is None
        time.sleep(0.005)
    helpers = [int(word) for word in children.read_text().split()]
    assert helpers
    first.kill()
    first.wait()
    until = time.monotonic() + 20
    while any(Path(f"/proc/{one}").exists() for one in helpers):
        assert time.monotonic() < until
        time.sleep(0.05)
    again = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    _run(tmp_path / "whole", tmp_path / "expected")
    expected = json.loads((tmp_path / "expected").read_text())
    assert json.loads(again.stdout) == expected
    _same_cells(folder, tmp_path / "whole")
