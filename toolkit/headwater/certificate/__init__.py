"""Load certificates: what was compared, at which position, by which hash, with which result; docs/verify.md.

A certificate is one sealed JSON file and one page that shows it. Neither is ever written over.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from headwater.certificate.page import make_page
from headwater.config import Config
from headwater.errors import ConfigError, Corrupt, StorageError
from headwater.sealing import check_seal, seal
from headwater.secrets import Secret, resolve
from headwater.storage import Storage
from headwater.wiring import open_folder

FORMAT = "headwater-certificate/1"

_SHORTEST = 32
_SIGNED = "hmac-sha256"
_AGAIN = "headwater verify --certificate   (makes another one)"

Json = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Place:
    """Where certificates go, and by which key they are signed (None: by none)."""

    storage: Storage
    shown: str  # as a person writes it
    key: Secret | None = None


@dataclass(frozen=True, slots=True)
class Certificate:
    """One certificate as it was written. `document` is its JSON but for the seal."""

    document: Json
    path: str
    page: str

    @property
    def equal(self) -> bool:
        """Whether everything that was compared is equal, after repairs if there were any."""
        return bool(self.document["equal"])

    def lines(self) -> list[str]:
        """What a person wants to know of it; the last line is the verdict."""
        said = list(cast(Sequence[str], self.document["lines"]))
        return [*said[:-1], f"certificate: {self.path}", f"page: {self.page}", *said[-1:]]

    def to_json(self) -> dict[str, object]:
        """The document, and where it is."""
        return {**self.document, "path": self.path, "page": self.page}


@dataclass(frozen=True, slots=True)
class Checked:
    """What a look at a certificate found. `signed` is None where it could not be told."""

    path: str
    document: Json
    signed: bool | None
    said: str

    @property
    def sound(self) -> bool:
        """Whether nothing says that it is not as it was written."""
        return self.signed is not False


def place_of(config: Config, folder: str | Path | None, file: Path | None) -> Place:
    """Where the certificates of a pipeline go; by default beside its file."""
    beside = (file.parent if file is not None else Path.cwd()) / "certificates"
    shown = str(folder) if folder is not None else str(beside)
    return Place(open_folder(config, shown), shown.rstrip("/"), _key(config))


def write(place: Place, document: Json) -> Certificate:
    """Sign, seal and store a document, and its page."""
    if place.key is not None:
        document = {**document, "signature": {"by": _SIGNED, "value": _sign(document, place.key)}}
    data = seal(document)
    digest = hashlib.sha256(data).hexdigest()
    moment = str(document["at"])[:19].translate({ord(c): None for c in "-:"})
    name = f"{document['pipeline']}-{moment}Z-{digest[:12]}"
    for end, content in ((".html", make_page(document, digest).encode("utf-8", "replace")), (".json", data)):
        if not place.storage.create(name + end, content) and place.storage.find(name + end) != content:
            raise StorageError(f"{place.shown}/{name}{end} is there already", hint=_AGAIN)
    return Certificate(document, f"{place.shown}/{name}.json", f"{place.shown}/{name}.html")


def check(path: Path, config: Config | None) -> Checked:
    """Look whether a certificate is as it was written; raises Corrupt for one that is not, and why.

    The signature can be told only by who has the key: `config` says where that is.
    """
    try:
        data = path.read_bytes()
    except OSError as failed:
        raise StorageError(f"{path} cannot be read: {failed.strerror}", hint="ls certificates") from None
    check_seal(data, str(path), hint=_AGAIN)
    try:
        document = json.loads(data)
        del document["sha256"]
        known = document["format"] == FORMAT
        signature = document.pop("signature", None)
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise Corrupt(f"{path}: is no {FORMAT}", hint=_AGAIN)
    key = _key(config) if config is not None else None
    if signature is None:
        # Whoever can take a signature away can make the seal again.
        wanted = key is not None
        said = "whole, but not signed" + (", where this pipeline signs" if wanted else "")
        return Checked(str(path), document, False if wanted else None, said)
    if key is None:
        said = "whole; its signature cannot be told without the key (verify: {sign: ...} in headwater.yml)"
        return Checked(str(path), document, None, said)
    value = str(signature.get("value", "")) if isinstance(signature, dict) else ""
    good = hmac.compare_digest(value.encode(), _sign(document, key).encode())
    said = "whole and signed by this pipeline's key" if good else "signed by another key, or changed since"
    return Checked(str(path), document, good, said)


def _key(config: Config) -> Secret | None:
    key = resolve(config.sign_key) if config.sign_key else None
    if key is not None and len(key.reveal()) < _SHORTEST:
        raise ConfigError(
            f"the key of certificates has fewer than {_SHORTEST} characters",
            hint="export HEADWATER_SIGN_KEY=$(openssl rand -hex 32)",
        )
    return key


def _sign(document: Json, key: Secret) -> str:
    """The HMAC of the document in its one spelling."""
    text = json.dumps(document, ensure_ascii=True, separators=(",", ":"))
    return hmac.new(key.reveal().encode(), text.encode(), "sha256").hexdigest()
