"""Each command: the call it makes, what it prints, how it exits."""

from __future__ import annotations

import inspect
import json
from datetime import datetime
from pathlib import Path

import pytest

from cli.conftest import Run
from cli.stand_in import DIFFERENT, FAILURE, StandIn, make_record, make_status
from headwater.certificate import Certificate, Place, write
from headwater.config.template import template
from headwater.errors import Conflict, PreflightFailed
from headwater.events import Event
from headwater.model import Finding, TableId
from headwater.pipeline import Pipeline
from headwater.storage import Storage

REAL = Pipeline  # before a fixture puts the stand-in there

VERBS = [
    ("check",), ("tables",), ("plan",), ("run",), ("status",), ("compact",), ("verify",),
    ("explain", "public.orders", "7"),
    ("dbt", "generate"), ("dbt", "build"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _file(tmp_path: Path, pipeline: type[StandIn]) -> None:
    (tmp_path / "headwater.yml").write_text(template())


def test_the_stand_in_is_called_like_the_real_one() -> None:
    for name in (
        "check",
        "tables",
        "plan",
        "run",
        "follow",
        "status",
        "verify",
        "compact",
        "explain",
        "dbt_generate",
        "dbt_build",
    ):
        ours = inspect.signature(getattr(StandIn, name)).parameters
        theirs = inspect.signature(getattr(REAL, name)).parameters
        assert [(p.name, p.kind) for p in ours.values()] == [(p.name, p.kind) for p in theirs.values()], name


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_every_verb_says_something_short_and_names_what_is_next(words: tuple[str, ...], run: Run) -> None:
    said = run(*words)
    assert said.code == 0
    assert said.err == ""
    assert 1 <= len(said.out.splitlines()) <= 12
    assert max(map(len, said.out.splitlines())) <= 110
    assert StandIn.calls[-1] == ("close",)


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
@pytest.mark.parametrize("before", [True, False])
def test_every_verb_gives_one_json_document(words: tuple[str, ...], before: bool, run: Run) -> None:
    said = run("--json", *words) if before else run(*words, "--json")
    assert said.code == 0
    assert said.out.count("\n") == 1
    assert said.json


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
@pytest.mark.parametrize("as_json", [True, False])
def test_every_verb_reports_an_error(words: tuple[str, ...], as_json: bool, run: Run) -> None:
    StandIn.answers = dict.fromkeys(StandIn.answers, FAILURE)
    said = run(*words, *(["--json"] if as_json else []))
    assert said.code == 1
    if as_json:
        assert said.json == {
            "error": {"kind": "HeadwaterError", "message": str(FAILURE), "hint": FAILURE.hint}
        }
    else:
        expected = (
            "headwater: the source went away: \\x1b[31mred\n  second line\n  try: first\n       second\n"
        )
        assert (said.out, said.err) == ("", expected)
    assert StandIn.calls[-1] == ("close",)


def test_run(run: Run) -> None:
    said = run("run")
    assert StandIn.calls[0] == ("run", "auto", None, True)
    assert said.out.splitlines() == [
        "shop: delta run ab12 done in 4.2 s",
        "  from 0/16B3740 to 0/16B9A10, source at 0/16B9A10: caught up",
        "  table          rows in  inserted  updated  deleted  versions",
        "  public.orders    1,200     1,000      150       50     1,200",
        "  dbt: 6 models built, 14 tests passed",
        "next: headwater verify",
    ]


@pytest.mark.parametrize(
    ("words", "call"),
    [
        (["--full"], ("run", "full", None, True)),
        (["--full", "--table", "a.b", "--table=c.*"], ("run", "full", ["a.b", "c.*"], True)),
        (["--no-dbt", "--once"], ("run", "auto", None, False)),
    ],
)
def test_the_words_of_run(words: list[str], call: tuple[object, ...], run: Run) -> None:
    assert run("run", *words).code == 0
    assert StandIn.calls[0] == call


@pytest.mark.parametrize(
    "words",
    [
        ["--table", "a.b"],
        ["--follow", "--full"],
        ["--follow", "--table", "a.b"],
        ["--once", "--follow"],
        ["--pause", "nan"],
        ["--pause", "-1"],
        ["--pause", "x"],
    ],
)
def test_words_of_run_that_do_not_go_together(words: list[str], run: Run) -> None:
    said = run("run", *words)
    assert said.code == 2
    assert "try: " in said.err
    assert StandIn.calls == []


def test_a_run_that_failed_says_why_and_exits_with_1(run: Run) -> None:
    StandIn.answers["run"] = make_record(
        outcome="failed",
        error="the slot is gone",
        hint="headwater run --full",
        behind_bytes=None,
        warnings=("w\x07",),
    )
    said = run("run")
    assert said.code == 1
    for line in (
        "the slot is gone",
        "try: headwater run --full",
        "how far behind is unknown",
        "warning: w\\x07",
    ):
        assert line in said.out
    assert "next:" not in said.out


def test_a_run_without_changes_says_so(run: Run) -> None:
    StandIn.answers["run"] = make_record(tables={}, models_built=0, tests_passed=0, entries=0)
    assert "no changes" in run("run").out


def test_a_run_that_stayed_where_it_was_names_one_position(run: Run) -> None:
    for since in ("", "0/16B9A10"):
        StandIn.answers["run"] = make_record(from_position=since, behind_bytes=56, source_head="0/16B9A48")
        assert "  at 0/16B9A10, source at 0/16B9A48: 56 bytes behind\n" in run("run").out


def test_a_run_as_json_is_its_record(run: Run) -> None:
    doc = run("run", "--json").json
    assert doc == make_record().to_json()
    assert doc["tables"]["public.orders"]["rows_in"] == 1200


def test_progress_goes_to_stderr_as_plain_lines_without_a_terminal(run: Run) -> None:
    orders = TableId("public", "orders\x1b")
    StandIn.events = [
        Event("run.started", "shop", None, {"mode": "full", "run_id": "ab"}),
        Event("table.loading", "shop", orders, {"rows": 10}),
        Event("table.loaded", "shop", orders, {"rows": 1200}),
        Event("table.refreshed", "shop", orders, {"inserted": 5, "updated": 0, "deleted": 1}),
        Event("table.refreshed", "shop", orders, {}),
        Event("handoff.finished", "shop", None, {"models": 3}),
    ]
    lines = [line[9:] for line in run("run").err.splitlines()]
    assert lines == [
        "shop: full run ab",
        "public.orders\\x1b: 1,200 rows read",
        "public.orders\\x1b: 5 inserted, 1 deleted in the lake",
        "dbt: 3 models built",
    ]
    assert run("run", "--json").err == ""


def test_follow_prints_each_round_as_it_comes(run: Run) -> None:
    said = run("run", "--follow", "--pause", "0.5")
    assert said.code == 0
    assert StandIn.calls[0] == ("follow", 0.5, False, True)
    first, second, last = said.out.splitlines()
    assert first[9:] == "1,200 rows of 1 tables, 6 models built; at 0/16B9A10, caught up"
    assert second.endswith("how far behind is unknown")
    assert last == "stopped; next: headwater verify"


def test_follow_as_json_is_a_document_to_a_line(run: Run) -> None:
    lines = run("run", "--follow", "--json").out.splitlines()
    assert [json.loads(line)["run_id"] for line in lines] == ["ab12", "cd34"]


def test_follow_that_failed_exits_with_1(run: Run) -> None:
    StandIn.answers["follow"] = [make_record(outcome="failed")]
    assert run("run", "--follow").code == 1


def test_check_prints_the_statements_to_run(run: Run) -> None:
    StandIn.answers["check"] = [
        Finding("ok", "wal_level", "logical"),
        Finding("warn", "sslmode", "require", "use verify-full"),
        Finding(
            "fail",
            "replica identity",
            "nothing",
            "ALTER TABLE a\n  REPLICA IDENTITY FULL;",
            TableId("a", "b\x1b"),
        ),
    ]
    said = run("check", "--table", "a.b")
    assert said.code == 1
    assert StandIn.calls[0] == ("check", ["a.b"])
    assert said.out.splitlines() == [
        "ok    wal_level: logical",
        "warn  sslmode: require",
        "      use verify-full",
        "FAIL  a.b\\x1b: replica identity: nothing",
        "      ALTER TABLE a",
        "        REPLICA IDENTITY FULL;",
        "check: 1 to mend, 1 to think about",
        "next: run the statements above, then: headwater check",
    ]
    assert run("check", "--json").json["ready"] is False


def test_tables_marks_the_copied_ones_and_writes_names_as_patterns(run: Run) -> None:
    said = run("tables")
    lines = said.out.splitlines()
    assert lines[1].split() == ["*", "public.orders", "12,345", "6.0", "MB", "id", "table"]
    assert lines[2].startswith('   public."odd.name"')
    assert "a view has no log" in lines[2]
    assert '*  public."x\\x1b[2J\\n\\u202e{{7*7}}"' in lines[3]
    assert "2 of 3 tables are copied" in said.out
    table = run("tables", "public.orders", "--json").json["tables"]
    assert [t["pattern"] for t in table] == ["public.orders"]
    assert table[0]["columns"][0] == {
        "name": "id", "type": "int64", "native": "bigint", "nullable": False, "source_name": "id",
        "origin": "", "mask": "", "fill": None,
    }  # fmt: skip
    assert table[0]["left_out"] == []


def test_a_pattern_of_tables_that_fits_nothing(run: Run) -> None:
    said = run("tables", "public.ordesr")
    assert said.code == 2
    assert "did you mean public.orders" in said.err


def test_plan(run: Run) -> None:
    assert run("plan").out.splitlines() == [
        "table          action  mode       rows    size  why",
        "public.orders  load    history  12,345  6.0 MB  new",
        "1 tables to read: about 12,345 rows, 6.0 MB",
        "next: headwater run",
    ]


def test_status(run: Run) -> None:
    lines = run("status").out.splitlines()
    began = datetime.fromisoformat("2026-11-23T08:30:00+00:00").astimezone()
    assert lines == [
        "shop: 7 entries in /srv/lake",
        "  at 0/16B9A10, 4.0 kB behind",
        "  source version: 15.4",
        "  tables: 1 of 1 loaded",
        "  last runs            mode         seconds  rows in",
        f"  {began:%Y-%m-%d %H:%M:%S}  delta  done      4.2    1,200",
        "next: headwater run",
    ]


def test_status_before_the_first_run_and_without_the_source(run: Run) -> None:
    StandIn.answers["status"] = make_status(
        position="",
        behind_bytes=None,
        source_error="refused\x1b",
        runs=[],
        holder="process 7 on a",
        entries=0,
        source={},
    )
    out = run("status").out
    for text in ("not run yet", "the source cannot be asked: refused\\x1b", "running now: process 7 on a"):
        assert text in out


def test_status_after_a_failure_names_its_hint(run: Run) -> None:
    failed = make_record(outcome="failed", error="no slot\x1b", hint="headwater run --full")
    StandIn.answers["status"] = make_status(runs=[failed])
    out = run("status").out
    assert "no slot\\x1b" in out
    assert out.endswith("next: headwater run --full\n")


def test_compact(run: Run) -> None:
    assert run("compact", "public.*").out.startswith("compacted ")
    assert StandIn.calls[0] == ("compact", ["public.*"])
    StandIn.answers["compact"] = []
    assert run("compact").out == "every table was compacted already\n"
    assert run("compact", "--json").json == {"compacted": []}


def test_verify(run: Run) -> None:
    said = run("verify", "--table", "public.orders")
    assert StandIn.calls[0] == ("verify", ["public.orders"])
    assert said.out.splitlines()[-1] == "verify: 1 tables equal"
    assert run("verify", "--json").json["equal"] is True
    StandIn.answers["verify"] = DIFFERENT
    said = run("verify")
    assert said.code == 1
    assert said.out.splitlines()[0].startswith("public.x\\x1b[2J\\n\\u202e{{7*7}}  DIFFERS")
    assert said.out.splitlines()[-1].startswith("next: headwater verify --repair")
    assert run("verify", "--json").code == 1


def test_explain(run: Run) -> None:
    said = run("explain", "public.orders", "a=1,b=2", "--values")
    assert StandIn.calls[0] == ("explain", "public.orders", "a=1,b=2", True)
    lines = said.out.splitlines()
    assert lines[0].split() == ["position", "at", "op", "file"]  # `note` is empty throughout
    assert lines[2].split()[0] == "0/16B3741"
    StandIn.answers["explain"] = []
    assert "has never had the key 9\\x1b" in run("explain", "public.orders", "9\x1b").out


def test_dbt(run: Run) -> None:
    assert "models/x.sql" in run("dbt", "generate", "--force").out
    assert StandIn.calls[0] == ("dbt_generate", True)
    assert run("dbt", "build", "--full-refresh").out == "the warehouse has all of the lake already\n"
    assert StandIn.calls[2] == ("dbt_build", True)


@pytest.mark.parametrize(
    ("failure", "code", "said"),
    [
        (PreflightFailed("no slot"), 1, "try: headwater check"),
        (Conflict("held by 7", hint="kill 7"), 1, "try: kill 7"),
        (KeyboardInterrupt(), 1, "stopped; nothing is lost"),
        (ValueError("odd\x1b"), 1, "this is a bug in headwater: ValueError: odd\\x1b"),
    ],
)
def test_errors(failure: BaseException, code: int, said: str, run: Run) -> None:
    StandIn.answers["run"] = failure
    found = run("run")
    assert (found.code, found.out) == (code, "")
    assert said in found.err
    assert "Traceback" not in found.err


def test_debug_shows_the_traceback(run: Run) -> None:
    StandIn.answers["run"] = ValueError("odd")
    found = run("run", "--debug")
    assert "Traceback" in found.err
    assert "stand_in.py" in found.err


@pytest.mark.parametrize(
    ("words", "call"),
    [
        (["--certificate"], ("certify", None, None, False)),
        (["--certificate", "s3://a/b", "--repair"], ("certify", None, "s3://a/b", True)),
        (["--repair", "--table", "a.b"], ("certify", ["a.b"], None, True)),
    ],
)
def test_certify(words: list[str], call: tuple[object, ...], run: Run) -> None:
    said = run("verify", *words)
    assert (said.code, StandIn.calls[0]) == (0, call)
    assert said.out.splitlines() == [
        "a  equal", "certificate: c/x.json", "page: c/x.html", "verify: 1 tables equal"
    ]  # fmt: skip
    StandIn.answers["certify"] = Certificate({"equal": False, "lines": ["x"]}, "", "")
    assert run("verify", "--json", *words).code == 1
    following = "headwater resync TABLE" if "--repair" in words else "headwater verify --repair"
    assert run("verify", *words).out.splitlines()[-1].startswith(f"next: {following}")


def test_check_looks_at_a_file_alone(run: Run, tmp_path: Path) -> None:
    place = Place(Storage.open(str(tmp_path), cache=tmp_path), str(tmp_path))
    document = {
        "format": "headwater-certificate/1",
        "pipeline": "shop",
        "at": "2026-05-01T02:00:03.000+00:00",
    }
    whole = {
        "equal": True,
        "verdict": "x\x1b<b>",
        "position": "0/1",
        "entry": 1,
        "seconds": 1.0,
        "repairs": "none",
    }
    more = {"method": {"says": "", "facts": {}}, "versions": {}, "tables": [], "lines": ["x"]}
    path = write(place, document | whole | more).path
    assert path.startswith(f"{tmp_path}/shop-20260501T020003Z-")
    said = run("verify", "--check", path)
    assert (said.code, StandIn.calls) == (0, [])
    assert said.out.splitlines()[-2:] == ["verdict: x\\x1b<b>", f"{path}: whole, but not signed"]
    assert run("verify", "--check", path, "--repair").code == 2
    file = Path(path)
    file.write_bytes(file.read_bytes().replace(b'"entry":1', b'"entry":2'))
    said = run("verify", "--check", path)
    assert said.code == 1
    assert "expected sha256" in said.err
