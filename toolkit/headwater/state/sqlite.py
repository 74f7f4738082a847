"""State in one SQLite file: the default. A damaged file is moved aside and named in `warnings`."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from headwater.errors import Conflict, StorageError
from headwater.state.store import Saved

T = TypeVar("T")

_APPLICATION = 0x48574154  # "HWAT": tells our file from another program's
_VERSION = 1
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_CREATE = """
CREATE TABLE IF NOT EXISTS state (
    key TEXT PRIMARY KEY, version INTEGER NOT NULL, value TEXT NOT NULL, checksum TEXT NOT NULL
) WITHOUT ROWID
"""


class SqliteState:
    """One table of key, version, value and checksum; WAL, so that readers never wait for the runner."""

    def __init__(self, path: str | Path, *, busy_seconds: float = 10.0) -> None:
        self.path = Path(path)
        self._busy = busy_seconds
        self._lock = threading.RLock()
        self._warnings: list[str] = []
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as failed:
            raise self._refusal(failed) from None
        self._db: sqlite3.Connection | None = self._guard(self._connect)

    @property
    def warnings(self) -> Sequence[str]:
        """What was damaged and left behind."""
        return tuple(self._warnings)

    def load(self, key: str) -> Saved | None:
        """The value under a key."""
        return self._do(lambda db: self._load(db, key))

    def save(self, key: str, value: Mapping[str, Any], *, expect: int) -> Saved:
        """Replace version `expect`, or raise `Conflict`."""
        text = json.dumps(dict(value), sort_keys=True)
        row = (expect + 1, text, _checksum(key, expect + 1, text), key)
        if expect == 0:
            sql = (
                "INSERT INTO state (version, value, checksum, key) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
            )
            changed = self._do(lambda db: db.execute(sql, row).rowcount)
        else:
            sql = "UPDATE state SET version = ?, value = ?, checksum = ? WHERE key = ? AND version = ?"
            changed = self._do(lambda db: db.execute(sql, (*row, expect)).rowcount)
        if changed != 1:
            raise Conflict(
                f"the state {key!r} is no longer at version {expect}", hint="run the command again"
            )
        return Saved(json.loads(text), expect + 1)

    def keys(self, prefix: str, *, last: int | None = None) -> Sequence[str]:
        """Keys that start with a prefix, sorted."""
        # A range instead of LIKE: it uses the index, and no letter of the prefix means anything.
        sql = "SELECT key FROM state WHERE key >= ? AND key < ? ORDER BY key DESC LIMIT ?"
        bounds = (prefix, prefix + chr(0x10FFFF), -1 if last is None else last)
        return self._do(lambda db: [r[0] for r in db.execute(sql, bounds)])[::-1]

    def drop(self, key: str) -> None:
        """Forget a key."""
        self._do(lambda db: db.execute("DELETE FROM state WHERE key = ?", (key,)))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._db is not None:
                self._db.close()
            self._db = None

    def _load(self, db: sqlite3.Connection, key: str) -> Saved | None:
        row = db.execute("SELECT value, version, checksum FROM state WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        text, version, checksum = row
        if checksum == _checksum(key, version, text):
            return Saved(json.loads(text), version)
        db.execute("DELETE FROM state WHERE key = ? AND checksum = ?", (key, checksum))
        self._warnings.append(f"the state {key!r} in {self.path} was damaged and is forgotten")
        return None

    def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock:
            if self._db is None:
                raise StorageError(f"the state file {self.path} is closed already")
            try:
                return work(self._db)
            except sqlite3.DatabaseError as failed:
                if not _is_damage(failed):
                    raise self._refusal(failed) from None
            self._db.close()
            self._db = self._guard(self._connect)
            return self._guard(lambda: work(self._open))

    @property
    def _open(self) -> sqlite3.Connection:
        assert self._db is not None
        return self._db

    def _guard(self, work: Callable[[], T]) -> T:
        """Do it; after damage move the file aside and do it once more."""
        try:
            return work()
        except (OSError, ValueError) as failed:
            raise self._refusal(failed) from None
        except sqlite3.DatabaseError as failed:
            if not _is_damage(failed):
                raise self._refusal(failed) from None
        try:
            self._set_aside()
            return work()
        except (OSError, sqlite3.DatabaseError) as failed:
            raise self._refusal(failed) from None

    def _connect(self) -> sqlite3.Connection:
        # One at a time: SQLite does not wait for its lock while a file is switched to WAL.
        with self._alone():
            return self._connect_alone()

    def _connect_alone(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=self._busy, isolation_level=None, check_same_thread=False)
        try:
            self._set_up(db)
        except BaseException:
            db.close()
            raise
        return db

    def _set_up(self, db: sqlite3.Connection) -> None:
        kind, version = (db.execute(f"PRAGMA {p}").fetchone()[0] for p in ("application_id", "user_version"))
        empty = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
        if kind != _APPLICATION and not (empty and kind == 0):
            hint = "give `state:` a file of its own"
            raise StorageError(f"{self.path} is another program's database", hint=hint)
        if version > _VERSION:
            hint = "upgrade headwater: pip install -U headwater"
            raise StorageError(f"{self.path} was written by a newer headwater", hint=hint)
        if db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise _damaged()
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        if version < _VERSION:
            db.execute(f"PRAGMA application_id = {_APPLICATION}")
            db.execute(_CREATE)
            db.execute(f"PRAGMA user_version = {_VERSION}")

    def _set_aside(self) -> None:
        with self._alone():
            if self._is_whole():
                return  # another process moved the damaged file away while we waited
            aside = _free_name(self.path)
            for tail in ("", "-wal", "-shm"):
                part = Path(f"{self.path}{tail}")
                if part.exists():
                    part.rename(f"{aside}{tail}")
            self._warnings.append(
                f"the state file was damaged and is now {aside}; run records are lost, data is not"
            )

    def _is_whole(self) -> bool:
        try:
            self._connect_alone().close()
        except sqlite3.DatabaseError:
            return False
        return True

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with Path(f"{self.path}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _refusal(self, failed: Exception) -> StorageError:
        if isinstance(failed, StorageError):
            return failed
        reason = (failed.strerror if isinstance(failed, OSError) else None) or str(failed)
        hint = "make its folder writable, or name another file with `state:` in headwater.yml"
        if "full" in reason:
            hint = "free some space on its disk; nothing else is touched"
        if "locked" in reason:
            hint = "another process writes to it for long; try again, or look with: headwater status"
        return StorageError(f"the state file {self.path} cannot be used: {reason}", hint=hint)


def _is_damage(failed: sqlite3.DatabaseError) -> bool:
    return getattr(failed, "sqlite_errorcode", 0) & 0xFF in _DAMAGED  # 0xFF: the primary part of the code


def _damaged() -> sqlite3.DatabaseError:
    failed = sqlite3.DatabaseError("quick_check failed")
    failed.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return failed


def _checksum(key: str, version: int, text: str) -> str:
    return hashlib.sha256(f"{key}\n{version}\n{text}".encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _free_name(path: Path) -> str:
    number = 1
    while os.path.lexists(f"{path}.damaged-{number}"):
        number += 1
    return f"{path}.damaged-{number}"
