"""kill -9 before and after every durable write of a view: readers see one version, the next run mends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from contracts.views import ROWS, TABLE, ViewContract
from formats import test_views as views
from headwater.lake.delta import Lake
from headwater.storage import Storage

pytestmark = pytest.mark.crash

RUNNER = """
import sys
from headwater.config import TableSpec
from headwater.formats import VIEWS
from headwater.lake.delta import Lake
from headwater.model import TableId
from headwater.storage import Storage
with Storage.open(sys.argv[1], cache=sys.argv[1]) as storage:
    lake, table = Lake(storage), TableId(*sys.argv[3:])
    VIEWS[sys.argv[2]](storage, lake, TableSpec(table)).publish(lake.open(table, "mirror"))
"""
SUITES: dict[str, ViewContract] = {
    suite.view: suite
    for suite in (views.TestIceberg(), views.TestParquet(), views.TestOrc(), views.TestCsv())
}
POINTS = ["iceberg.manifest:1", "iceberg.manifest:2", "iceberg.metadata", "iceberg.pointer"]
POINTS += ["parquet.record", "parquet.manifest", "parquet.pointer"]
POINTS += [
    "orc.data:1",
    "orc.data:2",
    "orc.record",
    "orc.manifest",
    "orc.pointer",
    "csv.data:2",
    "csv.manifest",
]


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("point", POINTS)
def test_killed_while_publishing(tmp_path: Path, point: str, side: str) -> None:
    step, _, nth = point.partition(":")
    suite = SUITES[step.partition(".")[0]]
    with Storage.open(str(tmp_path / "s"), cache=tmp_path) as storage:
        lake = Lake(storage)
        held = suite.commit(lake, None, ROWS.format(0, 3))
        suite.make(storage, lake).publish(held)
        held = suite.commit(lake, held, ROWS.format(3, 5), remove=held.files["path"].to_pylist())
        held = suite.commit(lake, held, ROWS.format(5, 6))
        assert run(storage, suite, f"{step}.{side}:{nth or 1}") == -signal.SIGKILL, "the point was not passed"
        assert suite.ids(storage) in ([0, 1, 2], [3, 4, 5])
        # The lake may have moved on before anybody publishes again.
        if side == "after":
            held = suite.commit(lake, held, ROWS.format(6, 7))
        suite.make(storage, Lake(storage)).publish(held)
        assert suite.ids(storage) == [3, 4, 5, 6][: 3 + (side == "after")]
        listed = list(storage.list(suite.target.folder))
        suite.make(storage, Lake(storage)).publish(held)
        assert list(storage.list(suite.target.folder)) == listed


def run(storage: Storage, suite: ViewContract, failpoint: str) -> int:
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "HEADWATER_FAILPOINT": failpoint,
    }
    words = [sys.executable, "-c", RUNNER, str(storage.local), type(suite).__name__]
    return subprocess.run(words, env=environment, check=False).returncode
