"""What breaks under a tournament: the disk, the folder, a worker that sleeps, clocks that differ.

Whatever it is, there is one clear line and no wrong table, nothing is half written, and the same
command ends in the table of an undisturbed run.
"""

import contextlib
import errno
import json
import multiprocessing
import os
import resource
import signal
import socket
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from lossmith.choose import DataError, choose, run
from lossmith.choose.errors import FolderError
from lossmith.choose.ledger import Ledger, read
from lossmith.cli import main

ASKED = {"metric": "mae", "losses": "l1_loss", "folds": "3x1", "epochs": 2, "trials": 2}
WORDS = [f"--{name}={value}" for name, value in ASKED.items()]


@pytest.fixture(scope="module")
def expected():
    return json.dumps(choose("stackloss", **ASKED).to_dict())


def _command(folder, *words):
    return CliRunner().invoke(main, ["choose", "stackloss", *WORDS, "--out", str(folder), *words])


def _complaint(done, code):
    """The only line of a run that failed with this code, and without a traceback."""
    assert (done.exit_code, done.stdout) == (code, ""), done.output
    assert isinstance(done.exception, SystemExit)
    lines = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1
    assert done.stderr.rstrip().endswith(lines[0])
    return lines[0]


def _after(calls, function, code):
    """The function, until it has been called some times; then an error of the system."""
    left = iter(range(calls))

    def broken(*args, **more):
        if next(left, None) is None:
            raise OSError(code, os.strerror(code))
        return function(*args, **more)

    return broken


@pytest.mark.parametrize("name", ["fsync", "link"])
@pytest.mark.parametrize("calls", [0, 5])
def test_a_full_disk_is_one_line_and_the_same_command_goes_on(
    tmp_path, monkeypatch, expected, name, calls
):
    with monkeypatch.context() as patched:
        patched.setattr(os, name, _after(calls, getattr(os, name), errno.ENOSPC))
        line = _complaint(_command(tmp_path), 1)
    assert f"the folder {str(tmp_path)!r} cannot be written to: No space left" in line
    assert list((tmp_path / "aside").iterdir()) == list((tmp_path / "claims").iterdir()) == []
    for path in tmp_path.rglob("*.json"):
        read(path)  # whole, or it would complain
    assert json.dumps(json.loads(_command(tmp_path, "--json").stdout)) == expected


def _too_much(folder):
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    try:
        Ledger(folder).commit("a", {"long": "x" * 100_000})
    except FolderError:
        os._exit(7)
    os._exit(0)


@pytest.mark.skipif(sys.platform != "linux", reason="limits the files of a forked process")
def test_a_write_that_the_system_cuts_leaves_nothing(tmp_path):
    child = multiprocessing.get_context("fork").Process(target=_too_much, args=(tmp_path,))
    child.start()
    child.join()
    assert child.exitcode == 7
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []


def _read_only(patched):
    for name in ("link", "unlink", "rename", "utime"):
        patched.setattr(os, name, _after(0, None, errno.EROFS))
    whole = Path.open

    def reading(self, mode="r", *args, **more):
        if mode not in ("r", "rb"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return whole(self, mode, *args, **more)

    patched.setattr(Path, "open", reading)
    patched.setattr(Path, "touch", _after(0, None, errno.EROFS))


def test_a_complete_tournament_is_read_from_a_folder_that_cannot_be_written(
    tmp_path, monkeypatch, expected
):
    choose("stackloss", **ASKED, out=tmp_path)
    with monkeypatch.context() as patched:
        _read_only(patched)
        assert json.dumps(choose("stackloss", **ASKED, out=tmp_path).to_dict()) == expected
    next((tmp_path / "results").iterdir()).unlink()
    with monkeypatch.context() as patched:
        _read_only(patched)
        line = _complaint(_command(tmp_path), 1)
    assert "cannot be written to: Read-only file system" in line


def _digit(text):
    """Another digit in an array of predictions: still JSON, and a wrong score."""
    place = text.index(b'"base64": "') + 15
    return text[:place] + (b"A" if text[place : place + 1] != b"A" else b"B") + text[place + 1 :]


DAMAGE = {
    "truncated": lambda text: text[: len(text) // 2],
    "empty": lambda text: b"",
    "binary": lambda text: bytes(range(256)),
    "one character": _digit,
    "longer": lambda text: text + b" ",
    "other json": lambda text: b'{"score": 1.0, "failure": ""}',
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [("result", kind) for kind in DAMAGE] + [("plan", "truncated"), ("plan", "empty")],
)
def test_a_damaged_file_is_named_and_never_makes_a_table(tmp_path, expected, name, kind):
    choose("stackloss", **ASKED, out=tmp_path)
    path = tmp_path / "plan.json"
    if name == "result":
        found = (tmp_path / "results").iterdir()
        path = next(one for one in found if b"base64" in one.read_bytes())
    path.write_bytes(DAMAGE[kind](path.read_bytes()))
    lines = [
        _complaint(_command(tmp_path), 2),
        _complaint(CliRunner().invoke(main, ["watch", str(tmp_path), "--once"]), 2),
    ]
    for line in lines:
        assert f"{str(path)!r} must hold what a tournament wrote into it" in line
        assert "delete it" in line
    path.unlink()
    assert json.dumps(choose("stackloss", **ASKED, out=tmp_path).to_dict()) == expected


def test_results_under_each_others_names_are_found_out(tmp_path):
    choose("stackloss", **ASKED, out=tmp_path)
    first, second = sorted((tmp_path / "results").iterdir())[:2]
    first.write_bytes(second.read_bytes())
    with pytest.raises(DataError, match=f"{first.name}.*delete it"):
        choose("stackloss", **ASKED, out=tmp_path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"%s x", b"a\nb 1", b"%s 1 2"])
def test_a_claim_of_rubbish_goes_cold_like_any_other(tmp_path, content):
    ledger = Ledger(tmp_path, lease=100)
    path = ledger.claims / "a"
    path.write_bytes(content.replace(b"%s", socket.gethostname().encode()))
    with ledger.claim("a") as mine:
        assert not mine
    os.utime(path, (time.time() - 200,) * 2)
    with ledger.claim("a") as mine:
        assert mine


LONG = {**ASKED, "folds": "5x20", "epochs": 20}
LEASE = 1.0


def _machine(folder, output, name, hours):
    """The same call on a machine of another name, whose clock is off."""
    clock = time.time
    socket.gethostname = lambda: name
    time.time = lambda: clock() + 3600 * hours
    run.complete = partial(run.complete, lease=LEASE)
    done = choose("stackloss", **LONG, out=folder)
    output.write_text(json.dumps(done.to_dict()))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="forks workers from a warm server")
def test_machines_take_over_from_one_that_sleeps_and_one_that_dies(tmp_path):
    folder, whole = tmp_path / "disturbed", tmp_path / "whole"
    expected = json.dumps(choose("stackloss", **LONG, out=whole).to_dict())
    context = multiprocessing.get_context("forkserver")
    warm = ("lossmith.", "torch.", "sklearn.", "statsmodels.")
    context.set_forkserver_preload([name for name in sys.modules if name.startswith(warm)])

    def start(name, hours):
        asked = (folder, tmp_path / name, name, hours)
        process = context.Process(target=_machine, args=asked, daemon=True)
        process.start()
        return process

    def claims():
        found = {}
        for path in (folder / "claims").glob("*"):
            with contextlib.suppress(FileNotFoundError):  # given back just now
                found[path.name] = path.read_text()
        return found

    def held_by(name):
        return {key for key, owner in claims().items() if owner.startswith(name)}

    def wait(until):
        deadline = time.monotonic() + 60
        while not (found := until()):
            assert time.monotonic() < deadline
            assert not (folder / "complete").exists(), "the run was over too early"
            time.sleep(0.002)
        return found

    def taken_since(old):
        """Who took a claim just now, so that its work is not done yet; who did not; the claim."""
        (key, owner), *_ = wait(lambda: sorted(claims().items() - old.items()))
        return *sorted(clocks, key=lambda one: not owner.startswith(one)), key

    machines, clocks = {}, {"alpha": 5, "beta": -5}
    try:
        for name, hours in clocks.items():
            machines[name] = start(name, hours)
        # whoever takes the first work falls asleep over it
        name, other, key = taken_since({})
        asleep = time.monotonic()
        os.kill(machines[name].pid, signal.SIGSTOP)
        wait(lambda: key in held_by(other))
        assert time.monotonic() - asleep > LEASE / 2  # a claim is touched every third of a lease
        os.kill(machines[name].pid, signal.SIGCONT)
        name, other, key = taken_since(claims())
        machines[name].kill()
        dead = time.monotonic()
        wait(lambda: key in held_by(other))
        assert time.monotonic() - dead > LEASE / 2
        machines[name].join()
        machines[name] = start(name, clocks[name])
        for one in machines.values():
            one.join(timeout=120)
            assert one.exitcode == 0
    finally:
        for one in multiprocessing.active_children():  # one that is stopped ends by no other means
            one.kill()
    assert (tmp_path / "alpha").read_text() == (tmp_path / "beta").read_text() == expected
    names = [sorted(path.name for path in (one / "results").iterdir()) for one in (folder, whole)]
    assert names[0] == names[1]
