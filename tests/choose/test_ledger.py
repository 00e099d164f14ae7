"""The ledger: written once, whole or absent, whoever dies; killed runs end in the same table."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

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


def _claim_and_die(folder):
    Ledger(folder)._take(Ledger(folder).claims / "a")
    os._exit(1)


def test_the_claim_of_a_dead_process_is_taken_over_at_once(tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=_claim_and_die, args=(tmp_path,))
    process.start()
    process.join()
    assert (tmp_path / "claims" / "a").exists()
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


COMMAND = [
    *(sys.executable, "-m", "lossmith", "choose", "stackloss", "--metric", "mae", "--json"),
    *("--losses", "l1_loss,huber_loss", "--folds", "5x4", "--epochs", "40", "--trials", "4"),
    *("--jobs", "2"),
]


def _start(folder, output):
    command = [*COMMAND, "--out", str(folder)]
    with output.open("wb") as file:
        quiet = subprocess.DEVNULL
        return subprocess.Popen(command, stdout=file, stderr=quiet, start_new_session=True)


def _helpers(process):
    """Process ids of the helpers of a run."""
    path = f"/proc/{process.pid}/task/{process.pid}/children"
    try:
        with open(path, encoding="ascii") as file:
            found = [int(word) for word in file.read().split()]
        lines = {one: Path(f"/proc/{one}/cmdline").read_bytes() for one in found}
    except OSError:
        return []
    return [one for one in found if b"spawn_main" in lines[one]]


def _at_work(folder, process):
    """Whether this run holds a claim: then there is something that a kill can break."""
    mine = {process.pid, *_helpers(process)}
    owners = [path.read_text().split() for path in (folder / "claims").glob("*")]
    return any(words and int(words[-1]) in mine for words in owners)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the children of a process from /proc")
def test_ten_kills_leave_the_table_of_an_undisturbed_run(tmp_path):
    outputs = tmp_path / "expected", tmp_path / "found"
    assert _start(tmp_path / "whole", outputs[0]).wait() == 0
    rng = random.Random(0)
    folder = tmp_path / "killed"
    process, kills = _start(folder, outputs[1]), 0
    while kills < 10:
        while process.poll() is None and not _at_work(folder, process):
            time.sleep(0.005)
        time.sleep(0.1 * rng.random())
        assert process.poll() is None, f"the run was over after {kills} kills"
        victims = _helpers(process)
        if kills % 3 == 0 and victims:
            os.kill(rng.choice(victims), signal.SIGKILL)
        else:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process = _start(folder, outputs[1])
        kills += 1
    assert process.wait() == 0
    assert outputs[1].read_bytes() == outputs[0].read_bytes()
    names = [
        sorted(path.name for path in (one / "results").iterdir())
        for one in (tmp_path / "whole", folder)
    ]
    assert names[0] == names[1]
    assert list((folder / "aside").iterdir()) == list((folder / "claims").iterdir()) == []
