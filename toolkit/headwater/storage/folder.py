"""A store in a local folder: temporary file, fsync, hard link to the final name, fsync of the folder.

Not through obstore, which does not fsync: an entry lost in a power cut after the source was told that it is
durable is lost data. The link is put-if-absent; docs/decisions/0010-local-writes.md.
"""

from __future__ import annotations

import errno
import filecmp
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from headwater.errors import Corrupt, StorageError
from headwater.failpoints import reach
from headwater.storage import Storage, Stored, check_name
from headwater.storage.session import Session
from headwater.storage.verified import Verified, explain_os_error

_SCRATCH = ".scratch"


class FolderStorage(Storage):
    """A folder; it is made with the first write."""

    def __init__(self, root: Path) -> None:
        self._root = Path(os.path.abspath(root))
        self._session = Session(self._root / _SCRATCH)
        self._verified = Verified()
        self._temporary: Path | None = None
        self._durable: set[Path] = set()

    @property
    def local(self) -> Path | None:
        """The folder."""
        return self._root

    def create(self, path: str, data: bytes, *, step: str = "create") -> bool:
        """Put a small file durably if nothing is there."""
        target = self._place(path)
        with self._explained(path):
            reach(f"{step}.before")
            file = self._temporary_file()
            try:
                file.write_bytes(data)
                made = self._commit(file, target)
            finally:
                file.unlink(missing_ok=True)
            reach(f"{step}.after")
        return made

    def replace(self, path: str, data: bytes, *, step: str = "replace") -> None:
        """Put a small file in place of what is there."""
        target = self._place(path)
        with self._explained(path):
            reach(f"{step}.before")
            file = self._temporary_file()
            try:
                file.write_bytes(data)
                _sync(file)
                self._make_folder(target.parent)
                os.replace(file, target)
                _sync(target.parent)
            finally:
                file.unlink(missing_ok=True)
            reach(f"{step}.after")

    def upload(self, file: Path, path: str, *, step: str = "upload") -> None:
        """Move a finished file to its final name."""
        target = self._place(path)
        with self._explained(path):
            reach(f"{step}.before")
            if not self._moved(file, target) and not _settle(file, target):
                raise Corrupt(f"{path}: other bytes are there under this name", hint=f"rm '{target}'")
            file.unlink(missing_ok=True)
            reach(f"{step}.after")

    def find(self, path: str) -> bytes | None:
        """The content, or None."""
        with self._explained(path):
            try:
                return self._place(path).read_bytes()
            except FileNotFoundError:
                return None

    def exists(self, path: str) -> bool:
        """Is it there?"""
        with self._explained(path):
            return self._place(path).is_file()

    def size(self, path: str) -> int:
        """Its size in bytes."""
        with self._explained(path):
            return self._place(path).stat().st_size

    def fetch(self, path: str, *, sha256: str = "", size: int = 0) -> Path:
        """The file itself, checked."""
        file = self._place(path)
        with self._explained(path):
            self._verified.check(file, path, sha256, size)
        return file

    def files(self, prefix: str = "", after: str = "") -> Iterator[Stored]:
        """The files below `prefix`, sorted."""
        top = self._place(prefix) if prefix else self._root
        with self._explained(prefix or "."):
            yield from _walk(top, f"{prefix}/" if prefix else "", after)

    def delete(self, paths: Iterable[str]) -> None:
        """Remove files."""
        for path in paths:
            with self._explained(path):
                self._place(path).unlink(missing_ok=True)

    def scratch(self) -> Path:
        """A new private folder on the store's own disk."""
        with self._explained(_SCRATCH):
            self._make_folder(self._root)
            return self._session.new("work")

    def delta(self, path: str) -> tuple[str, dict[str, str]]:
        """The table's folder."""
        return str(self._place(path)), {}

    def reopen(self) -> FolderStorage:
        """Another handle on the folder."""
        return FolderStorage(self._root)

    def release(self) -> None:
        """Nothing to do: files are read where they are."""

    def explain(self, failed: OSError, path: str) -> StorageError:
        """The error for trouble on this disk."""
        return explain_os_error(failed, path, self._root)

    def close(self) -> None:
        """Remove scratch folders."""
        self._temporary = None
        self._session.close()

    def _place(self, path: str) -> Path:
        """The absolute path of a name; a symbolic link cannot lead out of the store."""
        place = self._root / check_name(path)
        if not place.resolve().is_relative_to(self._root.resolve()):
            raise StorageError(f"{path}: leads out of {self._root}", hint=f"ls -l '{self._root}'")
        return place

    def _temporary_file(self) -> Path:
        if self._temporary is None:
            self._temporary = self.scratch()
        return self._temporary / uuid.uuid4().hex

    def _moved(self, file: Path, target: Path) -> bool:
        """Commit a file that may be on another disk: then it is copied first."""
        try:
            return self._commit(file, target)
        except OSError as failed:
            if failed.errno != errno.EXDEV:
                raise
        return self._commit(Path(shutil.copyfile(file, self.scratch() / "copy")), target)

    def _commit(self, file: Path, target: Path) -> bool:
        """Give a written file its final name unless that is taken, durably."""
        _sync(file)
        self._make_folder(target.parent)
        made = _link(file, target)
        # Also when the name was taken: its owner may have died before its own fsync of the folder.
        _sync(target.parent)
        return made

    def _make_folder(self, folder: Path) -> None:
        """Make a folder of the store and its parents so that they survive a power cut.

        Folders that are there get their fsync too, once: whoever made them may have died before it.
        """
        if folder in self._durable and folder.is_dir():
            return
        if folder == self._root:
            _make_outer(folder)
        else:
            self._make_folder(folder.parent)
            folder.mkdir(exist_ok=True)
            _sync(folder.parent)
        self._durable.add(folder)

    @contextmanager
    def _explained(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as failed:
            raise self.explain(failed, path) from failed


def _link(file: Path, target: Path) -> bool:
    try:
        os.link(file, target)
    except FileExistsError:
        # A network file system may lose the reply of a link that it made.
        return os.path.samefile(file, target)
    except OSError as failed:
        if failed.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise StorageError(
                f"the file system of {target.parent} has no hard links",
                hint="store: a folder on another disk",
            ) from failed
        raise
    return True


def _settle(file: Path, target: Path) -> bool:
    """Is what already has the name the same content?"""
    same = filecmp.cmp(file, target, shallow=False)
    if same:
        _sync(target)
    return same


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _make_outer(folder: Path) -> None:
    """Make the store's own folder and what is missing above it."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
        _sync(new.parent)


def _walk(folder: Path, prefix: str, after: str) -> Iterator[Stored]:
    """Files by name. A folder sorts as `name/`, which is how a bucket's keys compare."""
    try:
        with os.scandir(folder) as found:
            items = sorted((f"{i.name}/" if i.is_dir(follow_symlinks=False) else i.name, i) for i in found)
    except (FileNotFoundError, NotADirectoryError):
        return
    for name, item in items:
        path = prefix + name
        if name.endswith("/"):
            behind = path > after or after.startswith(path)
            if behind and path != f"{_SCRATCH}/":
                yield from _walk(folder / item.name, path, after)
        elif path > after:
            try:
                facts = item.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            yield Stored(path, facts.st_size, datetime.fromtimestamp(facts.st_mtime, UTC))
