"""A store in an S3 bucket, through obstore. Works with AWS and with servers that follow its put-if-absent.

Requests that may be repeated are repeated by obstore on 5xx and broken connections. A put-if-absent is
repeated here: the second one finds "already exists" when the first one did arrive, which callers expect.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

from headwater.errors import Corrupt, StorageError
from headwater.failpoints import reach
from headwater.storage import Storage, Stored, check_name
from headwater.storage.cache import Cache
from headwater.storage.options import BucketOptions, read_options, split_bucket

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config

T = TypeVar("T")

_PROOF = ".scratch/put-if-absent"
_KEY_LIMIT = 1024  # bytes; S3's, not every server enforces it
_TRIES = 5
_SINGLE_PUT = 16 << 20
_PART = 8 << 20
_PARTS = 9000  # S3 takes 10,000
_CODE = re.compile(r"<Code>([A-Za-z]+)</Code>")
_STATUS = re.compile(r"status code: (\d{3})")
_HINTS = {
    "NoSuchBucket": "aws s3 mb s3://{bucket}   (or correct the store's URL)",
    "SignatureDoesNotMatch": "check the secret behind store_options.secret_access_key, and the region",
    "InvalidAccessKeyId": "check store_options.access_key_id",
    "ExpiredToken": "renew the session: aws sso login",
    "RequestTimeTooSkewed": "set this machine's clock: timedatectl set-ntp true",
    "AccessDenied": "allow s3:GetObject, s3:PutObject and s3:ListBucket on {bucket} for this key",
}
_HTTP = re.compile(r"HTTP error|HttpError")
_REASON = re.compile(r'(?:message|error): "([^"]{1,200})"')
_CERTIFICATE = re.compile(r"InvalidCertificate\(\s*(\w+)")
_UNREACHABLE = "check store_options.endpoint and the network; server: {server}"
_REFUSED = "check the key, its secret and its rights on the bucket {bucket}"


class BucketStorage(Storage):
    """A prefix of a bucket."""

    def __init__(
        self, place: str, options: Mapping[str, str] | BucketOptions, cache: Path, cache_bytes: int
    ) -> None:
        self._bucket, self._prefix = split_bucket(place)
        self._options = options if isinstance(options, BucketOptions) else read_options(options)
        self._opened_with = place, self._options, cache, cache_bytes
        self._proven = False
        self._store = self._connect()
        identity = f"{self._options.endpoint}|{self._bucket}|{self._prefix}"
        self._cache = Cache(cache, identity, cache_bytes)

    @property
    def local(self) -> Path | None:
        """None: it is not a folder."""
        return None

    def create(self, path: str, data: bytes, *, step: str = "create") -> bool:
        """Put a small file if nothing is there."""
        key = self._key(path)

        def put() -> bool:
            try:
                obstore.put(self._store, key, data, mode="create", use_multipart=False)
            except AlreadyExistsError:
                if not self.exists(path):
                    # 409: another was under way, and neither may have won (arrow-rs-object-store#852).
                    raise _Undecided from None
                return False
            return True

        if not self._proven:
            self._prove()
        reach(f"{step}.before")
        made = self._repeat(path, put)
        reach(f"{step}.after")
        return made

    def replace(self, path: str, data: bytes, *, step: str = "replace") -> None:
        """Put a small file in place of what is there."""
        key = self._key(path)
        reach(f"{step}.before")
        self._repeat(path, lambda: obstore.put(self._store, key, data, use_multipart=False))
        reach(f"{step}.after")

    def upload(self, file: Path, path: str, *, step: str = "upload") -> None:
        """Put a finished file under its final name; big ones in parts, which become visible all at once."""
        key = self._key(path)
        size = self._cache.explain(lambda: file.stat().st_size)
        chunk = max(_PART, size // _PARTS)

        def put() -> None:
            obstore.put(
                self._store, key, file, use_multipart=size > _SINGLE_PUT, chunk_size=chunk, max_concurrency=4
            )

        reach(f"{step}.before")
        self._repeat(path, put)
        file.unlink(missing_ok=True)
        reach(f"{step}.after")

    def find(self, path: str) -> bytes | None:
        """The content, or None."""
        key = self._key(path)
        try:
            return self._explained(path, lambda: obstore.get(self._store, key).bytes().to_bytes())
        except FileNotFoundError as missing:
            self._refuse_missing_bucket(missing)
            return None

    def exists(self, path: str) -> bool:
        """Is it there?"""
        key = self._key(path)
        try:
            self._explained(path, lambda: obstore.head(self._store, key))
        except FileNotFoundError:
            return False
        return True

    def size(self, path: str) -> int:
        """Its size in bytes."""
        return self._head(path)[0]

    def fetch(self, path: str, *, sha256: str = "", size: int = 0) -> Path:
        """A copy in the cache, checked."""
        held = self._cache.held(path)
        if held and not sha256 and size in (0, self._cache.explain(held.stat).st_size):
            return held
        tag = ""
        if not sha256:
            found, tag = self._head(path)
            if size and found != size:
                raise Corrupt(f"{path}: expected {size} bytes, found {found}")
            size = found
        return self._cache.fetch(path, sha256, size, tag, lambda: self._download(path))

    def files(self, prefix: str = "", after: str = "") -> Iterator[Stored]:
        """The files below `prefix`, in the order of the listing, which is sorted."""
        top = self._key(prefix) if prefix else self._prefix.rstrip("/")
        start = self._prefix + after if after else None
        pages = iter(obstore.list(self._store, top or None, offset=start, chunk_size=1000))
        while True:
            try:
                page = self._explained(prefix or self._bucket, lambda: next(pages, None))
            except FileNotFoundError as missing:
                self._refuse_missing_bucket(missing)
                return
            if page is None:
                return
            for item in page:
                name = item["path"][len(self._prefix) :]
                if name != _PROOF:
                    yield Stored(name, item["size"], item["last_modified"])

    def delete(self, paths: Iterable[str]) -> None:
        """Remove files, a thousand with each request."""
        keys = [self._key(path) for path in paths]
        for first in range(0, len(keys), 1000):
            some = keys[first : first + 1000]
            self._repeat(_few(some), partial(obstore.delete, self._store, some))

    def scratch(self) -> Path:
        """A new private folder in the cache."""
        return self._cache.scratch()

    def delta(self, path: str) -> tuple[str, dict[str, str]]:
        """The table's URL and deltalake's names of our options."""
        return f"s3://{self._bucket}/{self._key(path)}", self._options.delta()

    def reopen(self) -> BucketStorage:
        """Another handle on the prefix; copies in the cache are shared."""
        return BucketStorage(*self._opened_with)

    def release(self) -> None:
        """Let the cache drop what was handed out."""
        self._cache.release()

    def explain(self, failed: OSError, path: str) -> StorageError:
        """The error for trouble on the cache's disk."""
        return self._cache.explain_error(failed, path)

    def close(self) -> None:
        """Remove scratch folders; the cache stays for the next run."""
        self._cache.close()

    def _connect(self) -> S3Store:
        timeout = self._options.timeout
        config: S3Config = self._options.obstore()
        try:
            return S3Store(
                self._bucket,
                config=config,
                client_options={
                    **_allow_http(self._options.allow_http),
                    "connect_timeout": timedelta(seconds=min(5.0, timeout)),
                    "read_timeout": timedelta(seconds=timeout),
                    # Of a whole request, body included: a big file on a slow line must still come through.
                    "timeout": timedelta(seconds=timeout * 20),
                },
                retry_config={
                    "max_retries": 6,
                    "backoff": {
                        "init_backoff": timedelta(milliseconds=100),
                        "max_backoff": timedelta(seconds=5),
                        "base": 2,
                    },
                    "retry_timeout": timedelta(seconds=timeout * 2),
                },
            )
        except BaseError as failed:
            raise self._explain("store", failed) from None

    def _prove(self) -> None:
        """See once that the server refuses what is there; some do not, and two writers would both win."""
        key = self._key(_PROOF)

        def put() -> bool:
            try:
                obstore.put(self._store, key, b"put if absent\n", mode="create", use_multipart=False)
            except AlreadyExistsError:
                return True
            return False

        if not self._repeat(_PROOF, put) and not self._repeat(_PROOF, put):
            raise StorageError(
                f"s3://{self._bucket}: the server ignores If-None-Match: writers would overwrite each other",
                hint="use a server with conditional writes: AWS S3, Ceph RGW, MinIO, Cloudflare R2",
            )
        self._proven = True

    def _key(self, path: str) -> str:
        key = self._prefix + check_name(path)
        if len(key.encode()) > _KEY_LIMIT:
            raise StorageError(
                f"{path[:60]}...: the key is longer than {_KEY_LIMIT} bytes", hint="a shorter prefix"
            )
        return key

    def _head(self, path: str) -> tuple[int, str]:
        key = self._key(path)
        try:
            facts = self._explained(path, lambda: obstore.head(self._store, key))
        except FileNotFoundError:
            raise StorageError(f"{path}: no such file in s3://{self._bucket}") from None
        return facts["size"], facts["e_tag"] or ""

    def _download(self, path: str) -> Iterator[bytes]:
        """The content in pieces. FileNotFoundError when it is gone."""
        key = self._key(path)
        pieces = iter(self._explained(path, lambda: obstore.get(self._store, key)).stream())
        while (piece := self._explained(path, lambda: next(pieces, None))) is not None:
            yield bytes(piece)

    def _repeat(self, path: str, act: Callable[[], T]) -> T:
        """Do something that may be done twice, until it is done, refused for good, or has taken too long."""
        deadline = time.monotonic() + 3 * self._options.timeout
        for attempt in range(1, _TRIES + 1):
            try:
                return act()
            except (PermissionDeniedError, UnauthenticatedError, FileNotFoundError) as failed:
                raise self._explain(path, failed) from None
            except (BaseError, OSError, _Undecided) as failed:
                late = attempt == _TRIES or time.monotonic() > deadline
                if late or _STATUS.search(str(failed)):
                    raise self._explain(path, failed) from None
            time.sleep(random.uniform(0.5, 1) * min(5.0, 0.1 * 4**attempt))
        raise AssertionError("the last try returns or raises")

    def _explained(self, path: str, act: Callable[[], T]) -> T:
        """Do something that obstore repeats by itself; FileNotFoundError is the caller's."""
        try:
            return act()
        except FileNotFoundError:
            raise
        except (BaseError, OSError, ValueError) as failed:
            raise self._explain(path, failed) from None

    def _refuse_missing_bucket(self, missing: FileNotFoundError) -> None:
        if "NoSuchBucket" in str(missing):
            raise self._explain("store", missing) from None

    def _explain(self, path: str, failed: Exception) -> StorageError:
        """The error in our words. Never the reply itself: S3 repeats keys, tokens and headers in it."""
        text = str(failed)
        code, status = _CODE.search(text), _STATUS.search(text)
        server = self._options.endpoint or "AWS"
        hint = _HINTS.get(code[1], "") if code else ""
        if code or status:
            said = " ".join(m[1] for m in (code, status) if m)
            if not hint and isinstance(failed, (PermissionDeniedError, UnauthenticatedError)):
                hint = _REFUSED
        elif "configured region" in text:
            said, hint = "the bucket is in another region", "store_options: region: <the bucket's region>"
        elif isinstance(failed, _Undecided):
            said, hint = "other writers keep competing for this name", "headwater run"
        elif _HTTP.search(text):
            said, hint = f"no answer from {server}: {_reason(text)}", _UNREACHABLE
        else:
            said = text.split("\n\nDebug source", maxsplit=1)[0][:400]
        place = f"s3://{self._bucket}/{self._prefix}: {path}"
        hint = hint.format(bucket=self._bucket, server=server)
        return StorageError(self._options.scrub(f"{place}: {said}"), hint=hint)


class _Undecided(Exception):
    """A put-if-absent was turned down although nothing is there."""


def _allow_http(wanted: bool) -> ClientConfig:
    """Not wanted here may still be wanted by the environment, with the endpoint that stands there."""
    return {"allow_http": True} if wanted else {}


def _reason(text: str) -> str:
    """Why no HTTP answer came, from the depths of an obstore error."""
    if certificate := _CERTIFICATE.search(text):
        return f"its TLS certificate is not accepted ({certificate[1]})"
    found = _REASON.findall(text)
    return str(found[-1]) if found else "the connection broke or timed out"


def _few(keys: list[str]) -> str:
    """A few names for an error."""
    return keys[0] if len(keys) == 1 else f"{keys[0]} and {len(keys) - 1} more"
