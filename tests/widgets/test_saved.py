"""Notebook 01 from top to bottom, and what is left of it for a reader without a kernel or a network."""

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from headwater import Pipeline
from servers.postgres import Database

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"

pytestmark = pytest.mark.live


def test_notebooks_are_clean_of_outputs_and_say_what_their_parameters_are() -> None:
    for path in NOTEBOOKS.glob("*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        code = [c for c in cells if c["cell_type"] == "code"]
        assert all(not c["outputs"] and c["execution_count"] is None for c in code), path
        [given] = [c for c in code if "parameters" in c["metadata"].get("tags", [])]
        lines = "".join(given["source"]).splitlines()[1:]
        assert lines and all("  # " in line and ":" in line.partition("=")[0] for line in lines), path


def test_notebook_01_runs_and_still_reads_when_it_is_saved(pg: Database, tmp_path: Path) -> None:
    pg.run("create schema nyc; create table nyc.airlines (carrier text primary key, name text)")
    pg.run("insert into nyc.airlines values ('UA', 'United <b>Air</b> Lines')")
    (tmp_path / "password").write_text(pg.server.password)
    (tmp_path / "headwater.yml").write_text(f"""
pipeline: saved
source: {{kind: postgres, host: 127.0.0.1, port: {pg.server.port}, user: postgres, dbname: {pg.name},
  password: "file:password", sslmode: disable}}
store: ./lake
tables: [nyc.airlines]
""")
    notebook = nbformat.read(NOTEBOOKS / "01-connect-and-choose.ipynb", as_version=4)
    [given] = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    given.source += "\nrun = True"
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    with Pipeline.open(tmp_path / "headwater.yml") as pipeline:
        assert pipeline.table("nyc.airlines").shape[0] == 1
    saved = tmp_path / "saved.ipynb"
    nbformat.write(notebook, saved)
    assert saved.stat().st_size < 300_000  # with the views' code, which nbclient keeps
    # What docs/notebooks.md says to type: without the state of widgets, nbconvert shows the static HTML.
    shown = convert(saved, "--ClearMetadataPreprocessor.enabled=True")
    assert "1 of 1 tables are copied" in shown and "<td" in shown and "nyc.airlines" in shown
    # JupyterLab keeps no state of widgets unless it is told to.
    del notebook.metadata["widgets"]
    nbformat.write(notebook, saved)
    assert "1 of 1 tables are copied" in convert(saved)


def convert(path: Path, *words: str) -> str:
    command = [sys.executable, "-m", "nbconvert", "--to", "html", *words, str(path)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return path.with_suffix(".html").read_text()
