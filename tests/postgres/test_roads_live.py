"""One row by two roads, binary from a snapshot and text from the log: the same bits, on real servers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.model import TableId
from headwater.sources.postgres import catalog
from headwater.sources.postgres.connect import Server, make_server
from headwater.sources.postgres.copies import receive
from headwater.sources.postgres.copybinary import decode_copy
from headwater.sources.postgres.cut import select_all
from headwater.sources.postgres.decode import decode_changes, parse_relation
from headwater.sources.postgres.frames import lay_out
from postgres.plain import ERROR
from postgres.test_values import VALID, VALUES
from servers.postgres import Database

pytestmark = [pytest.mark.live, pytest.mark.parametrize("pg_version", [15, 16, 18])]

TABLE = TableId("Some place", "a table")

#: What stands around the values: types of the user's own, and `add`, which leaves out what is no value.
SETUP = """
create schema "Some place";
create type "Some place".mood as enum ('', 'so so', 'é,"x"');
create domain "Some place".price as numeric(12,4) check (value <> 13);
create domain "Some place".dear as "Some place".price;
create domain "Some place".words as varchar(20);
create type "Some place".pair as (a int, "b c" text);
create domain "Some place".couple as "Some place".pair;
create function "Some place".add(name text, kind text, texts text[]) returns void language plpgsql as $$
declare
  one text;
begin
  foreach one in array texts loop
    begin
      execute format('insert into "Some place"."a table" (%I) values (cast(%L as %s))', name, one, kind);
    exception when others then
      null;
    end;
  end loop;
end $$;
"""

OWN = '"Some place".'
NUMBERS = st.integers(-(10**20), 10**20).map(str) | st.decimals(allow_nan=True).map(str) | st.just("13")
#: Types beside those of the case file, and texts for them.
MORE: dict[str, list[str]] = {
    OWN + "mood": ["", "so so", 'é,"x"'],
    OWN + "price": ["1.5", "-0.00001", "NaN", "99999999.9999", "13"],
    OWN + "dear": ["1.5", "NaN", "0"],
    OWN + "words": ["", "  a  ", "é"],
    OWN + "pair": ["(,)", "(1,)", '(1,"a,b")', '(,"")'],
    OWN + "couple": ["(,)", '(7," x ")'],
    OWN + "pair[]": ['{"(1,a)",NULL}', "{}"],
    OWN + "mood[]": ["{so so,NULL}"],
    "timestamp(0)": ["2024-02-29 12:34:56.7"],
    "time(3)": ["23:59:59.9996", "24:00"],
    "char(5)": ["", "a", " a ", "é"],
    "varchar": ["", " a "],
    "name": ["", "x y"],
    '"char"': ["", "a", "\\377", "é"],
    "numeric": ["1.500", "NaN", "Infinity", "-Infinity", "1e300", "0.0"],
    "numeric(1000,500)": ["1.5"],
    "numeric(18,9)": ["123456789.123456789", "-0.000000001", "10000", "0.0001"],
    "numeric(19,3)": ["9999999999999999.999", "-9999999999999999.999", "10000.1"],
    "json": ['{"a": 1,  "a" : 2}', '"\\u00e9"', "[]"],
    "jsonb": ['{"b": 1.50, "a": "é\\n"}', "null", '"x"', "1e3"],
    "xml": ['<?xml version="1.0" encoding="LATIN1"?><a/>', "<b>é</b>"],
    "uuid": ["A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "00000000000000000000000000000000"],
    "inet": ["10.0.0.1/8", "10.0.0.1", "::1"],
    "cidr": ["10/8"],
    "macaddr8": ["08:00:2b:01:02:03:04:05"],
    "interval": ["1 year -2 days 3.5 s", "0"],
    "time with time zone": ["12:00+05:30"],
    "money": ["-1234.5"],
    "bit(4)": ["1010"],
    "bit varying": ["", "1"],
    "regclass": ["pg_class", OWN + '"a table"', "0"],
    "regtype": ["int4", OWN + "mood"],
    "oid": ["0", "4294967295"],
    "xid": ["4294967295"],
    "tid": ["(1,2)"],
    "int2vector": ["1 2 3"],
    "tsvector": ["'a':1A 'b'"],
    "tsquery": ["a & !b"],
    "box": ["(1,2),(3,4)"],
    "circle": ["<(0.1,0.2),3>"],
    "tstzrange": ["[2024-01-01 00:00+02,infinity)"],
    "datemultirange": ["{[2024-01-01,2024-02-01)}"],
    "integer[]": ["[2:3]={4,5}", "{{1,2},{3,NULL}}"],
    "timestamptz[]": ['{"2024-01-01 00:00+02",infinity}'],
    "bytea[]": ['{"\\\\x00ff"}'],
    "double precision[]": ["{0.1,NaN,-0}"],
    "pg_lsn": ["16/B374D848"],
    "jsonpath": ["$.a[*]"],
}
CASES = {
    kind: [text for _, text, value in group if value != ERROR]
    for kind, group in groupby(
        sorted(((k.lstrip("~"), t, v) for k, t, v in VALUES), key=lambda c: c[0]), key=lambda c: c[0]
    )
}
KINDS = {kind: CASES.get(kind, []) + MORE.get(kind, []) for kind in CASES | MORE}


class Roads:
    """A table with a column of each type that the server knows, and a slot from before its first row."""

    def __init__(self, pg: Database, kinds: Iterable[str]) -> None:
        self._pg, self._slot = pg, f"roads_{pg.name}"
        self._server: Server = make_server(pg.url, {})
        pg.run(SETUP)
        self.names = {kind: f"v{n}" for n, kind in enumerate(kinds) if self._knows(kind)}
        columns = "".join(f", {name} {kind}" for kind, name in self.names.items())
        pg.run(f'create table "Some place"."a table" (id serial primary key{columns})')
        pg.run('create publication roads for table "Some place"."a table"')
        pg.run("select 1 from pg_create_logical_replication_slot(%s, 'pgoutput')", self._slot)
        pg.run('insert into "Some place"."a table" default values')

    def _knows(self, kind: str) -> bool:
        name = kind.partition("(")[0].removesuffix("[]")
        return bool(self._pg.run("select to_regtype(%s) is not null", name)[0][0])

    def add(self, kind: str, texts: Sequence[str]) -> None:
        """Insert those texts that are values."""
        if kind in self.names:
            self._pg.run('select "Some place".add(%s, %s, %s)', self.names[kind], kind, list(texts))

    def fill(self, kind: str, query: str) -> None:
        """Insert what the query says."""
        self._pg.run(f'insert into "Some place"."a table" ({self.names[kind]}) select {query}')

    def _both(self) -> tuple[pa.Table, pa.Table]:
        """The rows from the snapshot, and from the log, in the order of the key."""
        with self._server.session() as session, self._server.reader() as reader:
            relation = catalog.find_relations(session, [TABLE])[TABLE]
            natives = [c.native for c in relation.kept]
            chunks = receive(self._server, reader, TABLE, [select_all(relation)], lambda _: None)
            parts = [part for held, _ in chunks for part in held]
            snapshot = decode_copy(parts, natives, relation.schema, 0)
            peeked = session.execute(
                "select data from pg_logical_slot_get_binary_changes(%s, null, null, 'proto_version', '1',"
                " 'publication_names', 'roads')",
                [self._slot],
            ).fetchall()
        payloads = [bytes(row[0]) for row in peeked]
        told = parse_relation(next(p for p in payloads if p[:1] == b"R"))
        rows = [p for p in payloads if p[:1] == b"I"]
        log = decode_changes(told, natives, relation.schema, [lay_out(rows)], np.arange(len(rows)))
        return snapshot.sort_by("id").combine_chunks(), log.sort_by("id").combine_chunks()

    def compare(self) -> dict[str, int]:
        """Both roads give the same; returns how many values each type has."""
        snapshot, log = self._both()
        for kind, name in {"key": "id", **self.names, "odd": "_hw_text", "unset": "_hw_unset"}.items():
            assert bits(snapshot[name]) == bits(log[name]), kind
        odd = Counter(name for row in snapshot["_hw_text"].to_pylist() for name in json.loads(row or "{}"))
        return {
            kind: snapshot.num_rows - snapshot[name].null_count + odd[name]
            for kind, name in self.names.items()
        }


def bits(column: pa.ChunkedArray) -> tuple[pa.DataType, list[object]]:
    """The values, floats as the whole numbers of their bits: each NaN is itself."""
    array = column.combine_chunks()
    kind = array.type
    if pa.types.is_floating(kind):
        whole = pa.int32() if kind.bit_width == 32 else pa.int64()
        array = pa.Array.from_buffers(whole, len(array), array.buffers())
    elif pa.types.is_temporal(kind):
        array = array.view(pa.int32() if kind.bit_width == 32 else pa.int64())
    return kind, array.to_pylist()


def test_every_type(pg: Database) -> None:
    roads = Roads(pg, KINDS)
    assert len(roads.names) == len(KINDS)
    for kind, texts in KINDS.items():
        roads.add(kind, texts)
    seen = roads.compare()
    # Only Debian's server is built with libxml.
    assert {kind for kind, texts in KINDS.items() if texts and not seen[kind]} <= {"xml"}
    assert sum(seen.values()) > 200


WILD: dict[str, st.SearchStrategy[str]] = {
    **VALID,
    "numeric": NUMBERS,
    "numeric(18,9)": NUMBERS | st.decimals(-(10**9), 10**9, places=9).map(str),
    "numeric(19,3)": NUMBERS | st.decimals(-(10**16), 10**16, places=3).map(str),
    "numeric(38,0)": NUMBERS | st.integers(-(10**38), 10**38).map(str),
    "numeric(38,37)": NUMBERS | st.integers(-(10**38), 10**38).map(lambda n: f"{n}e-37"),
    "numeric(3,-2)": NUMBERS,
    "numeric(3,5)": NUMBERS | st.integers(-1500, 1500).map(lambda n: f"{n}e-5"),
    OWN + "price": NUMBERS | st.decimals(-(10**8), 10**8, places=4).map(str),
    "char(10)": st.text(max_size=10),
    "varchar": st.text(max_size=30),
    "json": st.text(max_size=9).map(lambda t: '{"a": ' + repr(t) + "}") | st.floats().map(str),
    "jsonb": st.recursive(st.integers().map(str) | st.just('"é"'), lambda s: s.map(lambda t: f"[{t}, {t}]")),
    "uuid": st.uuids().map(str),
    "interval": st.timedeltas().map(str),
    "text[]": st.lists(st.text(max_size=5)).map(lambda ts: "{" + ",".join(f'"{t}"' for t in ts) + "}"),
    "inet": st.ip_addresses().map(str),
}


def test_any_values(pg: Database) -> None:
    """Values that hypothesis makes; what the server refuses is left out."""
    roads = Roads(pg, WILD)
    for kind, valid in WILD.items():
        roads.add(kind, gather(valid))
    assert min(roads.compare().values()) >= 2


def gather(valid: st.SearchStrategy[str]) -> list[str]:
    """About two hundred values."""
    found: list[str] = []

    @settings(max_examples=200, database=None)
    @given(valid.filter(lambda text: "\0" not in text))
    def run(text: str) -> None:
        found.append(text)

    run()
    return found


_DIGITS = "trunc(((random() - 0.5) * power(10, random() * 10))::numeric, (random() * 2)::int)"
MANY = {
    "date": "date '4714-11-24 BC' + (random() * 3000000)::int",
    "date not of this world": "date '4714-11-24 BC' + (random() * 2147483493)::int",
    "timestamp": "timestamp '294246-12-01' + random() * interval '10900 days'",
    "timestamptz": "timestamptz '294246-12-01' + random() * interval '10900 days'",
    "timestamptz(0)": "timestamptz '4714-12-24 00:00 BC' + random() * interval '5000 years'",
    "time": "time '00:00' + random() * interval '24 hours'",
    "numeric(30,9)": "((random() - 0.5) * power(10, 1 + random() * 20))::numeric(30,9)",
    "numeric(12,2)": _DIGITS,
    "real": "((random() - 0.5) * power(10::float8, random() * 74 - 37))::float4",
    "float8": "(random() - 0.5) * power(10::float8, random() * 600 - 300)",
    "bytea": "sha256(n::text::bytea)",
    "uuid": "md5(n::text)::uuid",
    "bigint": "('x' || md5(n::text))::bit(64)::bigint",
}


def test_many_values(pg: Database) -> None:
    kinds = {kind: query for kind, query in MANY.items() if " " not in kind}
    roads = Roads(pg, kinds)
    for kind, query in MANY.items():
        roads.fill(kind.partition(" ")[0], f"{query} from generate_series(1, 2000) n")
    assert min(roads.compare().values()) >= 2000
