"""Sealed JSON: a file that says itself whether it is whole, as its last member is the hash of the rest."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping

from headwater.errors import Corrupt

_TAIL = re.compile(rb',"sha256":"([0-9a-f]{64})"\}\n')
_TAIL_BYTES = 78


def seal(doc: Mapping[str, object]) -> bytes:
    """ASCII JSON whose last member is the SHA-256 of all bytes before the comma in front of it."""
    body = json.dumps(doc, ensure_ascii=True, separators=(",", ":")).encode()[:-1]
    return body + b',"sha256":"' + hashlib.sha256(body).hexdigest().encode() + b'"}\n'


def check_seal(data: bytes, path: str, *, hint: str) -> str:
    """The SHA-256 that a sealed file ends in; raises Corrupt where the rest is not what it says."""
    tail = _TAIL.fullmatch(data[-_TAIL_BYTES:])
    if not tail:
        raise Corrupt(f"{path}: {len(data)} bytes that do not end as they should", hint=hint)
    expected, found = tail[1].decode(), hashlib.sha256(data[:-_TAIL_BYTES]).hexdigest()
    if expected != found:
        raise Corrupt(f"{path}: expected sha256 {expected}, found {found}", hint=hint)
    return expected
