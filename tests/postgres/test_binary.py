"""Binary values to Arrow: plain Python as the oracle, for good bytes and for any bytes."""

from __future__ import annotations

from struct import pack

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.sources.postgres.binary import convert_binary, select_item
from headwater.sources.postgres.cells import NULL, PAD, BadCell, Cells
from headwater.sources.postgres.values import NativeType, arrow_type
from postgres.plain import ERROR, ODD, canonical, meaning
from postgres.plainbinary import DAY, text_of, write_numeric
from postgres.test_values import lay, native

_LONGS = st.integers(-(2**63), 2**63 - 1)
_DAYS = st.integers(-2_451_545, 2_145_031_948) | st.integers(-(2**31), 2**31 - 1)
_EDGES = st.sampled_from([-(2**63), 2**63 - 1, 0, DAY - 1, DAY, DAY + 1, -1])
#: The first and last moments, and where 64 bits since 1970 end.
_ENDS = [-211_813_488 * 10**9, 9_223_371_331_200 * 10**6, 2**63 - 1 - 946_684_800_000_000]
_MOMENTS = (
    _LONGS
    | st.sampled_from(_ENDS).flatmap(lambda end: st.integers(end - 2, end + 2))
    | st.integers(_ENDS[2] - DAY, _ENDS[1])
)


def numerics(precision: int, scale: int) -> st.SearchStrategy[bytes]:
    """Numbers with up to that many digits, and now and then too many."""
    whole = st.integers(0, precision + 1).flatmap(lambda n: st.integers(-(10**n), 10**n))
    return whole.map(lambda n: write_numeric(n, scale))


def wild_numerics(scale: int) -> st.SearchStrategy[bytes]:
    """Any head that is one, with any digits."""
    digits = st.lists(st.integers(0, 10_001) | st.sampled_from([0, 0, 1, 9999]), max_size=13)
    sign = st.sampled_from([0, 0, 0, 0x4000, 0xC000, 0xD000, 0xF000, 1])
    weight = st.integers(-12, 12) | st.integers(-(2**15), 2**15 - 1)
    return st.builds(
        lambda d, w, s, n, shown: pack(f">HhHH{len(d)}H", len(d) + n, w, s, shown, *d),
        digits, weight, sign, st.sampled_from([0, 0, 0, 0, 1]), st.sampled_from([scale] * 5 + [scale + 1]),
    )  # fmt: skip


PRECISIONS = [(10, 2), (18, 0), (18, 18), (19, 0), (30, 9), (38, 0), (38, 38), (38, 5), (3, -2), (3, 5)]

SENT: dict[str, st.SearchStrategy[bytes]] = {
    "boolean": st.sampled_from([b"\0", b"\1", b"\2"]),
    "smallint": st.binary(min_size=2, max_size=2),
    "integer": st.binary(min_size=4, max_size=4),
    "bigint": st.binary(min_size=8, max_size=8),
    "oid": st.binary(min_size=4, max_size=4),
    "real": st.binary(min_size=4, max_size=4)
    | st.floats(width=32).map(lambda f: pack(">f", f))
    | st.just(b"\xff\xc0\0\1"),
    "double precision": st.binary(min_size=8, max_size=8)
    | st.floats().map(lambda f: pack(">d", f))
    | st.just(b"\xff\xf8\0\0\0\0\0\1"),
    "date": _DAYS.map(lambda n: pack(">i", n)) | st.sampled_from([b"\x7f\xff\xff\xff", b"\x80\0\0\0"]),
    "time": (st.integers(0, DAY) | _EDGES).map(lambda n: pack(">q", n)),
    "timestamp": (_MOMENTS | _EDGES).map(lambda n: pack(">q", n)),
    "timestamp with time zone": (_MOMENTS | _EDGES).map(lambda n: pack(">q", n)),
    "bytea": st.binary(max_size=40),
    "text": st.text(max_size=40).map(str.encode),
    "jsonb": st.text(max_size=20).map(lambda t: b"\1" + t.encode()),
    "uuid": st.binary(min_size=16, max_size=16),
    **{f"numeric({p},{s})": numerics(p, max(s, 0)) | wild_numerics(max(s, 0)) for p, s in PRECISIONS},
}


def plain(kind: str, raw: bytes) -> tuple[str, str]:
    """The canonical text of the value, `odd` or `error`; and its text."""
    text = text_of(kind, raw)
    if text == ERROR:
        return ERROR, ""
    return (text if kind in ("jsonb", "uuid") else meaning(kind, text.encode())), text


@pytest.mark.parametrize("kind", SENT)
@given(data=st.data())
def test_any_bytes(kind: str, data: st.DataObject) -> None:
    """Cells with gaps and holes mean what plain Python reads, or are refused."""
    some = data.draw(
        st.lists(SENT[kind] | SENT[kind] | SENT[kind] | st.none() | st.binary(max_size=20), max_size=12)
    )
    front, back = bytes(PAD), bytes(PAD)
    laid = lay([front, *some, back], data.draw(st.binary(max_size=3)))
    inner = laid.pick(np.arange(1, len(some) + 1))
    cells = Cells(laid.data, inner.starts, inner.lengths, inner.state)
    meanings = [(None, "") if raw is None else plain(kind, raw) for raw in some]
    try:
        array, odd = convert_binary(cells, native(kind))
    except BadCell as error:
        assert meanings[error.row][0] == ERROR
        return
    assert ERROR not in [value for value, _ in meanings]
    assert array.type == arrow_type(native(kind))
    array.validate(full=True)
    assert canonical(array) == [None if value == ODD else value for value, _ in meanings]
    marked = [value == ODD for value, _ in meanings]
    assert (np.zeros(len(some), bool) if odd is None else odd.rows).tolist() == marked
    if odd is not None:
        assert odd.texts.to_pylist() == [text for value, text in meanings if value == ODD] != []


@pytest.mark.parametrize("kind", SENT)
def test_good_columns(kind: str) -> None:
    """Whole columns of good bytes: nothing is refused by mistake."""

    @given(st.lists(SENT[kind], min_size=1, max_size=40))
    def run(some: list[bytes]) -> None:
        kept = [raw for raw in some if plain(kind, raw)[0] != ERROR]
        laid = lay([bytes(PAD), *kept, bytes(PAD)])
        array, odd = convert_binary(laid.pick(np.arange(1, len(kept) + 1)), native(kind))
        wanted = [plain(kind, raw) for raw in kept]
        assert canonical(array) == [None if value == ODD else value for value, _ in wanted]
        texts = [] if odd is None else odd.texts.to_pylist()
        assert texts == [text for value, text in wanted if value == ODD]

    run()


@given(st.lists(st.integers(-(10**38) + 1, 10**38 - 1), max_size=10))
def test_the_widest_decimals(numbers: list[int]) -> None:
    laid = lay([bytes(PAD), *(write_numeric(n, 0) for n in numbers), bytes(PAD)])
    array, odd = convert_binary(laid.pick(np.arange(1, len(numbers) + 1)), native("numeric(38,0)"))
    assert odd is None
    assert [int(v) for v in array.to_pylist()] == numbers


def test_one_nan() -> None:
    """A NaN of other bits is the one of the text."""
    for kind, form in (("real", ">I"), ("double precision", ">Q")):
        other = pack(form, 0xFFC0_1234 if kind == "real" else 0xFFF8_0000_0000_1234)
        array, _ = convert_binary(lay([bytes(PAD), other, bytes(PAD)]).pick(np.arange(1, 2)), native(kind))
        assert array.to_numpy().tobytes() == np.array([np.nan], array.type.to_pandas_dtype()).tobytes()


def test_what_is_asked_for() -> None:
    """As it is where the binary form says the same, else as text; a domain is what is beneath it."""
    price = NativeType(90_000, -1, "price", 1700, 4 + (5 << 16 | 1), "b")
    mood = NativeType(90_001, -1, "mood", 90_001, -1, "e")
    pair = NativeType(90_002, -1, "pair", 90_002, -1, "c")
    text = 'case when t."a b" is distinct from null then pg_catalog.format(\'%s\', t."a b") end'
    for kind in SENT:
        assert select_item("a b", native(kind), "t.") == 't."a b"'
    assert select_item("a b", price) == select_item("a b", mood) == '"a b"'
    others = [
        "numeric",
        "numeric(39,1)",
        "interval",
        "inet",
        "integer[]",
        "money",
        "int4range",
        '"char"',
        "xml",
    ]
    for sort in [pair, *map(native, others)]:
        assert select_item("a b", sort, "t.") == text


def test_text_of_other_types_is_read_as_it_is() -> None:
    cells = lay([bytes(PAD), b"P1Y", "é".encode(), bytes(PAD)]).pick(np.array([1, 2]))
    cells.state[0] = NULL
    assert convert_binary(cells, native("interval"))[0] == pa.array([None, "é"])


def test_no_rows() -> None:
    for kind in SENT:
        array, odd = convert_binary(lay([bytes(2 * PAD)]).pick(np.arange(0)), native(kind))
        assert (array.type, len(array), odd) == (arrow_type(native(kind)), 0, None)
