"""Ordinary and extreme values of every type on docs/types.md, as SQL expressions."""

from __future__ import annotations

from docs.typepage import ROWS

SETUP = """
create extension citext;
create extension hstore;
create type mood as enum ('', 'so so', 'é,"x"', 'null');
create domain even as integer check (value % 2 = 0);
create domain price as numeric(10,2);
create domain dear as price;
create domain words as varchar(20);
create type pair as (a int, "b c" text);
create type nested as (p pair, m mood[]);
create type textrange as range (subtype = text, collation = "C");
create type own;
create function own_in(cstring) returns own language internal immutable strict as 'textin';
create function own_out(own) returns cstring language internal immutable strict as 'textout';
create type own (input = own_in, output = own_out, like = text);
create table sampled as select n % 7 as a, n % 7 as b, n % 3 as c from generate_series(1, 5000) n;
create statistics stats (ndistinct, dependencies, mcv) on a, b, c from sampled;
analyze sampled;
"""


def texts(kind: str, *values: str) -> list[str]:
    """Casts of literals to a type."""
    return [f"""cast('{value.replace("'", "''")}' as {kind})""" for value in values]


_ENDS = ("infinity", "-infinity")
_STAMPS = (
    "1970-01-01 00:00:00", "1969-12-31 23:59:59.999999", "2024-02-29 12:34:56.1", "0044-03-15 12:00:00 BC",
    "4714-11-24 00:00:00 BC", "0001-01-01 00:00:00", "1582-10-10 00:00:00", "9999-12-31 23:59:59.999999",
    "10000-01-01 00:00:00.000001", "294247-01-10 04:00:54.775806", "294247-01-10 04:00:54.775807",
    "294276-12-31 23:59:59.999999", *_ENDS,
)  # fmt: skip
_ZONED = tuple(f"{t}+00 BC".replace(" BC+00", "+00") if t.endswith("BC") else t + "+00" for t in _STAMPS[:-2])
_FLOATS = ("0", "-0", "1", "0.1", "100000", "1e15", "NaN", "Infinity", "-Infinity")
_CLOCKS = ("00:00:00", "12:34:56.5", "23:59:59.999999", "24:00:00")
_HARD = (
    "", " ", "a ", "NULL", "\\N", "null", "~infinity", "é漢🎉é", "a\tb\nc\rd\\e\"f'g|h,i",
    "\u0001\u007f\u0085\u2028\ufeff",
    '{"a":1}', "{{ 7 }}", "-" * 3000, "A" * 200_000,
)  # fmt: skip


def _stored(column: str) -> list[str]:
    return [f"(select {column} from pg_statistic_ext_data limit 1)"]


#: SQL type -> values. A type of the page that stands here under other names is in FAMILIES.
VALUES: dict[str, list[str]] = {
    "boolean": ["true", "false"],
    "smallint": texts("smallint", "-32768", "-1", "0", "32767"),
    "integer": texts("integer", "-2147483648", "-1", "0", "2147483647"),
    "bigint": texts("bigint", "-9223372036854775808", "-1", "0", "9223372036854775807", "9007199254740993"),
    "oid": texts("oid", "0", "2147483648", "4294967295"),
    "real": texts("real", *_FLOATS, "1e-45", "3.4028235e38", "-3.4028235e38", "16777217"),
    "double precision": texts("float8", *_FLOATS, "5e-324", "1.7976931348623157e308",
                              "-2.2250738585072014e-308"),
    "numeric(12,2)": texts("numeric(12,2)", "0", "-0.01", "9999999999.99", "-9999999999.99", "NaN", "1.5"),
    "numeric(38,38)": texts("numeric(38,38)", "0." + "9" * 38, "-0." + "0" * 37 + "1", "0", "NaN"),
    "numeric(3,-2)": texts("numeric(3,-2)", "99900", "-99900", "0", "100", "NaN"),
    "numeric(3,5)": texts("numeric(3,5)", "0.00999", "-0.00001", "0", "NaN"),
    "numeric(39,2)": texts("numeric(39,2)", "9" * 37 + ".99", "-0.01", "NaN"),
    "numeric": texts("numeric", "0", "1.50", "9" * 1000, "-1e-300", "NaN", "Infinity", "-Infinity",
                     "1e131071"),
    "money": texts("money", "-92233720368547758.08", "92233720368547758.07", "-0.01", "1234.5"),
    "date": texts("date", "1970-01-01", "1969-12-31", "2024-02-29", "0001-01-01", "0044-03-15 BC",
                  "4714-11-24 BC", "1582-10-10", "9999-12-31", "10000-01-01", "5874897-12-31", *_ENDS),
    "time": texts("time", *_CLOCKS),
    "time with time zone": texts("timetz", *(f"{c}+05:30" for c in _CLOCKS), "00:00:00-15:59:59"),
    "timestamp": texts("timestamp", *_STAMPS),
    "timestamp with time zone": texts("timestamptz", *_ZONED, *_ENDS),
    "interval": texts("interval", "0", "1 year 2 mons -3 days 04:05:06.789", "-178000000 years",
                      "178000000 years", "2147483647 days", "-1 mon", "2562047788:00:54.775807"),
    "text": texts("text", *_HARD),
    "character varying": texts("varchar(20)", "", "abc  ", "é漢🎉"),
    "character": texts("char(6)", "", "a", "a     ", " é"),
    "name": texts("name", "", "x y", "é" * 31),
    '"char"': texts('"char"', "", "a", "\\377"),
    "bytea": texts("bytea", "\\x", "\\x00ff", "\\x5c78", "\\x" + "00ff41" * 40_000),
    "bit": texts("bit(9)", "101010101", "000000000"),
    "bit varying": texts("varbit", "", "1", "01" * 200),
    "uuid": texts("uuid", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "0" * 32, "f" * 32),
    "json": texts("json", '{"a": 1,  "a" : 2}', '"\\u0000"', "[]", "null", " 1e400 ", '{"é": ["x\\n"]}'),
    "jsonb": texts("jsonb", '{"b": 1.50, "a": "é\\n", "a": 2}', "null", '"x"', "1e300", "[[[]]]"),
    "jsonpath": texts("jsonpath", "$.a[*] ? (@.b > 1)", "lax $"),
    "xml": texts("xml", '<a b="c">é &amp; &#x1F389;</a>', "text <b/> more", ""),
    "mood": texts("mood", "", "so so", 'é,"x"', "null"),
    "even": texts("even", "-2147483648", "2"),
    "price": texts("price", "1.5", "NaN", "-99999999.99"),
    "dear": texts("dear", "1.5", "NaN"),
    "words": texts("words", "", "  a  ", "é"),
    "pair": texts("pair", "(,)", "(1,)", '(1,"a,b")', '(,"")'),
    "nested": texts("nested", '("(1,""x,y"")","{so so,NULL}")'),
    "integer[]": texts("integer[]", "{}", "{1,NULL,3}", "[2:3]={4,5}", "{{1,2},{3,NULL}}"),
    "text[]": texts("text[]", '{"a,b","",NULL,"NULL"}', '{"é\\"\\\\"}'),
    "bytea[]": texts("bytea[]", '{"\\\\x00ff"}'),
    "timestamptz[]": texts("timestamptz[]", '{"2024-01-01 00:00+02",infinity}'),
    "double precision[]": texts("float8[]", "{0.1,NaN,-0,1e-300}"),
    "numeric[]": texts("numeric(5,2)[]", "{1.5,NaN}"),
    "mood[]": texts("mood[]", "{so so,NULL}"),
    "pair[]": texts("pair[]", '{"(1,a)",NULL}'),
    "even[]": texts("even[]", "{2,4}"),
    "int4range[]": texts("int4range[]", '{"[1,5)",empty}'),
    "int4range": texts("int4range", "empty", "[1,5]", "(,)", "[,7)"),
    "int8range": texts("int8range", "[-9223372036854775808,9223372036854775807)"),
    "numrange": texts("numrange", "[1.10,2.200]", "[-Infinity,NaN]"),
    "tsrange": texts("tsrange", "[2024-01-01,infinity]", "[0044-03-15 BC,)"),
    "tstzrange": texts("tstzrange", "[2024-01-01 00:00+02,infinity)"),
    "daterange": texts("daterange", "[2024-01-01,2024-01-31]", "(-infinity,)"),
    "textrange": texts("textrange", '["a,b","é"")")'),
    "int4multirange": texts("int4multirange", "{}", "{[1,3),[5,8)}"),
    "int8multirange": texts("int8multirange", "{[1,3)}"),
    "nummultirange": texts("nummultirange", "{[1.1,1.2]}"),
    "tsmultirange": texts("tsmultirange", "{[2024-01-01,2024-01-02)}"),
    "tstzmultirange": texts("tstzmultirange", "{[2024-01-01 00:00+02,infinity)}"),
    "datemultirange": texts("datemultirange", "{[2024-01-01,2024-02-01)}"),
    "inet": texts("inet", "10.0.0.1/8", "10.0.0.1", "::1", "::ffff:1.2.3.4/128", "0.0.0.0/0"),
    "cidr": texts("cidr", "10/8", "::/0"),
    "macaddr": texts("macaddr", "08-00-2B-01-02-03"),
    "macaddr8": texts("macaddr8", "08:00:2b:01:02:03:04:05"),
    "point": texts("point", "(0.1,2)", "(NaN,Infinity)", "(1e-300,-0)"),
    "line": texts("line", "{1,-2,0.3}"),
    "lseg": texts("lseg", "[(1,2),(3,4)]"),
    "box": texts("box", "(1,2),(3,4)"),
    "path": texts("path", "[(1,2),(3,4)]", "((1,2),(3,4))"),
    "polygon": texts("polygon", "((1,2),(3,4),(5,6))"),
    "circle": texts("circle", "<(0.1,0.2),3>"),
    "tsvector": texts("tsvector", "", "'a':1A 'b' 'it''s':2,3"),
    "tsquery": texts("tsquery", "", "a & !b | 'c d' <2> e:*A"),
    "pg_lsn": texts("pg_lsn", "0/0", "FFFFFFFF/FFFFFFFF"),
    "pg_snapshot": texts("pg_snapshot", "10:20:10,14,15"),
    "txid_snapshot": texts("txid_snapshot", "10:20:10,14,15"),
    "tid": texts("tid", "(0,1)", "(4294967295,65535)"),
    "xid": texts("xid", "0", "4294967295"),
    "xid8": texts("xid8", "0", "18446744073709551615"),
    "cid": texts("cid", "0", "4294967295"),
    "regclass": texts("regclass", "pg_class", "sampled", "0"),
    "regtype": texts("regtype", "int4", "mood", "timestamptz"),
    "regproc": texts("regproc", "now", "0"),
    "regprocedure": texts("regprocedure", "abs(int4)"),
    "regoper": texts("regoper", "0"),
    "regoperator": texts("regoperator", "+(int4,int4)"),
    "regrole": texts("regrole", "pg_monitor"),
    "regnamespace": texts("regnamespace", "public"),
    "regconfig": texts("regconfig", "english"),
    "regdictionary": texts("regdictionary", "simple"),
    "regcollation": texts("regcollation", '"C"'),
    "refcursor": texts("refcursor", "", "c 1"),
    "aclitem": texts("aclitem", "=r/pg_monitor", "pg_monitor=arwd*/pg_monitor"),
    "int2vector": texts("int2vector", "", "1 2 -3"),
    "oidvector": texts("oidvector", "1 4294967295"),
    "pg_node_tree": ["(select adbin from pg_attrdef limit 1)", "(select ev_action from pg_rewrite limit 1)"],
    "pg_ndistinct": _stored("stxdndistinct"),
    "pg_dependencies": _stored("stxddependencies"),
    "pg_mcv_list": _stored("stxdmcv"),
    "gtsvector": [],
    "pg_brin_bloom_summary": [],
    "pg_brin_minmax_multi_summary": [],
    "citext": texts("citext", "", "Aé"),
    "hstore": texts("hstore", "", '"a b"=>"c\\"d", e=>NULL'),
    "own": texts("own", "", "é (1,2)"),
}  # fmt: skip

#: What stands for a name of the page that is no type.
FAMILIES: dict[str, list[str]] = {
    "enum types": ["mood"],
    "domains": ["even", "price", "dear", "words"],
    "composite types": ["pair", "nested"],
    "arrays": [kind for kind in VALUES if kind.endswith("[]")],
    "other types": ["textrange", "own"],
}

#: How a type is declared where its bare name would hold less.
DECLARED = {
    "character varying": "varchar(20)",
    "character": "char(6)",
    "bit": "bit(9)",
    "numeric[]": "numeric(5,2)[]",
}

#: Domains -> the type beneath.
BENEATH = {"even": "integer", "price": "numeric(10,2)", "dear": "numeric(10,2)", "words": "text"}

#: Each type that has values -> its row on the page.
ROW_OF = {kind: row for row in ROWS for name in row.types for kind in FAMILIES.get(name, [name])}
