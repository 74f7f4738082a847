"""YAML text to checked plain values: every refusal names file:line, what was expected and an example."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

import yaml

from headwater.config.fields import Field
from headwater.errors import ConfigError
from headwater.secrets import is_reference

Plain = str | int | float | bool | datetime | None | Sequence["Plain"] | Mapping[str, "Plain"]

_LOADER: type[yaml.SafeLoader] | type[yaml.CSafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SIZE_LIMIT = 4 * 1024 * 1024
_DEPTH_LIMIT = 20
_QUOTING = 'put values that hold : or # or begin with * & ! % @ into "quotes", and indent with spaces'
_TAG = "tag:yaml.org,2002:"
_KINDS = {
    "text": "text", "path": "a path", "number": "a whole number", "flag": "true or false",
    "secret": "a reference to a secret", "moment": "a date, a time or null", "mapping": "a mapping",
    "list": "a list", "plain": "a mapping",
}  # fmt: skip
_FOUND = {
    "str": "text", "int": "a number", "float": "a number", "bool": "true or false", "null": "nothing",
    "timestamp": "a date", "seq": "a list", "map": "a mapping",
}  # fmt: skip
# A password in a URL, wherever it stands; loose on purpose, since a literal one must never pass.
_HOLDS_PASSWORD = re.compile(r"://[^?]*:[^?]*@|[?&](password|sslpassword)=", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class File:
    """Where the text came from ("": no file), and the line of every value (`tables[0].name`)."""

    name: str
    lines: dict[str, int] = field(default_factory=dict)

    def refuse_at(self, place: str, message: str, hint: str = "") -> ConfigError:
        """The error for one value."""
        return self.refuse(self.lines.get(place, 1), message, hint)

    def place_of(self, place: str) -> str:
        """`file:line` of one value, for an error that is found later; the value's name without a file."""
        return f"{self.name}:{self.lines[place]}" if self.name and place in self.lines else place

    def refuse(self, line: int, message: str, hint: str = "") -> ConfigError:
        """The error for one line."""
        return ConfigError(f"{self.name}:{line}: {message}" if self.name else message, hint=hint)


def holds_password(text: str) -> bool:
    """Whether a URL has a password written into it."""
    return _HOLDS_PASSWORD.search(text) is not None


def read(text: str, whole: Field, file: File) -> Mapping[str, Plain]:
    """The checked values of a whole file; keys in the file's order."""
    node = _compose(text, file)
    if node is None:
        raise file.refuse(1, "the file is empty", hint="headwater init   (writes one to start from)")
    if not isinstance(node, yaml.MappingNode):
        raise file.refuse(_line(node), "expected `name: value` lines", hint="for example: pipeline: shop")
    return _mapping(node, whole, file, "")


def _compose(text: str, file: File) -> yaml.Node | None:
    if len(text) > _SIZE_LIMIT:
        raise file.refuse(1, f"the file is larger than {_SIZE_LIMIT >> 20} MiB")
    try:
        depth = 0
        # The C parser composes by recursion without a limit; its events are flat, so depth is judged first.
        for event in yaml.parse(text, Loader=_LOADER):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEPTH_LIMIT:
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise file.refuse(line, f"nested deeper than {_DEPTH_LIMIT} levels")
        return yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as failed:
        line = next((m.line + 1 for m in (failed.problem_mark, failed.context_mark) if m), 1)
        # `problem` alone: the snippet PyYAML would print may hold a password.
        raise file.refuse(line, f"not YAML: {failed.problem or failed.context}", _QUOTING) from None
    except (yaml.YAMLError, ValueError):
        raise file.refuse(1, "not YAML: it holds characters that text files do not hold") from None


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _tag(node: yaml.Node) -> str:
    return str(node.tag).removeprefix(_TAG)


def _mapping(node: yaml.MappingNode, wanted: Field, file: File, place: str) -> dict[str, Plain]:
    known = {f.name: f for f in wanted.fields}
    values: dict[str, Plain] = {}
    if wanted.each is not None and not node.value:
        raise file.refuse(_line(node), f"`{place}` is empty", hint=_example(wanted))
    for key_node, value_node in node.value:
        key = _key(key_node, file)
        if key in values:
            raise file.refuse(
                _line(key_node), f"`{_join(place, key)}` stands here a second time", hint="keep one"
            )
        if wanted.each is not None:
            known[key] = wanted.each
        if key not in known:
            raise file.refuse(
                _line(key_node), f"unknown key `{_join(place, key)}`", hint=_nearest(key, known)
            )
        values[key] = _value(value_node, known[key], file, _join(place, key))
    for needed in wanted.fields:
        if needed.required and needed.name not in values:
            missing = f"`{_join(place, needed.name)}` is missing"
            raise file.refuse(_line(node), missing, hint=f"add: {needed.name}: {needed.example}")
    return values


def _key(node: yaml.Node, file: File) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise file.refuse(_line(node), "a key must be a word")
    return str(node.value)


def _join(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


def _nearest(key: str, known: Mapping[str, Field]) -> str:
    near = difflib.get_close_matches(key.lower(), known, n=1, cutoff=0.6)
    return f"did you mean `{near[0]}`?" if near else f"one of: {', '.join(known)}"


def _value(node: yaml.Node, wanted: Field, file: File, place: str) -> Plain:
    file.lines[place] = _line(node)
    if wanted.kind == "mapping" and isinstance(node, yaml.MappingNode):
        return _mapping(node, wanted, file, place)
    if wanted.kind == "plain" and isinstance(node, yaml.MappingNode):
        return _plain(node, file, place)
    if wanted.short is not None and (_tag(node) == "str" or _bare_word(node, wanted.short)):
        value = _bare_word(node, wanted.short) or _value(node, wanted.short, file, place)
        return [value] if wanted.kind == "list" else {wanted.short.name: value}
    if wanted.kind == "list" and isinstance(node, yaml.SequenceNode) and wanted.item is not None:
        if not node.value:
            raise file.refuse(
                _line(node), f"`{place}` is empty", hint=f"for example: {wanted.name}: {wanted.example}"
            )
        return [_value(n, wanted.item, file, f"{place}[{i}]") for i, n in enumerate(node.value)]
    if isinstance(node, yaml.ScalarNode) and wanted.kind not in ("mapping", "list"):
        return _scalar(node, wanted, file, place)
    raise _wrong_kind(node, wanted, file, place)


def _bare_word(node: yaml.Node, wanted: Field) -> str:
    """The choice that a bare null or off means, which YAML reads as nothing and as false; "" for others."""
    bare = _tag(node) in ("null", "bool") and node.value in ("null", "off")
    return str(node.value) if bare and node.value in wanted.choices else ""


def _plain(node: yaml.Node, file: File, place: str) -> Plain:
    """What JSON can hold, as it stands; a date or time is its text, and so is `on`, `no` and the like."""
    file.lines[place] = _line(node)
    if isinstance(node, yaml.MappingNode):
        pairs = [(_key(key, file), value) for key, value in node.value]
        return {key: _plain(value, file, f"{place}.{key}") for key, value in pairs}
    if isinstance(node, yaml.SequenceNode):
        return [_plain(value, file, f"{place}[{n}]") for n, value in enumerate(node.value)]
    try:
        value = yaml.SafeLoader("").construct_object(node)
    except (yaml.YAMLError, ValueError, OverflowError):
        raise file.refuse(_line(node), f"`{place}`: not a value", hint='put it in "quotes"') from None
    if isinstance(value, date) or (isinstance(value, bool) and node.value.lower() not in ("true", "false")):
        return str(node.value)
    if not isinstance(value, str | int | float | bool | None) or (
        isinstance(value, float) and not math.isfinite(value)
    ):
        raise file.refuse(_line(node), f"`{place}`: expected text, a number or true or false", "take it out")
    return value


def _example(wanted: Field) -> str:
    return f"for example: {wanted.name}: {wanted.example}"


def _scalar(node: yaml.ScalarNode, wanted: Field, file: File, place: str) -> Plain:
    tag, text = _tag(node), str(node.value)
    if wanted.kind == "secret":
        return _secret(node, wanted, file, place)
    if wanted.kind == "number" and tag == "int":
        return _number(node, wanted, file, place)
    if wanted.kind == "flag" and tag == "bool":
        return text.lower() in ("true", "yes", "on")
    if wanted.kind == "moment" and tag in ("timestamp", "null"):
        return _moment(node, file, place)
    if word := _bare_word(node, wanted):
        return word
    if wanted.kind in ("text", "path") and tag == "str":
        return _text(node, wanted, file, place)
    raise _wrong_kind(node, wanted, file, place)


def _text(node: yaml.ScalarNode, wanted: Field, file: File, place: str) -> str:
    text = str(node.value)
    if holds_password(text):
        source = place.startswith("source")
        hint = (
            "password: env:HEADWATER_SOURCE_PASSWORD"
            if source
            else "secret_access_key: env:AWS_SECRET_ACCESS_KEY"
        )
        hint = f"take it out of the URL and add: {hint}"
        raise file.refuse(_line(node), f"`{place}` has a password written into it", hint=hint)
    if not (text.strip() or wanted.blank) or "\x00" in text:
        raise file.refuse(
            _line(node), f"`{place}` is empty", hint=f"for example: {wanted.name}: {wanted.example}"
        )
    if wanted.choices and text not in wanted.choices:
        near = difflib.get_close_matches(text.lower(), wanted.choices, n=1)
        known = ", ".join([*wanted.choices, *([wanted.wants] if wanted.wants else [])])
        hint = f"did you mean {near[0]}?" if near else f"one of: {known}"
        raise file.refuse(_line(node), f"`{place}` cannot be {text!r}", hint=hint)
    if wanted.pattern and not re.fullmatch(wanted.pattern, text):
        hint = f"for example: {wanted.name}: {wanted.example}"
        raise file.refuse(_line(node), f"`{place}`: expected {wanted.wants}", hint=hint)
    return text


def _secret(node: yaml.ScalarNode, wanted: Field, file: File, place: str) -> str:
    if _tag(node) == "str" and is_reference(str(node.value)):
        return str(node.value)
    variable = wanted.example.removeprefix("env:")
    hint = f"{wanted.name}: {wanted.example}   and then: export {variable}=...   (or file:/path/to/file)"
    raise file.refuse(_line(node), f"`{place}` must say where the secret is, not what it is", hint=hint)


def _number(node: yaml.ScalarNode, wanted: Field, file: File, place: str) -> int:
    try:
        number = int(str(node.value), 10)
    except ValueError:  # YAML 1.1 knows 0x10, 0b1, 1_000 and 1:30 as numbers too
        raise _wrong_kind(node, wanted, file, place) from None
    if not 1 <= number <= wanted.highest:
        hint = f"for example: {wanted.name}: {wanted.example}"
        raise file.refuse(_line(node), f"`{place}`: expected a number from 1 to {wanted.highest}", hint=hint)
    return number


def _moment(node: yaml.ScalarNode, file: File, place: str) -> datetime | None:
    if _tag(node) == "null":
        return None
    try:
        made: date = yaml.SafeLoader("").construct_object(node)
    except (ValueError, OverflowError):
        hint = "for example: open_end: 9999-12-31"
        raise file.refuse(_line(node), f"`{place}` is not a date of the calendar", hint=hint) from None
    if not isinstance(made, datetime):
        return datetime(made.year, made.month, made.day, tzinfo=UTC)
    return made.astimezone(UTC) if made.tzinfo else made.replace(tzinfo=UTC)


def _wrong_kind(node: yaml.Node, wanted: Field, file: File, place: str) -> ConfigError:
    found = _FOUND.get(_tag(node), "something else")
    kind = _KINDS[wanted.kind] + (" or text" if wanted.kind == "mapping" and wanted.short else "")
    quoted = wanted.kind in ("text", "path") and isinstance(node, yaml.ScalarNode) and _tag(node) != "null"
    advice = "put it in quotes, " if quoted else ""
    shown = wanted.name + ": " + (f'"{wanted.example}"' if quoted else wanted.example)
    return file.refuse(
        _line(node), f"`{place}`: expected {kind}, found {found}", hint=f"{advice}for example: {shown}"
    )
