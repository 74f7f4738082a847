"""The same values in PostgreSQL and, through our decoder, in DuckDB give the same digest."""

from contextlib import closing
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headwater.model import Digest, TableId
from headwater.sources.postgres import PostgresSource
from headwater.verify import digest, verify
from servers.postgres import Database

pytestmark = pytest.mark.live

_NUMERICS = "('0'), ('-0.00'), ('0.5'), ('-0.05'), ('NaN'), (null), ('99999999.99'), ('-99999999.99')"
_DAYS = """('1970-01-01'), ('1969-12-31'), ('2024-02-29'), ('0001-01-01'), ('0044-03-15 BC'),
    ('4713-01-01 BC'), ('10000-01-01'), ('9999-12-31'), (null)"""
_TIMES = """('1970-01-01 00:00:00'), ('1969-12-31 23:59:59.999999'), ('2024-02-29 12:34:56.789012'),
    ('0044-03-15 12:00:00 BC'), ('4713-01-01 00:00:00 BC'), ('10000-01-01 00:00:00.000001'), ('infinity'),
    ('-infinity'), ('294276-12-31 23:59:59.999999'), ('294247-01-10 04:00:54.775806'),
    ('294247-01-10 04:00:54.775807'), ('294247-01-10 04:00:54.775808'), (null)"""

CASES = {
    "boolean": "(true), (false), (null)",
    "smallint": "(-32768), (0), (32767), (null)",
    "integer": "(-2147483648), (0), (2147483647)",
    "bigint": "(-9223372036854775808), (0), (9223372036854775807)",
    "oid": "(0), (4294967295)",
    "real": "('NaN'), ('Infinity'), ('-Infinity'), ('-0'), (0), ('1e-45'), ('3.4028235e38'), (0.1),"
    " (16777217)",
    "double precision": "('NaN'), ('Infinity'), ('-Infinity'), ('-0'), (0), ('5e-324'), ('-2.2e-308'), (0.1),"
    " ('1.7976931348623157e308'), (1e15), (100000), (null)",
    "numeric(10,2)": _NUMERICS,
    "numeric(4,4)": "('0.5'), ('-0.9999'), ('0'), ('NaN')",
    "numeric(38,38)": "('-0.1'), ('0.00000000000000000000000000000000000001')",
    "numeric(38,0)": "('99999999999999999999999999999999999999'), ('-7'), ('NaN')",
    "numeric(1000,500)": "('1.5'), ('-1e400'), ('NaN')",
    "numeric(3,-2)": "(12345), (-100), ('NaN'), (0)",
    "numeric(3,5)": "(0.00123), (-0.00999)",
    "numeric": "('NaN'), ('Infinity'), ('-Infinity'), ('1e1000'), ('0.1000'), ('-0'), (null)",
    "text": "(''), (null), ('N'), ('é'), ('e\u0301'), ('😀'), ('~infinity'),"
    " (E'a\\tb\\n\\\\'), ('\\N'), (repeat('x', 100000))",
    "varchar(5)": "(''), ('abc  ')",
    "char(5)": "(''), ('a'), ('a    '), ('é')",
    '"char"': "('a'), ('')",
    "name": "('n')",
    "bytea": "(''), ('\\x00ff'), (null), ('\\x5c78')",
    "date": _DAYS + ", ('infinity'), ('-infinity'), ('5874897-12-31')",
    "time": "('00:00:00'), ('23:59:59.999999'), ('24:00:00'), ('12:34:56.7')",
    "timetz": "('12:00:00+05:30'), ('24:00:00-08')",
    "timestamp": _TIMES,
    "timestamptz": _TIMES,
    "interval": "('1 year 2 mons -3 days 04:05:06.789'), ('0'), ('-1 mon')",
    "json": """('{"a": 1, "a":  2}'), ('null'), (null)""",
    "jsonb": """('{"b": 1, "a": 2}'), ('null')""",
    "uuid": "('00000000-0000-0000-0000-00000000000F')",
    "inet": "('10.0.0.1'), ('10.0.0.0/8'), ('::1')",
    "cidr": "('10.0.0.0/8')",
    "macaddr": "('08:00:2b:01:02:03')",
    "int[]": "('{1,2}'), ('[2:3]={1,2}'), ('{}'), ('{{1},{null}}')",
    "text[]": """('{"a,b","",null,"NULL"}')""",
    "timestamptz[]": "(array['2020-01-01 00:00:00+00'::timestamptz, 'infinity'])",
    "mood": "('sad'), ('so ''happy''')",
    "even": "(2), (null)",
    "pair": "(row(1, 'a,b')), (row(null, ''))",
    "int4range": "('[1,5)'), ('empty')",
    "tstzrange": "('[2020-01-01,)')",
    "money": "(1234.56), (-0.01)",
    "bit(3)": "(b'101')",
    "varbit": "(b''), (b'1')",
    "xml": "('<a>&amp;</a>')",
    "point": "('(0.1,2)')",
    "tsvector": "('a:1 b')",
    "pg_lsn": "('0/16B3748')",
}

SETUP = """
    create type mood as enum ('sad', 'so ''happy''');
    create domain even as integer check (value % 2 = 0);
    create type pair as (a integer, b text);
"""


@pytest.mark.parametrize("pg_version", [15, 16, 18])
def test_every_type(pg: Database, tmp_path: Path, pg_version: int) -> None:
    # The wheels are built without libxml.
    cases = {its: values for its, values in CASES.items() if its != "xml" or pg_version == 15}
    statements = [SETUP]
    for n, (its, values) in enumerate(cases.items()):
        statements.append(
            f"create table c{n} (id integer primary key generated always as identity, x {its});"
        )
        statements.append(f"insert into c{n}(x) values {_typed(values, its)};")
    pg.run("".join(statements))
    with closing(source(pg)) as origin, origin.cut() as cut:
        schemas = {i.schema.table: i.schema for i in origin.tables()}
        wrong = []
        for n, its in enumerate(cases):
            schema = schemas[TableId("public", f"c{n}")]
            file = tmp_path / f"{n}.parquet"
            rows = pa.concat_tables(b.rows for b in cut.read(schema.table))
            pq.write_table(rows, file)
            with duckdb.connect() as connection:
                (found,) = verify(cut, [schema], lambda _: (f"read_parquet('{file}')", connection))  # noqa: B023
            assert found.source.rows == rows.num_rows > 0
            if not found.equal:
                wrong.append((its, found.differing))
        assert not wrong


def _typed(values: str, its: str) -> str:
    """Values as the column's type: a row of VALUES would make them text and numbers of their own."""
    return ", ".join(f"(cast({v} as {its}))" for v in split(values))


def split(values: str) -> list[str]:
    """The values between the outermost brackets."""
    found, depth, start, quoted = [], 0, 0, False
    for at, sign in enumerate(values):
        quoted ^= sign == "'"
        if quoted:
            continue
        if sign == "(":
            start = at + 1 if depth == 0 else start
            depth += 1
        elif sign == ")":
            depth -= 1
            if depth == 0:
                found.append(values[start:at])
    return found


def source(pg: Database) -> PostgresSource:
    return PostgresSource(slot="headwater_test", publication="headwater_test", url=pg.url)


def test_sessions_of_other_habits_change_nothing(pg: Database) -> None:
    pg.run("create table t (id int primary key, d timestamptz, f float8, b bytea, i interval, m date)")
    pg.run("insert into t values (1, '2024-07-01 12:00+02', 0.1, '\\x00', '1 mon', '2024-02-03')")
    with closing(source(pg)) as origin, origin.cut() as cut:
        before = cut.digests(next(i.schema for i in origin.tables()))[0]
    name = pg.name
    for setting in (
        "timezone = 'Asia/Kolkata'", "datestyle = 'SQL, DMY'", "extra_float_digits = -5",
        "bytea_output = escape", "intervalstyle = sql_standard", "lc_monetary = 'C'",
    ):  # fmt: skip
        pg.run(f"alter database {name} set {setting}")
    with closing(source(pg)) as origin, origin.cut() as cut:
        assert cut.digests(next(i.schema for i in origin.tables()))[0] == before


def test_a_wide_table_and_an_empty_one(pg: Database) -> None:
    columns = ", ".join(f"c{n} int default {n}" for n in range(1500))
    pg.run(f"create table wide ({columns}); insert into wide default values; create table bare (id int)")
    with closing(source(pg)) as origin, origin.cut() as cut, duckdb.connect() as connection:
        for info in origin.tables():
            rows = pa.concat_tables(b.rows for b in cut.read(info.schema.table))
            connection.register("held", rows)
            assert digest(info.schema, "held", connection) == cut.digests(info.schema).get(0, Digest(0))
            connection.unregister("held")
