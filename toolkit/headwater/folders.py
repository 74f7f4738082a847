"""Folder names for any text: safe in paths, injective, readable again. No I/O; the rules: docs/partitions.md.

Escapes are `%XX` over UTF-8, because that is what readers of Hive folders decode. Letters and digits of every
script stay as they are where they are in normal form C: Spark decodes byte by byte and would garble them, and
a file system that normalises names would merge two spellings of a letter.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from headwater.errors import StorageError

#: Folder text of NULL, as Hive and every reader of its folders spell it.
NULL = "__HIVE_DEFAULT_PARTITION__"
#: Folder text of the empty string: a folder cannot be called nothing, and Spark refuses `name=`.
EMPTY = "__EMPTY__"

#: A value of more bytes than this, once escaped, is cut and gets a hash: names of files end at 255 bytes.
LONGEST = 150
_KEPT = 24  # characters at the start of a cut value that stay readable

_SAFE = r"A-Za-z0-9._\-\p{L}\p{N}"
_MARK = "~"  # always escaped in a value, so it can only stand before a hash
_CUT = re.compile(rf"(?P<start>.*){_MARK}[0-9a-f]{{32}}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Folder:
    """What a folder's name says. name: "" without one. value: None for NULL. cut: only the safe characters
    that the true value begins with.
    """

    name: str
    value: str | None
    cut: bool = False


def folded(text: str) -> str:
    """DuckDB SQL of the folder text of `text`, an expression of type VARCHAR; never NULL."""
    # Most values need no change, and DuckDB computes a branch only for the rows that reach it.
    measured = f"lambda e: CASE WHEN strlen(e) <= {LONGEST} THEN e ELSE {_cut(text)} END"
    return (
        f"CASE WHEN {text} IS NULL THEN '{NULL}' WHEN {text} = '' THEN '{EMPTY}'"
        f" WHEN regexp_full_match({text}, '[A-Za-z0-9-][A-Za-z0-9._-]{{0,{LONGEST - 1}}}') THEN {text}"
        f" ELSE list_transform([{_escaped(text)}], {measured})[1] END"
    )


def _escaped(text: str) -> str:
    runs = f"regexp_extract_all({text}, '[{_SAFE}]+|[^{_SAFE}]+')"
    run = rf"CASE WHEN regexp_full_match(p, '[{_SAFE}]+') THEN p ELSE replace(url_encode(p), '~', '%7E') END"
    joined = f"array_to_string(list_transform({runs}, lambda p: {run}), '')"
    whole = f"replace(url_encode({text}), '~', '%7E')"
    return _not_hidden(
        f"CASE WHEN strlen({text}) = length({text}) OR nfc_normalize({text}) <> {text} THEN {whole}"
        f" WHEN regexp_full_match({text}, '[{_SAFE}]+') THEN {text} ELSE {joined} END"
    )


def _cut(text: str) -> str:
    start = f"regexp_replace(left({text}, {_KEPT}), '[^{_SAFE}]', '', 'g')"
    return _not_hidden(f"{start} || '{_MARK}' || left(sha256({text}), 32)")


def _not_hidden(text: str) -> str:
    """Engines skip folders that begin with a dot or underscore; it also keeps NULL, EMPTY, `..` free."""
    return rf"regexp_replace(regexp_replace({text}, '^\.', '%2E'), '^_', '%5F')"


def escape(text: str) -> str:
    """The same escapes for text that is known beforehand: the fixed text of a layout; uncut, not empty."""
    normal = unicodedata.normalize("NFC", text) == text
    whole = "".join(c if _is_safe(c, normal) else _percent(c) for c in text)
    return _percent(whole[0]) + whole[1:] if whole[:1] in (".", "_") else whole


def _is_safe(character: str, normal: bool) -> bool:
    if character.isascii():
        return character.isalnum() or character in "._-"
    return normal and unicodedata.category(character)[0] in "LN"


def _percent(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode())


def unfold(folder: str) -> Folder:
    """Read one folder's name, without slashes; raises StorageError for a name that no layout writes."""
    name, equals, text = folder.rpartition("=")
    name = _unescaped(name) if equals else ""
    if text in (NULL, EMPTY):
        return Folder(name, None if text == NULL else "")
    cut = _CUT.fullmatch(text)
    start = cut["start"] if cut else text
    return Folder(name, _unescaped(start) if start or not cut else "", cut is not None)


def shown(folder: str) -> tuple[str, str | None]:
    """The column and the value that readers of Hive folders see of one folder; None where they see NULL.

    The empty string stays the word for it, and a cut value stays cut.
    """
    name, _, text = folder.rpartition("=")
    return _unescaped(name) if name else "", None if text == NULL else _unescaped(text)


def _unescaped(text: str) -> str:
    try:
        if not text or re.search("%(?![0-9A-F]{2})", text):
            raise UnicodeError
        data = re.sub(rb"%([0-9A-F]{2})", lambda found: bytes.fromhex(found[1].decode()), text.encode())
        return data.decode()
    except UnicodeError:
        raise StorageError(
            f"no layout writes the folder name {text!r}", hint="headwater plan   (shows example folders)"
        ) from None
