"""Files that are fine: what they mean, and that they can be printed back."""

from __future__ import annotations

import itertools
import time
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.config import (
    Config,
    DbtConfig,
    Expectation,
    Files,
    GlueConfig,
    HistoryNames,
    Mask,
    Names,
    Policies,
    Quality,
    Refers,
    TableSpec,
    WarehouseConfig,
    load,
    parse,
    quote_table,
    to_yaml,
)
from headwater.config.template import commented, template
from headwater.errors import ConfigError
from headwater.model import TableId
from headwater.partition import parse as parse_layout
from headwater.secrets import Secret

WHOLE = """
pipeline: shop
source:
  kind: postgres
  host: db.example.com
  port: 5433
  user: headwater
  dbname: shop
  password: file:secrets/pw
  sslmode: verify-ca
  sslrootcert: certs/root.crt
  publication: pub
  slot: slot_1
store:
  url: s3://bucket/pre/fix/
  endpoint: https://minio:9000
  region: eu-central-1
  access_key_id: env:KEY
  secret_access_key: file:~/key
  path_style: yes
  timeout: 30
  sse: aws:kms
  sse_kms_key_id: alias/x
tables:
  - public.*
  - "!public.audit_*"
  - name: public.orders
    mode: mirror
    as: sales
    format: delta
    csv_compression: none
    schema: discard
    on_truncate: fail
    quality: off
    expect:
      - {type: expect_x, kwargs: {column: on, at: 2026-05-01, list: [1, 1.5, true, null]}, severity: info}
    references: [{columns: [a, b], table: public."C d", key: [c, d]}]
  - name: 'odd."a.b"'
    history: {open_end: 9999-12-31}
  - name: lab.probes
    partition: '/@"born on"(yr=%y)/@2(%.2i)'
    lake: {compression: snappy, slices: 4}
  - name: hr.*
    columns: ["*", "!internal_*"]
    masks:
      {email: hash, phone: {redact: 4}, zip: {truncate: 3}, note: null, "null": drop, n: tokenize, p: redact}
mode: history
history: {valid_from: start_date, valid_to: end_date, open_end: 2999-01-01T00:00:00+02:00}
warehouse: {path: wh/x.duckdb, schema: marts, staging_schema: stg, keep_staging: no}
names: {current: dw_<table>, history: <table>_h, case: upper}
dbt: {project: analytics, folder: models/raw}
lake:
  compact: always
  compression: snappy
  file_size: 64MB
  slices: 2
  format: [delta, iceberg]
  csv_compression: bzip2
  glue: {database: shop, region: eu-west-1}
schema: freeze
on_drop: fail
on_rename: fail
on_truncate: ignore
quality: {gate: block, max_age: 90min}
mask_key: file:secrets/mask
verify: {sign: file:secrets/sign}
state: my.db
memory_limit: 2 GiB
"""

CONFIG = parse(WHOLE, folder="/srv/shop")


def test_every_field_means_what_it_says() -> None:
    end = datetime(2998, 12, 31, 22, tzinfo=UTC)
    history = HistoryNames("start_date", "end_date", "is_current", end)
    strict = Policies("freeze", "fail", "fail", "ignore")
    far = replace(history, open_end=datetime(9999, 12, 31, tzinfo=UTC))
    views = {"formats": ("iceberg",), "csv_compression": "bzip2", "policies": strict}
    odd = TableSpec(TableId("odd", "a.b"), "history", far, **views)
    expected = Config(
        name="shop",
        source={
            "kind": "postgres", "host": "db.example.com", "port": 5433, "user": "headwater", "dbname": "shop",
            "password": "file:/srv/shop/secrets/pw", "sslmode": "verify-ca",
            "sslrootcert": "/srv/shop/certs/root.crt", "publication": "pub", "slot": "slot_1",
        },
        store="s3://bucket/pre/fix",
        store_options={
            "endpoint": "https://minio:9000", "region": "eu-central-1", "access_key_id": "env:KEY",
            "secret_access_key": f"file:{Path.home()}/key", "path_style": "true", "timeout": "30",
            "sse": "aws:kms", "sse_kms_key_id": "alias/x",
        },
        tables=("public.*", "!public.audit_*", "public.orders", 'odd."a.b"', "lab.probes", "hr.*"),
        overrides={
            "public.orders": TableSpec(
                TableId("public", "orders"), "mirror", history, csv_compression="none", called="sales",
                policies=Policies("discard", "fail", "fail", "fail"),
                quality=Quality(
                    "off",
                    expect=(Expectation("expect_x", {"column": "on", "at": "2026-05-01",
                                                     "list": [1, 1.5, True, None]}, "info"),),
                    references=(Refers(("a", "b"), TableId("public", "C d"), ("c", "d")),),
                ),
            ),
            'odd."a.b"': odd,
            "lab.probes": TableSpec(
                TableId("lab", "probes"), "history", history, files=Files("snappy", "", 4), **views,
                partition=parse_layout('/@"born on"(yr=%y)/@2(%.2i)'),
            ),
            "hr.*": TableSpec(
                TableId("hr", "*"), "history", history, columns=("*", "!internal_*"), **views,
                masks={
                    "email": Mask("hash"), "phone": Mask("redact", 4), "zip": Mask("truncate", 3),
                    "note": Mask("null"), "null": Mask("drop"), "n": Mask("tokenize"), "p": Mask("redact"),
                },
                    ),
        },
        mode="history",
        history=history,
        warehouse=WarehouseConfig("duckdb", "/srv/shop/wh/x.duckdb", "marts", "stg", keep_staging=False),
        names=Names("dw_<table>", "<table>_h", "upper"),
        dbt=DbtConfig("/srv/shop/analytics", "models/raw"),
        compact="always",
        files=Files("snappy", "64MB", 2),
        **views,
        glue=GlueConfig("shop", "eu-west-1"),
        quality=Quality("block", "90min"),
        mask_key="file:/srv/shop/secrets/mask",
        sign_key="file:/srv/shop/secrets/sign",
        state="/srv/shop/my.db",
        memory_limit="2 GiB",
    )  # fmt: skip
    assert expected == CONFIG
    # A field added to the dataclass must be read, written and asserted on here.
    defaults = Config("", {}, "")
    for field in fields(Config):
        if field.name != "mode":
            assert getattr(CONFIG, field.name) != getattr(defaults, field.name), field.name


def test_folders_and_files_come_from_the_last_entry_that_speaks_of_them() -> None:
    text = (
        'pipeline: a\nsource: {kind: postgres, url: "postgres://h/d"}\nstore: l\nlake: {slices: 2}\ntables:\n'
        '  - {name: "p.*", partition: "/@1(%s)", lake: {compression: gzip, file_size: 64MB}}\n'
        "  - {name: p.a, mode: mirror, lake: {file_size: 1GB}}\n"
        '  - {name: p.b, partition: "/@2(%s)"}\n'
    )
    config = parse(text, name="h.yml")
    a, b, other = (config.spec(TableId(*name.split("."))) for name in ("p.a", "p.b", "q.c"))
    assert (str(a.partition), a.partition_at, a.mode) == ("/@1(%s)", "h.yml:6", "mirror")
    assert a.files == Files("gzip", "1GB", 2)
    assert (str(b.partition), b.partition_at) == ("/@2(%s)", "h.yml:8")
    assert b.files == Files("gzip", "64MB", 2)
    assert (other.partition, other.files) == (None, Files("", "", 2))


def test_little_is_enough() -> None:
    config = parse(
        'pipeline: a\nsource: {kind: postgres, url: "postgres://me@h/d"}\nstore: ./lake', folder="/x"
    )
    assert config == Config(
        "a", {"kind": "postgres", "url": "postgres://me@h/d"}, "/x/lake", dbt=DbtConfig("/x/dbt")
    )


@pytest.mark.parametrize(
    ("given_text", "path"),
    [
        ("duckdb:///wh.duckdb", "/x/wh.duckdb"),
        ("duckdb:////data/wh.duckdb", "/data/wh.duckdb"),
        ("duckdb:///a b/../wh.duckdb", "/x/wh.duckdb"),
        ("wh.duckdb", "/x/wh.duckdb"),
        ("/data/wh.duckdb", "/data/wh.duckdb"),
    ],
)
def test_the_warehouse_in_one_word(given_text: str, path: str) -> None:
    text = (
        f'pipeline: a\nsource: {{kind: postgres, url: "postgres://h/d"}}\nstore: l\nwarehouse: "{given_text}"'
    )
    assert parse(text, folder="/x").warehouse == WarehouseConfig(path=path)


@pytest.mark.parametrize(
    ("given_text", "store"),
    [
        ("./lake", "/x/lake"),
        ("../lake/", "/lake"),
        ("/data/lake", "/data/lake"),
        ("~no-such-user-here/lake", "/x/~no-such-user-here/lake"),
        ("file:///data/lake", "/data/lake"),
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/a/", "s3://bucket/a"),
    ],
)
def test_stores(given_text: str, store: str) -> None:
    text = f'pipeline: a\nsource: {{kind: postgres, url: "postgres://h/d"}}\nstore: "{given_text}"'
    assert parse(text, folder="/x").store == store


def test_a_config_is_written_and_read_back() -> None:
    assert parse(to_yaml(CONFIG), folder="/elsewhere") == CONFIG
    assert parse(to_yaml(CONFIG, folder="/srv/shop"), folder="/srv/shop") == CONFIG
    moved = parse(to_yaml(CONFIG, folder="/srv/shop"), folder="/srv/moved")
    assert moved.state == "/srv/moved/my.db"
    assert moved.source["password"] == "file:/srv/moved/secrets/pw"


_names = st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True)
_tables = st.builds(
    TableId, *[st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)] * 2
)
_texts = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), min_size=1).map(
    lambda s: s.replace("@", "").replace("://", "")
)
_history = st.builds(
    HistoryNames, st.just("f"), st.just("t"), st.just("c"), st.none() | st.datetimes(timezones=st.just(UTC))
)


_masks = st.dictionaries(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1),
    st.sampled_from([Mask("null"), Mask("drop"), Mask("redact"), Mask("redact", 4), Mask("truncate", 1)])
    | st.sampled_from([Mask("hash"), Mask("tokenize")]),
    max_size=3,
)
_columns = st.lists(st.from_regex(r'!?("([^"\0]|"")+"|[a-z*?]+)', fullmatch=True), max_size=3).map(tuple)


_json = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
_words = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
_expectations = st.builds(
    Expectation,
    st.just("expect_column_values_to_be_in_set"),
    st.dictionaries(_words, _json | _words | st.lists(_json | _words), max_size=3),
    st.sampled_from(["critical", "warning", "info"]),
)
_quality = st.builds(
    Quality,
    st.sampled_from(["", "off", "warn", "block"]),
    st.sampled_from(["", "2h"]),
    st.lists(_expectations, max_size=2).map(tuple),
)


@st.composite
def configs(draw: st.DrawFn) -> Config:
    mode, history = draw(st.sampled_from(["history", "mirror"])), draw(_history)
    tables = draw(st.lists(_tables, unique=True, max_size=5))
    overrides = {
        quote_table(t): TableSpec(
            t,
            draw(st.sampled_from(["history", "mirror"])),
            draw(_history),
            columns=draw(_columns),
            masks=draw(_masks),
            called=draw(st.sampled_from(["", "orders"])),
            quality=draw(_quality),
        )
        for t in tables[:2]
    }
    patterns = ("*.*", *(quote_table(t) for t in tables))
    source = {"kind": "postgres", "host": draw(_names), "user": draw(_names), "dbname": draw(_names)}
    warehouse = draw(
        st.none()
        | st.builds(
            WarehouseConfig,
            path=st.just("/w/x.duckdb"),
            schema=_names.map(lambda n: f"s{n}"),
            keep_staging=st.booleans(),
        )
    )
    return Config(
        draw(_names),
        source,
        "/l",
        {},
        patterns,
        overrides,
        mode,
        history,
        warehouse,
        DbtConfig("/x/dbt"),
        mask_key="env:MASK_KEY",
        sign_key="env:SIGN_KEY",
        compact=draw(st.sampled_from(["auto", "always"])),
        names=draw(st.sampled_from([Names(), Names("<table>"), Names(history="h_<table>", case="lower")])),
    )


@given(configs())
def test_any_config_is_written_and_read_back(config: Config) -> None:
    assert parse(to_yaml(config), folder="/x") == config
    assert parse(to_yaml(config, folder="/x"), folder="/x") == config


def test_a_secret_given_by_value_never_reaches_a_file() -> None:
    config = replace(CONFIG, source={**CONFIG.source, "password": Secret("hunter2")})
    text = commented(config, Path("/srv/shop"))
    assert "hunter2" not in text + repr(config)
    assert parse(text).source["password"] == "env:HEADWATER_SOURCE_PASSWORD"


def test_settings_of_a_table_are_those_of_the_last_entry_that_fits() -> None:
    text = (
        'pipeline: a\nsource: {kind: postgres, url: "postgres://h/d"}\nstore: l\nmode: mirror\ntables:\n  - *'
    ).replace("*", "{name: 'public.*', mode: history}")
    text += "\n  - x.*\n  - {name: public.b, history: {current: now}}\n  - {name: '*.c', mode: mirror}"
    config = parse(text)
    modes = {
        name: config.spec(TableId(*name.split("."))).mode
        for name in ("public.a", "public.b", "public.c", "x.a")
    }
    assert modes == {"public.a": "history", "public.b": "mirror", "public.c": "mirror", "x.a": "mirror"}
    spec = config.spec(TableId("public", "b"))
    assert (spec.table, spec.history.current) == (TableId("public", "b"), "now")
    assert config.spec(TableId("Public", "b")).history == HistoryNames()


def test_the_file_to_start_from_is_fine_and_relative_to_itself(tmp_path: Path) -> None:
    (tmp_path / "headwater.yml").write_text(template())
    config = load(tmp_path / "headwater.yml")
    assert config.store == f"{tmp_path}/lake"
    assert config.source["password"] == "env:HEADWATER_SOURCE_PASSWORD"


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.yml").write_bytes(b"pipeline: a\nstore: l\xe4ke")
    (tmp_path / "bom.yml").write_text("\ufeff" + template())
    (tmp_path / "nul.yml").write_bytes(b"pipeline: a\0b")
    (tmp_path / "huge.yml").write_bytes(b"#" * (5 << 20))
    assert load(tmp_path / "bom.yml").name == "shop"
    for name, said in [
        ("none.yml", "there is no"), ("latin.yml", ":2: not UTF-8"), ("nul.yml", "not YAML"),
        (".", "cannot be read"),
        ("huge.yml", "larger than 4 MiB"), ("a\0b", "NUL"), ("x" * 300, "cannot be read"),
    ]:  # fmt: skip
        with pytest.raises(ConfigError, match=said):
            load(tmp_path / name)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000,
        "{a: " * 200_000,
        "- " * 200_000,
        "a:\n" + "".join(" " * n + "b:\n" for n in range(1, 900)),
    ],
)
def test_deep_nesting_is_refused_and_kills_nothing(text: str) -> None:
    with pytest.raises(ConfigError):
        parse(text)


def test_aliases_that_multiply_are_refused_at_once() -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40)]
    began = time.monotonic()
    with pytest.raises(ConfigError):
        parse("\n".join(lines))
    with pytest.raises(ConfigError):
        parse(f"pipeline: a\ntables: &t {'[' * 15}x{']' * 15}")
    assert time.monotonic() - began < 2


def test_ten_thousand_tables_are_read_in_seconds() -> None:
    names = "\n".join(f"  - {{name: s{n % 10}.t{n}, mode: mirror}}" for n in range(10_000))
    text = f'pipeline: a\nsource: {{kind: postgres, url: "postgres://h/d"}}\nstore: l\ntables:\n{names}'
    began = time.monotonic()
    assert len(parse(text).tables) == 10_000
    assert time.monotonic() - began < 15


@pytest.mark.parametrize(
    ("mode", "kind"), list(itertools.product(["history", "mirror"], ["name", "pattern"]))
)
def test_an_override_takes_what_it_does_not_say_from_the_top(mode: str, kind: str) -> None:
    name = "public.a" if kind == "name" else "public.[ab]"
    text = f'pipeline: a\nsource: {{kind: postgres, url: "postgres://h/d"}}\nstore: l\nmode: {mode}\n'
    text += f"history: {{current: now}}\ntables:\n  - name: {name}\n    history: {{valid_to: until}}"
    spec = parse(text).spec(TableId("public", "a"))
    assert spec == TableSpec(TableId("public", "a"), mode, HistoryNames(valid_to="until", current="now"))  # type: ignore[arg-type]


def test_masks_add_up_and_columns_are_those_of_the_last_entry_that_names_any() -> None:
    text = (
        'pipeline: a\nsource: {kind: postgres, url: "postgres://h/d"}\nstore: l\nmask_key: env:K\ntables:\n'
        "  - {name: '*.*', masks: {email: hash, phone: null}, columns: ['!secret']}\n"
        "  - {name: public.a, mode: mirror}\n"
        "  - {name: public.b, masks: {phone: {redact: 2}, note: drop}, columns: [id, email]}\n"
        "  - {name: public.b, mode: mirror}"
    ).replace("public.b, mode", "'public.[b]', mode")
    config = parse(text)
    a, b, c = (config.spec(TableId("public", n)) for n in "abc")
    assert (a.mode, b.mode, c.mode) == ("mirror", "mirror", "history")
    both = {"email": Mask("hash"), "phone": Mask("null")}
    assert a.masks == c.masks == both
    assert b.masks == {**both, "phone": Mask("redact", 2), "note": Mask("drop")}
    assert (a.columns, b.columns, c.columns) == (("!secret",), ("id", "email"), ("!secret",))


def test_quality_adds_up_and_each_setting_is_the_last_that_says_it() -> None:
    one, two = (f"{{type: expect_x, kwargs: {{n: {n}}}}}" for n in (1, 2))
    text = (
        'pipeline: a\nsource: {kind: postgres, url: "postgres://h/d"}\nstore: l\nquality: warn\ntables:\n'
        f"  - {{name: 'public.*', quality: {{gate: block, max_age: 2h}}, expect: [{one}]}}\n"
        f"  - {{name: public.a, quality: off, expect: [{two}]}}\n"
        "  - {name: public.b, mode: mirror}\n"
    )
    config = parse(text)
    a, b, c = (config.spec(TableId(*name.split("."))).quality for name in ("public.a", "public.b", "x.c"))
    assert (a.gate, a.max_age, [e.kwargs["n"] for e in a.expect]) == ("off", "2h", [1, 2])
    assert (b.gate, b.max_age, len(b.expect), c.gate) == ("block", "2h", 1, "warn")
    assert config.judges and not a.judged and b.expect[0].at == "headwater.yml:6"
