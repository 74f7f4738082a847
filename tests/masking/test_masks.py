"""Each mask over each kind of column: values, NULL, unset and odd cells."""

from __future__ import annotations

import hashlib
import hmac
import pickle
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, get_args

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.config import Mask, MaskKind
from headwater.config.fields import _MASKS
from headwater.errors import ConfigError, SourceError
from headwater.masking import MASKS, MaskKey
from headwater.masking.functions import Tools
from headwater.masking.rows import mask_rows
from headwater.masking.rules import mask_schema
from headwater.secrets import Secret
from masking.batches import KEY, SECRET, mask, rows_of, schema_of, spec_of

TEXT = schema_of(("v", pa.string(), "text"))


def hashed(text: str) -> str:
    return hmac.new(SECRET.encode(), text.encode(), "sha256").hexdigest()


def one(kind: pa.DataType, native: str, value: Any, how: Mask, **more: Any) -> Any:
    schema = schema_of(("v", kind, native))
    return mask(schema, spec_of(v=how), {"v": value, **more})[0]["v"]


@pytest.mark.parametrize(
    ("how", "value", "expected"),
    [
        (Mask("redact", 4), "+41 79 123 45 67", "****5 67"),
        (Mask("redact", 4), "1234", "****"),
        (Mask("redact", 4), "12345", "****2345"),
        (Mask("redact", 2), "zoë", "****oë"),
        (Mask("redact"), "anything", "****"),
        (Mask("redact"), "", "****"),
        (Mask("truncate", 3), "80331", "803"),
        (Mask("truncate", 3), "né", "né"),
        (Mask("truncate", 1), "日本", "日"),
        (Mask("null"), "x", None),
        (Mask("hash"), "a@example.com", hashed("a@example.com")),
        (Mask("hash"), "", hashed("")),
        (Mask("hash"), "日本", hashed("日本")),
    ],
)
def test_texts(how: Mask, value: str, expected: str | None) -> None:
    assert one(pa.string(), "text", value, how) == expected


@pytest.mark.parametrize("kind", sorted(set(MASKS) - {"drop"}))
def test_null_stays_null_and_every_row_its_place(kind: MaskKind) -> None:
    how = Mask(kind, 2) if kind in ("redact", "truncate") else Mask(kind)
    rows = mask(TEXT, spec_of(v=how), *({"v": v} for v in ("abc", None, "abc", "abd", None)))
    made = [r["v"] for r in rows]
    assert made[1] is None and made[4] is None
    assert [r["id"] for r in rows] == [0, 1, 2, 3, 4]
    assert made[0] == made[2]
    if kind != "null":
        assert None not in (made[0], made[3])


def test_the_masks_of_the_configuration_are_those_of_the_table() -> None:
    assert set(MASKS) == set(get_args(MaskKind))
    each = _MASKS.each
    assert each is not None and each.short is not None
    assert set(MASKS) == set(each.short.choices) | {f.name for f in each.fields}


@pytest.mark.parametrize(
    ("kind", "native", "value", "text"),
    [
        (pa.int16(), "smallint", 7, "7"),
        (pa.int64(), "bigint", 7, "7"),
        (pa.decimal128(10, 2), "numeric(10,2)", Decimal("1.50"), "1.5"),
        (pa.decimal128(12, 4), "numeric(12,4)", Decimal("1.5000"), "1.5"),
        (pa.decimal128(12, 4), "numeric(12,4)", Decimal("100.0000"), "100"),
        (pa.decimal128(5, 0), "numeric(5,0)", Decimal("100"), "100"),
        (pa.decimal128(2, 2), "numeric(2,2)", Decimal("-0.50"), "-0.5"),
        (pa.string(), "numeric", "1.500", "1.5"),
        (pa.string(), "numeric", "100", "100"),
        (pa.string(), "text", "1.500", "1.500"),
        (pa.bool_(), "boolean", True, "t"),
        (pa.binary(), "bytea", b"\x00\xff", "00ff"),
        (pa.date32(), "date", date(1970, 1, 2), "1"),
        (pa.timestamp("us", "UTC"), "timestamptz", datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC), "1000000"),
        (pa.float32(), "real", 1.5, "4609434218613702656"),
        (pa.float64(), "double precision", 1.5, "4609434218613702656"),
    ],
)  # fmt: skip
def test_a_hash_is_over_the_canonical_text(kind: pa.DataType, native: str, value: Any, text: str) -> None:
    assert one(kind, native, value, Mask("hash")) == hashed(text)


@pytest.mark.parametrize(
    ("kind", "native", "value", "how", "expected"),
    [
        (pa.date32(), "date", date(1984, 5, 6), Mask("truncate", 4), "1984"),
        (pa.int64(), "bigint", 4111222233334444, Mask("redact", 4), "****4444"),
        (pa.decimal128(10, 2), "numeric(10,2)", Decimal("12.50"), Mask("truncate", 2), "12"),
        (pa.binary(), "bytea", b"\xab\xcd", Mask("truncate", 2), "ab"),
        (pa.timestamp("us", "UTC"), "timestamp with time zone", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
         Mask("truncate", 10), "2026-01-02"),
    ],
)  # fmt: skip
def test_other_masks_are_over_the_text_that_people_read(
    kind: pa.DataType, native: str, value: Any, how: Mask, expected: str
) -> None:
    assert one(kind, native, value, how) == expected


def test_a_nulled_column_keeps_its_type() -> None:
    schema = schema_of(("v", pa.date32(), "date"))
    masked = mask_schema(schema, spec_of(v=Mask("null")), "")
    assert (masked.columns[1].type, masked.columns[1].nullable) == (pa.date32(), True)
    assert mask(schema, spec_of(v=Mask("null")), {"v": date(2026, 1, 1)})[0]["v"] is None


def test_odd_cells_are_masked_and_leave_the_texts() -> None:
    schema = schema_of(
        ("v", pa.date32(), "date"), ('a/b~"c', pa.date32(), "date"), ("p", pa.date32(), "date")
    )
    texts = {"v": "infinity", 'a/b~"c': "-infinity", "p": "infinity"}
    rows = mask(
        schema, spec_of(**{"v": Mask("hash"), 'a/b~"c': Mask("null")}),
        {"text": texts}, {"text": {"v": "infinity"}}, {"text": {"p": "infinity"}}, {},
    )  # fmt: skip
    assert [r["v"] for r in rows] == [hashed("~infinity")] * 2 + [None] * 2
    assert [r["_hw_text"] for r in rows] == ['{"p":"infinity"}', None, '{"p":"infinity"}', None]


def test_unset_stays_unset_and_a_column_left_out_is_nowhere() -> None:
    schema = schema_of(("v", pa.string(), "text"), ("w", pa.string(), "text"), ("d", pa.date32(), "date"))
    rows = mask(
        schema, spec_of(v=Mask("hash"), w=Mask("drop"), d=Mask("drop")),
        {"unset": ["v", "w"]}, {"unset": ["w", "d"]}, {"v": "x"}, {"text": {"d": "infinity"}},
    )  # fmt: skip
    assert [r["_hw_unset"] for r in rows] == [["v"], None, None, None]
    assert rows[0]["v"] is None
    assert all("w" not in r and "d" not in r and r["_hw_text"] is None for r in rows)


def test_threads_may_mask_at_once() -> None:
    schema = schema_of(("v", pa.timestamp("us", "UTC"), "timestamptz"))
    moments = [datetime(2026, 1, 1, n, tzinfo=UTC) for n in range(24)]
    how = spec_of(v=Mask("truncate", 16))

    def run(number: int) -> list[str]:
        return [r["v"] for r in mask(schema, how, *({"v": m.replace(minute=number)} for m in moments * 20))]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(run, range(40)))
    assert found == [[f"2026-01-01 {n:02}:{number:02}" for n in range(24)] * 20 for number in range(40)]


def test_an_empty_batch() -> None:
    assert mask(TEXT, spec_of(v=Mask("hash"))) == []
    assert mask(TEXT, spec_of(v=Mask("tokenize"))) == []


def test_a_value_the_engine_refuses_is_not_in_the_error() -> None:
    schema = schema_of(("v", pa.date32(), "date"))
    masked = mask_schema(schema, spec_of(v=Mask("hash")), KEY.id)
    broken = rows_of(schema, {"text": {"v": "x"}}).set_column(
        8, "_hw_text", pa.array(["{CANARY"], pa.string())
    )
    with pytest.raises(SourceError) as failed:
        mask_rows(broken, schema, masked, Tools(KEY))
    assert "CANARY" not in repr(failed.value) + str(failed.value.__context__) + str(failed.value.__cause__)


@pytest.mark.parametrize("length", [32, 64, 65, 200])
def test_a_hash_is_hmac_for_keys_of_any_length(length: int) -> None:
    key = MaskKey(Secret("k" * length))
    masked = mask_schema(TEXT, spec_of(v=Mask("hash")), key.id)
    made = mask_rows(rows_of(TEXT, {"v": "x"}), TEXT, masked, Tools(key))["v"].to_pylist()
    assert made == [hmac.new(b"k" * length, b"x", hashlib.sha256).hexdigest()]


def test_a_key_shows_itself_nowhere_and_must_be_long() -> None:
    assert SECRET not in f"{KEY!r} {KEY} {KEY.id}"
    assert len(KEY.id) == 12
    assert MaskKey(Secret(SECRET)).id == KEY.id != MaskKey(Secret(SECRET + "x")).id
    with pytest.raises(ConfigError, match="fewer than 32"):
        MaskKey(Secret("short"))
    with pytest.raises(ConfigError) as failed:
        mask_rows(
            rows_of(TEXT, {"v": "x"}), TEXT, mask_schema(TEXT, spec_of(v=Mask("hash")), ""), Tools(None)
        )
    assert failed.value.hint == "mask_key: env:HEADWATER_MASK_KEY"
    with pytest.raises(TypeError):
        pickle.dumps(Secret(SECRET))


_numbers = st.integers(-(2**15), 2**15 - 1)


@given(st.lists(_numbers | st.none(), max_size=30))
def test_equal_numbers_have_equal_hashes_whatever_the_width(values: list[int | None]) -> None:
    shapes = [
        (pa.int16(), "smallint"), (pa.int32(), "integer"), (pa.int64(), "bigint"),
        (pa.decimal128(12, 0), "numeric(12,0)"), (pa.decimal128(20, 6), "numeric(20,6)"),
    ]  # fmt: skip
    made = []
    for kind, native in shapes:
        rows = mask(schema_of(("v", kind, native)), spec_of(v=Mask("hash")), *({"v": v} for v in values))
        made.append([r["v"] for r in rows])
    as_text = mask(TEXT, spec_of(v=Mask("hash")), *({"v": None if v is None else str(v)} for v in values))
    assert all(m == [r["v"] for r in as_text] for m in made)


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")) | st.none(), max_size=20))
def test_hashes_are_hmac_of_any_text(values: list[str | None]) -> None:
    rows = mask(TEXT, spec_of(v=Mask("hash")), *({"v": v} for v in values))
    assert [r["v"] for r in rows] == [None if v is None else hashed(v) for v in values]
