"""A pipeline file under edit: proposed, shown as a diff, checked strictly, and only then replaced."""

from __future__ import annotations

import difflib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from headwater.config import Config
from headwater.config.fields import Field
from headwater.config.files import decode, parse_text, read_bytes
from headwater.config.reader import holds_password
from headwater.config.rewrite import Doc, read_doc, rewrite, write_flow
from headwater.config.template import template
from headwater.errors import ConfigError, Conflict, StorageError
from headwater.secrets import is_reference

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Proposal:
    """A new text of the file, what it means, and how it differs from the one there; "" when it does not."""

    text: str
    config: Config
    diff: str


class PipelineFile:
    """A file as it was read. `doc` is what it says, not checked: ask `Proposal.config` for what it means."""

    def __init__(self, path: str | Path, *, make: bool = False) -> None:
        """With `make`, a file that is not there begins as `headwater init` writes it."""
        self.path = Path(path).absolute()
        self._read(make=make)

    def _read(self, *, make: bool) -> None:
        self._there = self.path.exists() or not make
        self._bytes = read_bytes(self.path) if self._there else b""
        self.text = decode(self.path, self._bytes) if self._there else template()
        doc = read_doc(self.text)
        if not isinstance(doc, dict):
            raise ConfigError(f"{self.path}: expected `name: value` lines", hint="headwater init --force")
        self.doc: dict[str, Doc] = {str(k): v for k, v in doc.items()}

    def check(self) -> Config:
        """What the file means as it is; raises ConfigError."""
        return parse_text(self.text, str(self.path), self.path.resolve().parent)

    def propose(self, doc: Mapping[str, Doc]) -> Proposal:
        """The file that says `doc`; raises ConfigError where that is not a pipeline file."""
        text = rewrite(self.text, doc)
        config = parse_text(text, str(self.path), self.path.resolve().parent)
        before = self.text if self._there else ""
        return Proposal(text, config, _diff(before, text, self.path.name))

    def save(self, proposal: Proposal) -> None:
        """Replace the file by the proposal, all or nothing.

        Raises Conflict when somebody else changed the file since it was read: their lines are not lost.
        """
        now = self.path.read_bytes() if self.path.exists() else None
        if now != (self._bytes if self._there else None):
            raise Conflict(
                f"{self.path} was changed by somebody else since it was read",
                hint="reload the file here, and choose again what is missing",
            )
        data = (_BOM if self._bytes.startswith(_BOM) else b"") + proposal.text.encode()
        try:
            _replace(self.path.resolve(), data)
        except OSError as failed:
            message = f"{self.path} cannot be written: {failed.strerror}"
            raise StorageError(message, hint=f"ls -ld {self.path.parent}") from None
        self._read(make=False)


def known_values(doc: Doc, field: Field) -> Doc:
    """What of a document a form may show: known fields only, references but no secrets."""
    if isinstance(doc, Mapping) and field.fields:
        known = {f.name: f for f in field.fields}
        shown = {k: known_values(v, known[k]) for k, v in doc.items() if k in known}
        return {k: v for k, v in shown.items() if v is not None}
    if isinstance(doc, str) and ((field.kind == "secret" and not is_reference(doc)) or holds_password(doc)):
        return None
    return doc


def read_value(field: Field, text: str) -> Doc:
    """What somebody typed for a field, as YAML has it; raises ConfigError, never with a secret in it."""
    text = text.strip()
    if field.kind == "secret" and not is_reference(text):
        raise ConfigError(
            f"`{field.name}` must say where the secret is, not what it is",
            hint=f"for example: {field.example}",
        )
    if holds_password(text):
        hint = "take it out, and say in `password` where it is: env:HEADWATER_SOURCE_PASSWORD"
        raise ConfigError(f"`{field.name}` has a password written into it", hint=hint)
    if field.kind in ("text", "path", "secret"):
        return text
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        value = None if text == "null" else _WRONG
    if value is _WRONG or (field.kind in ("number", "flag") and not isinstance(value, int)):
        raise ConfigError(f"`{field.name}` cannot be read", hint=f"for example: {field.example}")
    return value


def write_value(field: Field, value: Doc) -> str:
    """The same the other way: what a form shows for a value, "" for none."""
    if isinstance(value, str) and field.kind in ("text", "path", "secret"):
        return value
    return "" if value is None else write_flow(value)


_WRONG = object()


def _diff(before: str, after: str, name: str) -> str:
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), f"{name} (now)", f"{name} (then)", lineterm="", n=2
    )
    return "\n".join(lines)


def _replace(path: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, path.stat().st_mode & 0o7777 if path.exists() else 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
