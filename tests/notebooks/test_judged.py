"""Quality and certificates: notebook 05, and the scheduled run in these modes."""

from pathlib import Path

import deltalake
import pytest

from notebooks.conftest import SCHEMA, Kernel, Place, told
from notebooks.test_scheduled_run import attempt, steps
from servers.postgres import Database

pytestmark = pytest.mark.live


def test_05_quality_and_reconciliation(kernel: Kernel, place: Place, database: Database) -> None:
    before = place.path.read_text()
    said = told(kernel.run("05", place.folder))
    assert "every rule holds" in said and "2 tables equal" in said
    assert "Edited By Hand" in said and "carrier=A1" in said and "repaired: 1 keys" in said
    assert place.path.read_text() == before and not (place.folder / "quality-walk").exists()
    assert database.run("select count(*) from pg_replication_slots where slot_name like '%walk%'") == [(0,)]


def test_rules_that_fail_are_a_failure_until_the_data_is_right(pg: Database, tmp_path: Path) -> None:
    pg.run(SCHEMA)
    place = Place(tmp_path / "work", pg)
    rule = "{type: expect_column_values_to_be_between, kwargs: {column: delay, min_value: 0}}"
    place.write(tables=f"nyc.airlines, {{name: nyc.flights, expect: [{rule}]}}")
    assert attempt(place)["outcome"] == "done"
    assert attempt(place, "quality")["report"]["verdict"] == "ok"
    pg.run("update nyc.flights set delay = -4321 where id = 7")
    assert attempt(place)["outcome"] == "done"
    failed = attempt(place, "quality")
    assert failed["outcome"] == "failed" and steps(failed) == {"quality": "failed"}
    assert "1 rules failed" in failed["error"]["message"] and "headwater quality" in failed["error"]["hint"]
    assert "4321" not in str(failed["report"]), "a value of a row"
    pg.run("update nyc.flights set delay = 5 where id = 7")
    attempt(place)
    again = attempt(place, "quality")
    assert again["outcome"] == "done" and again["resumes"]["step"] == "quality"


def test_a_certificate_is_left_and_a_difference_fails(pg: Database, tmp_path: Path) -> None:
    pg.run(SCHEMA)
    place = Place(tmp_path / "work", pg)
    good = attempt(place, "certificate")
    assert good["outcome"] == "done" and steps(good)["compare"] == "ran"
    assert Path(str(good["report"]["path"])).parent == place.folder / "certificates"
    mirror = deltalake.DeltaTable(str(place.folder / "lake" / "lake" / "nyc.airlines" / "mirror"))
    mirror.update(predicate="carrier = 'A7'", new_values={"name": "someone else"})
    bad = attempt(place, "certificate", tables="nyc.airlines")
    assert bad["error"]["kind"] == "VerifyFailed" and "--repair" in bad["error"]["hint"]
