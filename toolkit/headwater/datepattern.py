"""Patterns of dates and times in text: the letters of Java's formatters, read strictly. No I/O.

A pattern is letters (LETTERS), 'quoted text', '' for a quote, [optional sections], and other characters as
themselves. The whole text must match. `read_pattern` reads a pattern; a Pattern gives DuckDB SQL.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from headwater.canonical import literal
from headwater.pointing import point

_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July",
    "August", "September", "October", "November", "December",
)  # fmt: skip
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def _any_of(names: tuple[str, ...], size: int | None = None) -> str:
    return "(?i:" + "|".join(name[:size] for name in names) + ")"


def _month(size: str) -> str:
    places = ", ".join(f"'{name[:3].lower()}'" for name in _MONTHS)
    return f"CAST(list_position([{places}], lower(left({size}, 3))) AS VARCHAR)"


@dataclass(frozen=True, slots=True)
class Letter:
    """One spelling: the part of a moment it gives, the regular expression of its text, meaning, example.

    digits    how many digits it always has; 0 when their number varies or it has other characters too
    sql       DuckDB SQL of the part, over its text {g}; years as four digits
    """

    spelling: str
    part: str
    regex: str
    says: str
    example: str
    digits: int = 0
    sql: str = "{g}"


_HOURS = "[01][0-9]|2[0-3]"
_SIXTY = "[0-5][0-9]"
_OFFSET_HOURS = "0[0-9]|1[0-7]"

#: The next row a user needs goes here, with a line in tests/cases/casts.txt.
LETTERS: dict[str, Letter] = {
    row.spelling: row
    for row in (
        Letter("yyyy", "year", "[0-9]{4}", "year, four digits, 0001 to 9999", "2018", 4),
        Letter("yy", "year", "[0-9]{2}", "year, two digits: 69 to 99 are 1969 to 1999, 00 to 68 2000 to 2068",
               "18", 2, "CASE WHEN {g} < '69' THEN '20' ELSE '19' END || {g}"),
        Letter("y", "year", "[0-9]{1,4}", "year, one to four digits", "2018", 0, "lpad({g}, 4, '0')"),
        Letter("MM", "month", "0[1-9]|1[0-2]", "month, two digits", "03", 2),
        Letter("M", "month", "0?[1-9]|1[0-2]", "month, one or two digits", "3"),
        Letter("MMM", "month", _any_of(_MONTHS, 3), "month, three English letters, any case", "Mar",
               0, _month("{g}")),
        Letter("MMMM", "month", _any_of(_MONTHS), "month, English name, any case", "March", 0, _month("{g}")),
        Letter("dd", "day", "0[1-9]|[12][0-9]|3[01]", "day of the month, two digits", "05", 2),
        Letter("d", "day", "0?[1-9]|[12][0-9]|3[01]", "day of the month, one or two digits", "5"),
        Letter("DDD", "yearday", "[0-3][0-9]{2}", "day of the year, three digits", "064", 3),
        Letter("D", "yearday", "[0-9]{1,3}", "day of the year, one to three digits", "64"),
        Letter("E", "weekday", _any_of(_DAYS, 3), "weekday, three English letters, any case; EE and EEE too",
               "Mon"),
        Letter("EEEE", "weekday", _any_of(_DAYS), "weekday, English name, any case", "Monday"),
        Letter("HH", "hour", _HOURS, "hour 00 to 23, two digits", "17", 2),
        Letter("H", "hour", f"{_HOURS}|[0-9]", "hour 0 to 23, one or two digits", "7"),
        Letter("hh", "half_hour", "0[1-9]|1[0-2]", "hour 01 to 12, two digits, with a", "05", 2),
        Letter("h", "half_hour", "0?[1-9]|1[0-2]", "hour 1 to 12, one or two digits, with a", "5"),
        Letter("a", "half", "(?i:AM|PM)", "AM or PM in any case, with h", "PM"),
        Letter("mm", "minute", _SIXTY, "minute, two digits", "08", 2),
        Letter("m", "minute", f"{_SIXTY}|[0-9]", "minute, one or two digits", "8"),
        Letter("ss", "second", _SIXTY, "second 00 to 59, two digits", "09", 2),
        Letter("s", "second", f"{_SIXTY}|[0-9]", "second 0 to 59, one or two digits", "9"),
        Letter("S", "fraction", "", "fraction of the second: as many digits as letters, up to nine; those "
               "behind the sixth must be zero", "1"),
        Letter("Z", "offset", rf"[+-](?:(?:{_OFFSET_HOURS}){_SIXTY}|1800)", "offset from UTC; ZZ and ZZZ too",
               "+0100"),
        Letter("X", "offset", rf"Z|[+-](?:(?:{_OFFSET_HOURS})(?:{_SIXTY})?|18(?:00)?)",
               "Z, or offset from UTC in hours, with minutes if there are some", "+01"),
        Letter("XX", "offset", rf"Z|[+-](?:(?:{_OFFSET_HOURS}){_SIXTY}|1800)", "Z, or offset from UTC",
               "+0100"),
        Letter("XXX", "offset", rf"Z|[+-](?:(?:{_OFFSET_HOURS}):{_SIXTY}|18:00)", "Z, or offset from UTC",
               "+01:00"),
    )
}  # fmt: skip

_SAME = {"EE": "E", "EEE": "E", "ZZ": "Z", "ZZZ": "Z"}
_MISTAKEN = {
    "Y": "the year of the week; the year is yyyy", "u": "write yyyy", "DD": "the day of the month is dd",
    "k": "write HH", "K": "write hh with a", "z": "names of zones are unclear; offsets: Z X XXX",
    "x": "offsets: Z X XXX", "L": "write MM", "n": "write SSSSSSSSS", "yyy": "write yyyy", "e": "weekdays: E",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece of a pattern: a letter's row or fixed text; `section`: the optional sections around it."""

    letter: Letter | None
    text: str
    at: int
    section: tuple[int, ...]


@dataclass(frozen=True)
class Pattern:
    """A pattern that was read. `parts`: the names of the parts it gives."""

    pieces: tuple[Piece, ...]

    @cached_property
    def parts(self) -> frozenset[str]:
        """year month day yearday weekday hour half_hour half minute second fraction offset."""
        return frozenset(p.letter.part for p in self.pieces if p.letter)

    @cached_property
    def optional(self) -> frozenset[str]:
        """The parts that stand in an optional section."""
        return frozenset(p.letter.part for p in self.pieces if p.letter and p.section)

    @cached_property
    def places(self) -> dict[str, tuple[int, int]]:
        """Where each part stands, from 1, and its size, when that is the same in all texts; otherwise {}."""
        places, at = {}, 1
        for piece in self.pieces:
            if piece.section or (piece.letter and not piece.letter.digits):
                return {}
            if piece.letter:
                places[piece.letter.part] = (at, piece.letter.digits)
            at += piece.letter.digits if piece.letter else len(piece.text)
        return places

    @property
    def length(self) -> int:
        """How many characters a text has, when all have as many and begin with a digit; otherwise 0."""
        if not self.places or not self.pieces[0].letter:
            return 0
        return sum(p.letter.digits if p.letter else len(p.text) for p in self.pieces)

    def regex(self) -> str:
        """RE2 and Python: a group around the whole text, then one around each letter, in order."""
        text = ""
        open_now: tuple[int, ...] = ()
        for piece in self.pieces:
            text += _brackets(open_now, piece.section)
            text += f"({piece.letter.regex})" if piece.letter else re.escape(piece.text)
            open_now = piece.section
        return f"^({text}{_brackets(open_now, ())})$"

    def date_sql(self, text: str) -> str:
        """DuckDB SQL of the DATE that `text` (VARCHAR) says; NULL where it says none."""
        year = f"nullif({self._part('year', text, '')}, '0000')"
        if "yearday" in self.parts:
            start = f"TRY_CAST({year} || '-01-01' AS DATE)"
            date = f"{start} + (TRY_CAST({self._part('yearday', text, '1')} AS INTEGER) - 1)"
            date = f"CASE WHEN strftime({date}, '%Y') = {year} THEN {date} END"
        else:
            month, day = self._part("month", text, "01"), self._part("day", text, "01")
            date = f"TRY_CAST({year} || '-' || {month} || '-' || {day} AS DATE)"
        checks = self._matches(text)
        if "weekday" in self.parts:
            said = f"lower(left({self._group('weekday', text)}, 3))"
            checks += f" AND {said} IN ('', lower(left(dayname({date}), 3)))"
        return f"CASE WHEN {checks} THEN {date} END"

    def time_sql(self, text: str) -> str:
        """DuckDB SQL of the TIME that `text` says: midnight where it says none, NULL without a match."""
        hour = self._part("hour", text, "00")
        if "half_hour" in self.parts:
            # An optional section that is absent gives neither: midnight.
            number = f"TRY_CAST({self._group('half_hour', text)} AS INTEGER) % 12"
            noon = f"12 * CAST(lower({self._group('half', text)}) = 'pm' AS INTEGER)"
            hour = f"coalesce(CAST({number} + {noon} AS VARCHAR), '00')"
        minute, second = self._part("minute", text, "00"), self._part("second", text, "00")
        clock = f"{hour} || ':' || {minute} || ':' || {second}"
        if "fraction" in self.parts:
            clock += f" || '.' || left({self._part('fraction', text, '0')}, 6)"
        return f"CASE WHEN {self._matches(text)} THEN TRY_CAST({clock} AS TIME) END"

    def offset_sql(self, text: str) -> str:
        """DuckDB SQL of the offset from UTC that `text` says, an INTERVAL."""
        said = f"replace({self._group('offset', text)}, ':', '')"
        hours, minutes = f"TRY_CAST({said}[2:3] AS INTEGER)", f"TRY_CAST({said}[4:5] AS INTEGER)"
        size = f"coalesce({hours} * 60, 0) + coalesce({minutes}, 0)"
        return f"to_minutes(CASE WHEN {said}[1] = '-' THEN -1 ELSE 1 END * ({size}))"

    def _part(self, name: str, text: str, absent: str) -> str:
        letter = next((p.letter for p in self.pieces if p.letter and p.letter.part == name), None)
        if letter is None:
            return f"'{absent}'"
        group = self._group(name, text)
        value = letter.sql.format(g=group)
        return f"CASE WHEN {group} = '' THEN '{absent}' ELSE {value} END" if name in self.optional else value

    def _matches(self, text: str) -> str:
        # A match without groups is cheaper, and parts at known places are cut out without them.
        if self.places:
            return f"regexp_full_match({text}, {literal(self.regex())})"
        return f"{self._groups(text)}.whole <> ''"

    def _group(self, name: str, text: str) -> str:
        if self.places:
            at, size = self.places[name]
            return f"substr({text}, {at}, {size})"
        return f'{self._groups(text)}."{name}"'

    def _groups(self, text: str) -> str:
        # DuckDB computes the same expression once for a row, however often it stands in a statement.
        names = ", ".join(f"'{p.letter.part}'" for p in self.pieces if p.letter)
        return f"regexp_extract({text}, {literal(self.regex())}, ['whole', {names}])"


def _brackets(before: tuple[int, ...], after: tuple[int, ...]) -> str:
    common = 0
    while common < min(len(before), len(after)) and before[common] == after[common]:
        common += 1
    return ")?" * (len(before) - common) + "(?:" * (len(after) - common)


def read_pattern(text: str, shown: str = "", shift: int = 0) -> Pattern:
    """Read a pattern; raises ConfigError that points at the character, of `shown` from `shift` on."""
    try:
        pieces = tuple(_read_pieces(text))
        _check_pieces(text, pieces)
    except _Wrong as wrong:
        raise point(shown or text, shift + wrong.at, wrong.what, wrong.hint) from None
    return Pattern(pieces)


class _Wrong(Exception):
    def __init__(self, at: int, what: str, hint: str) -> None:
        self.at, self.what, self.hint = at, what, hint


_TOKEN = re.compile(
    r"(?P<letters>([A-Za-z])\2*)|'(?P<quoted>(?:[^']|'')*)'|(?P<open>\[)|(?P<close>\])|(?P<other>.)",
    re.DOTALL,
)


def _read_pieces(text: str) -> Iterator[Piece]:
    section: tuple[int, ...] = ()
    opened: list[int] = []
    for token in _TOKEN.finditer(text):
        at = token.start()
        if token["open"]:
            opened.append(at)
            section = (*section, at)
        elif token["close"]:
            if not opened:
                raise _Wrong(at, "`]` without `[`", "write ']' in quotes for the character itself")
            opened.pop()
            section = section[:-1]
        elif token["letters"]:
            yield Piece(_find_letter(token["letters"], at), "", at, section)
        else:
            yield Piece(None, _fixed_text(token), at, section)
    if opened:
        raise _Wrong(opened[-1], "`[` is never closed", "an optional section ends with `]`")


def _fixed_text(token: re.Match[str]) -> str:
    if unicodedata.category(token[0][0]) == "Cc":
        raise _Wrong(token.start(), "a control character", "leave it out")
    if token["quoted"] is not None:
        return token["quoted"].replace("''", "'") or "'"
    if token["other"] == "'":
        raise _Wrong(token.start(), "the quoted text does not end", "write '' for one quote")
    if token["other"] in "{}#":
        raise _Wrong(token.start(), f"`{token['other']}` is reserved", f"write '{token['other']}' in quotes")
    return token["other"]


def _find_letter(run: str, at: int) -> Letter:
    run = _SAME.get(run, run)
    if set(run) == {"S"} and len(run) <= 9:
        zeros = "0" * (len(run) - 6)
        return replace(
            LETTERS["S"], spelling=run, regex=f"[0-9]{{{len(run) - len(zeros)}}}{zeros}", digits=len(run)
        )
    if run in LETTERS:
        return LETTERS[run]
    forms = [spelling for spelling in LETTERS if spelling[0] == run[0]]
    hint = _MISTAKEN.get(run, _MISTAKEN.get(run[0], ""))
    hint = hint or (f"write {' or '.join(forms)}" if forms else f"letters: {' '.join(LETTERS)}")
    what = f"`{run}` has no meaning" if forms else f"unknown letter `{run[0]}`"
    raise _Wrong(at, what, f"{hint}; fixed text stands in quotes: 'T'")


#: What a part is meaningless without, and how to mend it.
_NEEDS: dict[str, tuple[tuple[str, ...], str]] = {
    "month": (("year",), "give the year: yyyy"),
    "day": (("month",), "give the month: MM (mm is minutes)"),
    "yearday": (("year",), "give the year: yyyy"),
    "weekday": (("day", "yearday"), "give the day: dd"),
    "half_hour": (("half",), "hours up to 12 need a (AM or PM) beside them; hours up to 23 are HH"),
    "half": (("half_hour",), "AM and PM go with hh"),
    "minute": (("hour", "half_hour"), "give the hour: HH; months are MM"),
    "second": (("minute",), "give the minute: mm"),
    "fraction": (("second",), "give the second: ss"),
    "offset": (("hour", "half_hour"), "give the hour: HH"),
}
_SAID = {"half_hour": "hour up to 12", "half": "half of the day", "yearday": "day of the year"}
_APART = (("hour", "half_hour"), ("yearday", "month"), ("yearday", "day"))
_WORDS = frozenset(("MMM", "MMMM", "E", "EEEE", "a", "Z", "X", "XX", "XXX"))


def _check_pieces(text: str, pieces: tuple[Piece, ...]) -> None:
    by_part: dict[str, Piece] = {}
    for piece in pieces:
        if piece.letter is None:
            continue
        part = piece.letter.part
        if part in by_part:
            raise _Wrong(piece.at, f"the {_SAID.get(part, part)} stands twice", "give each part once")
        by_part[part] = piece
    if not by_part:
        raise _Wrong(
            0, "no letter: a pattern says where year, month and day stand", "write for example yyyyMMdd"
        )
    _check_parts(by_part)
    for index, piece in enumerate(pieces):
        if piece.letter and _varies(piece.letter) and any(_is_digit(p) for p in _followers(pieces, index)):
            run = piece.letter.spelling
            raise _Wrong(
                piece.at, f"where `{run}` ends is not clear: digits follow at once", f"write {run * 2}"
            )
    if pieces[-1].text.endswith(" "):
        hint = "trailing blanks of a text are cut off before it is read"
        raise _Wrong(len(text) - 1, "a pattern cannot end in a blank", hint)


def _check_parts(by_part: dict[str, Piece]) -> None:
    for part, piece in by_part.items():
        if piece.section and part in ("year", "offset"):
            raise _Wrong(
                piece.at, f"the {part} cannot be optional: nothing could stand for it", "move it out of [ ]"
            )
        for one, other in _APART:
            if part == other and one in by_part:
                raise _Wrong(
                    piece.at,
                    f"the {_SAID.get(part, part)} repeats what another letter says",
                    "leave one of them out",
                )
        if part in _NEEDS:
            names, hint = _NEEDS[part]
            found = [by_part[name] for name in names if name in by_part]
            if not any(piece.section[: len(p.section)] == p.section for p in found):
                raise _Wrong(piece.at, f"the {_SAID.get(part, part)} says nothing on its own here", hint)


def _varies(letter: Letter) -> bool:
    return not letter.digits and letter.spelling not in _WORDS


def _is_digit(piece: Piece) -> bool:
    return piece.letter.spelling not in _WORDS if piece.letter else piece.text[:1].isdigit()


def _followers(pieces: tuple[Piece, ...], index: int) -> Iterator[Piece]:
    """The pieces that may come next: the first of each optional section, and the first that must come."""
    depth = len(pieces[index].section)
    skipped: tuple[int, ...] = ()
    for piece in pieces[index + 1 :]:
        if skipped and piece.section[: len(skipped)] == skipped:
            continue
        yield piece
        if len(piece.section) <= depth:
            return
        skipped = piece.section[: depth + 1]
