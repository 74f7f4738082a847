"""Every rule that is made can fail: for each, a defect is planted."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import duckdb
import pyarrow as pa
import pytest

from headwater.config import Policies, Quality, Refers, TableSpec
from headwater.errors import ConfigError
from headwater.model import Column, Reference, TableId
from headwater.quality.refer import Parent, reference_rules
from headwater.quality.rows import _net, name_keys
from headwater.quality.rules import (
    age_rule,
    contract_rule,
    count,
    schema_rules,
    seen_rules,
    type_rule,
    volume_rule,
)
from headwater.quality.seen import Seen, seen_columns
from quality.tables import T, counted, make_rows, the_judge

ID = Column("id", pa.int64(), "bigint", nullable=False)


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        yield con


NOT_NULL = "expect_column_values_to_not_be_null"


def test_keys_and_columns_that_are_never_null(con: duckdb.DuckDBPyConnection) -> None:
    name = Column("v", pa.string(), "text", nullable=False)
    good = make_rows(con, [ID, name], {"id": [1, 2], "v": ["a", ""]})
    assert counted(con, good, list(schema_rules(good))) == {
        (NOT_NULL, "id"): 0,
        (NOT_NULL, "v"): 0,
        ("expect_column_values_to_be_unique", "id"): 0,
    }
    bad = make_rows(con, [ID, name], {"id": [1, 1, None, 2], "v": ["a", None, "b", None]})
    found = count(con, bad, list(schema_rules(bad)), look=False)
    assert [(c.unexpected, c.rows, c.keys) for c in found.checks] == [
        (1, 4, ('id=""',)),
        (2, 4, ("id=1", "id=2")),
        (1, 4, ("id=1",)),
    ]


def test_a_key_of_two_columns(con: duckdb.DuckDBPyConnection) -> None:
    both = [ID, Column('Ör "d', pa.string(), nullable=False)]
    rows = make_rows(con, both, {"id": [1, 1, 1, 2], 'Ör "d': ["a", "b", "a", "a"]}, key=("id", 'Ör "d'))
    found = counted(con, rows, list(schema_rules(rows)))
    assert found["expect_compound_columns_to_be_unique", "id", 'Ör "d'] == 1


def test_a_value_that_stands_as_text_beside_its_cell_is_no_null(con: duckdb.DuckDBPyConnection) -> None:
    at = Column("at", pa.timestamp("us"), "timestamp", nullable=False)
    rows = make_rows(con, [ID, at], {"id": [1, 2], "at": [None, None]}, texts=['{"at":"infinity"}', None])
    assert counted(con, rows, list(schema_rules(rows)))[NOT_NULL, "at"] == 1


def test_types_as_captured(con: duckdb.DuckDBPyConnection) -> None:
    rows = make_rows(con, [ID, Column("n", pa.int64())], {"id": [1], "n": [1]})
    spec, wanted = TableSpec(T), rows.schema
    told = {}
    for kind in (pa.int32(), pa.int64(), pa.string(), pa.decimal128(30, 2)):
        columns = (ID, Column("n", kind))
        told[str(kind)] = type_rule(rows, replace(wanted, columns=columns), spec).told
    assert told == {"int32": (0, 2), "int64": (0, 2), "string": (1, 2), "decimal128(30, 2)": (1, 2)}
    more = replace(wanted, columns=(*wanted.columns, Column("new", pa.string())))
    assert type_rule(rows, more, spec).told == (1, 3)
    assert type_rule(rows, more, replace(spec, policies=Policies("discard"))).told == (0, 3)


def test_columns_as_seen_before(con: duckdb.DuckDBPyConnection) -> None:
    rows = make_rows(con, [ID, Column("n", pa.int64())], {"id": [1], "n": [1]})
    seen = Seen(seen_columns(rows.schema))
    assert contract_rule(rows, seen).told == (0, 2)
    gone = replace(
        rows, schema=replace(rows.schema, columns=(ID, Column("n", pa.int64(), retired="dropped")))
    )
    assert contract_rule(gone, seen).told == (1, 2)
    other = replace(rows, schema=replace(rows.schema, columns=(ID, Column("n", pa.string()))))
    assert contract_rule(other, seen).check.columns == ("n",)


DAY = date(2026, 5, 1)
#: Column, what 120 rows held, what is still usual, what is not.
SEEN = [
    (pa.int32(), list(range(120)), [200, -100], [500, -500]),
    (pa.float64(), [n / 2 for n in range(118)] + [float("nan"), float("inf")], [100.0, float("nan")], [-1e9]),
    (pa.decimal128(38, 2), [Decimal(n) for n in range(120)], [Decimal("230.5")], [Decimal(10) ** 30]),
    (pa.date32(), [DAY + timedelta(n % 30) for n in range(120)], [DAY + timedelta(45)], [date(1, 1, 1)]),
    (pa.timestamp("us"), [datetime(2026, 5, 1, n % 24) for n in range(120)], [datetime(2026, 5, 2)],
     [datetime(9999, 12, 31), datetime(1970, 1, 1)]),
    (pa.timestamp("us", "UTC"), [datetime(2026, 5, 1, n % 24, tzinfo=UTC) for n in range(120)],
     [datetime(2026, 5, 2, tzinfo=UTC)], [datetime(9999, 12, 31, tzinfo=UTC)]),
    (pa.string(), ["paid", "open", "it's"] * 40, ["paid", "it's"], ["PAID", "'; drop table x"]),
    (pa.string(), [f"value number {n}" for n in range(120)], ["v" * 20], ["x", "y" * 500]),
    (pa.binary(), [b"1234"] * 120, [b"123"], [b"", b"x" * 50]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "held", "usual", "odd"), SEEN, ids=[f"{n} {s[0]}" for n, s in enumerate(SEEN)]
)
def test_values_far_from_what_was_seen(  # type: ignore[no-untyped-def]
    con: duckdb.DuckDBPyConnection, kind: pa.DataType, held, usual, odd
) -> None:
    columns = [ID, Column("v", kind)]
    first = make_rows(con, columns, {"id": range(len(held)), "v": held})
    look = count(con, first, [], look=True)
    seen = Seen().merge(seen_columns(first.schema), look.spans, None)
    seen = Seen.from_json(seen.to_json())
    assert not [n for n in counted(con, first, list(seen_rules(first, seen))).values() if n]
    later = make_rows(con, columns, {"id": range(len(usual) + len(odd) + 1), "v": [*usual, *odd, None]})
    rules = list(seen_rules(later, seen))
    assert len(rules) == 1 and rules[0].check.severity == "warning"
    assert list(counted(con, later, rules).values()) == [len(odd)]


def test_bounds_beyond_the_largest_double(con: duckdb.DuckDBPyConnection) -> None:
    columns, held = [ID, Column("v", pa.float64())], [1.7e308, -1.7e308] * 60
    rows = make_rows(con, columns, {"id": range(len(held)), "v": held})
    seen = Seen().merge(seen_columns(rows.schema), count(con, rows, [], look=True).spans, None)
    assert list(counted(con, rows, list(seen_rules(rows, seen))).values()) == [0]


def test_nothing_is_seen_of_keys_and_masked_columns(con: duckdb.DuckDBPyConnection) -> None:
    rows = make_rows(
        con, [ID, Column("email", pa.string(), mask="redact:4")], {"id": [1], "email": ["hunter2"]}
    )
    assert count(con, rows, [], look=True).spans == {}


def test_the_size_of_a_batch(con: duckdb.DuckDBPyConnection) -> None:
    sizes = (100, 104, 97, 101, 99, 103, 98)
    assert volume_rule(5000, Seen(sizes=sizes)) is None
    enough = Seen(sizes=(*sizes, 100))
    found = {n: volume_rule(n, enough) for n in (0, 20, 60, 100, 170, 5000)}
    assert [n for n, told in found.items() if told and told[1]] == [0, 20, 5000]


def test_the_age_of_the_newest_change() -> None:
    now = datetime.now(UTC)
    assert age_rule("2h", now - timedelta(hours=1)).told == (0, 1)
    assert age_rule("30min", now - timedelta(hours=1)).told == (1, 1)
    assert age_rule("2h", None).told == (1, 1)
    assert not replace(age_rule("2h", None).check, outcome="failed").holds


def test_rows_that_refer_to_nothing(con: duckdb.DuckDBPyConnection) -> None:
    ours, theirs = TableId("public", "orders"), TableId("public", "customers")
    parents = make_rows(con, [ID], {"id": [1, 2]}, table=theirs)
    columns = [ID, Column("customer", pa.int32())]
    rows = make_rows(con, columns, {"id": [1, 2, 3], "customer": [1, None, 7]}, table=ours)

    def find(table: TableId) -> Parent | None:
        return Parent(parents.schema, parents.relation) if table == theirs else None

    spec = TableSpec(ours)
    key = Reference(ours, ("customer",), theirs, ("id",))
    (rule,) = reference_rules(rows, spec, [key], find)
    (check,) = count(con, rows, [rule], look=False).checks
    assert (check.unexpected, check.keys) == (1, ("id=3",))
    # Not judged: a parent that is not captured, one of which only some rows are copied, a masked column.
    lost = Reference(ours, ("customer",), TableId("public", "x"), ("id",))
    assert reference_rules(rows, spec, [lost], find) == []
    part = replace(parents.schema, where="id > 1")
    assert reference_rules(rows, spec, [key], lambda _: Parent(part, parents.relation)) == []
    masked = replace(
        rows, schema=replace(rows.schema, columns=(ID, Column("customer", pa.string(), mask="x")))
    )
    assert reference_rules(masked, spec, [key], find) == []
    # The user's own: its key is the parent's, and what cannot be compared is named.
    own = replace(spec, quality=Quality(references=(Refers(("customer",), theirs, at="f.yml:3"),)))
    assert counted(con, rows, reference_rules(rows, own, [], find)) == {("references", "customer"): 1}
    with pytest.raises(ConfigError, match=r"f.yml:3: customer, id cannot be compared"):
        reference_rules(masked, own, [], find)
    with pytest.raises(ConfigError, match=r"f.yml:3: public.customers is not captured"):
        reference_rules(rows, own, [], lambda _: None)


def test_keys_are_named_unless_masked(con: duckdb.DuckDBPyConnection) -> None:
    rows = make_rows(con, [replace(ID, type=pa.string(), mask="hash:1")], {"id": ["secret"]})
    assert name_keys(con, rows, f"SELECT * FROM {rows.relation}") == ()


def test_numbers_are_judged_all_at_once() -> None:
    told = the_judge().counts([0] * 300 + [5] + [0] * 20 + [1])
    assert [n for n, its in enumerate(told) if not its.success] == [300, 321]
    assert the_judge().counts([]) == ()


@pytest.mark.parametrize("key", [("id",), ()])
def test_a_batch_is_what_is_left_of_changes(con: duckdb.DuckDBPyConnection, key: tuple[str, ...]) -> None:
    """Against plain Python: the last version of each key; without one, rows less those taken back."""
    lots = random.Random(3)
    ids, texts, ops = (list(pick) for pick in zip(*(
        (lots.randrange(6), lots.choice(["a", "b", None]), lots.choice("cud" if key else "ccd"))
        for _ in range(400)
    ), strict=True))  # fmt: skip
    columns = [ID, Column("v", pa.string())]
    changes = make_rows(con, columns, {"id": ids, "v": texts}, key)
    con.register("ops", pa.table({"_hw_seq": range(2, 1602, 4), "op": ops}))
    came = f"(SELECT * REPLACE (op AS _hw_op) FROM {changes.relation} JOIN ops USING (_hw_seq))"
    found = con.execute(f"SELECT id, v FROM {_net(changes.schema, came)}").fetchall()
    plain: Counter[tuple[int, str | None]] = Counter()
    for row, op in zip(zip(ids, texts, strict=True), ops, strict=True):
        if key:
            plain = Counter({held: n for held, n in plain.items() if held[0] != row[0]})
        plain[row] += -1 if op == "d" else 1
        if key and op == "d":
            del plain[row]
    assert Counter(found) == +plain
