# ruff: noqa: E501  one step, one line
"""A database that is migrated step by step, with random changes between, and what it was after each step."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import psycopg
from psycopg import sql

SETUP = """
create type mood as enum ('calm', 'angry');
create domain cents as int check (value >= 0);
create table t (id int primary key, a int, b int, name text, price numeric(8,2), made timestamptz, note varchar(20));
create table f (id int primary key, x text, y bigint, m mood);
alter table f replica identity full;
create table k (id int primary key, y bigint not null, v text);
alter table k replica identity full;
create table bag (x int, y text);
alter table bag replica identity full;
create table parted (id int, region text, v int, primary key (id, region)) partition by list (region);
create table parted_eu partition of parted for values in ('eu');
create table parted_us partition of parted for values in ('us');
create table old (id int primary key, v text);
create schema archive;
create table leaving (id int primary key, v int);
"""


@dataclass(frozen=True)
class Step:
    """One committed change of a schema.

    unlogged   columns (table.column) of which rows changed without being logged
    late       those of which nobody knows later what old rows held: a rewrite of the table erased that
    again      a table into or out of which rows went without a word in the log: to be read again, by hand
    """

    does: str
    sql: str
    unlogged: tuple[str, ...] = ()
    late: tuple[str, ...] = ()
    again: str = ""


STEPS = (
    Step("add without default", "alter table t add c1 int"),
    Step("add with default", "alter table t add c2 int not null default 42", (), ("t.c2", "t.c2_old")),
    Step("add with a default of now", "alter table t add c3 timestamptz default now()", (), ("t.c3",)),
    Step("add text default that must be quoted", "alter table t add c4 text default 'it''s {\"1\"}, \\ \u00e9'", (), ("t.c4",)),
    Step("add volatile default", "alter table t add c5 text default md5(random()::text)", ("t.c5",)),
    Step("drop a column", "alter table t drop c1"),
    Step("rename a column", "alter table t rename name to title"),
    Step("retype up", "alter table t alter a type bigint"),
    Step("retype down", "alter table t alter price type numeric(8,1)", ("t.price",)),
    Step("retype to another", "alter table t alter b type text using 'n' || b", ("t.b",)),
    Step("widen text", "alter table t alter note type text"),
    Step(
        "swap names",
        "begin; alter table t rename title to tmp; alter table t rename note to title;"
        " alter table t rename tmp to note; commit",
    ),
    Step("rename and add the old name", "begin; alter table t rename c2 to c2_old; alter table t add c2 text; commit"),
    Step("drop and add another type", "begin; alter table t drop c3; alter table t add c3 date default '2020-02-02'; commit"),
    Step("drop and add alike", "begin; alter table t drop c4; alter table t add c4 text; commit", ("t.c4",)),
    Step("set not null", "update t set c2 = 'x' where c2 is null; alter table t alter c2 set not null"),
    Step("drop not null", "alter table t alter c2 drop not null"),
    Step("rename the key", "alter table t rename id to code"),
    Step("generated column", "alter table t add g int generated always as (1) stored"),
    Step("replica identity full", "alter table t replica identity full"),
    Step("replica identity default", "alter table t replica identity default"),
    Step("enum grows", "alter type mood add value 'sad'"),
    Step("add domain", "alter table f add d cents"),
    Step("add array", "alter table f add tags text[] default '{a,\"b c\"}'"),
    Step("add json", "alter table f add j jsonb default '{\"k\": [1, 2]}'"),
    Step("rename in a table with full identity", "alter table f rename x to \"X y\""),
    Step("bag gets a column", "alter table bag add z numeric(5,2) default 1.25", (), ("bag.z",)),
    Step("bag renames", "alter table bag rename y to why"),
    Step("bag drops", "alter table bag drop z"),
    Step("attach", "create table parted_asia (id int, region text, v int, primary key (id, region));"
         " alter table parted attach partition parted_asia for values in ('asia')"),
    Step("partitioned gets a column", "alter table parted add w int default 5", ("parted.w",)),
    Step("partitioned renames", "alter table parted rename v to vv"),
    Step("attach a partition with rows", "create table parted_af (like parted including all);"
         " insert into parted_af select -n, 'af', n, n from generate_series(1, 9) n;"
         " alter table parted attach partition parted_af for values in ('af');"
         " update parted set vv = vv + 1 where region = 'af'", ("parted.*",), (), "public.parted"),
    Step("detach a partition with rows", "alter table parted detach partition parted_af;"
         " update parted_af set vv = 0 where id = -1; insert into parted_af values (-10, 'af', 1, 1)",
         ("parted.*", "parted_af.*"), (), "public.parted"),
    Step("truncate", "truncate f"),
    Step("change the key", "alter table k drop constraint k_pkey; alter table k add primary key (y)", ("k.warehouse",)),
    Step("rename a table", "alter table old rename to new_one"),
    Step("drop and recreate a table", "drop table leaving; create table leaving (id int primary key, v text, w int);"
         " insert into leaving select n, 'r' || n, n from generate_series(1, 5) n", ("leaving.*",)),
    Step("move to another schema", "alter table new_one set schema archive", ()),
    Step("identity", "alter table t add n int generated by default as identity", ("t.n",)),
    Step("drop a table", "drop table archive.new_one"),
)  # fmt: skip


@dataclass(frozen=True)
class Seen:
    """One table after a step: column number -> its name and values by row, `rows` in the order of the columns."""

    oid: int
    columns: Mapping[int, str]
    rows: Sequence[tuple[Any, ...]]


@dataclass
class Migration:
    """Runs the steps on a database; `seen` is what each table held after each, with the log's place."""

    url: str
    seed: int = 1
    seen: list[tuple[Step, int, dict[str, Seen]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._dice = random.Random(self.seed)
        self._next = 1
        self._con = psycopg.connect(self.url, autocommit=True)
        self._con.execute("set timezone = 'UTC'")

    def close(self) -> None:
        self._con.close()

    def begin(self) -> None:
        self._con.execute(SETUP.encode())
        for _ in range(6):
            self.change()

    def steps(self) -> Iterator[Step]:
        """Do each step and some random changes behind it, remember what there is, and give the step."""
        for step in STEPS:
            for part in filter(None, [step.sql]):
                self._con.execute(part.encode())
            for _ in range(3):
                self.change()
            self.look(step)
            yield step

    def look(self, step: Step) -> None:
        found = {name: self._look(oid) for name, oid in self._tables().items()}
        row = self._con.execute("select pg_current_wal_insert_lsn() - '0/0'::pg_lsn").fetchone()
        assert row is not None
        self.seen.append((step, int(row[0]), found))

    def change(self) -> None:
        """A transaction with a few changes of every table."""
        with self._con.transaction():
            for oid in self._tables().values():
                self._change(oid)

    def _tables(self) -> dict[str, int]:
        rows = self._con.execute(
            "select n.nspname || '.' || c.relname, c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace"
            " where c.relkind in ('r', 'p') and not c.relispartition and n.nspname in ('public', 'archive') order by 1"
        )
        return {name: int(oid) for name, oid in rows}

    def _columns(self, oid: int) -> list[tuple[int, str, str, bool]]:
        return self._con.execute(
            "select attnum::int, attname, format_type(atttypid, atttypmod), attgenerated <> '' or attidentity <> ''"
            " from pg_attribute where attrelid = %s and attnum > 0 and not attisdropped order by 1",
            [oid],
        ).fetchall()

    def _name(self, oid: int) -> sql.Composable:
        row = self._con.execute(
            "select nspname, relname from pg_class c join pg_namespace n on n.oid = relnamespace where c.oid = %s",
            [oid],
        ).fetchone()
        assert row is not None
        return sql.Identifier(*row)

    def _key(self, oid: int) -> list[str]:
        rows = self._con.execute(
            "select a.attname from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any(i.indkey)"
            " where i.indrelid = %s and i.indisprimary order by 1", [oid]
        )  # fmt: skip
        return [name for (name,) in rows]

    def _look(self, oid: int) -> Seen:
        columns = [(n, name, kind) for n, name, kind, gen in self._columns(oid) if name != "g"]
        cells = [
            sql.SQL("{}" if _plain(kind) else "{}::text").format(sql.Identifier(name))
            for _, name, kind in columns
        ]
        rows = self._con.execute(
            sql.SQL("select {} from {}").format(sql.SQL(", ").join(cells), self._name(oid))
        )
        return Seen(
            oid, {n: name for n, name, _ in columns}, [tuple(map(norm, row)) for row in rows.fetchall()]
        )

    def _change(self, oid: int) -> None:
        name, key, dice = self._name(oid), self._key(oid), self._dice
        columns = [(c, kind) for _, c, kind, made in self._columns(oid) if not made]
        for _ in range(dice.randint(1, 3)):
            values = [self._value(c, kind, key) for c, kind in columns]
            self._con.execute(
                sql.SQL("insert into {} ({}) values ({})").format(
                    name,
                    sql.SQL(", ").join(sql.Identifier(c) for c, _ in columns),
                    sql.SQL(", ").join(map(sql.SQL, values)),
                )
            )
        some = sql.SQL("(tableoid, ctid) in (select tableoid, ctid from {} order by random() limit {})")
        free = [(c, kind) for c, kind in columns if c not in key]
        if free:
            column, kind = dice.choice(free)
            self._con.execute(
                sql.SQL("update {} set {} = {} where ").format(
                    name, sql.Identifier(column), sql.SQL(self._value(column, kind, key))
                )
                + some.format(name, sql.Literal(1 if column in ("id", "y") else 2))
            )
        if key and dice.random() < 0.4:
            whole = [c for c, kind in columns if c in key and kind in ("integer", "bigint")][0]
            self._next += 1
            self._con.execute(
                sql.SQL("update {} set {} = {} where ").format(
                    name, sql.Identifier(whole), sql.Literal(self._next)
                )
                + some.format(name, sql.Literal(1))
            )
        if dice.random() < 0.5:
            self._con.execute(
                sql.SQL("delete from {} where ").format(name) + some.format(name, sql.Literal(1))
            )

    def _value(self, column: str, kind: str, key: Sequence[str]) -> str:
        """A random value as SQL; a key's is new."""
        dice, number = self._dice, self._dice.randint(0, 999)
        if (column in key and kind in ("integer", "bigint")) or column in ("id", "y"):
            self._next += 1
            return str(self._next)
        if column == "region":
            return repr(dice.choice(["eu", "us"]))
        if dice.random() < 0.15 and column not in ("c2", "c2_old", "id", "y"):
            return "null"
        # Now and then one that is stored apart, which updates leave out of the log.
        long = f"(select string_agg(md5(n::text || '{number}'), '') from generate_series(1, 300) n)"
        made: dict[str, Callable[[], str]] = {
            "text": lambda: long if dice.random() < 0.3 else f"'w{number}'",
            "timestamp with time zone": lambda: (
                f"timestamptz '2024-01-01 00:00Z' + {number} * interval '1 hour'"
            ),
            "date": lambda: f"date '2024-01-01' + {number}",
            "mood": lambda: f"'{dice.choice(['calm', 'angry'])}'",
            "text[]": lambda: f"array['x', '{number}']",
            "jsonb": lambda: f"jsonb_build_object('n', {number})",
        }
        if kind.startswith("numeric"):
            return f"{number}.{dice.randint(0, 9)}"
        if kind.startswith("character varying"):
            return f"'v{number}'"
        return made.get(kind, lambda: str(number))()


def _plain(kind: str) -> bool:
    return kind.partition("(")[0] in (
        "integer",
        "bigint",
        "text",
        "numeric",
        "timestamp with time zone",
        "date",
    )


def norm(value: Any) -> str | None:
    """One spelling of a value of the source and of the lake."""
    match value:
        case None:
            return None
        case bool():
            return "t" if value else "f"
        case Decimal():
            return format(value.normalize(), "f")
        case datetime():
            return value.astimezone(UTC).isoformat()
        case date():
            return value.isoformat()
        case _:
            return str(value)
