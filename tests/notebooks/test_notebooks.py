"""Each notebook from top to bottom on a real PostgreSQL, with its parameters as they are and with others."""

import json
from pathlib import Path

import nbformat
import pytest
from papermill import inspect_notebook

from headwater import Pipeline
from notebooks.conftest import NOTEBOOKS, Kernel, Place, shown, told
from servers.postgres import Database

pytestmark = pytest.mark.live


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda p: p.stem)
def test_a_notebook_is_clean_and_its_parameters_are_typed_and_told(path: Path) -> None:
    document = json.loads(path.read_text())
    code = [c for c in document["cells"] if c["cell_type"] == "code"]
    assert all(not c["outputs"] and c["execution_count"] is None for c in code)
    assert all(set(c["metadata"]) <= {"tags"} for c in document["cells"])
    assert set(document["metadata"]) == {"kernelspec", "language_info"}
    nbformat.validate(nbformat.from_dict(document))
    parameters = inspect_notebook(str(path))  # what `papermill --help-notebook` prints
    assert next(iter(parameters)) == "pipeline"
    for parameter in parameters.values():
        assert parameter["inferred_type_name"] in ("str", "bool", "list[str]") and parameter["help"], (
            parameter
        )


def test_02_full_load_and_delta_twice(kernel: Kernel, place: Place) -> None:
    before = place.path.read_text()
    said = told(kernel.run("02", place.folder))
    assert "nyc.flights" in said and "2,000" in said and "verify: 1 tables equal" in said
    assert "Notebook Airways" in said and "Gone Soon" in said
    again = told(kernel.run("02", place.folder, table="nyc.flights", demo=False))
    assert "follow" in again and "verify: 1 tables equal" in again
    assert place.path.read_text() == before


def test_03_look_into_history(kernel: Kernel, place: Place, database: Database) -> None:
    said = told(kernel.run("03", place.folder))
    assert "nyc.airlines carrier=01" in said or "nyc.airlines carrier=02" in said
    assert "rows then" in said
    database.run("update nyc.flights set delay = -1 where id = 7")
    said = told(kernel.run("03", place.folder, table="nyc.flights", key="7"))
    assert "nyc.flights 7" in said and "delay" in said


def test_04_schema_change_leaves_nothing_behind(kernel: Kernel, place: Place, database: Database) -> None:
    for _ in range(2):
        said = told(kernel.run("04", place.folder))
        assert "note renamed to state" in said and "state__v1" in said and "5000000000" in said
    assert database.run("select to_regclass('nyc.gates')") == [(None,)]
    assert database.run("select count(*) from pg_replication_slots where slot_name like '%schema_walk%'") == [
        (0,)
    ]
    assert database.run("select count(*) from pg_publication where pubname like '%schema_walk%'") == [(0,)]
    assert not (place.folder / "schema-walk").exists()
    # Anywhere else it only shows.
    said = told(kernel.run("04", place.folder, demo=False))
    assert "first seen: 2 columns" in said and "nyc.gates" not in said


def test_06_and_07_read_a_pipeline_with_odd_names(kernel: Kernel, pg: Database, tmp_path: Path) -> None:
    """A database that is not the lab's, with a table that HTML, SQL and shells would all trip over."""
    name = 'Order\'s "<img src=x onerror=alert(1)>" / select'
    quoted = '"' + name.replace('"', '""') + '"'
    pg.run(f'create table {quoted} ("Id" int primary key, "<b>" text)')
    pg.run(f"insert into {quoted} values (1, '<script>')")
    place = Place(tmp_path / "odd", pg)
    place.write("warehouse: duckdb:///warehouse.duckdb", "mode: mirror", name="odd", tables='"public.*"')
    for number in ("06", "07", "04", "03"):
        page = shown(kernel.run(number, place.folder))
        assert "<img" not in page and "<script>" not in page, number
    assert "&lt;script&gt;" in page
    assert pg.run("select to_regclass('nyc.gates')") == [(None,)]
    with Pipeline.open(place.path) as pipeline:
        assert pipeline.pulse().runs[-1].tests_passed > 0


def test_07_operate(kernel: Kernel, place: Place) -> None:
    said = told(kernel.run("07", place.folder, compact=True, verify=True))
    assert "checks are fine" in said and "2 tables equal" in said and "no run mode" in said
