"""Jobs that run Headwater as a user gets it: `Capture` on a source and a raw log, `refresh` on a lake."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import warm  # noqa: F401
from benchmarks.stopwatch import Stopwatch
from headwater.capture import Capture
from headwater.config import TableSpec
from headwater.lake.delta import Lake
from headwater.model import Entry, TableId
from headwater.raw import RawLog
from headwater.refresh import compact as move_tails
from headwater.refresh import refresh
from headwater.sources.postgres import PostgresSource
from headwater.storage import Storage

#: The default of headwater.yml.
MEMORY = "1GB"


def open_storage(store: str) -> Storage:
    return Storage.open(store, cache=Path(store) / "cache")


@contextmanager
def _capture(url: str, slot: str, publication: str, store: str) -> Iterator[tuple[PostgresSource, Capture]]:
    source = PostgresSource(url=url, slot=slot, publication=publication)
    with open_storage(store) as storage:
        try:
            infos = [i for i in source.tables() if i.schema.table.name == "orders"]
            yield source, Capture(source, RawLog(storage), infos)
        finally:
            source.close()


def load(watch: Stopwatch, url: str, slot: str, publication: str, store: str) -> dict[str, Any]:
    """A full load: slot, publication and every row, durable in the raw log."""
    with _capture(url, slot, publication, store) as (_, capture):
        with watch:
            done = capture.start()
        return {"rows": done.rows.total()}


def drain(watch: Stopwatch, url: str, slot: str, publication: str, store: str) -> dict[str, Any]:
    """Every change since the last entry, from opening the stream to durable entries."""
    with _capture(url, slot, publication, store) as (_, capture):
        capture.start()
        with watch:
            done = capture.drain()
        return {"rows": done.rows.total()}


def decode(watch: Stopwatch, url: str, slot: str, publication: str, store: str) -> dict[str, Any]:
    """The same changes received and decoded into Arrow, then dropped."""
    source, rows = PostgresSource(url=url, slot=slot, publication=publication), 0
    with open_storage(store) as storage:
        log = RawLog(storage)
        known = {t: log.schema(t, s.schema) for t, s in log.tables().items()}
        with watch:
            for item in source.changes(list(known), _last(log).position, known=known):
                rows += item.rows.num_rows if hasattr(item, "rows") else 0
    source.close()
    return {"rows": rows}


def stage(watch: Stopwatch, url: str, slot: str, publication: str, store: str) -> dict[str, Any]:
    """The same changes, in memory already, written as durable Parquet."""
    source = PostgresSource(url=url, slot=slot, publication=publication)
    with open_storage(store) as storage:
        log = RawLog(storage)
        known = {t: log.schema(t, s.schema) for t, s in log.tables().items()}
        items = source.changes(list(known), _last(log).position, known=known)
        batches = [item for item in items if hasattr(item, "rows")]
        base = _last(log).next_row
        with watch:
            refs = [log.stage(batch, 1, base) for batch in batches]
    source.close()
    return {"rows": sum(ref.rows for ref in refs)}


def _last(log: RawLog) -> Entry:
    last = log.last()
    assert last is not None
    return last


def fold(
    watch: Stopwatch, store: str, table: list[str], mode: str = "history", compact: bool = False
) -> dict[str, Any]:
    """What the raw log holds and the lake does not. With `compact`, no tail is left: all is in the base."""
    name = TableId(*table)
    specs = {name: TableSpec(name, mode)}  # type: ignore[arg-type]
    with open_storage(store) as storage:
        log, lake = RawLog(storage), Lake(storage, MEMORY)
        with watch:
            done = refresh(log, lake, specs, memory_limit=MEMORY)[name]
            if compact:
                move_tails(lake, specs, memory_limit=MEMORY)
        return {"rows": done.rows_in, "versions": done.versions}


def read(watch: Stopwatch, store: str, table: list[str], through: bool) -> dict[str, Any]:
    """Every cell of the mirror looked at once: through us, or the base's Parquet files alone."""
    name = TableId(*table)
    with open_storage(store) as storage:
        lake = Lake(storage, MEMORY)
        columns = [c.name for c in lake.schema(name).columns]  # type: ignore[union-attr]
        with lake.connect() as con, watch:
            paths = [str(path) for path in lake.files(name)]
            rows = lake.relation(con, name) if through else f"read_parquet({paths})"
            cells = ", ".join(f'max("{c}")' for c in columns)
            found = con.execute(f"SELECT count(*), {cells} FROM {rows}").fetchone()
        return {"rows": found[0] if found else 0}
