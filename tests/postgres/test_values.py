"""Text to Arrow: the case file, plain Python as the oracle, and real servers as the judge of both."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from math import isnan
from pathlib import Path
from struct import pack, unpack

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headwater.sources.postgres.values import (
    NULL,
    UNSET,
    VALUE,
    BadCell,
    Cells,
    NativeType,
    arrow_type,
    convert,
    texts,
)
from postgres.plain import ERROR, ODD, canonical, meaning

ROOT = Path(__file__).parents[2]

OIDS = {
    "boolean": 16, "bytea": 17, '"char"': 18, "name": 19, "bigint": 20, "smallint": 21, "integer": 23,
    "text": 25, "oid": 26, "json": 114, "xml": 142, "point": 600, "cidr": 650, "real": 700,
    "double precision": 701, "money": 790, "macaddr": 829, "inet": 869, "integer[]": 1007, "text[]": 1009,
    "character": 1042, "character varying": 1043, "date": 1082, "time": 1083, "timestamp": 1114,
    "timestamp with time zone": 1184, "interval": 1186, "time with time zone": 1266, "bit": 1560,
    "bit varying": 1562, "numeric": 1700, "uuid": 2950, "pg_lsn": 3220, "tsvector": 3614, "jsonb": 3802,
    "int4range": 3904, "int4multirange": 4451,
}  # fmt: skip


def native(kind: str) -> NativeType:
    name, _, modifier = kind.rstrip(")").partition("(")
    typmod = -1
    if name == "numeric" and modifier:
        precision, scale = map(int, modifier.split(","))
        typmod = 4 + (precision << 16 | scale & 0x7FF)
    return NativeType(OIDS[name], typmod, kind, OIDS[name], typmod, "b")


def lay(values: Sequence[bytes | None], gap: bytes = b"") -> Cells:
    """Cells behind one another, with something between them."""
    data, starts, lengths = bytearray(), list[int](), list[int]()
    for value in values:
        data += gap
        starts.append(len(data))
        data += value or b""
        lengths.append(len(value or b""))
    state = [NULL if value is None else VALUE for value in values]
    return Cells(
        np.frombuffer(bytes(data), np.uint8),
        np.array(starts, np.int64),
        np.array(lengths, np.int64),
        np.array(state, np.uint8),
    )


def check(kind: str, cells: Cells, meanings: Sequence[str | None]) -> None:
    """Convert, and compare with what each cell means (None: no value)."""
    try:
        array, odd = convert(cells, native(kind))
    except BadCell as error:
        assert meanings[error.row] == ERROR
        return
    assert ERROR not in meanings
    assert array.type == arrow_type(native(kind))
    array.validate(full=True)
    assert canonical(array) == [None if m == ODD else m for m in meanings]
    assert (np.zeros(len(meanings), bool) if odd is None else odd).tolist() == [m == ODD for m in meanings]
    assert odd is None or odd.any()


# --- the case file


def read_cases() -> tuple[list[tuple[str, str, str]], list[tuple[str, str]]]:
    def plain(text: str) -> str:
        return json.loads(text) if re.fullmatch('".*"', text) else text

    values, types = [], []
    for line in (ROOT / "tests/cases/postgres_types.txt").read_text().splitlines():
        if " => " in line and " | " not in line and not line.startswith("#"):
            kind, arrow = line.split(" => ")
            types.append((kind, arrow))
        elif line and not line.startswith("#"):
            kind, rest = line.split(" | ", 1)
            text, value = rest.rsplit(" | ", 1) if rest.count(" | ") == 1 else halves(rest)
            values.append((kind, plain(text), plain(value)))
    return values, types


def halves(rest: str) -> tuple[str, str]:
    half = (len(rest) - 3) // 2
    assert rest[half : half + 3] == " | ", rest
    return rest[:half], rest[half + 3 :]


VALUES, TYPES = read_cases()


@pytest.mark.parametrize(("kind", "arrow"), TYPES)
def test_type(kind: str, arrow: str) -> None:
    assert str(arrow_type(native(kind))) == arrow


@pytest.mark.parametrize(("kind", "text", "value"), VALUES)
def test_value(kind: str, text: str, value: str) -> None:
    """Alone, and in the midst of others: neighbours change nothing."""
    kind = kind.lstrip("~")
    good = next(t.encode() for k, t, v in VALUES if k.lstrip("~") == kind and v not in (ODD, ERROR))
    known = next(v for k, t, v in VALUES if k.lstrip("~") == kind and v not in (ODD, ERROR))
    check(kind, lay([text.encode()]), [value])
    check(kind, lay([good, None, text.encode(), good], b"-1"), [known, None, value, known])


def test_the_case_file_agrees_with_plain_python() -> None:
    """The oracle of the tests below is itself held against the cases."""
    plain = [
        (k.lstrip("~"), t, v) for k, t, v in VALUES if k != "numeric" and native(k.lstrip("~")).oid in TYPED
    ]
    assert len(plain) > 150
    assert [(k, t, meaning(k, t.encode())) for k, t, _ in plain] == plain


TYPED = {16, 17, 20, 21, 23, 26, 700, 701, 1082, 1083, 1114, 1184, 1700}

# --- plain Python as the oracle

_YEARS = st.integers(1, 9999) | st.integers(1, 300_000) | st.integers(290_000, 295_000)


def _clock(end: int = 24) -> st.SearchStrategy[str]:
    fraction = st.one_of(
        st.just(""), st.integers(0, 999_999).map(lambda f: f".{f:06}".rstrip("0").rstrip("."))
    )
    whole = st.builds("{:02}:{:02}:{:02}".format, st.integers(0, end), st.integers(0, 60), st.integers(0, 60))
    return st.builds(str.__add__, whole, fraction)


_DATES = st.builds("{:04}-{:02}-{:02}".format, _YEARS, st.integers(1, 12), st.integers(1, 31))
_ERA = st.sampled_from(["", "", " BC"])
_ZONES = (
    st.just("+00")
    | st.builds("{}{:02}".format, st.sampled_from("+-"), st.integers(0, 15))
    | st.builds(
        "{}{:02}:{:02}:{:02}".format,
        st.sampled_from("+-"),
        st.integers(0, 15),
        st.integers(0, 59),
        st.integers(0, 59),
    )
)
_INTS = st.integers(-(2**63), 2**63 - 1) | st.integers(-40_000, 40_000) | st.integers(-(2**31) - 2, 2**31 + 2)
_WORDS = st.sampled_from(["NaN", "Infinity", "-Infinity", "infinity", "-infinity", "", "-", "0", "-0"])


def _decimals(digits: int, scale: int) -> st.SearchStrategy[str]:
    number = st.integers(-(10**digits), 10**digits)
    return number.map(
        lambda n: f"{'-' * (n < 0)}{abs(n) // 10**scale}.{abs(n) % 10**scale:0{scale}}".rstrip(".")
    )


VALID: dict[str, st.SearchStrategy[str]] = {
    "boolean": st.sampled_from("tf"),
    "smallint": st.integers(-32_769, 32_768).map(str),
    "integer": _INTS.map(str),
    "bigint": (_INTS | st.integers(-(2**64), 2**64)).map(str),
    "oid": st.integers(0, 2**32 - 1).map(str),
    "real": st.floats(width=32).map(
        lambda f: str(np.float32(f)).replace("inf", "Infinity").replace("nan", "NaN")
    ),
    "double precision": st.floats().map(lambda f: repr(f).replace("inf", "Infinity").replace("nan", "NaN")),
    "numeric(10,2)": _decimals(10, 2),
    "numeric(38,38)": _decimals(38, 38),
    "numeric(30,9)": _decimals(30, 9),
    "date": st.builds("{}{}".format, _DATES, _ERA),
    "time": _clock(),
    "timestamp": st.builds("{} {}{}".format, _DATES, _clock(), _ERA),
    "timestamp with time zone": st.builds("{} {}{}{}".format, _DATES, _clock(), _ZONES, _ERA),
    "bytea": st.binary(max_size=40).map(lambda b: "\\x" + b.hex()),
    "text": st.text(max_size=40),
}


@st.composite
def mutated(draw: st.DrawFn, valid: st.SearchStrategy[str]) -> bytes:
    """A value's text, most often with nothing wrong, else with a byte changed, taken out or put in."""
    raw = bytearray(draw(valid).encode())
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        at = draw(st.integers(0, len(raw)))
        byte = draw(st.sampled_from(list(b"0123456789+-:. eEBCTxNn\\\x00\xff\x80")))
        match draw(st.integers(0, 2)):
            case 0 if at < len(raw):
                raw[at] = byte
            case 1 if at < len(raw):
                del raw[at]
            case _:
                raw.insert(at, byte)
    return bytes(raw)


@pytest.mark.parametrize("kind", VALID)
@given(data=st.data())
def test_any_bytes(kind: str, data: st.DataObject) -> None:
    """Cells with gaps, repeats and holes mean what plain Python reads, or are refused."""
    some = data.draw(st.lists(mutated(VALID[kind] | _WORDS) | st.binary(max_size=30), min_size=1, max_size=5))
    cells = lay(some, data.draw(st.binary(max_size=3)))
    order = data.draw(st.lists(st.integers(0, len(some) - 1), max_size=12))
    picked = cells.pick(np.array(order, np.int64))
    meanings: list[str | None] = [meaning(kind, some[k]) for k in order]
    for row in data.draw(st.sets(st.integers(0, 11), max_size=4)):
        if row < len(order):
            # A cell without a value may point anywhere.
            picked.state[row] = data.draw(st.sampled_from([NULL, UNSET]))
            picked.starts[row], picked.lengths[row] = data.draw(
                st.tuples(st.integers(), st.integers()).map(_near)
            )
            meanings[row] = None
    check(kind, picked, meanings)


def _near(numbers: tuple[int, int]) -> tuple[int, int]:
    return numbers[0] % 2**40 - 2**39, numbers[1] % 2**40 - 2**39


@pytest.mark.parametrize("kind", VALID)
def test_valid_columns(kind: str) -> None:
    """Whole columns of valid text: nothing is refused by mistake."""

    @given(st.lists(VALID[kind], min_size=1, max_size=50))
    def run(some: list[str]) -> None:
        meanings = [meaning(kind, text.encode()) for text in some]
        kept = [(t.encode(), m) for t, m in zip(some, meanings, strict=True) if m != ERROR]
        check(kind, lay([t for t, _ in kept], b"|"), [m for _, m in kept])

    run()


@given(st.floats(allow_nan=False))
@example(5e-324)
@example(-0.0)
@example(2.2250738585072011e-308)
def test_float8_bits(value: float) -> None:
    array, _ = convert(lay([repr(value).replace("inf", "Infinity").encode()]), native("double precision"))
    assert pack("<d", array[0].as_py()) == pack("<d", value)


@given(st.integers(0, 2**32 - 1))
def test_float4_bits(bits: int) -> None:
    """Every float4 from the shortest text that names it, as PostgreSQL writes it."""
    (value,) = unpack("<f", pack("<I", bits))
    text = str(np.float32(value)).replace("inf", "Infinity").replace("nan", "NaN")
    array, _ = convert(lay([text.encode()]), native("real"))
    (back,) = unpack("<I", pack("<f", array[0].as_py()))
    assert back == bits or (isnan(value) and isnan(array[0].as_py()))


def test_an_error_names_the_row_and_no_text() -> None:
    secret = b"4111-1111-1111-1111"
    for kind in VALID:
        bad = b"\xff" + secret if kind == "text" else secret
        good = next(t.encode() for k, t, v in VALUES if k == kind and v not in (ODD, ERROR))
        with pytest.raises(BadCell) as caught:
            convert(lay([good, None, good, bad, good], b" "), native(kind))
        assert caught.value.row == 3
        assert "4111" not in str(caught.value)
        chain: BaseException | None = caught.value
        while chain:
            assert "4111" not in repr(chain)
            chain = chain.__context__ or chain.__cause__


def test_texts_are_exact() -> None:
    assert texts(lay([b"NaN", None, "é\n".encode()])).to_pylist() == ["NaN", None, "é\n"]


def test_cells_outside_their_buffer_are_refused() -> None:
    for start, length in ((-1, 1), (0, 4), (3, 1), (1, -1)):
        cells = Cells(
            np.frombuffer(b"123", np.uint8), np.array([start]), np.array([length]), np.zeros(1, np.uint8)
        )
        with pytest.raises(ValueError, match="outside"):
            convert(cells, native("text"))


def test_a_domain_is_read_as_its_base() -> None:
    domain = NativeType(90_000, -1, "price", 1700, 4 + (5 << 16 | 1), "b")
    assert convert(lay([b"12.5"]), domain)[0].type == pa.decimal128(5, 1)


def test_no_rows() -> None:
    for kind, _ in TYPES:
        array, odd = convert(lay([]), native(kind))
        assert (array.type, len(array), odd) == (arrow_type(native(kind)), 0, None)
