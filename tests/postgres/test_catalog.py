"""The list of tables: what is in it, what it says, and that ten thousand of them are one of a few queries."""

from __future__ import annotations

import time

import pyarrow as pa
import pytest

from headwater.model import Reference, TableId
from headwater.naming import column_names
from postgres.rig import brief, following, opened, rows_of, table
from servers.postgres import Database

pytestmark = pytest.mark.live
EVERY = pytest.mark.parametrize("pg_version", [15, 16, 18])

HOSTILE = [
    'a"b',
    "a'b; drop table x; --",
    "new\nline",
    "back\\slash",
    "Größe 表",
    "x" * 63,
    "{{ 7 * 7 }}",
    "%s %(a)s",
    "$$",
    "select",
]


@EVERY
def test_what_is_listed(pg: Database) -> None:
    pg.run("create table t(id int primary key, n numeric(8,2), g int generated always as (id) stored)")
    pg.run("create schema other; create table other.t(id bigint primary key)")
    pg.run("create table keyless(v int); create unlogged table fast(id int primary key)")
    pg.run("create table p(id int primary key) partition by range (id)")
    pg.run("create table p1 partition of p for values from (0) to (100)")
    pg.run("create view v as select 1; create materialized view m as select 1; create temp table tmp(id int)")
    pg.run(
        "create table late(id int, unique (id) deferrable, primary key (id) deferrable initially deferred)"
    )
    pg.run(
        "insert into t(id) select generate_series(1, 500); insert into p select generate_series(1, 50);"
        " analyze"
    )
    with opened(pg.url) as source:
        infos = {str(info.schema.table): info for info in source.tables()}
    assert list(infos) == [
        "other.t", "public.fast", "public.keyless", "public.late", "public.m", "public.p", "public.t",
        "public.v",
    ]  # fmt: skip
    t = infos["public.t"]
    assert t.schema.arrow() == pa.schema([("id", pa.int32()), ("n", pa.decimal128(8, 2))])
    assert (t.schema.key, t.rows, t.kind, t.note) == (("id",), 500, "table", "")
    assert [c.nullable for c in t.schema.columns] == [False, True]
    assert t.bytes is not None and t.bytes >= 8192
    p = infos["public.p"]
    assert (p.kind, p.rows, p.note) == ("partitioned", 50, "") and p.bytes
    assert "no replica identity" in infos["public.keyless"].note
    assert "no replica identity" in infos["public.late"].note
    assert "unlogged" in infos["public.fast"].note
    views = [(info.kind, info.logged, info.note) for info in (infos["public.m"], infos["public.v"])]
    assert views == [
        (kind, False, f"a {kind}: its changes are not in this server's log")
        for kind in ("materialized view", "view")
    ]


def test_a_table_held_exclusively_does_not_stop_the_list(pg: Database) -> None:
    pg.run("create table t(id int primary key)")
    with opened(pg.url) as source, pg.connect(autocommit=False) as other:
        other.execute("lock table t in access exclusive mode")
        began = time.monotonic()
        (info,) = source.tables()
        assert time.monotonic() - began < 3
        assert info.bytes is None


def quoted(*names: str) -> str:
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


@EVERY
def test_hostile_names_go_all_the_way(pg: Database) -> None:
    columns = ", ".join(f"{quoted(name)} text" for name in HOSTILE)
    tables = [TableId(schema, name) for schema in ("public", 'sch"ema.x') for name in HOSTILE]
    pg.run(f"create schema {quoted('sch' + chr(34) + 'ema.x')}")
    for t in tables:
        pg.run(f"create table {quoted(t.namespace, t.name)} (id int primary key, {columns})")
    with opened(pg.url, publication="hw 'pub\" \\x") as source:
        assert sorted(info.schema.table for info in source.tables()) == sorted(tables)
        assert all(f.level != "fail" for f in source.check(tables))
        source.prepare(tables, None)
        for t in tables:
            name = quoted(t.namespace, t.name).replace("%", "%%")
            pg.run(f"insert into {name} values (1, {', '.join(['%s'] * len(HOSTILE))})", *HOSTILE)
        schemas = {info.schema.table: info.schema for info in source.tables()}
        with source.cut() as cut:
            for t in tables:
                (row,) = rows_of(list(cut.read(t)))
                names = column_names([c.source_name for c in schemas[t].columns])[1:]
                assert [row[name] for name in names] == HOSTILE
                assert cut.digests(schemas[t])[0].rows == 1
        for t in tables:
            pg.run(f"delete from {quoted(t.namespace, t.name)}")
        got = [item for item in source.changes(tables, cut.position, known=schemas) if hasattr(item, "rows")]
        assert sorted(b.schema.table for b in got) == sorted(tables)
        assert not any(b.reload for b in got)
        assert all(f.level != "fail" for f in source.check(tables))


@pytest.mark.slow
@EVERY
def test_foreign_keys(pg: Database, pg_version: int) -> None:
    pg.run('create table "p ""x" (a int, "B b" text, primary key (a, "B b"))')
    pg.run("create table part (id int primary key) partition by range (id)")
    pg.run("create table part1 partition of part for values from (0) to (100)")
    pg.run(
        'create table c (id int primary key, "Ö" text, a int, part int references part,'
        ' foreign key (a, "Ö") references "p ""x")'
    )
    pg.run("alter table c add constraint later foreign key (id) references part not valid")
    if pg_version >= 18:
        pg.run("create extension btree_gist")
        pg.run("create table t (id int, at daterange, primary key (id, at without overlaps))")
        pg.run(
            "create table tc (id int, at daterange, foreign key (id, period at) references t (id, period at))"
        )
    c, p, part = (TableId("public", name) for name in ("c", 'p "x', "part"))
    with opened(pg.url) as source:
        found = source.references()
    assert set(found) == {Reference(c, ("a", "Ö"), p, ("a", "B b")), Reference(c, ("part",), part, ("id",))}


def test_ten_thousand_tables(pg: Database) -> None:
    columns = "id int primary key, a text, b numeric(9,2), c timestamptz"
    body = f"execute format('create table many.t%s({columns})', i)"
    pg.run("create schema many")
    for start in range(0, 10_000, 1000):
        pg.run(f"do $$ begin for i in {start}..{start + 999} loop {body}; end loop; end $$")
    tables = [TableId("many", f"t{n}") for n in range(10_000)]

    def timed(limit: float) -> None:
        nonlocal began
        took = time.monotonic() - began
        print(f"{took:.1f} s of {limit:.0f}")
        assert took < limit
        began = time.monotonic()

    with opened(pg.url) as source:
        began = time.monotonic()
        assert len(source.tables()) == 10_000
        timed(10)
        source.prepare(tables, None)
        timed(20)
        assert all(f.level != "fail" for f in source.check(tables))
        timed(10)
        with source.cut() as cut:
            at = cut.position
        for n in range(50):
            pg.run(f"insert into many.t{n} values (1)")
        timed(10)
        batches = [item for item in source.changes(tables, at, known={}) if hasattr(item, "rows")]
        assert len(batches) == 50
        timed(10)


def test_a_digest_is_of_the_frozen_rows(pg: Database) -> None:
    pg.run("create table a(id int primary key, v text); insert into a values (1, 'x'), (2, null)")
    with following(pg, "a") as follower:
        schema = follower.known[table("a")]
        with follower.source.cut() as cut:
            pg.run("update a set v = 'later'")
            frozen = cut.digests(schema)[0]
            assert sum(d.rows for d in cut.digests(schema, 4).values()) == frozen.rows
            assert brief(rows_of(list(cut.read(table("a")))), "id", "v") == [("r", 1, "x"), ("r", 2, None)]
        with follower.source.cut() as cut:
            now = cut.digests(schema)[0]
        pg.run("update a set v = 'x' where id = 1; update a set v = null where id = 2")
        with follower.source.cut() as cut:
            assert cut.digests(schema)[0] == frozen
    assert frozen.rows == now.rows == 2
    assert frozen != now
