"""The words: one-liners, init, wrong use."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.conftest import Run
from cli.stand_in import StandIn
from headwater.cli.words import pipeline_name, split_source
from headwater.config import load
from headwater.config.fields import FILE
from headwater.errors import ConfigError, HeadwaterError
from headwater.secrets import Secret

ONE_LINER = [
    "--source", "postgresql://user:hunter2@host/Shop-DB", "--store", "./lake", "--warehouse", "duckdb:///wh.duckdb",
    "--tables", "public.*", "--tables", "!public.audit_*",
]  # fmt: skip


@pytest.mark.parametrize(
    "verb",
    [
        ["run"],
        ["plan"],
        ["status"],
        ["verify"],
        ["compact"],
        ["check"],
        ["tables"],
        ["run", "--follow"],
        ["explain", "a.b", "1"],
        ["dbt", "build"],
    ],
)
def test_a_one_liner_needs_no_file(
    verb: list[str], run: Run, pipeline: type[StandIn], tmp_path: Path
) -> None:
    pipeline.answers["tables"] = pipeline.answers["tables"][:1]
    words = [w for w in ONE_LINER if verb != ["tables"] or w not in ("--tables", "!public.audit_*")]
    said = run(*verb, *(ONE_LINER if verb != ["tables"] else words[:6]))
    assert said.code == 0
    (config,) = pipeline.opened
    assert config.name == "shop_db"
    assert config.source == {
        "kind": "postgres", "url": "postgresql://user@host/Shop-DB", "password": Secret("hunter2"),
    }  # fmt: skip
    assert config.store == f"{tmp_path}/lake"
    assert config.warehouse is not None
    assert config.warehouse.path == f"{tmp_path}/wh.duckdb"
    assert "hunter2" not in said.out + said.err + repr(config)
    assert "others on this machine can see the password" in said.err


def test_init_with_the_same_words_writes_the_file_they_stand_for(
    run: Run, pipeline: type[StandIn], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("run", *ONE_LINER)
    said = run("init", *ONE_LINER)
    assert said.code == 0
    assert said.out == "wrote headwater.yml\nnext: export HEADWATER_SOURCE_PASSWORD=...; headwater check\n"
    text = (tmp_path / "headwater.yml").read_text()
    assert "hunter2" not in text
    written, (given_words,) = load(tmp_path / "headwater.yml"), pipeline.opened
    assert written.source["password"] == "env:HEADWATER_SOURCE_PASSWORD"
    assert {**written.source, "password": 0} == {**given_words.source, "password": 0}
    for name in ("name", "store", "tables", "warehouse", "dbt", "state"):
        assert getattr(written, name) == getattr(given_words, name)
    assert str(tmp_path) not in text


def test_a_password_that_is_in_the_environment_is_used_and_written_as_a_reference(
    run: Run, pipeline: type[StandIn], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWATER_SOURCE_PASSWORD", "hunter2")
    words = ["--source", "postgresql://user@host/shop"]
    assert run("run", *words).code == 0
    said = run("init", *words)
    assert said.out == "wrote headwater.yml\nnext: headwater check\n"
    assert said.err == ""
    text = (tmp_path / "headwater.yml").read_text()
    assert "  password: env:HEADWATER_SOURCE_PASSWORD\n" in text
    assert "hunter2" not in text
    assert pipeline.opened[0].source == load(tmp_path / "headwater.yml").source


def test_init_writes_a_file_to_start_from_and_never_over_one(run: Run, tmp_path: Path) -> None:
    assert run("init").code == 0
    assert load(tmp_path / "headwater.yml").name == "shop"
    (tmp_path / "headwater.yml").write_text("mine")
    said = run("init")
    assert said.code == 2
    assert "is there already" in said.err
    assert (tmp_path / "headwater.yml").read_text() == "mine"
    assert run("init", "--force", "--json").json["written"] == "headwater.yml"
    assert run("init", "-c", "deep/x.yml").code == 2
    assert run("init", "-c", "other.yml").code == 0


def test_init_into_another_folder_keeps_what_the_words_mean(run: Run, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    run("init", "-c", "etc/shop.yml", *ONE_LINER)
    assert load(tmp_path / "etc" / "shop.yml").store == f"{tmp_path}/lake"


def test_without_a_password_nothing_warns(run: Run, pipeline: type[StandIn]) -> None:
    said = run("run", "--source", "postgresql://me@localhost/db")
    assert said.err == ""
    assert "password" not in pipeline.opened[0].source
    assert pipeline.opened[0].tables == ("*.*",)
    assert pipeline.opened[0].warehouse is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--store", "./lake"], "--store needs --source"),
        (["run", "-c", "x.yml", "--source", "postgresql://h/d"], "both name a pipeline"),
        (["run", "--source", "mysql://h/d"], "mysql is not a source we know"),
        (["run", "--source", "h/d"], "this is not a source we know"),
        (["run", "--source", "postgresql://u:%zz@h/d"], "not followed by two digits"),
        (["run", "--source", "postgresql://u:a/hunter2@h/d"], "cannot be read"),
        (["run", "--source", "postgresql://u@h/d?password=hunter2"], "cannot be read"),
        (["run", "--source", "postgresql://u:%ff@h/d"], "not UTF-8"),
        (["run", "--source", "postgresql://u:%00@h/d"], "%"),
        (["run", "--source", "postgresql://u@h/d", "--store", "gs://x"], "not a place"),
        (["run", "--source", "postgresql://u@h/d", "--tables", "orders"], "does not name tables"),
        (["run", "--source", "postgresql://u@h/d", "--warehouse", "snowflake://x"], "not a warehouse"),
        (["run", "--source", "postgresql://u@h/d", "--name", "My Shop"], "expected a name"),
        (["rnu"], "try: headwater run"),
        (["dbt", "biuld"], "try: headwater dbt build"),
        (["postgresql://u:hunter2@h/d"], "is not a command"),
        (["run", "postgresql://u:hunter2@h/d"], "does not know"),
        (["run", "postgresql://u@h/d?password=hunter2&x=1"], "does not know"),
        (["run", "host=h password=hunter2"], "does not know"),
        (["run", "--sorce=postgresql://u:hunter2@h/d"], "did you mean --source?"),
        (["run", "--source"], "expected one argument"),
        (["--json=x"], "ignored explicit argument"),
        (["explain", "a.b"], "required: KEY"),
        (["status"], "there is no headwater.yml"),
        (["-c", "other.yml", "status"], "there is no other.yml"),
        (["status", "-c", "other.yml"], "there is no other.yml"),
        (["run\x1b"], "'run\\\\x1b' is not a command"),
        (["run", "-c", "\udcff.yml"], "there is no"),
    ],
)  # fmt: skip
def test_wrong_use_exits_with_2_and_says_what_to_type(
    words: list[str], said: str, run: Run, pipeline: type[StandIn]
) -> None:
    found = run(*words)
    assert (found.code, found.out) == (2, "")
    assert said in found.err
    assert "hunter2" not in found.err
    assert "\x1b" not in found.err
    assert "Traceback" not in found.err
    assert pipeline.calls == []
    as_json = run(*words, "--json")
    assert as_json.code == 2
    assert as_json.json["error"]["message"]
    assert "hunter2" not in as_json.out


@pytest.mark.parametrize(
    "failure", [HeadwaterError("cannot log in with hunt@r2", hint="hunt%40r2"), ValueError("hunt@r2")]
)
@pytest.mark.parametrize("word", ["--json", "--debug", "--once"])
def test_an_error_never_repeats_the_password(
    failure: Exception, word: str, run: Run, pipeline: type[StandIn]
) -> None:
    pipeline.answers["run"] = failure
    said = run("run", "--source", "postgresql://user:hunt%40r2@host/db", word)
    assert said.code == 1
    assert "***" in said.out + said.err
    assert "r2" not in said.out + said.err


def test_help_and_version(run: Run) -> None:
    assert run("--help").code == 0
    assert run().code == 2
    assert run("--version").out == "headwater 0.1.0\n"
    assert run("--version", "--json").json["headwater"] == "0.1.0"
    assert run("version").out.startswith("headwater 0.1.0\npython 3.")
    assert run("version", "--json").json["duckdb"]
    for verb in (
        "init",
        "check",
        "tables",
        "plan",
        "run",
        "compact",
        "status",
        "verify",
        "explain",
        "dbt",
        "demo",
        "version",
    ):
        said = run(verb, "--help")
        assert said.code == 0
        assert "examples:\n  headwater" in said.out


@pytest.mark.parametrize(
    ("url", "rest", "password", "database"),
    [
        ("postgresql://u:p@h/d", "postgresql://u@h/d", "p", "d"),
        ("postgres://u:p@h:5433/d?sslmode=require", "postgres://u@h:5433/d?sslmode=require", "p", "d"),
        ("postgresql://u:p%40%2F%3a@h/d", "postgresql://u@h/d", "p@/:", "d"),
        ("postgresql://u:p@x@h/d", "postgresql://u@h/d", "p@x", "d"),
        ("postgresql://u:p:q@h/d", "postgresql://u@h/d", "p:q", "d"),
        ("postgresql://u%40x:p@h/d%20e", "postgresql://u%40x@h/d%20e", "p", "d e"),
        ("postgresql://u:@h/d", "postgresql://u@h/d", None, "d"),
        ("postgresql://u@[::1]:5432/d", "postgresql://u@[::1]:5432/d", None, "d"),
        ("postgresql://u:p@[::1]:5432/d", "postgresql://u@[::1]:5432/d", "p", "d"),
        ("postgresql://me@h", "postgresql://me@h", None, "me"),
        ("postgresql://h/d?host=/tmp", "postgresql://h/d?host=/tmp", None, "d"),
        ("postgresql:///d?host=/tmp&user=a@b", "postgresql:///d?host=/tmp&user=a@b", None, "d"),
    ],
)
def test_split_source(url: str, rest: str, password: str | None, database: str) -> None:
    found = split_source(url)
    assert found == (rest, Secret(password) if password is not None else None, database)


@given(st.text())
def test_no_url_error_repeats_the_url(text: str) -> None:
    try:
        split_source("postgresql://u:canary" + text + "@h/d")
    except ConfigError as failed:
        assert "canary" not in str(failed) + failed.hint


@given(st.text())
def test_any_database_gives_a_name_the_file_accepts(database: str) -> None:
    import re

    pattern = next(f.pattern for f in FILE.fields if f.name == "pipeline")
    assert re.fullmatch(pattern, pipeline_name(database))
