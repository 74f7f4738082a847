"""One function for each command: open the pipeline, call one method, say what came back."""

from __future__ import annotations

import json
import os
import platform
import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from headwater.cli import show
from headwater.cli.words import DEFAULT_FILE, one_liner
from headwater.errors import ConfigError
from headwater.printable import printable

if TYPE_CHECKING:
    from headwater.config import Config
    from headwater.events import Sink
    from headwater.pipeline import Pipeline

DONE, FAILED = 0, 1

_STANDS_ON = ("duckdb", "deltalake", "pyarrow", "obstore", "psycopg", "dbt-core", "dbt-duckdb")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command found: its exit code, the JSON document, and the lines for a person."""

    code: int
    document: object
    lines: Sequence[str] = field(default_factory=list)


def init(args: Namespace) -> Answer:
    """Write a pipeline file."""
    from headwater.config.files import PASSWORD_VARIABLE
    from headwater.config.template import commented, template

    path = Path(args.config or DEFAULT_FILE)
    config = one_liner(args)
    text = template() if config is None else commented(config, path.absolute().parent)
    try:
        with path.open("w" if args.force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(f"{path} is there already", hint="headwater init --force   (replaces it)") from None
    except OSError as failed:
        raise ConfigError(
            f"{path} cannot be written: {failed.strerror}", hint="headwater init -c PATH"
        ) from None
    steps = ["headwater check"] if config is not None else [f"edit {path}", "headwater check"]
    if (config is None or config.secrets()) and not os.environ.get(PASSWORD_VARIABLE):
        steps.insert(-1, f"export {PASSWORD_VARIABLE}=...")
    return Answer(DONE, {"written": str(path), "next": steps}, [f"wrote {path}", f"next: {'; '.join(steps)}"])


def check(args: Namespace) -> Answer:
    """The source's preflight."""
    with _pipeline(args) as pipeline:
        found = pipeline.check(args.table)
    ready = all(f.level != "fail" for f in found)
    document = {"ready": ready, "findings": show.plain(found)}
    return Answer(DONE if ready else FAILED, document, show.findings(found))


def tables(args: Namespace) -> Answer:
    """The source's tables."""
    from headwater.choosing import choosable
    from headwater.config import quote_table, select
    from headwater.handoff.outlook import Outlook
    from headwater.naming import lake_folder

    with _pipeline(args) as pipeline:
        infos = list(pipeline.tables())
        outlook = Outlook(pipeline.config, [i.schema for i in infos if not i.note])
        names = [i.schema.table for i in infos]
        chosen = set(select(pipeline.config.tables, list(choosable(infos))))
    picked = {i.schema.table for i in infos if i.schema.table in chosen and not i.note}
    if args.patterns:
        wanted = set(select(args.patterns, names))
        infos, picked = [i for i in infos if i.schema.table in wanted], picked & wanted
    rows = [
        {
            "table": str(i.schema.table),
            "pattern": quote_table(i.schema.table),
            "copied": i.schema.table in picked,
            **{name: show.plain(getattr(i, name)) for name in ("kind", "rows", "bytes", "note")},
            "key": show.plain(i.schema.key),
            **{name: list(map(show.column, getattr(i.schema, name))) for name in ("columns", "left_out")},
            "lake": lake_folder(i.schema.table),
            "warehouse": show.plain(outlook.relations(i.schema.table)),
        }
        for i in infos
    ]
    return Answer(DONE, {"tables": rows}, show.tables(infos, picked))


def plan(args: Namespace) -> Answer:
    """What a run would do."""
    with _pipeline(args) as pipeline:
        found = pipeline.plan()
    return Answer(DONE, show.plain(found), show.plan(found))


def run(args: Namespace) -> Answer:
    """Run once, or follow."""
    if args.follow:
        if args.full or args.table:
            hint = "headwater run --full, then headwater run --follow"
            raise ConfigError("--follow goes on from where the last run ended", hint=hint)
        return _follow(args)
    if args.table and not args.full:
        raise ConfigError("--table reads a table again, so it needs --full", hint="add --full")
    return _run(args, "full" if args.full else "auto")


def resync(args: Namespace) -> Answer:
    """Read tables again."""
    return _run(args, "full")


def _run(args: Namespace, mode: str) -> Answer:
    with _pipeline(args) as pipeline, _watched(args) as sinks:
        record = pipeline.run(mode, args.table, sinks, build=not args.no_dbt)
    return Answer(DONE if record.outcome == "done" else FAILED, record.to_json(), show.record(record))


#: What a follower tells beside its rounds.
_TOLD = frozenset(
    {
        "table.loaded", "run.retrying", "table.failed", "table.quarantined", "refresh.failed",
        "handoff.failed", "record.failed", "wal.warning",
    }
)  # fmt: skip


def _follow(args: Namespace) -> Answer:
    last = None
    from headwater.events.terminal import lines

    sinks = () if args.json else (lines(sys.stderr, only=_TOLD),)
    with _pipeline(args) as pipeline, _stoppable() as stop:
        for record in pipeline.follow(sinks, args.pause, stop, build=not args.no_dbt):
            last = record
            say(record.to_json() if args.json else show.round_line(record))
    failed = last is not None and last.outcome == "failed"
    # Every round was printed as it came, as one JSON document to a line: the whole never ends by itself.
    return Answer(FAILED if failed else DONE, None, [] if args.json else ["stopped; next: headwater verify"])


def compact(args: Namespace) -> Answer:
    """Move tails into their bases."""
    with _pipeline(args) as pipeline:
        done = [str(table) for table in pipeline.compact(args.patterns or None)]
    lines = [f"compacted {printable(table)}" for table in done] or ["every table was compacted already"]
    return Answer(DONE, {"compacted": done}, lines)


def status(args: Namespace) -> Answer:
    """Where the pipeline stands."""
    with _pipeline(args) as pipeline:
        found = pipeline.status()
    document = show.plain(found)
    return Answer(DONE, document, show.status(found))


def verify(args: Namespace) -> Answer:
    """Source = lake = warehouse; certified if asked for."""
    if args.check is not None:
        return _check_certificate(args)
    if args.certificate is not None or args.repair:
        with _pipeline(args) as pipeline, _watched(args) as sinks:
            found = pipeline.certify(
                args.table, folder=args.certificate or None, repair=args.repair, sinks=sinks
            )
        lines = show.compared(found.lines(), equal=found.equal, repaired=args.repair)
        return Answer(DONE if found.equal else FAILED, found.to_json(), lines)
    with _pipeline(args) as pipeline, _watched(args) as sinks:
        report = pipeline.verify(args.table, sinks)
    lines = show.compared(report.lines(), equal=report.equal)
    return Answer(DONE if report.equal else FAILED, show.plain(report), lines)


def quality(args: Namespace) -> Answer:
    """Judge, or let through what is held back."""
    with _pipeline(args) as pipeline:
        if args.accept:
            if not args.patterns:
                raise ConfigError(
                    "--accept lets named tables through", hint="headwater quality --accept TABLE"
                )
            taken = [str(table) for table in pipeline.quality_accept(args.patterns)]
            lines = [f"accepted {printable(table)}" for table in taken]
            return Answer(DONE, {"accepted": taken}, [*lines, "next: headwater run"])
        if args.suites:
            files = [str(path) for path in pipeline.quality_suites(args.suites, args.patterns or None)]
            return Answer(DONE, {"written": files}, [f"wrote {printable(path)}" for path in files])
        with _watched(args) as sinks:
            found = pipeline.quality(args.patterns or None, full=args.full, sinks=sinks)
        docs = pipeline.quality_docs(args.data_docs, found) if args.data_docs else ()
    lines = [*show.judged(found), *(f"Data Docs: {printable(str(docs[0]))}" for _ in docs[:1])]
    return Answer(FAILED if found.verdict == "failed" else DONE, found.to_json(), lines)


def _check_certificate(args: Namespace) -> Answer:
    """Whether a certificate is as it was written: the seal needs no pipeline, the signature its key."""
    from headwater import config as configuration
    from headwater.certificate import check as check_certificate

    if args.repair or args.certificate is not None or args.table:
        raise ConfigError("--check only looks at a file", hint=f"headwater verify --check {args.check}")
    config = one_liner(args)
    if config is None and (args.config or Path(DEFAULT_FILE).exists()):
        config = configuration.load(args.config or DEFAULT_FILE)
    found = check_certificate(Path(args.check), config)
    facts = {name: found.document.get(name) for name in ("pipeline", "at", "position", "verdict")}
    lines = [f"{name}: {value}" for name, value in facts.items()] + [f"{found.path}: {found.said}"]
    document = {"path": found.path, "sound": found.sound, "signed": found.signed, "said": found.said, **facts}
    return Answer(DONE if found.sound else FAILED, document, [*map(printable, lines)])


def explain(args: Namespace) -> Answer:
    """Every change of one key."""
    with _pipeline(args) as pipeline:
        found = pipeline.explain(args.table, args.key, values=args.values)
    if not found:
        line = f"{printable(args.table)} has never had the key {printable(args.key)}"
        return Answer(DONE, {"steps": []}, [line])
    return Answer(DONE, {"steps": show.plain(found)}, show.steps(found))


def quarantine(args: Namespace) -> Answer:
    """What waits, and what is to become of it."""
    with _pipeline(args) as pipeline:
        if args.action == "list":
            queues = pipeline.quarantine(args.patterns or None)
            return Answer(DONE, {"tables": show.plain(queues)}, show.queues(queues))
        if args.action == "show":
            rows = pipeline.waiting(args.table, args.key or (), args.limit)
            return Answer(DONE, {"rows": show.plain(rows)}, show.waiting(rows))
        with _watched(args) as sinks:
            if args.action == "retry":
                record = pipeline.retry(args.patterns or None, sinks, build=not args.no_dbt)
            else:
                record = pipeline.give_up(args.table, args.key or (), sinks, build=not args.no_dbt)
        queues = pipeline.quarantine()
    document = {**record.to_json(), "waiting": show.plain(queues)}
    return Answer(DONE, document, [*show.record(record, verbose=False), *show.queues(queues)])


def dbt(args: Namespace) -> Answer:
    """Show, generate or build the models."""
    with _pipeline(args) as pipeline:
        if args.action == "diff":
            lines = list(pipeline.dbt_diff())
            said = (
                [*map(printable, lines), "next: headwater dbt generate"]
                if lines
                else ["nothing would change"]
            )
            return Answer(DONE, {"diff": lines}, said)
        if args.action == "generate":
            written = pipeline.dbt_generate(force=args.force)
            return Answer(DONE, show.plain(written), [*show.facts(written), "next: headwater dbt build"])
        built = pipeline.dbt_build(full_refresh=args.full_refresh)
    if built is None:
        return Answer(DONE, {"built": False}, ["the warehouse has all of the lake already"])
    return Answer(DONE, show.plain(built), [*show.built(built), "next: headwater verify"])


def schema(args: Namespace) -> Answer:
    """Versions of columns, and what a policy stopped."""
    with _pipeline(args) as pipeline:
        if args.action == "log":
            found = pipeline.schema_log(args.table)
            return Answer(DONE, {"versions": show.plain(found)}, show.versions(found))
        if args.action == "diff":
            lines = list(pipeline.schema_diff(args.table, args.since, args.to))
            return Answer(DONE, {"diff": lines}, [*map(printable, lines)] or ["no difference"])
        moved = [str(table) for table in pipeline.schema_accept(args.patterns)]
    told = [f"accepted {printable(table)}" for table in moved] or ["nothing was waiting to be accepted"]
    return Answer(DONE, {"accepted": moved}, [*told, "next: headwater run"])


def versions(args: Namespace) -> Answer:
    """The versions of headwater and of what it stands on."""
    from headwater import __version__

    found = {"headwater": __version__, "python": platform.python_version()}
    if args.command == "version":
        found |= {name: _installed(name) for name in _STANDS_ON}
    lines = [f"{name} {its}" for name, its in found.items()]
    return Answer(DONE, found, lines if args.command else lines[:1])


def demo(args: Namespace) -> Answer:
    """The guided tour."""
    from headwater.demo.show import run_demo

    # With --json, standard output is the document alone.
    stream = sys.stderr if args.json else sys.stdout
    summary = run_demo(
        Path(args.keep) if args.keep else None, lambda line: print(line, file=stream, flush=True)
    )
    return Answer(DONE, show.plain(summary), summary.lines())


def notebooks(args: Namespace) -> Answer:
    """The notebooks, in a folder."""
    from headwater.demo.copies import copy_notebooks

    copied = [str(path) for path in copy_notebooks(Path(args.folder))]
    lines = [f"wrote {path}" for path in copied] or ["all of them are there already"]
    return Answer(DONE, {"written": copied}, lines)


def say(what: object) -> None:
    """Print one line now: text as it is, anything else as one JSON document."""
    print(what if isinstance(what, str) else json.dumps(what), flush=True)


@contextmanager
def _pipeline(args: Namespace) -> Iterator[Pipeline]:
    from headwater.pipeline import Pipeline
    from headwater.startup import spare_pandas

    spare_pandas()
    config: Config | None = one_liner(args)
    with Pipeline.open(config if config is not None else args.config or DEFAULT_FILE) as pipeline:
        yield pipeline


@contextmanager
def _watched(args: Namespace) -> Iterator[Sequence[Sink]]:
    if args.json:
        yield ()
        return
    from headwater.events.terminal import watch

    with watch(sys.stderr) as sink:
        yield (sink,)


@contextmanager
def _stoppable() -> Iterator[Callable[[], bool]]:
    """True once SIGINT or SIGTERM came; a second one ends the process at once, as safely as kill -9."""
    came: list[int] = []

    def note(_number: int, _frame: FrameType | None) -> None:
        if came:
            os._exit(FAILED)
        came.append(1)
        os.write(2, b"headwater: stopping after this round; once more to stop at once\n")

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


VERBS: Mapping[str, Callable[[Namespace], Answer]] = {
    "init": init,
    "check": check,
    "tables": tables,
    "plan": plan,
    "run": run,
    "resync": resync,
    "compact": compact,
    "status": status,
    "verify": verify,
    "explain": explain,
    "quality": quality,
    "quarantine": quarantine,
    "schema": schema,
    "dbt": dbt,
    "demo": demo,
    "notebooks": notebooks,
    "version": versions,
}
