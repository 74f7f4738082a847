"""kill -9 before and after every durable write of a view: readers see one version, the next run mends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contracts.views import ROWS, TABLE, ViewContract
from formats import test_views as views
from headwater.lake.delta import Lake
from headwater.storage import Storage

pytestmark = pytest.mark.crash

#: Loads what it needs once, and is forked for each publisher that is to die.
RUNNER = """
import json, os, sys
import deltalake, duckdb, pyiceberg.manifest, pyiceberg.table.metadata
from headwater import failpoints
from headwater.config import TableSpec
from headwater.formats import VIEWS
from headwater.lake.delta import Lake
from headwater.model import TableId
from headwater.storage import Storage

def publish(place, view, table, point, nth):
    failpoints._WANTED, failpoints._NTH = point, nth
    with Storage.open(place, cache=place) as storage:
        lake, table = Lake(storage), TableId(*table)
        VIEWS[view](storage, lake, TableSpec(table)).publish(lake.open(table, "mirror"))

for line in sys.stdin:
    child = os.fork()
    if not child:
        try:
            publish(*json.loads(line))
        finally:
            os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
SUITES: dict[str, ViewContract] = {
    suite.view: suite
    for suite in (views.TestIceberg(), views.TestParquet(), views.TestOrc(), views.TestCsv())
}
POINTS = ["iceberg.manifest:1", "iceberg.manifest:2", "iceberg.metadata", "iceberg.pointer"]
POINTS += ["parquet.record", "parquet.manifest", "parquet.pointer"]
POINTS += ["orc.data:1", "orc.data:2", "orc.record", "orc.manifest", "orc.pointer", "csv.data:2"]

Killed = Callable[[Storage, str, str], int]


@pytest.fixture(scope="module")
def publish() -> Iterator[Killed]:
    """Publish in a process that dies at a point; returns its exit code."""
    words = [sys.executable, "-c", RUNNER]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as runner:
        assert runner.stdin and runner.stdout

        def run(storage: Storage, view: str, point: str) -> int:
            name, _, nth = point.partition(":")
            table = [TABLE.namespace, TABLE.name]
            runner.stdin.write(json.dumps([str(storage.local), view, table, name, nth]) + "\n")
            runner.stdin.flush()
            return int(runner.stdout.readline())

        yield run
        runner.stdin.close()


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("point", POINTS)
def test_killed_while_publishing(tmp_path: Path, publish: Killed, point: str, side: str) -> None:
    step, _, nth = point.partition(":")
    suite = SUITES[step.partition(".")[0]]
    with Storage.open(str(tmp_path / "s"), cache=tmp_path) as storage:
        lake = Lake(storage)
        held = suite.commit(lake, None, ROWS.format(0, 3))
        suite.make(storage, lake).publish(held)
        held = suite.commit(lake, held, ROWS.format(3, 5), remove=held.files["path"].to_pylist())
        held = suite.commit(lake, held, ROWS.format(5, 6))
        assert publish(storage, suite.view, f"{step}.{side}:{nth or 1}") == -signal.SIGKILL, "not passed"
        assert suite.ids(storage) in ([0, 1, 2], [3, 4, 5])
        # The lake may have moved on before anybody publishes again.
        if side == "after":
            held = suite.commit(lake, held, ROWS.format(6, 7))
        suite.make(storage, Lake(storage)).publish(held)
        assert suite.ids(storage) == [3, 4, 5, 6][: 3 + (side == "after")]
        listed = list(storage.list(suite.target.folder))
        suite.make(storage, Lake(storage)).publish(held)
        assert list(storage.list(suite.target.folder)) == listed
