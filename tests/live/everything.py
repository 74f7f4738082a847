"""One table that uses every setting at once: its rows, five batches of changes, the truth in plain SQL."""

from __future__ import annotations

import hmac
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb

from servers.postgres import Database

#: How many rows the first load reads: HEADWATER_EVERYTHING_ROWS=1000000 is the run of docs/everything.md.
ROWS = int(os.environ.get("HEADWATER_EVERYTHING_ROWS", "20000"))
KEY = "a key of thirty-two characters, or more"
TABLE = 'sales."Orders"'

#: What each city's folder is called; no two are one.
FOLDERS = {
    None: "__HIVE_DEFAULT_PARTITION__", "": "__EMPTY__", "a/b": "a%2Fb", "🐘": "%F0%9F%90%98",
    "Zürich": "Zürich", "..": "%2E.", "50%=half": "50%25%3Dhalf",
}  # fmt: skip
CITIES = "array['', 'a/b', '🐘', 'Zürich', '..', '50%=half', null]"

CASTS: dict[str, Any] = {
    "erdat": {"to": "date", "format": "yyyyMMdd", "empty": ["00000000", ""]},
    "changed": "@T(yyyy-MM-dd HH:mm:ss)", "qty": "@I", "big": "@L", "weight": "@F", "price": "decimal(15,2)",
    "erzet": {"to": "time", "format": "HHmmss"}, "paid": "@D(dd.MM.yyyy)", "guid": "hex",
}  # fmt: skip
#: The rules once someone has looked at what waits.
MENDED = CASTS | {
    "erdat": CASTS["erdat"] | {"empty": ["00000000", "", "20181399"]},
    "qty": {"to": "integer", "empty": ["n/a"]},
}
SETTINGS: dict[str, Any] = {
    "name": TABLE,
    "where": "status <> 'test' and (amount >= 10 or amount is null)",
    "columns": ["*", "!internal_*"],
    "masks": {"email": "hash", "phone": {"redact": 4}, "zip": {"truncate": 3}},
    "cast": CASTS,
    "partition": "/@erdat(yr=%y)/@erdat(half=%r-%R)/@city(place=%s)/@qty(q=%3.2i)",
    "lake": {"compression": "gzip", "slices": 2},
    "history": {"valid_from": "start_date", "valid_to": "end_date", "current": "open"},
}
CONFIG: dict[str, Any] = {
    "tables": [SETTINGS],
    "mask_key": "env:EVERYTHING_KEY",
    "lake": {"compact": "always"},
    "warehouse": {"path": "warehouse.duckdb", "schema": "dwh", "keep_staging": False},
    "names": {"current": "dw_<table>_v", "history": "dw_<table>_past", "case": "lower"},
}

#: Asked for while the pipeline runs: the first views are of tables with a past.
FORMATS = {"format": ["delta", "iceberg", "parquet", "orc", "csv"]}

SETUP = f"""
create schema sales;
create table {TABLE} (
    id bigint primary key, status text, amount numeric(12, 2), erdat char(8), changed text, qty text,
    big text, weight text, price text, erzet int, paid text, guid bytea, city text, email text, phone text,
    zip text, placed timestamptz, note text, internal_memo text
);
create function sales.fill(first bigint, last bigint) returns void language sql as $$
insert into {TABLE}
select n, case when n % 11 = 0 then 'test' when n % 13 = 0 then null else 'open' end,
    case when n % 17 > 0 then (n % 1000) / 4.0 end,
    case when n % 1009 = 5 then '20181399' when n % 50 = 0 then '00000000' when n % 50 = 1 then ''
        when n % 50 > 2 then to_char(date '2021-01-01' + (n * 7 % 180)::int, 'YYYYMMDD') end,
    to_char(timestamp '2024-01-01' + n * interval '1 s', 'YYYY-MM-DD HH24:MI:SS')
        || repeat(' ', (n % 3)::int),
    case when n % 1013 = 7 then 'n/a' when n % 9 = 0 then n % 99 || '.00' else (n % 99)::text end,
    (n * 9000000001)::text, (n * 0.125)::text, case when n % 5 > 0 then '-' end || (n % 9973) * 0.25,
    (n % 24) * 10000 + (n % 60) * 100 + n % 59,
    to_char(date '1999-12-31' + (n % 9000)::int, 'DD.MM.YYYY'), decode(md5(n::text), 'hex'),
    ({CITIES})[1 + n % 7], 'user' || n % 5000 || '@example.com', case when n % 8 > 0 then '+41 79 ' || n end,
    lpad((n % 10000)::text, 5, '0'), timestamptz '2025-01-01 00:00Z' + n * interval '1 ms',
    'note ' || n, 'memo ' || n
from generate_series(first, last) n
$$;
select sales.fill(1, {ROWS});
"""

#: A value that does not fit comes first in its batch, and stays to its end.
BATCHES = (
    ("inserts and moves", f"""
    select sales.fill({ROWS} + 1, {ROWS} + {ROWS} / 20);
    update {TABLE} set city = 'a/b' where id % 53 = 1;
    update {TABLE} set erdat = '20220101' where id % 59 = 2 and id % 1009 <> 5
    """),
    ("in and out of the filter, deletes", f"""
    update {TABLE} set status = 'test' where id % 61 = 3;
    update {TABLE} set status = 'paid', note = 'came in'
        where id % 33 = 0 and id % 1009 <> 5 and id % 1013 <> 7;
    update {TABLE} set amount = case when amount < 10 then null else 1 end where id % 101 = 9;
    delete from {TABLE} where id % 67 = 4
    """),
    ("bad values, other keys", f"""
    update {TABLE} set erdat = '20181399', note = 'bad day' where id % 1019 = 6;
    update {TABLE} set qty = 'n/a', city = '..' where id % 1021 = 8;
    update {TABLE} set id = id + 100000000 where id % 71 = 5 and id % 1019 <> 6 and id % 1021 <> 8
    """),
    ("changes behind bad values", f"""
    update {TABLE} set note = 'behind', city = '🐘' where erdat = '20181399';
    update {TABLE} set id = id + 200000000 where id % 1019 = 6 and id % 3 = 0;
    update {TABLE} set id = id + 300000000, erdat = '20210301' where id % 1019 = 6 and id % 3 = 1;
    delete from {TABLE} where qty = 'n/a' and id % 4 = 0;
    update {TABLE} set status = 'test' where qty = 'n/a' and id % 4 = 1;
    update {TABLE} set qty = '98' where qty = 'n/a' and id % 4 = 2;
    select sales.fill({ROWS} + {ROWS} / 20 + 1, {ROWS} + {ROWS} / 10)
    """),
    ("a bit of everything", f"""
    delete from {TABLE} where id between 40 and 90;
    select sales.fill(40, 60);
    update {TABLE} set city = null, note = note || ' moved', email = 'moved.' || email where id % 97 = 10;
    update {TABLE} set qty = (100 + id % 20)::text, city = '🐘', guid = null, zip = '9'
        where id % 721 = 11 and qty <> 'n/a';
    update {TABLE} set status = 'paid', amount = null where id % 61 = 3;
    delete from {TABLE} where id % 211 = 12
    """),
)  # fmt: skip

#: What the settings mean, in PostgreSQL's own words; `email` is hashed afterwards.
MEANT = f"""
select id, status, amount,
    case when trim(erdat) not in ('00000000', '', '20181399') then to_date(erdat, 'YYYYMMDD') end as erdat,
    trim(changed)::timestamp as changed, case when qty <> 'n/a' then qty::numeric::int end as qty,
    big::bigint as big, weight::float8 as weight, price::numeric(15, 2) as price,
    lpad(erzet::text, 6, '0')::time as erzet, to_date(paid, 'DD.MM.YYYY') as paid,
    upper(encode(guid, 'hex')) as guid, city, email,
    case when length(phone) > 4 then '****' || right(phone, 4) when phone <> '' then '****' end as phone,
    left(zip, 3) as zip,
    placed at time zone 'UTC' as placed, note,
    coalesce(erdat = '20181399', false) or coalesce(qty = 'n/a', false) as bad
from {TABLE} where status <> 'test' and (amount >= 10 or amount is null)
"""
TYPES = {
    "id": "BIGINT", "status": "VARCHAR", "amount": "DECIMAL(12,2)", "erdat": "DATE", "changed": "TIMESTAMP",
    "qty": "INTEGER", "big": "BIGINT", "weight": "DOUBLE", "price": "DECIMAL(15,2)", "erzet": "TIME",
    "paid": "DATE", "guid": "VARCHAR", "city": "VARCHAR", "email": "VARCHAR", "phone": "VARCHAR",
    "zip": "VARCHAR", "placed": "TIMESTAMPTZ", "note": "VARCHAR",
}  # fmt: skip
CELLS = ", ".join(f'CAST("{name}" AS {kind}) AS "{name}"' for name, kind in TYPES.items())
NAMES = ", ".join(f'"{name}"' for name in TYPES)


def hashed(email: str) -> str:
    """The mask `hash`, by Python's own library."""
    return hmac.digest(KEY.encode(), email.encode(), "sha256").hex()


@dataclass
class Truth:
    """What the source held after each batch, and what waits: tables in a DuckDB of its own."""

    con: duckdb.DuckDBPyConnection
    folder: Path

    def __post_init__(self) -> None:
        self.con.execute("SET TimeZone = 'UTC'; SET memory_limit = '4GB'")
        columns = ", ".join(f'"{name}" {kind}' for name, kind in TYPES.items())
        self.con.execute(f"CREATE TABLE meant (batch INTEGER, bad BOOLEAN, {columns})")
        self.con.execute("CREATE TABLE moments (batch INTEGER, moment TIMESTAMPTZ)")

    def take(self, pg: Database, batch: int) -> None:
        """Read the source through plain SQL, and note the moment."""
        path = self.folder / f"meant-{batch}.csv"
        copy = f"COPY ({MEANT}) TO STDOUT (FORMAT csv, HEADER, FORCE_QUOTE *)"
        with pg.connect() as connection, connection.cursor().copy(copy) as rows, path.open("wb") as file:
            for block in rows:
                file.write(block)
        read = f"read_csv('{path}', all_varchar = true, allow_quoted_nulls = false, header = true)"
        # PostgreSQL says "t" of a truth, and its own zone of a moment: both are told to DuckDB in full.
        cells = CELLS.replace('CAST("placed"', "CAST(placed || '+00'").replace(
            'CAST("email" AS VARCHAR)', "code"
        )
        self.con.create_function("mask", hashed) if batch == 0 else None
        self.con.execute(
            f"INSERT INTO meant WITH r AS (FROM {read}), m AS (SELECT email AS mail, mask(email) AS code "
            f"FROM r GROUP BY email) SELECT {batch}, bad = 't', {cells} FROM r JOIN m ON r.email = m.mail"
        )
        (moment,) = pg.run("select clock_timestamp()")[0]
        self.con.execute("INSERT INTO moments VALUES (?, ?)", [batch, moment])
        path.unlink()

    def moment(self, batch: int) -> datetime:
        """A moment after this batch and before the next."""
        found = self.con.execute("SELECT moment FROM moments WHERE batch = ?", [batch]).fetchall()
        moment: datetime = found[0][0]
        return moment

    def waiting(self, batch: int) -> int:
        """How many keys had a value that did not fit by then."""
        found = self.con.execute("SELECT count(DISTINCT id) FROM meant WHERE bad AND batch <= ?", [batch])
        return int(found.fetchall()[0][0])

    def expected(self, batch: int, *, mended: bool) -> str:
        """SQL of the rows to be shown: a key that waits shows what it was before its first bad value."""
        if mended:
            return f"SELECT {NAMES} FROM meant WHERE batch = {batch}"
        return (
            "WITH w AS (SELECT id AS k, min(batch) AS since FROM meant "
            f"WHERE bad AND batch <= {batch} GROUP BY id) "
            f"SELECT {NAMES} FROM meant LEFT JOIN w ON id = k WHERE batch = coalesce(since - 1, {batch})"
        )

    def compare(self, batch: int, found: Any, what: str, *, mended: bool, where: str = "true") -> int:
        """Hold rows (a relation or an Arrow table) against the truth, both ways; count of rows."""
        self.con.register("found", found)
        held = f"SELECT {CELLS} FROM found WHERE {where}"
        meant = self.expected(batch, mended=mended)
        digests = [
            self.con.execute(f"SELECT count(*), sum(hash(r)::HUGEINT) FROM ({rows}) AS r").fetchall()
            for rows in (held, meant)
        ]
        if digests[0] != digests[1]:
            for one, other, side in ((held, meant, "too much"), (meant, held, "missing")):
                apart = f"SELECT * FROM ({one}) EXCEPT ALL SELECT * FROM ({other}) ORDER BY id LIMIT 3"
                left = self.con.execute(apart).fetchall()
                assert not left, f"{what} after batch {batch}, {side}: {left}"
            raise AssertionError(f"{what} after batch {batch}: {digests}")
        self.con.unregister("found")
        return int(digests[0][0][0])
