"""Masks on a real server: no canary in any byte that was written or said, and what masks leave works."""

from __future__ import annotations

import hmac
import json
import re
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from headwater.handoff.tables import TableModel
from headwater.model import TableId
from live.pipelines import Runner
from servers.postgres import Database

pytestmark = pytest.mark.live

KEY = "a mask key that no file may hold: 5e1f"

#: Every masked value holds one of these, in one writing or another; numbers are told by their digits.
CANARIES = ("KANARIE", "kanarie", "7700990077", "6b616e61726965", "2099-12-3")

SETUP = """
create table people (
    id int primary key, email text, phone varchar(30), born date, salary numeric(20, 2), badge bigint,
    zip text, note text, scan bytea, secret text not null, internal_memo text, town text
);
alter table people replica identity full;
insert into people select n, n || '.KANARIE@example.com', '+41 7700990077 ' || n, '2099-12-30',
    7700990077.5 + n, 7700990077000 + n, 'KANARIE', repeat('KANARIE', 3000), 'kanarie', 'KANARIE', 'KANARIE',
    'town ' || n % 3
    from generate_series(1, 500) n;
create table visits (email text, seen timestamptz, primary key (email, seen));
insert into visits
    select n % 20 || '.KANARIE@example.com', timestamptz '2026-01-01 00:00Z' + n * interval '1 h'
    from generate_series(1, 100) n;
create table keyless (who text, what text);
alter table keyless replica identity full;
insert into keyless values ('KANARIE', 'a'), ('KANARIE', 'a'), ('KANARIE', 'b');
create table plain (id int primary key, v text);
insert into plain values (1, 'as it is');
"""

TABLES = [
    "public.plain",
    {
        "name": "public.people",
        "columns": ["*", "!internal_*"],
        "masks": {
            "email": "hash", "phone": {"redact": 2}, "born": "hash", "salary": "hash", "badge": "tokenize",
            "zip": {"truncate": 2}, "note": None, "scan": "hash", "secret": "drop",
        },
    },
    {"name": "public.visits", "masks": {"email": "hash"}},
    {"name": "public.keyless", "masks": {"who": "tokenize"}},
]  # fmt: skip

CHANGES = """
update people set email = 'new.' || email, note = note || 'KANARIE' where id % 7 = 0;
update people set town = 'KEPT' where id = 1;
update people set born = 'infinity', salary = 'NaN' where id = 2;
update people set id = id + 100000 where id = 3;
delete from people where id % 11 = 0;
insert into people (id, email, secret, internal_memo)
    values (900, '1.KANARIE@example.com', 'KANARIE', 'KANARIE');
update visits set email = 'moved.KANARIE@example.com' where email like '7.%';
delete from visits where email like '8.%';
delete from keyless where what = 'b';
update keyless set what = 'c' where ctid = (select min(ctid) from keyless);
insert into keyless values (null, 'd');
"""


@pytest.fixture
def runner(pg: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    pg.run(SETUP)
    monkeypatch.setenv("MASK_KEY", KEY)
    made = Runner(tmp_path / "p", pg.url, environment={"MASK_KEY": KEY})
    change(made, tables=TABLES, mask_key="env:MASK_KEY")
    return made


def change(runner: Runner, **settings: Any) -> None:
    """Rewrite parts of the pipeline file; None becomes the word null, as people write it."""
    doc = yaml.safe_load(runner.config.read_text()) | settings
    runner.config.write_text(yaml.safe_dump(doc))


def hashed(text: str) -> str:
    return hmac.digest(KEY.encode(), text.encode(), "sha256").hex()


def search(folder: Path, *words: str) -> list[str]:
    """Files (but for the pipeline file) with one of the words in their bytes, or in decoded Parquet."""
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        data = path.read_bytes()
        if path.suffix == ".parquet":
            data += decoded(path)
        found += [f"{path.relative_to(folder)}: {w}" for w in words if w.encode() in data]
    return found


def decoded(path: Path) -> bytes:
    """Every cell, every column's statistics and the key-value metadata of a Parquet file, as text."""
    file = pq.ParquetFile(path)
    parts = [
        json.dumps(file.read().to_pylist(), default=str),
        str(file.metadata.metadata),
        str(file.schema_arrow),
    ]
    groups = [file.metadata.row_group(n) for n in range(file.metadata.num_row_groups)]
    stats = [g.column(c).statistics for g in groups for c in range(g.num_columns)]
    parts += [f"{s.min} {s.max} {s.min_raw} {s.max_raw}" for s in stats if s is not None and s.has_min_max]
    return "\n".join(parts).encode()


def test_no_canary_is_stored_or_said(runner: Runner, pg: Database) -> None:
    said = [runner.run("check"), runner.run("plan"), runner.run("tables"), runner.run("run")]
    assert "email hash, phone redact 2" in said[1].stdout and "secret left out" in said[1].stdout
    pg.run(CHANGES)
    said.append(runner.run("run"))
    said.append(runner.run("run", "--full", "--table", "public.people"))
    report = runner.run("verify")
    assert "public.people  equal" in report.stdout and "8 columns masked, not compared" in report.stdout
    assert report.stdout.splitlines()[-1] == "verify: 4 tables equal"
    # Something wrong in the lake: the source is read once more, into a file.
    pg.run("update plain set v = 'other'")
    said += [report, runner.run("status"), runner.run("run", "--json")]
    said.append(runner.run("explain", "public.people", "id=2", "--values"))
    said.append(runner.run("explain", "public.visits", "x", ok=False))
    for done in said:
        assert not any(c in done.stdout + done.stderr for c in (*CANARIES, KEY))
    assert search(runner.folder, *CANARIES, KEY) == []
    assert search(runner.folder, "as it is", "KEPT", hashed("1.KANARIE@example.com")) != []
    check_contents(runner)


def check_contents(runner: Runner) -> None:
    with runner.open() as pipeline:
        people = {r["id"]: r for r in pipeline.table("people").to_arrow_table().to_pylist()}
        history = pipeline.history("people").to_arrow_table()
        visits = pipeline.table("visits").to_arrow_table().to_pylist()
        keyless = pipeline.table("keyless").to_arrow_table().to_pylist()
        model = TableModel(pipeline._newest(TableId("public", "people")), "history").current
    with duckdb.connect(str(runner.folder / "warehouse.duckdb"), read_only=True) as warehouse:
        built = warehouse.execute(f"select id, email, badge, born from {model}").fetchall()
    assert {(r["id"], r["email"], r["badge"], r["born"]) for r in people.values()} == set(built)
    assert len(people) == 500 - 45 + 1
    assert not {"secret", "internal_memo"} & set(history.column_names)
    first = people[1]
    assert (first["email"], first["phone"], first["zip"], first["note"], first["town"]) == (
        hashed("1.KANARIE@example.com"), "**** 1", "KA", None, "KEPT",
    )  # fmt: skip
    assert (first["salary"], first["born"]) == (
        hashed("7700990078.5"),
        hashed(str((date(2099, 12, 30) - date(1970, 1, 1)).days)),
    )
    assert first["scan"] == hashed(b"kanarie".hex())
    assert re.fullmatch(r"\d{13}", first["badge"]) and first["badge"] != "7700990077001"
    assert len({r["badge"] for r in people.values()}) == len(people)
    assert (people[2]["born"], people[2]["salary"]) == (hashed("~infinity"), hashed("~NaN"))
    assert people[2]["_hw_text"] is None
    # One value, one hash: over snapshot, change and table.
    assert people[900]["email"] == first["email"]
    assert first["email"] in {r["email"] for r in visits}
    assert people[7]["email"] == hashed("new.7.KANARIE@example.com")
    assert people[100003]["email"] == hashed("3.KANARIE@example.com")
    assert {r["email"] for r in visits} == {
        hashed(f"{n if n != 7 else 'moved'}.KANARIE@example.com") for n in range(20) if n != 8
    }
    tokens = {r["who"] for r in keyless}
    assert sorted(r["what"] for r in keyless) == ["a", "c", "d"] and len(tokens) == 2
    assert history.schema.field("email").type in (pa.string(), pa.large_string())


def test_other_masks_lead_to_another_read_and_a_word_about_it(runner: Runner, pg: Database) -> None:
    runner.inside = True
    runner.run("run", "--no-dbt")
    pg.run("update people set town = 'x' where id < 10")
    tables = json.loads(json.dumps(TABLES))
    tables[1]["masks"] |= {"phone": "hash", "zip": "drop"}
    del tables[1]["masks"]["badge"]
    change(runner, tables=tables)
    assert "reload" in runner.run("plan").stdout
    done = runner.json("run", "--no-dbt")
    assert "public.people is read again: other masks for badge, phone, zip" in done["warnings"][0]
    assert runner.json("run", "--no-dbt")["warnings"] == []
    with runner.open() as pipeline:
        rows = {r["id"]: r for r in pipeline.table("people").to_arrow_table().to_pylist()}
    assert rows[5]["phone"] == hashed("+41 7700990077 5") and rows[5]["badge"] == "7700990077005"
    assert runner.run("verify").stdout.splitlines()[-1] == "verify: 4 tables equal"
    done = runner.run("run", "--no-dbt", "--json", MASK_KEY="another key, as long as the first one was")
    assert "other masks for badge" not in done.stdout and "other masks for born, email" in done.stdout
    # Masks taken away altogether are seen too, and so is a column that was left out before.
    change(runner, tables=["public.*"])
    done = runner.json("run", "--no-dbt")
    assert any("internal_memo, note" in warning for warning in done["warnings"])
    with runner.open() as pipeline:
        rows = {r["id"]: r for r in pipeline.table("people").to_arrow_table().to_pylist()}
    assert rows[5]["internal_memo"] == "KANARIE" and rows[5]["secret"] == "KANARIE"
    assert runner.run("verify").stdout.splitlines()[-1] == "verify: 4 tables equal"


def test_a_masked_column_that_is_renamed_does_not_pass(runner: Runner, pg: Database) -> None:
    runner.inside = True
    tables = [
        "public.plain",
        {"name": "public.*", "masks": {"email": "hash", "secret": "drop"}},
        "!public.keyless",
    ]
    change(runner, tables=tables)
    pg.run("create table more (id int primary key, secret text)")  # so that a table of the pattern has one
    runner.run("run", "--no-dbt")
    pg.run("insert into people (id, email, secret) values (901, 'KANARIE1', 'KANARIE2')")
    pg.run("alter table people rename email to mail; alter table people rename secret to hidden")
    pg.run("insert into people (id, mail, hidden) values (902, 'KANARIE3', 'KANARIE4')")
    refused = runner.run("run", "--no-dbt", ok=False)
    assert refused.returncode == 1
    assert re.search(r"public\.people: (mail|hidden) has no mask, but may be the column", refused.stderr)
    # The file names the new names alone: what was logged under the old ones is masked all the same.
    tables[1] = {"name": "public.*", "masks": {"mail": "hash", "hidden": "drop"}}
    tables.append({"name": "public.visits", "masks": {"email": "hash"}})
    tables.append({"name": "public.more", "masks": {"secret": "drop"}})
    change(runner, tables=tables)
    runner.run("run", "--no-dbt")
    with runner.open() as pipeline:
        rows = {r["id"]: r for r in pipeline.table("people").to_arrow_table().to_pylist()}
    assert (rows[901]["mail"], rows[902]["mail"]) == (hashed("KANARIE1"), hashed("KANARIE3"))
    words = [f"KANARIE{n}" for n in range(1, 5)]
    assert search(runner.folder, *words) == []


def test_wrong_masks_are_found_before_anything_is_read(runner: Runner) -> None:
    runner.inside = True
    tables = [
        "public.plain",
        {"name": "public.people", "masks": {"emial": "hash", "id": {"redact": 2}}},
        {"name": "public.visits", "columns": ["seen"]},
    ]
    change(runner, tables=tables)
    found = runner.run("check", ok=False)
    assert found.returncode == 1
    for line in (
        "FAIL  public.people: masks: has no column emial, which its masks name",
        "did you mean email?",
        "FAIL  public.people: masks: the key column id cannot be masked by redact 2",
        "FAIL  public.visits: masks: the key column email cannot be left out",
    ):
        assert line in found.stdout
    refused = runner.run("run", ok=False)
    assert refused.returncode == 1 and "cannot be masked by redact 2" in refused.stderr
    assert not list(runner.folder.rglob("*.parquet"))
    assert runner.run("plan", MASK_KEY="short", ok=False).returncode == 2
