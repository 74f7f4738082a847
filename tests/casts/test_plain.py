"""The SQL of type changes against plain.py, on texts that are right, nearly right, or anything."""

from __future__ import annotations

import math
from collections.abc import Sequence

import duckdb
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from casts import plain
from headwater.casts import Cast, arrow_type, cast_sql, read_cast
from headwater.datepattern import LETTERS
from headwater.errors import ConfigError

DB = duckdb.connect()
LOOK = settings(max_examples=20, deadline=None)


def made(cast: Cast, texts: Sequence[object], kind: pa.DataType, shown: str = "{}") -> list[object]:
    """What becomes of each text; `shown` is SQL that makes the value easy to compare."""
    value, bad = cast_sql(cast, kind, "c")
    DB.register("given", pa.table({"n": range(len(texts)), "c": pa.array(texts, kind)}))
    rows = DB.execute(f"SELECT {shown.format(f'({value})')}, {bad} FROM given ORDER BY n").fetchall()
    return [plain.BAD if wrong else found for found, wrong in rows]


def near(*examples: str, alphabet: str) -> st.SearchStrategy[str]:
    """Texts that are an example with something cut out, put in or added."""

    def spoil(text: str, at: int, cut: int, more: str) -> str:
        return text[:at] + more + text[at + cut :]

    return st.builds(
        spoil, st.sampled_from(examples), st.integers(0, 24), st.integers(0, 2), st.text(alphabet, max_size=2)
    )


NUMBERS = (
    st.integers(-(2**65), 2**65).map(str)
    | st.integers(-3, 3).flatmap(lambda d: st.sampled_from([str(2**p + d) for p in (31, 53, 63, 64)]))
    | st.decimals(allow_nan=False, allow_infinity=False).map(str)
    | st.floats(allow_nan=False, allow_infinity=False).map(repr)
    | st.floats(allow_nan=False, allow_infinity=False).map(lambda x: f"{x:.16e}")
    | st.decimals(-10000, 10000, places=3).map(str)
    | near(
        "12",
        "-7.50",
        "1.5e-3",
        "+.5",
        "000.250",
        "9007199254740993",
        "1e308",
        "5e-324",
        alphabet="0159.-+eE x_ ",
    )
    | st.text(max_size=5)
)


@LOOK
@given(st.lists(NUMBERS.filter(lambda t: "\0" not in t), min_size=1, max_size=60))
@example(["2.5e-324", "2.4e-324", "1.7976931348623159e308", "1.7976931348623158e308", "0." + "0" * 400 + "1"])
def test_numbers(texts: list[str]) -> None:
    for to, bits in (("integer", 32), ("bigint", 64)):
        assert made(Cast(to), texts, pa.string()) == [plain.integer(t, bits) for t in texts]
    for precision, scale in ((10, 2), (38, 0), (38, 38), (5, 5), (18, 9)):
        cast = Cast(f"decimal({precision},{scale})")
        assert made(cast, texts, pa.string()) == [plain.exact(t, precision, scale) for t in texts]
    found = made(Cast("double"), texts, pa.string())
    wanted = [plain.double(t) for t in texts]
    assert found == wanted
    signs = [math.copysign(1, x) for x in found if isinstance(x, float)]
    assert signs == [math.copysign(1, x) for x in wanted if isinstance(x, float)]


@LOOK
@given(st.lists(st.floats() | st.integers(-(2**70), 2**70).map(float), min_size=1, max_size=40))
def test_whole_numbers_from_floats(values: list[float]) -> None:
    for to, bits in (("integer", 32), ("bigint", 64)):
        fits = [
            math.isfinite(v) and v == int(v) and -(2 ** (bits - 1)) <= v < 2 ** (bits - 1) for v in values
        ]
        wanted = [int(v) if ok else plain.BAD for v, ok in zip(values, fits, strict=True)]
        assert made(Cast(to), values, pa.float64()) == wanted


@LOOK
@given(
    st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(2**53 - 4, 2**53 + 4), min_size=1, max_size=40)
)
def test_doubles_from_whole_numbers(values: list[int]) -> None:
    wanted = [float(v) if int(float(v)) == v else plain.BAD for v in values]
    assert made(Cast("double"), values, pa.int64()) == wanted
    signed = [v if v < 2**31 and v >= -(2**31) else plain.BAD for v in values]
    assert made(Cast("integer"), values, pa.int64()) == signed


SHOWN: dict[str, str] = {
    "date": "({} - DATE '1970-01-01')",
    "timestamp": "epoch_us({})",
    "time": "epoch_us({})",
}

PATTERNS: dict[tuple[str, str], tuple[str, ...]] = {
    ("date", "yyyyMMdd"): ("20180305", "20200229", "00000000", "99991231"),
    ("date", "d.M.yy"): ("5.3.18", "29.02.00", "31.12.69"),
    ("date", "dd-MMM-yyyy"): ("05-MAR-2018", "31-jun-2018", "29-Feb-2019"),
    ("date", "d MMMM y"): ("5 May 2018", "31 December 999", "1 january 0"),
    ("date", "yyyyDDD"): ("2018064", "2019366", "2020366", "2018000"),
    ("date", "D-yy"): ("64-18", "366-20", "366-19"),
    ("date", "EEE d/M/yyyy"): ("Mon 5/3/2018", "Tue 05/03/2018"),
    ("date", "yyyy[MM[dd]]"): ("2018", "201803", "20180305"),
    ("date", "yyyy-MM-dd[' 'EEEE]"): ("2018-03-05", "2018-03-05 Monday", "2018-03-05 Sunday"),
    ("date", "yyyy[-MM[-dd]]"): ("2018", "2018-03", "2018-03-05"),
    ("date", "yyyy-MM-dd HH:mm"): ("2018-03-05 00:00", "2018-03-05 00:01"),
    ("timestamp", "yyyy-MM-dd HH:mm:ss"): ("2018-03-05 07:08:09", "2018-03-05 24:00:00"),
    ("timestamp", "yyyyMMddHHmmssSSS"): ("20180305070809123", "00010101000000000"),
    ("timestamp", "yyyyMMddHHmmss.SSSSSSS"): ("20180305070809.1234560", "20180305070809.1234567"),
    ("timestamp", "d/M/yyyy h:m:s a"): ("5/3/2018 12:0:0 AM", "05/03/2018 1:8:9 pm", "5/3/2018 0:1:2 PM"),
    ("timestamp", "yyyy-MM-dd[ hh:mm[:ss]a]"): ("2018-03-05", "2018-03-05 12:00PM", "2018-03-05 12:00:59am"),
    ("timestamp", "yyyy-MM-dd'T'HH:mm:ss[.SSS]XXX"): ("2018-03-05T07:08:09Z", "0001-01-01T00:00:00.12+18:00"),
    ("timestamp", "yyyy-MM-dd HHX"): ("2018-03-05 07Z", "2018-03-05 07-0130", "2018-03-05 07+18"),
    ("timestamp", "yyMMddHHmmZ"): ("1803050708+0100", "1803050708-1801"),
    ("time", "HHmmss"): ("070809", "240000", "235960"),
    ("time", "H:m[:s[.SSSSSSSSS]]"): ("7:8", "23:59:59.123456000", "0:0:0.000000001"),
}  # fmt: skip


@pytest.mark.parametrize(("to", "pattern"), PATTERNS, ids=str)
def test_dates_and_times(to: str, pattern: str) -> None:
    examples = PATTERNS[to, pattern]
    assert plain.BAD not in [plain.moment(to, pattern, text) for text in examples[:1]]

    @LOOK
    @given(st.lists(near(*examples, alphabet="0123459-:./ +ZAPMaprT日\n"), min_size=1, max_size=60))
    @example(list(examples))
    def check(texts: list[str]) -> None:
        found = made(Cast(to, pattern), texts, pa.string(), SHOWN[to])
        assert found == [plain.moment(to, pattern, text) for text in texts]

    check()


def test_days_of_the_whole_calendar() -> None:
    days = DB.execute(
        "SELECT strftime(d, '%Y%m%d') FROM (SELECT unnest(generate_series(TIMESTAMP '0001-01-01',"
        " TIMESTAMP '9999-12-31', INTERVAL 211 DAY)) AS d)"
    ).fetchall()
    texts = [text for (text,) in days]
    texts += [f"{y:04}{m:02}{d:02}" for y in (0, 1900, 2000, 2019) for m in range(14) for d in range(33)]
    cast = read_cast("@D(yyyyMMdd)")
    assert made(cast, texts, pa.string(), SHOWN["date"]) == [
        plain.moment("date", "yyyyMMdd", t) for t in texts
    ]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sampled_from([*LETTERS, "yyyy", "[", "]", "-", " ", "'", "{", "'T'", "日"]), max_size=7).map(
        "".join
    )
)
@example("yyyy'")
@example("]")
@example("yyyy[")
def test_any_pattern_is_read_or_refused_with_a_caret(pattern: str) -> None:
    try:
        cast = read_cast(f"@T({pattern})")
    except ConfigError as refused:
        assert refused.hint and (str(refused).endswith("^") or not pattern)
        return
    assert cast.letters() == f"@T({pattern})"
    assert arrow_type(cast) in (pa.timestamp("us"), pa.timestamp("us", "UTC"))
    assert made(cast, ["", "2018", None], pa.string())[2] is None  # DuckDB takes the SQL
