"""One huge transaction, from a real server into the raw log: memory is bounded by the window, not by it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from servers.postgres import Database

#: Prints the rows captured and the most memory the process ever had, in MiB.
SCRIPT = """
import sys
from pathlib import Path
import psycopg
from headwater.capture import Capture
from headwater.raw import RawLog
from headwater.sources.postgres import PostgresSource
from headwater.storage import Storage

url, folder, rows = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
source = PostgresSource(url=url, slot="hw_memory", publication="hw_memory")
log = RawLog(Storage.open(str(folder / "store"), cache=folder / "cache"))
capture = Capture(source, log, source.tables())
capture.start()
with psycopg.connect(url) as session:
    session.execute(
        "insert into orders select i, i % 100000, 'paid', i / 100.0, i % 50, i * 0.37,"
        " now() + i * interval '1.37 s', localtimestamp, md5(i::text), i % 3 = 0"
        f" from generate_series(1, {rows}) i"
    )
done = capture.drain()
source.close()
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(sum(done.rows.values()), done.entries, int(peak.split()[1]) // 1024)
"""


@pytest.mark.live
@pytest.mark.slow
def test_a_transaction_of_three_million_rows(pg: Database, tmp_path: Path) -> None:
    pg.run(
        "create table orders(id bigint primary key, customer int, status text, amount numeric(12,2),"
        " quantity int, rate float8, created timestamptz, shipped timestamp, note text, paid bool)"
    )
    command = [sys.executable, "-c", SCRIPT, pg.url, str(tmp_path), "3000000"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rows, entries, peak = map(int, said.split())
    assert (rows, entries) == (3_000_000, 1)
    assert peak <= 1024, f"{peak} MiB"
