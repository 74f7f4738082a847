"""Building: runs dbt over the tables with news, as a process of its own, and reads what it says it did."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import monotonic

from headwater.config import Config, TableSpec, WarehouseConfig, memory_bytes
from headwater.errors import ConfigError, WarehouseError
from headwater.handoff.built import Built, Place, read_built
from headwater.handoff.dbt import TableModel, generate, table_models
from headwater.handoff.moved import make_room
from headwater.handoff.stage import note_made, row_counts, spans, stage, unstage
from headwater.handoff.tables import Staged
from headwater.handoff.warehouses import warehouse_of
from headwater.model import TableId
from headwater.naming import relation_name
from headwater.secrets import Secret, scrub

#: Told of each finished model or test: its name, how many are done, how many there are.
Progress = Callable[[str, int, int], None]

#: Changes for one run of dbt may take this part of DuckDB's memory: its merges hold them more than once.
_SHARE = 4

_OK = {"success", "pass", "warn", "no-op"}
_LOOKS_SECRET = re.compile(r"(?i)\b(password|passwd|secret|token|api_key)(\s*[=:]\s*)('[^']*'|\S+)")


@dataclass(frozen=True, slots=True)
class ModelResult:
    """One model as dbt built it; `rows` is what it holds now, where that is known."""

    name: str
    status: str
    rows: int | None
    seconds: float


@dataclass(frozen=True, slots=True)
class BuildResult:
    """What a handoff did. `rebuilt` names the tables whose models were built anew from all staged changes."""

    models: tuple[ModelResult, ...] = ()
    tests_passed: int = 0
    tests_failed: int = 0
    rebuilt: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class _Node:
    """One line of run_results.json."""

    kind: str
    name: str
    status: str
    message: str
    seconds: float
    relation: str


def publish(  # noqa: PLR0913
    config: Config,
    staged: Mapping[TableId, Staged],
    specs: Mapping[TableId, TableSpec],
    *,
    news: Collection[TableId] | None = None,
    held: Collection[TableId] = (),
    full_refresh: bool = False,
    progress: Progress | None = None,
) -> BuildResult:
    """Generate the models, stage the changes and build what has news (None: every table).

    A table whose models changed counts as news; so do all of them when the warehouse file is gone. Without
    news nothing is sent to the warehouse and dbt is not started. Of tables that are `held`, models and rows
    stay as they are. Raises ConfigError when dbt is missing or a
    generated file was edited, WarehouseError when a model or a test failed.
    """
    started = monotonic()
    warehouse = config.warehouse
    if warehouse is None:
        raise ConfigError(f"pipeline {config.name} has no warehouse", hint="warehouse: duckdb:///wh.duckdb")
    root = Path(config.dbt.project)
    models = {m.schema.table: m for m in table_models(staged, specs, config.names)}
    kept = [m.relation for t, m in models.items() if t in held]
    models = {t: m for t, m in models.items() if t not in held}
    done = generate(root, list(models.values()), config, kept=kept)
    fresh = {Path(path).parent.name for path in done.written}
    everything = news is None or full_refresh or not os.path.exists(warehouse.path)
    chosen = [t for t, m in models.items() if everything or t in (news or ()) or m.relation in fresh]
    if not chosen:
        return BuildResult()
    require_dbt(warehouse)
    dbt = Dbt(config, root)
    news_names = [models[t].relation for t in chosen]
    built = dbt.built()
    places = {name: (built.schema(name, warehouse), place[1]) for name, place in built.places().items()}
    misfits = stage(warehouse, [(models[t], staged[t]) for t in models], places, news=news_names)
    make_room(warehouse, list(models.values()), built)
    rebuilt = [m for t, m in models.items() if m.relation in misfits or (full_refresh and t in chosen)]
    wanted = list({m.relation: m for m in [*rebuilt, *(models[t] for t in chosen)]}.values())
    try:
        room = memory_bytes(config.memory_limit) // _SHARE
        ends = spans(warehouse, wanted, rebuilt, places, room)
    except WarehouseError:
        ends = [None]  # dbt will meet the same, and names the model and its SQL
    nodes = dbt.build(rebuilt, full_refresh=True, upto=ends[0], progress=progress)
    nodes += dbt.build([m for m in wanted if m not in rebuilt], upto=ends[0], progress=progress)
    for end in ends[1:]:
        nodes += dbt.build(wanted, upto=end, progress=progress)
    made = {m.relation: s.made for t, m in models.items() if m in wanted and (s := staged[t]).made}
    if made:
        note_made(warehouse, made)
    if not warehouse.keep_staging:
        unstage(warehouse, list(models.values()))
    if built.staging not in ("", warehouse.staging_schema):
        unstage(replace(warehouse, staging_schema=built.staging), list(models.values()))
    newest = list({(n.kind, n.name): n for n in nodes}.values())
    return _result(warehouse, newest, [m.relation for m in rebuilt], monotonic() - started)


def require_dbt(warehouse: WarehouseConfig) -> None:
    """Raise ConfigError unless dbt and the adapter of the warehouse are installed."""
    for name in ("dbt-core", warehouse_of(warehouse).adapter):
        try:
            version(name)
        except PackageNotFoundError:
            raise ConfigError(f"{name} is not installed", hint="pip install 'headwater[dbt]'") from None


class Dbt:
    """dbt in one project, with its logs and target in a folder of ours there."""

    def __init__(self, config: Config, project: Path) -> None:
        self._config = config
        self._project = project.absolute()
        self._ours = self._project / ".headwater"
        self._target = self._ours / "target"

    def build(
        self,
        tables: Sequence[TableModel],
        *,
        full_refresh: bool = False,
        after: int | None = None,
        upto: int | None = None,
        progress: Progress | None = None,
    ) -> list[_Node]:
        """Build the models of the tables and run their data tests; raises WarehouseError if one failed.

        after, upto    the span of `_hw_seq` to apply (again); short of the end the data tests wait
        """
        if not tables:
            return []
        span = {"headwater_after": after, "headwater_upto": upto}
        variables = {name: bound for name, bound in span.items() if bound is not None}
        paths = [f"path:{self._config.dbt.folder}/{t.relation}" for t in tables]
        words = ["build", "--indirect-selection", "cautious", "--exclude-resource-type", "unit_test"]
        words = words if upto is None else ["run"]
        words += ["--full-refresh"] if full_refresh else []
        words += ["--vars", json.dumps(variables)] if variables else []
        code, said = self._run([*words, "--select", *paths], progress)
        nodes = self._results()
        failed = [n for n in nodes if n.status not in _OK]
        if failed or code != 0:
            raise self._failure(failed, said)
        return nodes

    def built(self) -> Built:
        """Where the project's own settings put the models, as of the last time dbt ran here."""
        return read_built(self._project, self._target, relation_name(self._config.name))

    def _run(self, words: Sequence[str], progress: Progress | None) -> tuple[int, list[str]]:
        """Run dbt; returns its exit code and the errors it logged."""
        self._ours.mkdir(parents=True, exist_ok=True)
        (self._ours / ".gitignore").write_text("*\n")
        (self._target / "run_results.json").unlink(missing_ok=True)
        command = [
            sys.executable, "-P", "-m", "headwater.handoff.child", str(os.getpid()), *words,
            "--project-dir", str(self._project), *self._profiles(),
            "--target-path", str(self._target), "--log-path", str(self._ours / "logs"),
            "--no-use-colors", "--log-format", "json", "--log-level-file", "info",
        ]  # fmt: skip
        quiet = {"DBT_SEND_ANONYMOUS_USAGE_STATS": "false", "DO_NOT_TRACK": "1", "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            command,
            cwd=self._project,
            env={**os.environ, **quiet},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            # Ctrl-C is ours to pass on: a follower lets a build end.
            process_group=0,
        )
        try:
            said = list(_errors(process.stdout or (), progress))
            return process.wait(), said
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()

    def _profiles(self) -> list[str]:
        """Where the profile is: in the project if it has one; else where dbt looks by itself."""
        own = (self._project / ".headwater.json").exists()
        if own or ((self._project / "profiles.yml").exists() and "DBT_PROFILES_DIR" not in os.environ):
            return ["--profiles-dir", str(self._project)]
        return []

    def _results(self) -> list[_Node]:
        try:
            doc = json.loads((self._target / "run_results.json").read_text("utf-8"))
        except FileNotFoundError:
            return []
        return [_node(r) for r in doc["results"]]

    def _failure(self, failed: Sequence[_Node], said: Sequence[str]) -> WarehouseError:
        broken = [n for n in failed if n.status != "skipped"] or list(failed)
        if broken:
            first = broken[0]
            more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
            reason = first.message.strip() + self._compiled(first)
            text = f"dbt failed on {first.kind} {first.name}{more}: {reason}"
        else:
            text = "dbt failed: " + ("\n".join(said[-5:]) or f"see {self._ours / 'logs' / 'dbt.log'}")
        return WarehouseError(self._clean(text), hint=self._hint(text))

    def _compiled(self, node: _Node) -> str:
        """Where the SQL is that the warehouse was sent."""
        for folder in ("run", "compiled"):
            for path in sorted((self._target / folder).rglob(f"{node.name}.sql")):
                return f"\nSQL: {path}"
        return ""

    def _hint(self, text: str) -> str:
        path = self._config.warehouse.path if self._config.warehouse else ""
        staging = self._config.warehouse.staging_schema if self._config.warehouse else ""
        if "Could not set lock" in text:
            return f"close the other program that has {path} open"
        if "does not exist" in text and staging in text:
            return f"the dbt profile must open {path}   (see docs/dbt.md)"
        return f"less {self._ours / 'logs' / 'dbt.log'}"

    def _clean(self, text: str) -> str:
        """The text without secrets: ours, dbt's, and what looks like one."""
        known = [Secret(v) for n, v in os.environ.items() if n.startswith("DBT_ENV_SECRET") and v]
        text = scrub(text, *known, *self._config.secrets())
        text = re.sub(r"(?i)(://[^\s:/@]*:)[^\s@]+@", r"\1***@", text)
        return _LOOKS_SECRET.sub(r"\1\2***", text)


def _errors(lines: Iterator[str] | Sequence[str], progress: Progress | None) -> Iterator[str]:
    """The errors among dbt's log lines; tells `progress` of results on the way."""
    for line in lines:
        try:
            event = json.loads(line)
            info, data = event["info"], event.get("data", {})
        except (ValueError, KeyError, TypeError):
            yield line.rstrip()
            continue
        if progress is not None and info.get("name") in ("LogModelResult", "LogTestResult"):
            name = str(data.get("node_info", {}).get("node_name", ""))
            progress(name, int(data.get("index", 0)), int(data.get("total") or data.get("num_models") or 0))
        if info.get("level") == "error" and info.get("msg"):
            yield str(info["msg"])


def _node(found: Mapping[str, object]) -> _Node:
    kind, _, name, *_ = str(found["unique_id"]).split(".")
    return _Node(
        kind,
        name,
        status=str(found["status"]),
        message=str(found.get("message") or ""),
        seconds=float(str(found["execution_time"])),
        relation=str(found.get("relation_name") or ""),
    )


def _result(
    warehouse: WarehouseConfig, nodes: Sequence[_Node], rebuilt: Sequence[str], seconds: float
) -> BuildResult:
    built = [n for n in nodes if n.kind == "model"]
    places = {n.name: _place(n.relation) for n in built}
    rows = row_counts(warehouse, {name: place for name, place in places.items() if place})
    tests = [n for n in nodes if n.kind == "test"]
    return BuildResult(
        tuple(ModelResult(n.name, n.status, rows.get(n.name), n.seconds) for n in built),
        tests_passed=sum(n.status in _OK for n in tests),
        tests_failed=sum(n.status not in _OK for n in tests),
        rebuilt=tuple(rebuilt),
        seconds=seconds,
    )


def _place(relation: str) -> Place | None:
    """Schema and name of a relation as dbt spells it: "database"."schema"."name"."""
    parts = re.findall(r'"((?:[^"]|"")*)"', relation)
    return (parts[-2], parts[-1]) if len(parts) >= 2 else None
