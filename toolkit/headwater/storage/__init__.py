"""Storage: one folder, or one prefix of a bucket, that holds immutable files under relative names.

A name is `/`-separated, without `.`, `..` or empty parts. What `create` and `upload` return from is durable:
it survives a power cut. Files never change once they are there.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote

from headwater.errors import ConfigError, StorageError

__all__ = ["Storage", "Stored", "check_name"]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\\]")


@dataclass(frozen=True, slots=True)
class Stored:
    """A file as a listing shows it."""

    path: str
    size: int
    modified: datetime  # by the clock of the store, in UTC


class Storage(ABC):
    """One folder or bucket prefix. Errors are `StorageError`s that say what to do; threads may share it."""

    @staticmethod
    def open(
        url: str, options: Mapping[str, str] | None = None, *, cache: Path, cache_bytes: int = 2 << 30
    ) -> Storage:
        """Open `./lake`, `/abs`, `file:///abs` or `s3://bucket/prefix`; nothing is written or contacted yet.

        options  for s3: endpoint, region, access_key_id, secret_access_key, session_token, path_style (true
                 with an endpoint), sse (AES256 | aws:kms), sse_kms_key_id, allow_http, timeout (seconds).
                 Without a key, obstore asks the environment, web identity, container and instance in turn.
        cache    folder for copies of bucket files, kept to about `cache_bytes`; a local store ignores it.
        """
        options = options or {}
        found = _SCHEME.fullmatch(url)
        scheme, rest = (found[1].lower(), found[2]) if found else ("", url)
        if scheme == "s3":
            from headwater.storage.bucket import BucketStorage

            return BucketStorage(rest, options, cache, cache_bytes)
        if scheme not in ("", "file"):
            raise ConfigError(
                f"no store of kind {scheme}://", hint="store: ./lake   or   store: s3://bucket/prefix"
            )
        if options:
            names = ", ".join(sorted(options))
            raise ConfigError(f"a folder takes no store options: {names}", hint="store: s3://bucket/prefix")
        if scheme == "file":
            host, slash, rest = rest.partition("/")
            if host not in ("", "localhost") or not slash:
                raise ConfigError("a file URL names an absolute path", hint="store: file:///data/lake")
            rest = "/" + unquote(rest)
        if not rest or "\0" in rest:
            raise ConfigError("the store's folder has no name", hint="store: ./lake")
        from headwater.storage.folder import FolderStorage

        return FolderStorage(Path(rest).expanduser())

    @property
    @abstractmethod
    def local(self) -> Path | None:
        """The folder, absolute; None for a bucket."""

    @abstractmethod
    def create(self, path: str, data: bytes, *, step: str = "create") -> bool:
        """Put a small file durably if nothing is there; False when something is.

        After a lost reply that may be our own: compare the content. `step` names the failpoints around it.
        """

    @abstractmethod
    def replace(self, path: str, data: bytes, *, step: str = "replace") -> None:
        """Put a small file durably in place of what is there: readers see the one or the other, whole.

        Only for files that `find` reads: `fetch` may give an earlier content.
        """

    @abstractmethod
    def upload(self, file: Path, path: str, *, step: str = "upload") -> None:
        """Move a finished local file to its final name, durably; `file` is gone afterwards.

        The name must be unique to the content: doing it twice is fine. Other bytes under the name are an
        error in a folder, and go unnoticed in a bucket.
        """

    @abstractmethod
    def find(self, path: str) -> bytes | None:
        """The content of a small file, or None when nothing is there."""

    @abstractmethod
    def exists(self, path: str) -> bool:
        """Is there a file of this name?"""

    @abstractmethod
    def size(self, path: str) -> int:
        """Its size in bytes; StorageError when nothing is there."""

    @abstractmethod
    def fetch(self, path: str, *, sha256: str = "", size: int = 0) -> Path:
        """A local file with its content, for readers that need a path; valid until `release` or `close`.

        With `sha256` (hex) or `size`, the content is checked on first use in this process; Corrupt if other.
        """

    @abstractmethod
    def files(self, prefix: str = "", after: str = "") -> Iterator[Stored]:
        """Every file in the folder `prefix` and below, by name in code points, from behind `after` on."""

    @abstractmethod
    def delete(self, paths: Iterable[str]) -> None:
        """Remove files; names that are gone already are fine."""

    @abstractmethod
    def scratch(self) -> Path:
        """A new, empty, private folder on the disk from which `upload` need not copy; gone at `close`."""

    @abstractmethod
    def delta(self, path: str) -> tuple[str, dict[str, str]]:
        """URI and `storage_options` of a table folder for the deltalake library."""

    @abstractmethod
    def reopen(self) -> Storage:
        """Another handle on the same store for another thread: `release` and `close` of one leave the other's
        scratch and fetched files alone."""

    @abstractmethod
    def release(self) -> None:
        """Let the cache drop what `fetch` handed out so far; no reader may use those paths any more."""

    @abstractmethod
    def explain(self, failed: OSError, path: str) -> StorageError:
        """The error for what the operating system refused while `path` was written in `scratch`."""

    @abstractmethod
    def close(self) -> None:
        """Remove scratch folders and let go of everything; twice is fine."""

    def read(self, path: str) -> bytes:
        """The content of a small file; StorageError when nothing is there."""
        data = self.find(path)
        if data is None:
            raise StorageError(f"{path}: no such file in the store")
        return data

    def list(self, prefix: str = "", after: str = "") -> Iterator[str]:
        """The names of `files(prefix, after)`."""
        return (file.path for file in self.files(prefix, after))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def check_name(path: str) -> str:
    """Return `path` if it is a name inside a store; StorageError for what would lead out of it."""
    parts = path.split("/")
    if _UNSAFE.search(path) or any(part in ("", ".", "..") for part in parts):
        raise StorageError(f"{path!r} is not the name of a file in a store")
    return path
