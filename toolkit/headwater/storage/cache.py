"""Local copies of a bucket's files, bounded in bytes and shared by processes.

Copies are immutable files in `objects/`. A reader gets a hard link in a folder of its own, so that dropping a
copy never takes a file away from somebody who reads it; docs/decisions/0014-cache.md.
"""

from __future__ import annotations

import hashlib
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from headwater.errors import Corrupt, StorageError
from headwater.storage.session import Session
from headwater.storage.verified import Verified, differs, explain_os_error, gone

T = TypeVar("T")


class Cache:
    """Copies of the files of one store."""

    def __init__(self, root: Path, identity: str, limit: int) -> None:
        self._root = root.expanduser().absolute() / hashlib.sha256(identity.encode()).hexdigest()[:16]
        self._objects = self._root / "objects"
        self._limit = limit
        self._session = Session(self._root / "sessions")
        self._verified = Verified()
        self._lock = threading.Lock()
        self._held: dict[str, Path] = {}
        self._links: Path | None = None
        self._work: Path | None = None

    def held(self, path: str) -> Path | None:
        """What was handed out for a name since the last `release`."""
        return self._held.get(path)

    def fetch(
        self, path: str, sha256: str, size: int, tag: str, download: Callable[[], Iterator[bytes]]
    ) -> Path:
        """A local file with the content of `path`, which has this hash, or failing that this size and tag."""
        key = sha256 or hashlib.sha256(f"{path}|{size}|{tag}".encode()).hexdigest()
        copy = self._objects / key[:2] / key
        return self.explain(lambda: self._link(copy, path, sha256, size, download))

    def scratch(self) -> Path:
        """A new private folder."""
        return self.explain(lambda: self._session.new("work"))

    def release(self) -> None:
        """Take back every link."""
        with self._lock:
            for link in self._links.iterdir() if self._links else ():
                link.unlink(missing_ok=True)
            self._held.clear()

    def close(self) -> None:
        """Remove links and scratch folders; the copies stay."""
        with self._lock:
            self._held.clear()
            self._links = self._work = None
            self._session.close()

    def explain(self, act: Callable[[], T]) -> T:
        """Run `act` with its OSErrors explained as trouble of the cache folder."""
        try:
            return act()
        except FileNotFoundError:
            raise
        except OSError as failed:
            raise self.explain_error(failed, "cache") from failed

    def explain_error(self, failed: OSError, path: str) -> StorageError:
        """The error for trouble on the cache's disk."""
        return explain_os_error(failed, path, self._root)

    def _link(
        self, copy: Path, path: str, sha256: str, size: int, download: Callable[[], Iterator[bytes]]
    ) -> Path:
        with self._lock:
            held = self._held.get(path)
            if held and held.name.startswith(copy.name[:32]):
                return held
            if self._links is None:
                self._links = self._session.new("held")
                self._work = self._session.new("part")
            link = self._links / f"{copy.name[:32]}-{uuid.uuid4().hex[:8]}-{path.rpartition('/')[2][-120:]}"
        if not self._take(copy, link, path, sha256, size):
            self._download(copy, link, path, sha256, size, download)
            self._evict(copy)
        with self._lock:
            self._held[path] = link
        return link

    def _take(self, copy: Path, link: Path, path: str, sha256: str, size: int) -> bool:
        """Link a copy that is there and sound; False when it must be downloaded."""
        try:
            os.link(copy, link)
            self._verified.check(link, path, sha256, size)
        except FileNotFoundError:
            return False
        except Corrupt:
            # The copy went bad on our disk; the store's own file may still be right.
            link.unlink(missing_ok=True)
            copy.unlink(missing_ok=True)
            return False
        os.utime(copy)
        return True

    def _download(
        self,
        copy: Path,
        link: Path,
        path: str,
        sha256: str,
        size: int,
        download: Callable[[], Iterator[bytes]],
    ) -> None:
        assert self._work is not None
        part = self._work / uuid.uuid4().hex
        digest, count = hashlib.sha256(), 0
        try:
            with part.open("wb") as sink:
                for piece in download():
                    sink.write(piece)
                    digest.update(piece)
                    count += len(piece)
                sink.flush()
                # A copy without a hash is believed by its name, so it must be whole before it gets one.
                os.fsync(sink.fileno())
        except FileNotFoundError:
            part.unlink(missing_ok=True)
            raise gone(path) from None
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        if size and count != size or sha256 and digest.hexdigest() != sha256:
            part.unlink()
            if sha256:
                raise differs(path, sha256, digest.hexdigest())
            raise Corrupt(f"{path}: expected {size} bytes, found {count}")
        self._verified.add(path, sha256, size)
        copy.parent.mkdir(parents=True, exist_ok=True)
        os.link(part, link)
        os.replace(part, copy)

    def _evict(self, newest: Path) -> None:
        """Drop the copies that were not used for longest, until the rest fits."""
        found = []
        for folder, _, names in os.walk(self._objects):
            for name in names:
                place = os.path.join(folder, name)
                try:
                    facts = os.stat(place)
                except FileNotFoundError:
                    continue
                found.append((facts.st_mtime_ns, facts.st_size, facts.st_nlink, place))
        total = sum(size for _, size, _, _ in found)
        for _, size, links, place in sorted(found):
            if total <= self._limit:
                return
            # Somebody's link keeps the bytes on the disk anyway.
            if links == 1 and place != str(newest):
                Path(place).unlink(missing_ok=True)
                total -= size
