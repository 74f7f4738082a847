"""One table with every setting at once, on a real server, held against plain SQL over the source."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
import yaml
from pyarrow import orc
from pyiceberg.table import StaticTable

from live import everything as e
from live.pipelines import Runner
from servers.postgres import Database

pytestmark = [pytest.mark.live, pytest.mark.slow]

PLACE = Path("lake") / "lake" / "sales.~4frders"


class Walk:
    """The pipeline, its truth, and `protocol.md`: commands, what they print, seconds."""

    def __init__(self, pg: Database, folder: Path) -> None:
        self.pg = pg
        self.runner = Runner(folder / "p", pg.url, environment={"EVERYTHING_KEY": e.KEY}, timeout=3600)
        self.truth = e.Truth(duckdb.connect(), folder)
        self.configure(e.CASTS)
        self.said = (folder / "protocol.md").open("w")

    def configure(self, casts: dict[str, Any], **more: Any) -> None:
        doc = yaml.safe_load(self.runner.config.read_text()) | e.CONFIG
        doc["tables"] = [e.SETTINGS | {"cast": casts, **more}]
        self.runner.config.write_text(yaml.safe_dump(doc, allow_unicode=True, sort_keys=False))

    def call(self, *words: str) -> str:
        began = time.monotonic()
        done = self.runner.run(*words)
        self.note(
            f"$ headwater {' '.join(words)}\n{done.stdout}{done.stderr}[{time.monotonic() - began:.1f} s]\n"
        )
        return done.stdout

    def note(self, line: str) -> None:
        self.said.write(line + "\n")
        self.said.flush()

    def timed(self, what: str, check: Callable[[], int]) -> None:
        began = time.monotonic()
        self.note(f"{what}: {check()} rows equal [{time.monotonic() - began:.1f} s]")


@pytest.fixture
def walk(pg: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Walk]:
    monkeypatch.setenv("EVERYTHING_KEY", e.KEY)
    pg.run(e.SETUP)
    made = Walk(pg, tmp_path)
    yield made
    made.said.close()
    made.truth.con.close()


@pytest.mark.timeout(3600)
def test_everything_at_once(walk: Walk) -> None:
    assert json.loads(walk.runner.run("check", "--json").stdout)["ready"]
    walk.call("plan")
    walk.call("run", "--no-dbt")
    walk.truth.take(walk.pg, 0)
    see_lake(walk, 0, mended=False)
    for number, (name, changes) in enumerate(e.BATCHES, start=1):
        for statement in changes.split(";"):
            walk.pg.run(statement)
        walk.truth.take(walk.pg, number)
        walk.note(f"## batch {number}: {name}")
        if number == 4:
            walk.configure(e.CASTS, **e.FORMATS)
        walk.call("run", "--no-dbt")
        see_lake(walk, number, mended=False)
    last = len(e.BATCHES)
    see_past(walk, mended=False)
    see_formats(walk, mended=False)
    walk.call("dbt", "build")
    see_warehouse(walk, mended=False)
    (queue,) = json.loads(walk.runner.run("quarantine", "list", "--json").stdout)["tables"]
    assert queue["keys"] == walk.truth.waiting(last) > 0
    walk.call("quarantine", "list")
    assert "equal" in walk.call("verify")

    walk.configure(e.MENDED, **e.FORMATS)
    walk.call("quarantine", "retry")
    assert json.loads(walk.runner.run("quarantine", "list", "--json").stdout) == {"tables": []}
    see_lake(walk, last, mended=True)
    see_past(walk, mended=True)
    see_formats(walk, mended=True)
    see_warehouse(walk, mended=True)
    see_folders(walk)
    (check,) = walk.runner.json("verify")["tables"]
    assert check["equal"] and check["warehouse"]["rows"] == check["source"]["rows"] and not check["waiting"]
    walk.call("verify")
    walk.call("status")


def see_lake(walk: Walk, batch: int, *, mended: bool) -> None:
    """The mirror as read through us."""
    with walk.runner.open() as pipeline:
        rows = pipeline.table(e.TABLE).to_arrow_table()
    walk.timed("mirror", lambda: walk.truth.compare(batch, rows, "mirror", mended=mended))


def see_past(walk: Walk, *, mended: bool) -> None:
    """The history as of each batch."""
    for batch in range(len(e.BATCHES) + 1):
        with walk.runner.open() as pipeline:
            rows = pipeline.as_of(e.TABLE, walk.truth.moment(batch)).to_arrow_table()
        walk.timed(
            f"history as of batch {batch}",
            lambda b=batch, r=rows: walk.truth.compare(b, r, "history", mended=mended),  # type: ignore[misc]
        )


def as_of(walk: Walk, batch: int) -> str:
    at = f"TIMESTAMPTZ '{walk.truth.moment(batch).isoformat()}'"
    begun, ended = "CAST(start_date AS TIMESTAMPTZ)", "CAST(end_date AS TIMESTAMPTZ)"
    return f"{begun} <= {at} AND ({ended} IS NULL OR {ended} > {at})"


def files(folder: Path) -> list[str]:
    """What the manifests of a view name."""
    manifests = sorted(path for path in (folder / "_symlink_format_manifest").rglob("*") if path.is_file())
    lines = [line for path in manifests for line in path.read_text().split("\n")[:-1]]
    return [line.removeprefix("file://") for line in lines]


def read(walk: Walk, kind: str, view: str) -> Any:
    """All rows of a view, by a reader that is not ours."""
    folder = walk.runner.folder / PLACE / f"{kind}_{view}"
    if view == "iceberg":
        return StaticTable.from_metadata(str(folder)).scan().to_arrow()
    if view == "orc":
        return pa.concat_tables([orc.read_table(path) for path in files(folder)])
    if view == "parquet":
        return walk.truth.con.sql(f"FROM read_parquet({files(folder)!r}, hive_partitioning = false)")
    return walk.truth.con.sql(
        f"FROM read_csv({files(folder)!r}, all_varchar = true, allow_quoted_nulls = false, header = true, "
        "hive_partitioning = false)"
    )


def see_formats(walk: Walk, *, mended: bool) -> None:
    """Mirror and history of each format, the history as of each batch."""
    last = len(e.BATCHES)
    for view in ("iceberg", "parquet", "orc", "csv"):
        mirror = read(walk, "mirror", view)
        walk.timed(view, lambda v=view, r=mirror: walk.truth.compare(last, r, v, mended=mended))  # type: ignore[misc]
        past = (
            walk.truth.con.from_arrow(read(walk, "history", view))
            if view in ("iceberg", "orc")
            else read(walk, "history", view)
        )
        past.create("past")
        for batch in range(last + 1):
            walk.truth.compare(
                batch,
                walk.truth.con.table("past"),
                f"{view} history",
                mended=mended,
                where=as_of(walk, batch),
            )
        walk.note(f"{view}, history as of each batch: equal")
        walk.truth.con.execute("DROP TABLE past")


def see_warehouse(walk: Walk, *, mended: bool) -> None:
    """Both models in DuckDB, under the names of the rules."""
    last = len(e.BATCHES)
    with duckdb.connect(str(walk.runner.folder / "warehouse.duckdb"), read_only=True) as con:
        con.execute("SET TimeZone = 'UTC'")
        now = con.sql("FROM dwh.dw_orders_v").to_arrow_table()
        past = con.sql("FROM dwh.dw_orders_past").to_arrow_table()
    walk.timed("warehouse", lambda: walk.truth.compare(last, now, "warehouse", mended=mended))
    for batch in range(last + 1):
        walk.truth.compare(batch, past, "warehouse history", mended=mended, where=as_of(walk, batch))


def see_folders(walk: Walk) -> None:
    """Each row lies where its cells say, by rules that are written down here."""
    con = walk.truth.con
    con.execute("CREATE TABLE cities (city VARCHAR, folder VARCHAR)")
    con.executemany("INSERT INTO cities VALUES (?, ?)", [list(pair) for pair in e.FOLDERS.items()])
    paths = files(walk.runner.folder / PLACE / "mirror_parquet")
    null = "__HIVE_DEFAULT_PARTITION__"
    wrong = con.execute(
        f"""
        SELECT filename, erdat, t.city, qty
        FROM read_parquet({paths!r}, filename = true, hive_partitioning = false) t
        JOIN cities c ON c.city IS NOT DISTINCT FROM t.city
        WHERE NOT contains(filename, '/yr=' || coalesce(strftime(erdat, '%Y'), '{null}')
            || '/half=' || CASE WHEN erdat IS NULL THEN '{null}'
                WHEN month(erdat) < 7 THEN '01-06' ELSE '07-12' END
            || '/place=' || c.folder
            || '/q=' || CASE WHEN qty IS NULL THEN '{null}' WHEN qty < 100 THEN '000' ELSE '100' END || '/')
        """
    ).fetchall()
    assert not wrong
    places = {next(p for p in path.split("/") if p.startswith("place=")) for path in paths}
    assert places == {f"place={folder}" for folder in e.FOLDERS.values()}
    walk.note(
        f"{len(paths)} files of the mirror in {len({path.rpartition('/')[0] for path in paths})} folders"
    )
