"""The partition language: `/@4(yr=%y)/@4(mth=%M)`, a folder a segment. No I/O; its page: docs/partitions.md.

    layout   = segment+
    segment  = "/@" column "(" [name "="] (text | code)+ ")"
    column   = index from 1 | plain name | '"' any name, each quote doubled '"'
    code     = a row of CODES; "%%" and "%)" stand for the characters themselves

`parse` reads a layout and `str` prints it back; `bind` holds it against a table; `folder_sql` gives the
folder of each row as DuckDB SQL; folders.py has the escapes, and `unfold` for the way back.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from dataclasses import dataclass, field

import pyarrow as pa

from headwater.canonical import canonical_text, duckdb_type, literal, quote
from headwater.folders import LONGEST, NULL, escape, folded
from headwater.model import Column, TableSchema
from headwater.pointing import point

_TEXT_LONGEST = 100  # bytes of a folder's fixed text: with the longest value it stays below 255

TIMESTAMP, INTEGER, VARCHAR = "TIMESTAMP", "INTEGER", "VARCHAR"


@dataclass(frozen=True, slots=True)
class Code:
    """One code: what it takes, what it means, an example, and its DuckDB SQL.

    {x}       the value: a TIMESTAMP or DATE; a whole number; text
    {n}       the width; {tens}: 10 to the number of digits that become zero
    """

    spelling: str
    takes: str
    says: str
    value: str
    gives: str
    sql: str


_MOMENT = "2018-03-05 07:08:09"

CODES: dict[str, Code] = {
    code.spelling: code
    for code in (
        Code("%y", TIMESTAMP, "year, four digits", _MOMENT, "2018", "strftime({x}, '%Y')"),
        Code("%M", TIMESTAMP, "month, two digits", _MOMENT, "03", "strftime({x}, '%m')"),
        Code("%d", TIMESTAMP, "day of the month, two digits", _MOMENT, "05", "strftime({x}, '%d')"),
        Code("%H", TIMESTAMP, "hour 00 to 23, two digits", _MOMENT, "07", "strftime({x}, '%H')"),
        Code("%q", TIMESTAMP, "first month of the quarter", _MOMENT, "01",
             "format('{{:02d}}', quarter({x}) * 3 - 2)"),
        Code("%Q", TIMESTAMP, "last month of the quarter", _MOMENT, "03",
             "format('{{:02d}}', quarter({x}) * 3)"),
        Code("%r", TIMESTAMP, "first month of the half-year", _MOMENT, "01",
             "CASE WHEN month({x}) <= 6 THEN '01' WHEN month({x}) > 6 THEN '07' END"),
        Code("%R", TIMESTAMP, "last month of the half-year", _MOMENT, "06",
             "CASE WHEN month({x}) <= 6 THEN '06' WHEN month({x}) > 6 THEN '12' END"),
        Code("%i", INTEGER, "the number", "12345", "12345", "CAST({x} AS VARCHAR)"),
        Code("%<n>i", INTEGER, "the number, with zeros before it to n characters", "12345 as %8i", "00012345",
             "format('{{:0{n}d}}', {x})"),
        Code("%<m>.<n>i", INTEGER, "the last n digits made zero, zeros before it to m characters",
             "12345 as %8.2i", "00012300", "format('{{:0{n}d}}', {x} // {tens} * {tens})"),
        Code("%.<n>i", INTEGER, "the last n digits made zero", "12345 as %.2i", "12300",
             "CAST({x} // {tens} * {tens} AS VARCHAR)"),
        Code("%s", VARCHAR, "the text", "ABCD", "ABCD", "{x}"),
        Code("%<n>s", VARCHAR, "the first n characters of the text", "ABCD as %2s", "AB", "left({x}, {n})"),
    )
}  # fmt: skip

_LETTERS = frozenset(code.spelling[-1] for code in CODES.values())
_MOST = {"i": 39, "s": 1000}  # 39: a sign and the 38 digits of the widest number


@dataclass(frozen=True, slots=True)
class Use:
    """A code where a layout uses it, with its numbers; `at` is its place in the text."""

    letter: str
    width: int | None = None
    zeros: int | None = None
    at: int = field(default=0, compare=False)

    def __str__(self) -> str:
        zeros = "" if self.zeros is None else f".{self.zeros}"
        return f"%{'' if self.width is None else self.width}{zeros}{self.letter}"

    @property
    def code(self) -> Code:
        """Its row in CODES."""
        return CODES[_spelling(self.letter, self.width is not None, self.zeros is not None)]


@dataclass(frozen=True, slots=True)
class Segment:
    """One folder: the column (index from 1, or name), the name before `=` or "", fixed texts and codes."""

    column: int | str
    name: str
    parts: tuple[str | Use, ...]
    at: int = field(default=0, compare=False)

    def __str__(self) -> str:
        column = _print_column(self.column)
        name = _print_literal(self.name) + "=" if self.name else ""
        shown = "".join(str(p) if isinstance(p, Use) else _print_literal(p) for p in self.parts)
        return f"/@{column}({name}{shown})"

    @property
    def uses(self) -> tuple[Use, ...]:
        """Its codes."""
        return tuple(p for p in self.parts if isinstance(p, Use))


@dataclass(frozen=True, slots=True)
class Layout:
    """The folders of a table, outermost first; `text` is what the user wrote."""

    segments: tuple[Segment, ...]
    text: str = field(default="", compare=False)

    def __str__(self) -> str:
        return "".join(map(str, self.segments))


@dataclass(frozen=True, slots=True)
class Bound:
    """A layout held against a table: the column of each segment, and advice in lines (not errors)."""

    columns: tuple[Column, ...]
    lints: tuple[str, ...]


def parse(text: str) -> Layout:
    """Read a layout; raises ConfigError that points at the character. `parse(str(x)) == x`."""
    if not text:
        raise point(text, 0, "the partition folder is empty", "write for example /@2(first=%1s)")
    segments: list[Segment] = []
    at = 0
    while at < len(text):
        segment, at = _read_segment(text, at)
        name = segment.name.casefold()
        if name and name in (s.name.casefold() for s in segments):
            raise point(
                text,
                segment.at,
                f"the folder name `{segment.name}` stands twice",
                "give each a name of its own",
            )
        segments.append(segment)
    return Layout(tuple(segments), text)


_COLUMN = re.compile(r'(?P<index>[0-9]+)|"(?P<quoted>(?:[^"]|"")+)"|(?P<plain>[^\W\d]\w*)')
_PLAIN = re.compile(r"[^\W\d]\w*")
_CODE = re.compile(r"%(?P<width>[0-9]+)?(?:\.(?P<zeros>[0-9]*))?(?P<letter>.)?", re.DOTALL)
_ESCAPED = re.compile(r"%([%)])")


def _read_segment(text: str, start: int) -> tuple[Segment, int]:
    if not text.startswith("/@", start):
        at = start + text.startswith("/", start)
        raise point(text, at, "a segment begins with `/@` and a column", "write for example /@2(first=%1s)")
    column, at = _read_column(text, start + 2)
    if not text.startswith("(", at):
        hint = 'write for example /@2(first=%1s); a name with odd characters stands in quotes: @"a b"'
        raise point(text, at, "`(` is missing after the column", hint)
    name, parts, end = _read_format(text, at + 1)
    segment = Segment(column, name, parts, start + 1)
    _check_format(text, at + 1, end, segment)
    return segment, end + 1


def _read_column(text: str, at: int) -> tuple[int | str, int]:
    found = _COLUMN.match(text, at)
    if found is None:
        hint = 'write its number, counted from 1, or its name: @7, @orderdate, @"order date"'
        what = "the quoted name does not end" if text.startswith('"', at) else "a column is missing"
        raise point(text, at, what, hint)
    if found["index"] is None:
        quoted = found["quoted"]
        return (found["plain"] if quoted is None else quoted.replace('""', '"')), found.end()
    index = _whole(found["index"])
    if index == 0:
        raise point(text, at, "columns are counted from 1", "the first column is @1")
    return index, found.end()


def _read_format(text: str, start: int) -> tuple[str, tuple[str | Use, ...], int]:
    """The folder's name, its parts, and where its `)` stands."""
    parts: list[str | Use] = []
    name, said, at, named = "", "", start, False
    while at < len(text) and text[at] != ")":
        escaped = _ESCAPED.match(text, at)
        if escaped:
            said, at = said + escaped[1], at + 2
        elif text[at] == "%":
            use, end = _read_code(text, at)
            parts += [said, use] if said else [use]
            said, at = "", end
        elif text[at] == "=":
            if named or parts or not said:
                raise _stray_equals(text, at, named or bool(parts))
            name, named, said, at = said, True, "", at + 1
        else:
            said, at = said + _literal_character(text, at), at + 1
    if at == len(text):
        raise point(
            text, at, "`)` is missing", "each segment ends with `)`; write %) for the character itself"
        )
    return name, (*parts, said) if said else tuple(parts), at


def _stray_equals(text: str, at: int, second: bool) -> Exception:
    if second:
        return point(text, at, "`=` stands once, between the folder's name and the codes", "leave it out")
    return point(text, at, "the folder's name before `=` is missing", "write for example year=%y")


def _literal_character(text: str, at: int) -> str:
    character = text[at]
    if character == "/":
        raise point(text, at, "a folder's text has no `/`", "end the segment with `)` and begin another: /@")
    if unicodedata.category(character) in ("Cc", "Cs"):
        raise point(text, at, "a control character in a folder's text", "leave it out")
    return character


def _read_code(text: str, at: int) -> tuple[Use, int]:
    found = _CODE.match(text, at)
    assert found is not None  # it begins with %
    letter, width, zeros = found["letter"], found["width"], found["zeros"]
    if letter is None or letter == ")":
        raise point(text, at, "the code's letter is missing", f"{_all_codes()}; write %% for the character %")
    if letter not in _LETTERS:
        raise point(text, found.end() - 1, f"unknown code `%{letter}`", _near_code(letter))
    if _spelling(letter, width is not None, zeros is not None) not in CODES:
        forms = ", ".join(spelling for spelling in CODES if spelling[-1] == letter)
        raise point(text, at + 1, f"`%{letter}` does not take these numbers", f"write {forms}")
    numbers = [_read_number(text, found, group, letter) for group in ("width", "zeros")]
    return Use(letter, numbers[0], numbers[1], at), found.end()


def _read_number(text: str, found: re.Match[str], group: str, letter: str) -> int | None:
    digits = found[group]
    if digits is None:
        return None
    most = _MOST[letter] if group == "width" else 38
    number = _whole(digits)
    if not 1 <= number <= most:
        raise point(
            text, found.start(group), f"a number from 1 to {most} belongs here", "write for example %8.2i"
        )
    return number


def _whole(digits: str) -> int:
    """The number; of a senseless one only so much that it is refused."""
    return int(digits.lstrip("0")[:9] or "0")


def _spelling(letter: str, width: bool, zeros: bool) -> str:
    numbers = ("<m>" if zeros else "<n>") if width else ""
    return f"%{numbers}{'.<n>' if zeros else ''}{letter}"


def _near_code(letter: str) -> str:
    other = letter.swapcase()
    if other in _LETTERS:
        near = next(code for code in CODES.values() if code.spelling[-1] == other)
        return f"did you mean `%{other}` ({near.says})?"
    return f"{_all_codes()}; write %% for the character %"


def _all_codes() -> str:
    return "codes: " + " ".join(CODES)


def _check_format(text: str, start: int, end: int, segment: Segment) -> None:
    if not segment.uses:
        hint = f"{_all_codes()}"
        raise point(text, end, "no code: every row would land in one folder", hint)
    said = "".join(p for p in segment.parts if isinstance(p, str))
    if len((escape(segment.name) + escape(said)).encode()) > _TEXT_LONGEST:
        raise point(text, start, f"the folder's own text is longer than {_TEXT_LONGEST} bytes", "shorten it")


def _print_column(column: int | str) -> str:
    if isinstance(column, int):
        return str(column)
    return column if _PLAIN.fullmatch(column) else quote(column)


def _print_literal(text: str) -> str:
    return text.replace("%", "%%").replace(")", "%)")


_IN_INT64 = (pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32())
_UNLIKE_ITSELF = (pa.types.is_date, pa.types.is_timestamp, pa.types.is_time, pa.types.is_floating)


def bind(layout: Layout, schema: TableSchema) -> Bound:
    """Hold a layout against a table; raises ConfigError at the character that is wrong."""
    columns = tuple(_find(layout, segment, schema) for segment in layout.segments)
    for segment, column in zip(layout.segments, columns, strict=True):
        for use in segment.uses:
            if not _fits(use.code.takes, column.type):
                raise _unfit(layout, use, column)
    lints = [*_lint_length(layout)]
    for segment, column in zip(layout.segments, columns, strict=True):
        lints += _lint(segment, column, schema)
    return Bound(columns, tuple(lints))


def _find(layout: Layout, segment: Segment, schema: TableSchema) -> Column:
    wanted, text = segment.column, layout.text or str(layout)
    if isinstance(wanted, int):
        if wanted > len(schema.columns):
            raise point(text, segment.at, f"{schema.table} has no column {wanted}", _all_columns(schema))
        return schema.columns[wanted - 1]
    # People write the source's name; ours differs from it only where it had to be made safe.
    for names in ({c.source_name: c for c in schema.columns}, {c.name: c for c in schema.columns}):
        if wanted in names:
            return names[wanted]
    spelt = {c.source_name.casefold(): c.source_name for c in schema.columns}
    near = difflib.get_close_matches(wanted.casefold(), spelt, n=1, cutoff=0.6)
    hint = f"did you mean @{_print_column(spelt[near[0]])}?" if near else _all_columns(schema)
    raise point(text, segment.at, f"{schema.table} has no column `{wanted}`", hint)


def _all_columns(schema: TableSchema) -> str:
    shown = [f"@{n} {c.source_name}" for n, c in enumerate(schema.columns, 1)]
    more = f" ... @{len(shown)}" if len(shown) > 12 else ""
    return "its columns: " + ", ".join(shown[:12]) + more


def _fits(takes: str, arrow: pa.DataType) -> bool:
    if takes == TIMESTAMP:
        return bool(pa.types.is_timestamp(arrow) or pa.types.is_date(arrow))
    whole_decimal = pa.types.is_decimal(arrow) and arrow.scale == 0
    return takes == VARCHAR or arrow in (*_IN_INT64, pa.uint64()) or whole_decimal


def _unfit(layout: Layout, use: Use, column: Column) -> Exception:
    wants = "a date or a timestamp" if use.code.takes == TIMESTAMP else "a whole number"
    fitting = " ".join(s for s, code in CODES.items() if _fits(code.takes, column.type))
    return point(
        layout.text or str(layout),
        use.at,
        f"`{use}` takes {wants}; the column `{column.source_name}` is {column.type}",
        f"codes for this column: {fitting}; or change its type first",
    )


def _lint_length(layout: Layout) -> list[str]:
    unbound = sum(any(u.letter == "s" and u.width is None for u in s.uses) for s in layout.segments)
    return ["long values may exceed the 1,024 bytes of an S3 key: give %s a width"] if unbound > 3 else []


def _lint(segment: Segment, column: Column, schema: TableSchema) -> list[str]:
    lints = []
    if not segment.name:
        lints.append(f"{segment}: without `name=` no engine sees the folder as a column")
    elif not re.fullmatch("[a-z][a-z0-9_]*", segment.name):
        lints.append(f"{segment}: for Athena write the name in a-z, 0-9 and _: `{_lower(segment.name)}`")
    if segment.name.casefold() in {c.name.casefold() for c in schema.columns}:
        lints.append(
            f"{segment}: the table has a column `{segment.name}` too, and readers take one for the other"
        )
    if pa.types.is_date(column.type) and any(use.letter == "H" for use in segment.uses):
        lints.append(f"{segment}: the hour of a date is always 00")
    if any(use.letter == "s" for use in segment.uses) and any(test(column.type) for test in _UNLIKE_ITSELF):
        lints.append(f"{segment}: %s writes {column.type} as a plain number (docs/verify.md)")
    return lints


def _lower(name: str) -> str:
    return re.sub("[^a-z0-9_]+", "_", name.lower()).strip("_") or "part"


def folder_sql(layout: Layout, schema: TableSchema) -> list[str]:
    """For each segment DuckDB SQL (VARCHAR, never NULL) of a row's folder, over the table's columns.

    Raises ConfigError as `bind` does. A cell that only `_hw_text` can hold (docs/types.md) is NULL here.
    """
    columns = bind(layout, schema).columns
    return [_folder(segment, column) for segment, column in zip(layout.segments, columns, strict=True)]


def _folder(segment: Segment, column: Column) -> str:
    parts = [literal(p) if isinstance(p, str) else _use_sql(p, column) for p in segment.parts]
    text = parts[0] if len(parts) == 1 else f"({' || '.join(parts)})"
    text = f"coalesce({text}, '{NULL}')" if _is_plain(segment) else folded(text)
    return f"{literal(escape(segment.name) + '=')} || {text}" if segment.name else text


def _is_plain(segment: Segment) -> bool:
    """Whether every value is short and free of characters to escape: digits and plain fixed text."""
    codes = sum(use.width or (39 if use.letter == "i" else 7) for use in segment.uses)
    fixed = (p for p in segment.parts if isinstance(p, str))
    numbers = all(use.letter != "s" for use in segment.uses)
    return numbers and codes <= LONGEST and all(escape(p) == p for p in fixed)


def _use_sql(use: Use, column: Column) -> str:
    value = quote(column.name)
    if use.code.takes == TIMESTAMP and pa.types.is_timestamp(column.type) and column.type.tz:
        value = f"timezone('UTC', {value})"
    elif use.code.takes == INTEGER:
        value = f"CAST({value} AS {'BIGINT' if column.type in _IN_INT64 else 'HUGEINT'})"
    elif use.code.takes == VARCHAR:
        value = canonical_text(value, duckdb_type(column.type))
    return use.code.sql.format(x=value, n=use.width, tens=10 ** (use.zeros or 0))
