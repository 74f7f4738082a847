"""Checks of content, and operating system errors in words that help."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from pathlib import Path

from headwater.errors import Corrupt, StorageError

_RESTORE = "restore it from a backup, or read its table again: headwater run --full --table <table>"


class Verified:
    """Remembers which files were seen to be what they should be, so that each is hashed once per process."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, str, int]] = set()

    def check(self, file: Path, path: str, sha256: str, size: int) -> None:
        """Raise Corrupt unless `file`, a copy of the store's `path`, has this hash and size ("", 0: any)."""
        if (path, sha256, size) in self._seen:
            if not file.is_file():
                raise gone(path)
            return
        try:
            with file.open("rb") as source:
                found = os.fstat(source.fileno()).st_size
                if size and found != size:
                    raise Corrupt(f"{path}: expected {size} bytes, found {found}", hint=_RESTORE)
                digest = hashlib.file_digest(source, "sha256").hexdigest() if sha256 else ""
        except FileNotFoundError:
            raise gone(path) from None
        if digest != sha256:
            raise differs(path, sha256, digest)
        self.add(path, sha256, size)

    def add(self, path: str, sha256: str, size: int) -> None:
        """Remember a file that was checked while it was written."""
        self._seen.add((path, sha256, size))


def differs(path: str, expected: str, found: str) -> Corrupt:
    """The error for a file that is not the bytes its entry names."""
    return Corrupt(f"{path}: expected sha256 {expected}, found {found}", hint=_RESTORE)


def gone(path: str) -> Corrupt:
    """The error for a file that should be there."""
    return Corrupt(f"{path}: the file is gone from the store", hint=_RESTORE)


def explain_os_error(failed: OSError, path: str, folder: Path) -> StorageError:
    """Name what the operating system refused, and what to do."""
    if failed.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(
            f"{path}: no space left on {folder}: {_free(folder)} MB free",
            hint=f"make room, then run again: df -h '{folder}'",
        )
    if failed.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StorageError(f"{path}: no permission to use {folder}", hint=f"ls -ld '{folder}'; id")
    if failed.errno == errno.ENOENT:
        return StorageError(f"{path}: no such file in {folder}")
    if failed.errno in (errno.ENOTDIR, errno.EEXIST):
        return StorageError(f"{path}: a file stands where {folder} needs a folder", hint=f"ls -ld '{folder}'")
    return StorageError(f"{path}: {failed.strerror or type(failed).__name__} in {folder}")


def _free(folder: Path) -> int:
    """Free megabytes on the disk that holds, or would hold, `folder`."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free >> 20
