"""Golden output: tests/cases/dbt/<case>.json in, dbt_project/models/generated/ out; a case needs no Python.

After a wanted change: HEADWATER_GOLDEN=write python -m pytest tests/handoff/test_golden.py
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
import yaml

from headwater.config import Config, DbtConfig, HistoryNames, WarehouseConfig
from headwater.handoff.dbt import TableModel, render
from headwater.model import TableSchema

ROOT = Path(__file__).parents[2]
CASES = sorted((ROOT / "tests" / "cases" / "dbt").glob("*.json"))
PROJECT = ROOT / "dbt_project"
GOLDEN = PROJECT / "models" / "generated"
CONFIG = Config(
    "shop", {}, "lake", warehouse=WarehouseConfig(path="wh.duckdb"), dbt=DbtConfig(folder="models/generated")
)


def model(path: Path) -> TableModel:
    doc = json.loads(path.read_text("utf-8"))
    names = dict(doc.get("history", {}))
    if "open_end" in names:
        names["open_end"] = datetime.fromisoformat(names["open_end"])
    found = TableSchema.from_json(json.dumps(doc["schema"]))
    return TableModel(found, doc.get("mode", "history"), HistoryNames(**names))


def test_the_rendered_models_are_the_golden_ones() -> None:
    models = [model(path) for path in CASES]
    rendered = render(models, CONFIG)
    if os.environ.get("HEADWATER_GOLDEN") == "write":
        shutil.rmtree(GOLDEN, ignore_errors=True)
        for name, text in rendered.items():
            (GOLDEN / name).parent.mkdir(parents=True, exist_ok=True)
            (GOLDEN / name).write_text(text, "utf-8")
    held = {p.relative_to(GOLDEN).as_posix(): p.read_text("utf-8") for p in GOLDEN.rglob("*") if p.is_file()}
    assert held.keys() == rendered.keys()
    assert {n for n, text in rendered.items() if held[n] != text} == set()


def test_the_same_tables_in_another_order_give_the_same_bytes() -> None:
    models = [model(path) for path in CASES]
    first = render(models, CONFIG)
    random.Random(7).shuffle(models)
    assert list(render(models, CONFIG).items()) == list(first.items())


def test_every_golden_yaml_reads_back() -> None:
    for path in GOLDEN.rglob("*.yml"):
        doc = yaml.safe_load(path.read_text("utf-8"))
        assert {m["name"] for m in doc["models"]} == {p.stem for p in path.parent.glob("*.sql")}


@pytest.mark.slow
def test_the_golden_project_passes_its_unit_tests_without_any_data(tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(PROJECT, project, ignore=shutil.ignore_patterns("target", "logs"))
    (project / "target").mkdir()
    words = ["test", "--select", "test_type:unit", "--profiles-dir", ".", "--no-use-colors"]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "dbt.cli.main", *words],
        cwd=project,
        env={**os.environ, "DBT_SEND_ANONYMOUS_USAGE_STATS": "false"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    results = json.loads((project / "target" / "run_results.json").read_text())["results"]
    stories = sum(len(yaml.safe_load(p.read_text("utf-8"))["unit_tests"]) for p in GOLDEN.rglob("*.yml"))
    assert len(results) == stories >= 15
    assert "deprecat" not in done.stdout.lower()
