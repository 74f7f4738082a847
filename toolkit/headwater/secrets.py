"""Secrets by reference: `env:NAME`, `file:PATH`. The value lives in a `Secret`, which never prints itself."""

from __future__ import annotations

import hmac
import os
import re
from pathlib import Path
from typing import NoReturn

from headwater.errors import SecretError

_REFERENCE = re.compile(r"(env|file):(.+)", re.DOTALL)
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FILE_LIMIT = 64 * 1024


class Secret:
    """A value that shows as `***` in reprs, formats, logs and tracebacks with locals; `reveal()` gives it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself: pass it on as a keyword argument, never into a URL or a message."""
        return self._value

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(
            self._value.encode("utf-8", "surrogatepass"), other._value.encode("utf-8", "surrogatepass")
        )

    __hash__ = None  # type: ignore[assignment]  # a hash of a short password is the password

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not written to files or other processes")


def is_reference(text: str) -> bool:
    """Whether the text says where a secret is, instead of being one."""
    found = _REFERENCE.fullmatch(text)
    return found is not None and (found[1] == "file" or _ENV_NAME.fullmatch(found[2]) is not None)


def resolve(reference: str | Secret) -> Secret:
    """The secret a reference names (a Secret is its own); raises SecretError, never with the value in it."""
    if isinstance(reference, Secret):
        return reference
    found = _REFERENCE.fullmatch(reference) if is_reference(reference) else None
    if found is None:
        raise SecretError("this is not a secret reference", hint="write env:NAME or file:/path/to/file")
    return _from_env(found[2]) if found[1] == "env" else _from_file(Path(os.path.expanduser(found[2])))


def scrub(text: str, *secrets: Secret) -> str:
    """The text with every occurrence of the secrets replaced by `***`."""
    for value in sorted((s.reveal() for s in secrets), key=len, reverse=True):
        if value:
            text = text.replace(value, "***")
    return text


def _from_env(name: str) -> Secret:
    value = os.environ.get(name, "")
    if not value:
        state = "empty" if name in os.environ else "not set"
        raise SecretError(f"the environment variable {name} is {state}", hint=f"export {name}=...")
    return Secret(value)


def _from_file(path: Path) -> Secret:
    hint = f"put the secret, and nothing else, into {path}"
    try:
        with path.open("rb") as opened:
            data = opened.read(_FILE_LIMIT + 1)
    except OSError as failed:
        raise SecretError(f"the secret file {path} cannot be read: {failed.strerror}", hint=hint) from None
    except ValueError:
        raise SecretError("the path of the secret file holds a NUL byte", hint="file:/path/to/file") from None
    if len(data) > _FILE_LIMIT:
        raise SecretError(f"the secret file {path} is larger than {_FILE_LIMIT} bytes", hint=hint)
    try:
        value = data.decode()
    except UnicodeDecodeError:
        raise SecretError(f"the secret file {path} is not UTF-8 text", hint=hint) from None
    value = value.removesuffix("\n").removesuffix("\r")
    if not value:
        raise SecretError(f"the secret file {path} is empty", hint=hint)
    return Secret(value)
