"""Filters over what PostgreSQL sends against the same words in its WHERE: types, odd values, NULL."""

from __future__ import annotations

import random

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from headwater.errors import ConfigError
from headwater.filters.rows import Engine
from headwater.filters.rules import bind
from headwater.model import TableSchema
from postgres.rig import opened, table
from servers.postgres import Database

pytestmark = pytest.mark.live

SETUP = """
create type mood as enum ('sad', 'ok', 'happy');
create table t (
    id int primary key, small smallint, big bigint, n numeric(10, 2), wide numeric(38, 4), free numeric, r real,
    d double precision, b boolean, day date, at timestamp, zoned timestamptz, clock time, txt text collate "C",
    code char(5), u uuid, m mood, j jsonb, raw bytea, tags text[]
);
insert into t values
    (1, 1, 9223372036854775807, 10, 10, 10, 0.1, 0.1, true, '2025-01-31', '2025-01-31 12:00', '2025-01-31 12:00Z',
     '12:00', 'a', 'a', '8c5c7b1e-0000-4000-8000-00000000000a', 'sad', '{}', 'a', '{a}'),
    (2, -5, -9223372036854775808, 9.99, 9999999999999999999999999999999999.9999, 1e40, 'NaN', 'NaN', false,
     'infinity', 'infinity', 'infinity', '24:00', 'A%', 'a  ', null, 'happy', null, null, null),
    (3, 32767, 0, 'NaN', -9999999999999999999999999999999999.9999, 'NaN', 'infinity', '-infinity', null,
     '-infinity', '-infinity', '-infinity', '00:00', 'it''s', 'b', 'ffffffff-0000-4000-8000-00000000000a', null,
     '[]', '', '{}'),
    (5, 0, 11, 0.5, 0, -0.05, -0.0, 0, true, '0044-03-15 BC', '294276-12-31 23:59:59', '4714-11-24 BC', '23:59:59.5',
     '', '', null, 'ok', null, null, null),
    (6, 10, 10, 10.01, 10.0001, 10.00, 10, 10.5, false, '9999-12-31', '2025-01-31 12:00:00.000001',
     '2025-01-31 11:59:59+00', '12:00:00.000001', 'ünï', 'ab', null, 'ok', null, null, null),
    (7, 10, 11, -10, -0.0001, '-Infinity', 1e30, 1e300, true, '2025-02-01', '1969-12-31 23:59:59.999999',
     '2025-01-31 13:00+01', '00:00:00.000001', E'new\\nline', 'zz', null, 'sad', null, null, null),
    (8, 9, 12, 99999999.99, 0.5, 'Infinity', 0.1::double precision, 0.3, true, '2025-01-30', '2025-01-31 00:00',
     '2025-01-31 00:00Z', '11:59:59', 'Z', 'z', null, 'sad', null, null, null),
    (9, 8, 13, -99999999.99, 1, 0.000000000000000000000000000000000000000000000000001, 0.2, 0.2, false, '2024-02-29',
     '2024-02-29 01:02:03', '2024-02-29 01:02:03Z', '01:02:03', 'a', 'A', null, 'sad', null, null, null);
insert into t (id) values (4);
"""  # noqa: E501

NUMBERS = [
    "0", "10", "-5", "10.5", "9.995", "0.00001", "-0.05", "100000000", "-100000000.01", "9223372036854775807",
    "9223372036854775807.5", "-9223372036854775809", "1" + "0" * 40, "-1" + "0" * 40, "32767.01", "0.1",
]  # fmt: skip
DAYS = ["'2025-01-31'", "'2024-02-29'", "'infinity'", "'-infinity'", "'0001-01-01'", "'9999-12-31'"]
MOMENTS = [*DAYS, "'2025-01-31 12:00'", "'2025-01-31T12:00:00.000001'", "'1969-12-31 23:59:59.999999'"]
VALUES = {
    "small": NUMBERS, "big": NUMBERS, "n": NUMBERS, "wide": NUMBERS, "free": NUMBERS, "d": NUMBERS,
    "day": DAYS, "at": MOMENTS, "zoned": [*MOMENTS, "'2025-01-31 13:00+01'", "'2025-01-31 12:00Z'"],
    "clock": ["'12:00'", "'24:00:00'", "'00:00:00'", "'23:59:59.5'", "'12:00:00.000001'"],
    "txt": ["'a'", "''", "'A%'", "'it''s'", "'ünï'", "'Z'", "'zzz'"],
    "code": ["'a'", "'a  '", "''", "'zz'"],
    "u": ["'8C5C7B1E-0000-4000-8000-00000000000A'", "'8c5c7b1e00004000800000000000000a'"],
}  # fmt: skip
EQUAL_ONLY = {"m": ["'ok'", "'sad'"], "b": ["true", "false"]}
PAIRS = [("small", "big"), ("n", "wide"), ("n", "free"), ("big", "free"), ("wide", "small"), ("txt", "txt")]


def leaf(dice: random.Random) -> str:
    name = dice.choice([*VALUES, *EQUAL_ONLY])
    values = VALUES.get(name) or EQUAL_ONLY[name]
    ops = ["=", "<>", "<", "<=", ">", ">="] if name in VALUES else ["=", "<>"]
    one, two = dice.choice(values), dice.choice(values)
    shapes = [f"{name} {dice.choice(ops)} {one}"] * 4 + [
        f"{name} in ({one}, {two})",
        f"{name} not in ({two})",
    ]
    shapes += [f"{name} is null", f"{name} is not null"]
    shapes += [f"{name} between {one} and {two}"] if name in VALUES else []
    left, right = dice.choice(PAIRS)
    shapes += [f"{left} {dice.choice(['=', '<>', '<', '>='])} {right}", "b", "not b"]
    shapes += [f"txt like {p}" for p in (r"'a%'", r"'%\%'", "'_'", "'%t''s'", "'%n%'")]
    return dice.choice(shapes)


def predicate(dice: random.Random, depth: int = 2) -> str:
    if not depth or dice.random() < 0.3:
        return leaf(dice)
    one, two = predicate(dice, depth - 1), predicate(dice, depth - 1)
    return dice.choice([f"({one} and {two})", f"({one} or {two})", f"not ({one})"])


def read(db: Database) -> tuple[TableSchema, pa.Table]:
    with opened(db.url) as source:
        source.prepare([table("t")], None)
        with source.cut() as cut:
            batches = list(cut.read(table("t")))
    return batches[-1].schema, pa.concat_tables(b.rows for b in batches)


def test_filters_mean_what_the_server_means(pg: Database) -> None:
    pg.run(SETUP)
    schema, rows = read(pg)
    dice, engine = random.Random(5), Engine()
    texts = [leaf(dice) for _ in range(250)] + [predicate(dice) for _ in range(80)]
    with pg.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        for text in texts:
            query = f"select array(select id from t where {text} order by id)"
            (wanted,) = connection.execute(query).fetchone() or ((),)
            bound = bind([text], schema)
            assert bound is not None
            fits = engine.fitting(bound.condition, rows, bound.columns)
            assert sorted(rows["id"].filter(fits).to_pylist()) == wanted, text
    assert pc.count(rows["id"]).as_py() == 9


REFUSED = (
    "j = '{}'", "tags = '{a}'", "raw = 'a'", "m < 'ok'", "b < true", "b = 1", "u = 'x'", "n = '1'", "txt = 1",
    "day = '2025-02-30'", "at = '2025-01-31 12:00Z'", "clock = '25:00'", "d = n", "j = j", "n like '1%'",
    "free = 'NaN'", "m", "id = txt", "missing = 1", "zoned > at",
)  # fmt: skip


def test_what_does_not_go_together_is_refused(pg: Database) -> None:
    pg.run(SETUP)
    schema, _ = read(pg)
    for text in REFUSED:
        with pytest.raises(ConfigError, match=r"\^"):
            bind([text], schema)
