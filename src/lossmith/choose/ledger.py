"""A folder in which every result is written once, whoever computes it and whoever dies doing so.

Everything is written aside and then linked, so that it is whole or absent and the first writer
wins. ``claims/KEY`` is a lease: it names its owner, is kept alive by touching it and taken over
when it is stale. ``results/KEY.json`` is a commit: synchronised before it is linked, and sealed
with a hash of its content, so that damage on the disk is found. Work may be done twice after a
death; it is committed once. Any number of processes or machines may share the folder.
"""

import base64
import contextlib
import hashlib
import json
import multiprocessing
import os
import socket
import threading
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lossmith.choose.errors import DataError, FolderError

LEASE = 30.0
SEAL = ', "sha256": "'


class Ledger:
    """Claims and results under one folder.

    Args:
        folder: Made if missing.
        lease: Seconds after which a claim that nobody touches is given up for dead.
    """

    def __init__(self, folder: str | Path, lease: float = LEASE) -> None:
        self.folder, self.lease = Path(folder), lease
        self.claims, self.results, self.aside = (
            self.folder / name for name in ("claims", "results", "aside")
        )
        with self._writing():
            for path in (self.claims, self.results, self.aside):
                path.mkdir(parents=True, exist_ok=True)
        self._seen: dict[str, Any] = {}

    def keys(self) -> set[str]:
        """Keys of all results."""
        return {name[:-5] for name in os.listdir(self.results) if name.endswith(".json")}

    def read(self, key: str) -> dict[str, Any]:
        """A result; a committed one never changes, so it is read once."""
        if key not in self._seen:
            self._seen[key] = read(self.results / f"{key}.json")
        return self._seen[key]

    def commit(self, key: str, record: dict[str, Any]) -> bool:
        """Write a result unless there is one; whether it was written."""
        return self._publish(self.results / f"{key}.json", record)

    def pledge(self, plan: dict[str, Any]) -> dict[str, Any]:
        """Write the plan unless there is one; the plan that holds."""
        path = self.folder / "plan.json"
        if not path.exists():  # a complete tournament can be read where nothing can be written
            self._publish(path, plan)
        return read(path)

    def _publish(self, path: Path, record: dict[str, Any]) -> bool:
        aside = self.aside / _unique()
        with self._writing():
            try:
                with aside.open("x", encoding="utf-8") as file:
                    file.write(_sealed(path, record))
                    file.flush()
                    os.fsync(file.fileno())
                os.link(aside, path)
            except FileExistsError:
                return False
            finally:
                aside.unlink(missing_ok=True)
            _synchronise(path.parent)
        return True

    @contextmanager
    def _writing(self) -> Generator[None]:
        """Trouble with the folder in one line; a path that is no folder is another matter."""
        try:
            yield
        except (FileExistsError, NotADirectoryError):
            raise
        except OSError as error:
            raise FolderError(
                f"the folder {str(self.folder)!r} cannot be written to: {error.strerror}; what is "
                "in it stays, and the same command goes on from there"
            ) from None

    @contextmanager
    def claim(self, key: str) -> Generator[bool]:
        """Hold the lease of a piece of work for the block; False if another one holds it."""
        path = self.claims / key
        with self._writing():
            mine = self._take(path)
        if not mine:
            yield False
            return
        over = threading.Event()
        beat = threading.Thread(target=self._beat, args=(path, over), daemon=True)
        beat.start()
        try:
            yield True
        finally:
            over.set()
            beat.join()
            # another one may have taken it over while we slept; what cannot be given back goes cold
            with contextlib.suppress(OSError):
                if _owner(path) == _me():
                    path.unlink(missing_ok=True)

    def _take(self, path: Path) -> bool:
        for _ in range(2):
            aside = self.aside / _unique()
            try:
                aside.write_text(_me(), "utf-8")
                os.link(aside, path)
            except FileExistsError:
                if not self._stale(path, _owner(path)):
                    return False
                away = self.aside / _unique()
                with contextlib.suppress(FileNotFoundError):  # somebody else was faster
                    os.rename(path, away)
                    away.unlink()
            else:
                return True
            finally:
                aside.unlink(missing_ok=True)
        return False

    def _stale(self, path: Path, owner: str) -> bool:
        """Whether the owner is dead: a process of this machine that is gone, or a cold lease.

        Ages are taken against a file touched just now in the same file system, because the clocks
        of machines differ.
        """
        host, _, process = owner.rpartition(" ")
        if host == socket.gethostname() and process.isdigit() and not _alive(int(process)):
            return True
        try:
            touched = path.stat().st_mtime
        except FileNotFoundError:  # given back meanwhile
            return False
        probe = self.aside / _unique()
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink()
        return now - touched > self.lease

    def _beat(self, path: Path, over: threading.Event) -> None:
        while not over.wait(self.lease / 3):
            with contextlib.suppress(OSError):  # a claim that cannot be touched goes cold
                os.utime(path)

    def finish(self) -> None:
        """All the work is done: throw away what the dead left, and say so to who watches."""
        # what the living have at hand stays: another machine may be doing the last cell once more
        left = [(path, " ".join(path.name.split(" ")[:2])) for path in self.aside.iterdir()]
        left += [(path, _owner(path)) for path in self.claims.iterdir()]
        with contextlib.suppress(OSError):  # the results are there, whether it can be said or not
            for path, owner in left:
                if self._stale(path, owner):
                    path.unlink(missing_ok=True)
            (self.folder / "complete").touch()


def read(path: Path) -> dict[str, Any]:
    """What a file of the folder holds.

    A damaged file is not made again in silence: a disk that lost one may have lost others.

    Raises:
        DataError: If it is not what was written.
    """
    body, _, seal = path.read_bytes().rpartition(SEAL.encode())
    if seal != _seal(path, body) + b'"}':
        raise DataError(
            f"{str(path)!r} must hold what a tournament wrote into it, got {path.stat().st_size} "
            "bytes of something else: if it is damaged, delete it, and the same command makes it "
            "again"
        )
    record: dict[str, Any] = json.loads(body + b"}")
    return record


def _sealed(path: Path, record: dict[str, Any]) -> str:
    """A record as JSON that ends in a hash of the rest and of its name."""
    body = json.dumps(record, allow_nan=True)[:-1]
    return body + SEAL + _seal(path, body.encode()).decode() + '"}'


def _seal(path: Path, body: bytes) -> bytes:
    return hashlib.sha256(path.name.encode() + body).hexdigest().encode()


def _unique() -> str:
    return f"{_me()} {uuid.uuid4().hex}"


def _me() -> str:
    return f"{socket.gethostname()} {os.getpid()}"


def _owner(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def _alive(process: int) -> bool:
    multiprocessing.active_children()  # collects children that ended, which seem alive until then
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _synchronise(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def pack(array: NDArray[Any]) -> dict[str, Any]:
    """An array as plain JSON, to the last bit."""
    array = np.ascontiguousarray(array)
    return {
        "dtype": array.dtype.str,
        "shape": list(array.shape),
        "base64": base64.b64encode(array.tobytes()).decode("ascii"),
    }


def unpack(packed: dict[str, Any]) -> NDArray[Any]:
    """The array of :func:`pack`."""
    content = base64.b64decode(packed["base64"])
    return np.frombuffer(content, dtype=np.dtype(packed["dtype"])).reshape(packed["shape"])
