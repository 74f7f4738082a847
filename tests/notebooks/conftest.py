"""A small lab: PostgreSQL with the schema of `make lab`, and one kernel that runs notebook after notebook."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from headwater.demo import practice
from headwater.demo.server import EmbeddedPostgres
from servers.postgres import Database

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"

SCHEMA = """
create schema nyc;
create table nyc.airlines (carrier text primary key, name text not null);
create table nyc.flights (id int primary key, carrier text not null references nyc.airlines, delay smallint);
insert into nyc.airlines select 'A' || n, 'Airline <b>' || n from generate_series(1, 16) n;
insert into nyc.flights select n, 'A' || (1 + n % 16), n % 90 from generate_series(1, 2000) n;
"""


class Place:
    """A folder with a pipeline file, as a user has it."""

    def __init__(self, folder: Path, database: Database) -> None:
        folder.mkdir()
        self.folder, self.database = folder, database
        (folder / "password").write_text(database.server.password)
        self.write()

    def write(self, *lines: str, name: str = "lab", tables: str = '"nyc.*"', port: int = 0) -> Path:
        self.path = self.folder / "headwater.yml"
        source = (
            f"host: 127.0.0.1, port: {port or self.database.server.port}, user: postgres, sslmode: disable"
        )
        text = f"""# A comment of the user's.
pipeline: {name}
source: {{kind: postgres, {source}, dbname: {self.database.name}, password: "file:password"}}
store: ./lake
tables: [{tables}]
"""
        self.path.write_text(text + "".join(f"{line}\n" for line in lines))
        return self.path


@pytest.fixture(scope="module")
def database(pg_server: Callable[[int], EmbeddedPostgres]) -> Iterator[Database]:
    """A database that says that it is the lab's; one for all tests of a module."""
    found = Database(pg_server(15))
    found.create()
    found.run(SCHEMA)
    practice.mark(found.url)
    yield found
    found.drop()


@pytest.fixture(scope="module")
def place(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("work") / "a 'quoted' folder", database)


class Kernel:
    """Runs notebooks, each with an empty namespace, in the folder of a place."""

    def __init__(self) -> None:
        self._first: NotebookClient | None = None

    def run(self, name: str, folder: Path, **parameters: object) -> Any:
        [path] = NOTEBOOKS.glob(f"{name}*.ipynb")
        notebook = load_notebook_node(str(path))
        if parameters:
            notebook = parameterize_notebook(notebook, parameters)
        fresh = nbformat.v4.new_code_cell(f"%reset -f\nimport os\nos.chdir({os.fspath(folder)!r})\ndel os")
        notebook.cells.insert(0, fresh)
        km = self._first.km if self._first else None
        client = NotebookClient(notebook, timeout=120, kernel_name="python3", km=km)
        if self._first is None:
            self._first = client
            client.create_kernel_manager()
        client.execute(cleanup_kc=False)
        client.kc.stop_channels()
        return notebook

    def stop(self) -> None:
        if self._first is not None:
            self._first._cleanup_kernel()


@pytest.fixture(scope="session")
def kernel() -> Iterator[Kernel]:
    running = Kernel()
    yield running
    running.stop()


def told(notebook: Any) -> str:
    """All that a notebook says, as text."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join(o.get("text") or str(o.get("data", {}).get("text/plain", "")) for o in outputs)


def shown(notebook: Any) -> str:
    """All of its HTML."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join(str(o.get("data", {}).get("text/html", "")) for o in outputs)
