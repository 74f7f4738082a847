"""The type change language: `@D(yyyyMMdd)`, or `{to: date, format: yyyyMMdd}`. No I/O; docs/type-changes.md.

`read_cast` reads both spellings into one `Cast`; `Cast.letters()` and `Cast.words()` print it back;
`cast_sql` gives DuckDB SQL of the value and of whether a value does not fit. What becomes of one that does
not fit is decided elsewhere: here it is never rounded, wrapped or guessed.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from headwater.canonical import canonical_text, duckdb_type, literal
from headwater.datepattern import Pattern, read_pattern
from headwater.errors import ConfigError
from headwater.pointing import point


@dataclass(frozen=True, slots=True)
class Target:
    """What a column can become: word, letter ("" without one), whether it takes a format, meaning."""

    word: str
    letter: str
    takes_format: bool
    says: str
    type: pa.DataType


TARGETS: dict[str, Target] = {
    target.word: target
    for target in (
        Target("integer", "I", False, "whole number of 32 bits", pa.int32()),
        Target("bigint", "L", False, "whole number of 64 bits", pa.int64()),
        Target("double", "F", False, "floating point number of 64 bits", pa.float64()),
        Target(
            "decimal", "", False, "decimal(p,s): p digits, s of them after the point", pa.decimal128(38, 0)
        ),
        Target("date", "D", True, "day", pa.date32()),
        Target("timestamp", "T", True, "moment; in UTC when the format has an offset", pa.timestamp("us")),
        Target("time", "", True, "time of the day", pa.time64("us")),
        Target("hex", "", False, "bytes as hexadecimal text in capitals", pa.string()),
    )
}

_ALIASES = {
    "int": "integer", "long": "bigint", "float": "double", "numeric": "decimal(18,2)",
    "decimal": "decimal(18,2)", "number": "decimal(18,2)",
    "datetime": "timestamp", "real": "double", "hexadecimal": "hex",
}  # fmt: skip
_DECIMAL = re.compile(r"decimal\(([0-9]{1,2}),([0-9]{1,2})\)")
_LETTERS = re.compile(r"@(?P<letter>.)(?P<rest>.*)", re.DOTALL)
_EXAMPLE = "write for example @I, @D(yyyyMMdd) or {to: date, format: yyyyMMdd}"


@dataclass(frozen=True, slots=True)
class Cast:
    """A change of type.

    to        a word of TARGETS, or decimal(p,s)
    format    of dates and times
    empty     texts that mean NULL, such as `00000000`; trailing blanks do not count
    """

    to: str
    format: str = ""
    empty: tuple[str, ...] = ()

    def letters(self) -> str | None:
        """The spelling in letters; None for what only words can say."""
        target = TARGETS[self.to.partition("(")[0]]
        if not target.letter or self.empty:
            return None
        return f"@{target.letter}({self.format})" if target.takes_format else f"@{target.letter}"

    def words(self) -> dict[str, str | list[str]]:
        """The spelling in words, as the pipeline file holds it."""
        words: dict[str, str | list[str]] = {"to": self.to}
        if self.format:
            words["format"] = self.format
        if self.empty:
            words["empty"] = list(self.empty)
        return words


def read_cast(given: str | Mapping[str, object]) -> Cast:
    """Read either spelling; raises ConfigError. `read_cast(c.words()) == c`, and so for its letters."""
    if isinstance(given, str):
        return _read_letters(given)
    unknown = [key for key in given if key not in ("to", "format", "empty")]
    if unknown:
        raise ConfigError(f"unknown key `{unknown[0]}` in a type change", hint="keys: to, format, empty")
    to, form = given.get("to"), given.get("format", "")
    if not isinstance(to, str) or not isinstance(form, str):
        raise ConfigError(
            "a type change says `to` and, for dates and times, `format`, both texts", hint=_EXAMPLE
        )
    return _checked(Cast(_read_word(to), form, _read_empty(given.get("empty", ()))), form, 0)


def _read_letters(text: str) -> Cast:
    found = _LETTERS.fullmatch(text)
    if found is None:
        return _checked(Cast(_read_word(text)), text, 0)
    by_letter = {target.letter: target for target in TARGETS.values() if target.letter}
    target = by_letter.get(found["letter"])
    if target is None:
        known = ", ".join(f"@{each.letter} {each.word}" for each in by_letter.values())
        raise point(text, 1, f"unknown type letter `{found['letter']}`", known)
    rest = found["rest"]
    if not rest:
        return _checked(Cast(target.word), text, len(text))
    if not target.takes_format:
        raise point(text, 2, f"`@{target.letter}` takes no format", f"write @{target.letter}")
    if not (rest.startswith("(") and rest.endswith(")") and len(rest) > 1):
        at = 2 if rest[0] != "(" else len(text)
        raise point(
            text, at, "the format stands in parentheses", f"write for example @{target.letter}(yyyyMMdd)"
        )
    return _checked(Cast(target.word, rest[1:-1]), text, 3)


def _read_word(text: str) -> str:
    word = re.sub(r"\s", "", text.casefold())
    found = _DECIMAL.fullmatch(word)
    if found:
        precision, scale = int(found[1]), int(found[2])
        if not 1 <= precision <= 38 or scale > precision:
            hint = "write for example decimal(18,2)"
            raise ConfigError(
                f"{text} has more than 38 digits, or more after the point than in all", hint=hint
            )
        return f"decimal({precision},{scale})"
    if word in TARGETS and word != "decimal":
        return word
    if word in _ALIASES:
        raise ConfigError(f"no type is called `{text}`", hint=f"did you mean {_ALIASES[word]}?")
    near = difflib.get_close_matches(word, TARGETS, n=1)
    words = ", ".join(target.says.partition(":")[0] if w == "decimal" else w for w, target in TARGETS.items())
    hint = f"did you mean {near[0]}?" if near else f"types: {words}"
    raise ConfigError(f"no type is called `{text}`", hint=hint)


def _read_empty(given: object) -> tuple[str, ...]:
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, Sequence) or not all(isinstance(t, str) and "\0" not in t for t in texts):
        hint = "write for example empty: ['00000000', '']"
        raise ConfigError("`empty` is a list of texts that mean NULL", hint=hint)
    return tuple(dict.fromkeys(t.rstrip(" ") for t in texts))


def _checked(cast: Cast, shown: str, shift: int) -> Cast:
    """The cast, once its format is known to be one that its type can be read by."""
    target = TARGETS[cast.to.partition("(")[0]]
    if not target.takes_format:
        if cast.format:
            raise ConfigError(f"{cast.to} takes no format", hint=f"write {{to: {cast.to}}}")
        return cast
    if not cast.format:
        raise ConfigError(
            f"{cast.to} needs a format", hint="write for example yyyyMMdd or yyyy-MM-dd HH:mm:ss"
        )
    parts = read_pattern(cast.format, shown, shift).parts
    wrong = _unfit_parts(cast.to, parts)
    if wrong:
        raise point(shown, shift, *wrong)
    return cast


def _unfit_parts(to: str, parts: frozenset[str]) -> tuple[str, str] | None:
    if to == "time":
        if parts & {"year", "offset"}:
            return (
                "a time of the day has no date and no offset",
                "write {to: timestamp, ...}, or leave them out",
            )
        has_hour = parts & {"hour", "half_hour"}
        return None if has_hour else ("the format gives no hour", "write for example HHmmss")
    if "year" not in parts:
        return "the format gives no year", "write for example yyyyMMdd; for a time of the day {to: time, ...}"
    if to == "date" and "offset" in parts:
        return "a day has no offset from UTC", "write {to: timestamp, ...}, or leave the offset out"
    return None


def arrow_type(cast: Cast) -> pa.DataType:
    """The Arrow type of the changed column."""
    decimal = _DECIMAL.fullmatch(cast.to)
    if decimal:
        return pa.decimal128(int(decimal[1]), int(decimal[2]))
    if cast.to == "timestamp" and "offset" in read_pattern(cast.format).parts:
        return pa.timestamp("us", "UTC")
    return TARGETS[cast.to].type


def cast_sql(cast: Cast, column_type: pa.DataType, column_sql: str) -> tuple[str, str]:
    """DuckDB SQL over `column_sql`, an expression of Arrow type `column_type`: (value, bad).

    value     of `arrow_type(cast)`; NULL for NULL, for an `empty` text and for what does not fit
    bad       BOOLEAN, never NULL: the column is not NULL and its value does not fit
    Raises ConfigError for a column that is neither text nor a number, or a float that is to be exact; and for
    one that is to be hex and not bytes.
    """
    if cast.to == "hex":
        return _hex_sql(cast, column_type, column_sql)
    text = _text_sql(cast, column_type, column_sql)
    value = _number_sql(cast, column_type, column_sql) or _value_sql(cast, text)
    if not cast.empty:
        return value, f"({column_sql} IS NOT NULL AND ({value}) IS NULL)"
    means_null = f"{text} IN ({', '.join(map(literal, cast.empty))})"
    value = f"CASE WHEN NOT {means_null} THEN {value} END"
    return value, f"({column_sql} IS NOT NULL AND NOT {means_null} AND ({value}) IS NULL)"


def _hex_sql(cast: Cast, column_type: pa.DataType, column: str) -> tuple[str, str]:
    """Bytes always fit; `empty` lists hexadecimal texts."""
    if not pa.types.is_binary(column_type):
        hint = "hex is for columns of bytes (bytea)"
        raise ConfigError(f"a column of type {column_type} cannot become hex", hint=hint)
    value = f"hex({column})"
    if cast.empty:
        value = f"CASE WHEN {value} NOT IN ({', '.join(map(literal, cast.empty))}) THEN {value} END"
    return value, "FALSE"


def _text_sql(cast: Cast, column_type: pa.DataType, column: str) -> str:
    """The column's text; whole numbers get back the zeros that a text of the format's length begins with."""
    if pa.types.is_string(column_type):
        return f"rtrim({column}, ' ')"
    if pa.types.is_floating(column_type) and cast.to in ("integer", "bigint", "double"):
        return f"CAST({column} AS VARCHAR)"
    if not pa.types.is_integer(column_type) and not pa.types.is_decimal(column_type):
        hint = "only text and numbers change their type; a float only to integer, bigint or double"
        raise ConfigError(f"a column of type {column_type} cannot become {cast.to}", hint=hint)
    text = canonical_text(column, duckdb_type(column_type))
    length = read_pattern(cast.format).length if cast.format else 0
    padded = f"CASE WHEN strlen({text}) < {length} THEN lpad({text}, {length}, '0') ELSE {text} END"
    return padded if length else text


def _number_sql(cast: Cast, column_type: pa.DataType, column: str) -> str | None:
    """The value straight from a number, where that is exact; None: by way of its text."""
    whole = cast.to in ("integer", "bigint")
    value = f"TRY_CAST({column} AS {cast.to.upper()})"
    if pa.types.is_floating(column_type):
        return f"CASE WHEN trunc({column}) = {column} THEN {value} END" if whole else value
    if pa.types.is_integer(column_type) and whole:
        return value
    if pa.types.is_integer(column_type) and cast.to == "double":
        return f"CASE WHEN CAST({value} AS HUGEINT) = {column} THEN {value} END"
    return None


def _value_sql(cast: Cast, text: str) -> str:
    """The value of a text; its form is looked at first, because DuckDB's casts take more than they should."""
    if cast.format:
        return _moment_sql(cast.to, read_pattern(cast.format), text)
    if cast.to in ("integer", "bigint"):
        return _whole_sql(text, cast.to.upper())
    if cast.to == "double":
        return _double_sql(text)
    scale = arrow_type(cast).scale
    digits = rf"\.[0-9]{{1,{scale}}}0*" if scale else r"\.0+"
    form = rf"[+-]?(?:[0-9]+(?:{digits})?|{digits})"
    return _when_of_form(text, form, f"TRY_CAST({text} AS {cast.to.upper()})")


def _when_of_form(text: str, form: str, value: str, otherwise: str = "NULL") -> str:
    return f"CASE WHEN regexp_full_match({text}, '{form}') THEN {value} ELSE {otherwise} END"


def _whole_sql(text: str, wanted: str) -> str:
    before_point = f"TRY_CAST(split_part({text}, '.', 1) AS {wanted})"
    with_zeros = _when_of_form(text, r"[+-]?[0-9]+\.0+", before_point)
    return _when_of_form(text, "[+-]?[0-9]+", f"TRY_CAST({text} AS {wanted})", with_zeros)


def _double_sql(text: str) -> str:
    """The nearest double, if it has every digit of the text: written with as many, it reads the same."""
    value = f"TRY_CAST({text} AS DOUBLE)"
    digits = _significant(rf"regexp_replace({text}, '[eE].*$', '')")
    size = f"greatest(length({digits}), 1) - 1"
    back = _significant(f"regexp_replace(printf('%.*e', {size}, {value}), 'e.*$', '')")
    number = r"[+-]?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
    careful = _when_of_form(text, number, f"CASE WHEN {back} = {digits} THEN {value} END")
    # Up to 15 digits always come back (DBL_DIG), and most numbers have fewer.
    return _when_of_form(text, r"[+-]?[0-9]{1,9}(?:\.[0-9]{1,6})?", value, careful)


def _significant(text: str) -> str:
    return f"trim(regexp_replace({text}, '[^0-9]', '', 'g'), '0')"


def _moment_sql(to: str, pattern: Pattern, text: str) -> str:
    if to == "time":
        return pattern.time_sql(text)
    date = pattern.date_sql(text)
    if not pattern.parts & {"hour", "half_hour"}:
        return date if to == "date" else f"CAST({date} AS TIMESTAMP)"
    time = pattern.time_sql(text)
    if to == "date":
        return f"CASE WHEN {time} = TIME '00:00:00' THEN {date} END"
    moment = f"({date} + {time})"
    if "offset" in pattern.parts:
        return f"timezone('UTC', {moment} - {pattern.offset_sql(text)})"
    return moment
