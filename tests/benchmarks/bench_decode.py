"""Rows a second through `decode_changes` and `decode_copy`, beside a per-row decode in plain Python.

On a shared machine the rates mean little; the ratio of two runs in one process does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from random import Random
from struct import unpack_from

import numpy as np

from headwater.model import Column, TableId, TableSchema
from headwater.sources.postgres.decode import Relation, RelationColumn, decode_changes, decode_copy
from headwater.sources.postgres.frames import lay_out
from headwater.sources.postgres.values import NativeType, arrow_type
from postgres.wire import copy_row, insert

COLUMNS = (
    ("id", 20, -1, int),
    ("customer", 23, -1, int),
    ("status", 25, -1, str),
    ("note", 25, -1, str),
    ("amount", 1700, 4 + (12 << 16) + 2, Decimal),
    ("rate", 701, -1, float),
    ("paid", 16, -1, "t".__eq__),
    ("ordered", 1082, -1, lambda text: datetime.strptime(text, "%Y-%m-%d").date()),
    ("changed", 1114, -1, datetime.fromisoformat),
    ("seen", 1184, -1, datetime.fromisoformat),
)


def make_rows(count: int) -> list[list[str | None]]:
    rng = Random(1)

    def moment() -> str:
        text = f"20{rng.randrange(100):02}-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02}"
        clock = f"{rng.randrange(24):02}:{rng.randrange(60):02}:{rng.randrange(60):02}"
        return f"{text} {clock}" + f".{rng.randrange(1, 1_000_000):06}".rstrip("0")

    return [
        [
            str(n),
            str(rng.randrange(1_000_000)),
            rng.choice(["new", "paid", "shipped", "returned"]),
            None if rng.random() < 0.2 else "x" * rng.randrange(60),
            f"{rng.randrange(10_000_000) / 100:.2f}",
            repr(rng.random() * 1000),
            rng.choice("tf"),
            moment()[:10],
            moment(),
            moment() + "+00",
        ]
        for n in range(count)
    ]


def decode_rows(payloads: list[bytes]) -> list[list[object]]:
    """What a decoder without Arrow does: one cell after the other."""
    parsers = [parse for *_, parse in COLUMNS]
    table = []
    for payload in payloads:
        at, row = 8, []
        for parse in parsers:
            if payload[at] == 110:
                row.append(None)
                at += 1
                continue
            (size,) = unpack_from(">i", payload, at + 1)
            row.append(parse(payload[at + 5 : at + 5 + size].decode()))
            at += 5 + size
        table.append(row)
    return table


def seconds(work: Callable[[], object]) -> float:
    """The best of three."""
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def test_decode_rates() -> None:
    count = 200_000
    natives = [NativeType(oid, typmod, name, oid, typmod, "b") for name, oid, typmod, _ in COLUMNS]
    columns = tuple(Column(n.name, arrow_type(n)) for n in natives)
    schema = TableSchema(TableId("public", "orders"), columns, ("id",))
    told = tuple(RelationColumn(n.name, n.oid, n.typmod, n.name == "id") for n in natives)
    relation = Relation(7, "public", "orders", "d", told)
    rows = make_rows(count)
    payloads = [insert(7, row) for row in rows]
    text = b"".join(map(copy_row, rows))
    numbers = np.arange(count)
    plain = seconds(lambda: decode_rows(payloads[: count // 10])) * 10
    for name, work in (
        ("decode_changes", lambda: decode_changes(relation, natives, schema, [lay_out(payloads)], numbers)),
        ("decode_copy", lambda: decode_copy(text, natives, schema, 0)),
    ):
        took = seconds(work)
        print(f"{name}: {count / took:,.0f} rows/s, {plain / took:.1f} times a per-row decode in Python")
