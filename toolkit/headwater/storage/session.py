"""Private temporary folders that do not outlive their process, whatever way it ends."""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
import uuid
import weakref
from contextlib import suppress
from pathlib import Path


class Session:
    """A folder under `root` that is ours while we live; those of dead processes are removed on the way.

    Each folder has a lock file beside it that its process holds with flock. The kernel lets go of it when the
    process ends, so nothing depends on process ids, clocks or hosts.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._folder: Path | None = None
        self._count = 0

    def new(self, kind: str) -> Path:
        """A new, empty folder that lives until `close`. OSErrors are the caller's to explain."""
        with self._lock:
            if self._folder is None:
                self._root.mkdir(parents=True, exist_ok=True)
                _sweep(self._root)
                self._folder, held = _claim(self._root)
                self._end = weakref.finalize(self, _end, self._folder, held, os.getpid())
            self._count += 1
            folder = self._folder / f"{kind}-{self._count}"
            folder.mkdir()
            return folder

    def close(self) -> None:
        """Remove everything; a later `new` starts again."""
        with self._lock:
            if self._folder is not None:
                self._end()
                self._folder = None


def _claim(root: Path) -> tuple[Path, int]:
    """Make a folder with a lock that we hold; the lock first, so that no sweeper sees it without one."""
    while True:
        name = uuid.uuid4().hex
        lock = root / f"{name}.lock"
        held = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        # A file system without flock leaves leftovers of dead processes behind, and nothing worse.
        with suppress(OSError):
            fcntl.flock(held, fcntl.LOCK_EX)
        if _names(lock, held):
            folder = root / name
            folder.mkdir(mode=0o700)
            return folder, held
        os.close(held)


def _names(lock: Path, held: int) -> bool:
    """Is the file we locked still the one of that name? A sweeper may have come between open and flock."""
    try:
        return os.stat(lock).st_ino == os.fstat(held).st_ino
    except FileNotFoundError:
        return False


def _sweep(root: Path) -> None:
    for lock in root.glob("*.lock"):
        try:
            held = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(held)
            continue
        if _names(lock, held):
            _remove(lock)
        os.close(held)


def _end(folder: Path, held: int, owner: int) -> None:
    """Remove a session's folder; a forked child that ends leaves its parent's alone."""
    if os.getpid() != owner:
        return
    _remove(folder.with_name(f"{folder.name}.lock"))
    os.close(held)


def _remove(lock: Path) -> None:
    """The folder first: while the lock file is there, somebody else can still finish the job."""
    shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
    lock.unlink(missing_ok=True)
