"""Jobs that use a whole pipeline as its user does: follow, read the lake, run when nothing happened."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

from benchmarks import warm  # noqa: F401
from benchmarks.stopwatch import Stopwatch
from live.pipelines import Runner


def follow(watch: Stopwatch, folder: str, url: str, stop: str) -> dict[str, Any]:
    """`headwater run --follow` until the file `stop` is there."""
    runner = Runner(Path(folder), url, tables=("public.orders",), warehouse=False)
    with watch:
        process = runner.start("run", "--follow")
        while not Path(stop).exists():
            assert process.poll() is None, (runner.folder / "follow.log").read_text()[-2000:]
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        code = process.wait(120)
    assert code == 0, (runner.folder / "follow.log").read_text()[-2000:]
    return {}


def read(
    watch: Stopwatch, folder: str, url: str, since: float, last: int, pause: float = 0.05
) -> dict[str, Any]:
    """Look at the lake again and again, until the row `last` is there: how old was each change when seen?

    A change is seen when a query that returns it has ended; only those committed after `since` count.
    """
    import numpy as np

    ages, seen, looks = [], -1, 0
    with Runner(Path(folder), url, tables=("public.orders",), warehouse=False).open() as pipeline, watch:
        while True:
            rows = pipeline.table("public.orders").filter(f"_hw_seq > {seen}")
            found = rows.project("id, _hw_seq, epoch_us(_hw_at) AS at").to_arrow_table()
            now = time.time()
            looks += 1
            if found.num_rows:
                at = found["at"].to_numpy() / 1e6
                ages.append((now - at)[at >= since])
                seen = int(found["_hw_seq"].to_numpy().max())
                if last in found["id"].to_numpy():
                    break
            time.sleep(pause)
    told = np.concatenate(ages)
    p50, p99 = np.percentile(told, [50, 99])
    return {"p50": float(p50), "p99": float(p99), "changes": len(told), "looks": looks}


def idle(watch: Stopwatch, folder: str, url: str) -> dict[str, Any]:
    """A run that finds nothing, from opening to closing the pipeline; one before it loads what is loaded."""
    runner = Runner(Path(folder), url)
    with runner.open() as pipeline:
        pipeline.run()
    with watch, runner.open() as pipeline:
        record = pipeline.run()
    assert (record.entries, record.models_built) == (0, 0), record
    return {}


def idle_process(watch: Stopwatch, folder: str, url: str) -> dict[str, Any]:
    """The same as a command: start-up included."""
    runner = Runner(Path(folder), url)
    with watch:
        runner.run("run")
    return {}
