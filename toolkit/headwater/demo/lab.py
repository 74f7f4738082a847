"""`make lab`: JupyterLab over the demo's database, which lives as long as it and never stands still."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg

from headwater.config.edit import PipelineFile
from headwater.demo import data, practice
from headwater.demo.server import EmbeddedPostgres, ServerFailed

_PIPELINE = """\
# The pipeline of `make lab`: real flights in a PostgreSQL that runs as long as JupyterLab does.
pipeline: lab

source:
  kind: postgres
  host: 127.0.0.1
  port: {port}
  user: postgres
  dbname: postgres
  password: file:server-password   # never the password itself
  sslmode: disable                 # a server on this machine

store: ./lake

# What notebook 01 changes with a click.
tables:
  - nyc.airlines
  - nyc.airports

warehouse: duckdb:///warehouse.duckdb
"""

#: Somebody is always working, and a slot keeps the log of it: little of it, and up to a bound.
_SETTINGS = {"fsync": "off", "full_page_writes": "off", "max_slot_wal_keep_size": "4GB"}

#: Seconds between two transactions, and what they do.
_PAUSE = 1.0
_WORK = (
    "update nyc.flights set dep_delay = coalesce(dep_delay, 0) + 1"
    " where id in (select (random() * 336000)::int from generate_series(1, 200))",
    "insert into nyc.airlines values ('Z' || floor(random() * 10), 'Air Demo') on conflict do nothing",
    "delete from nyc.airlines where name = 'Air Demo' and random() < 0.3",
)


def main(words: Sequence[str]) -> int:
    """Serve a folder with copies of the notebooks until JupyterLab ends; returns its exit code.

    `words` are the folder, where the notebooks are, and what JupyterLab is to be told besides.
    """
    place, notebooks = Path(words[0]).absolute(), sorted(Path(words[1]).glob("*.ipynb"))
    place.mkdir(parents=True, exist_ok=True)
    for notebook in notebooks:
        if not (place / notebook.name).exists():
            shutil.copy(notebook, place / notebook.name)
    told = [
        f"--ServerApp.root_dir={place}",
        f"--LabApp.default_url=/lab/tree/{notebooks[0].name}",
        *words[2:],
    ]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends JupyterLab and the server too
    try:
        with _served(place), suppress(KeyboardInterrupt):
            # As root, which containers are, JupyterLab wants to be told that this is meant.
            return subprocess.call([sys.executable, "-m", "jupyterlab", "--allow-root", *told])
    except ServerFailed as failed:
        print(f"headwater: {failed}\n  try: {failed.hint}", file=sys.stderr)
        return 1
    return 0


@contextmanager
def _served(place: Path) -> Iterator[None]:
    """The database, with its data, its pipeline file and somebody who works in it."""
    server = EmbeddedPostgres(place / "server", settings=_SETTINGS)
    server.start()
    over = threading.Event()
    try:
        with psycopg.connect(server.url) as connection:
            there = connection.execute("select to_regclass('nyc.flights')").fetchone()
        if there == (None,):
            data.load(server.url)
        practice.mark(server.url)
        _write_pipeline(place, server)
        threading.Thread(target=_work, args=(server.url, over), daemon=True).start()
        yield
    finally:
        over.set()
        server.stop()


def _write_pipeline(place: Path, server: EmbeddedPostgres) -> None:
    """The pipeline file; in one that is there already only the port, which may be another each time."""
    secret, path = place / "server-password", place / "headwater.yml"
    secret.touch(mode=0o600)
    secret.write_text(server.password)
    if not path.exists():
        path.write_text(_PIPELINE.format(port=server.port))
    file = PipelineFile(path)
    if isinstance(source := file.doc.get("source"), dict) and source.get("port") != server.port:
        file.save(file.propose({**file.doc, "source": {**source, "port": server.port}}))


def _work(url: str, over: threading.Event) -> None:
    with suppress(psycopg.Error), psycopg.connect(url, autocommit=True) as connection:
        while not over.wait(_PAUSE):
            for statement in _WORK:
                connection.execute(statement.encode())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
