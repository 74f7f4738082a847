"""The gate over a scripted source: what is judged when, what waits, what is remembered, kills anywhere."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from capture.script import ScriptSource, info_of
from headwater import deliver, failpoints, follow
from headwater.casts import Cast, read_cast
from headwater.config import Config, Expectation, Quality, TableSpec, WarehouseConfig
from headwater.deliver import Parts
from headwater.errors import ConfigError, QualityFailed
from headwater.events import Event
from headwater.follow import Follow
from headwater.handoff.build import BuildResult
from headwater.lake.delta import Lake
from headwater.memo import lake_id
from headwater.model import TableId
from headwater.quality import QualityResult, gate
from headwater.quality.gate import Gate, accept, refuse_wrong
from headwater.quality.keep import load_past
from headwater.quality.memory import load_judged, load_known
from headwater.quality.rows import SMALL
from headwater.raw import RawLog
from headwater.run import Runner
from headwater.state import RunRecord, last_runs
from headwater.state.sqlite import SqliteState
from headwater.storage import Storage

A, B = TableId("s", "a"), TableId("s", "b")
#: `v` is from 0 to 1000.
RULE = Expectation("expect_column_values_to_be_between", {"column": "v", "min_value": 0, "max_value": 1000})


@dataclass
class World:
    """A pipeline over a script whose handoff is noted down instead of made."""

    folder: Path
    source: ScriptSource
    parts: Parts
    quality: Quality = field(default_factory=lambda: Quality("block", expect=(RULE,)))
    built: list[set[TableId]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    staged: list[dict[TableId, int]] = field(default_factory=list)
    formats: tuple[str, ...] = ()
    casts: dict[str, Cast] = field(default_factory=dict)

    def runner(self) -> Runner:
        more: dict[str, Any] = {"quality": self.quality, "formats": self.formats, "casts": self.casts}
        specs = {t: TableSpec(t, **more) for t in (A, B)}
        parts = replace(self.parts, log=RawLog(self.parts.storage))
        return Runner(parts, specs, [info_of(t) for t in (A, B)], (self.events.append,))

    def run(self) -> RunRecord:
        return self.runner().run("delta" if self.parts.log.last() else "full")

    def judged(self) -> dict[str, tuple[int, str]]:
        """Of the last run, by table: the rows that were judged, and the verdict; the notes are emptied."""
        found = {str(e.table): e.data for e in self.events if e.kind == "table.judged"}
        self.events.clear()
        return {name: (int(d["rows"] or 0), str(d["verdict"])) for name, d in found.items()}

    def known(self, table: TableId) -> Any:
        return load_known(self.parts.state, "p", lake_id(self.parts.storage), table)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    (tmp_path / "w.duckdb").touch()
    warehouse = WarehouseConfig(path=str(tmp_path / "w.duckdb"))
    quality = Quality("block", expect=(RULE,))
    config = Config("p", {"kind": "script"}, str(tmp_path / "store"), warehouse=warehouse, quality=quality)
    source, storage = ScriptSource([A, B], window=1), Storage.open(config.store, cache=tmp_path / "cache")
    state = SqliteState(tmp_path / "state.db")
    parts = Parts(config, source, ScriptSource([]), storage, RawLog(storage), Lake(storage), state)
    source.commit(*((t, "c", n, 10) for t in (A, B) for n in range(3)))
    made = World(tmp_path, source, parts)

    def publish(_: object, staged: Any, _specs: object, *, news: Any, held: Any, **_more: Any) -> BuildResult:
        assert not set(news) & set(held)
        made.staged.append({t: s.high_seq for t, s in staged.items()})
        made.built.append(set(news))
        return BuildResult()

    monkeypatch.setattr(deliver, "publish", publish)
    yield made
    storage.close()
    state.close()


def test_a_batch_is_what_came_since_the_last_one_that_passed(world: World) -> None:
    assert world.run().quality is not None
    assert world.judged() == {"s.a": (3, "ok"), "s.b": (3, "ok")}
    assert world.run().quality is None and world.judged() == {}
    world.source.commit((A, "u", 1, 20), (A, "u", 1, 30), (A, "d", 2, None), (A, "c", 9, 5))
    world.run()
    assert world.judged() == {"s.a": (2, "ok")}  # the last version of each key that is there
    assert world.built == [{A, B}, {A}]


def test_a_table_that_fails_waits_alone_until_it_is_right(world: World) -> None:
    world.run()
    world.source.commit((A, "c", 7, -7), (B, "c", 7, 1))
    with pytest.raises(QualityFailed, match=r"s\.a") as refused:
        world.run()
    assert "headwater quality s.a" in refused.value.hint and "-7" not in str(refused.value)
    record = last_runs(world.parts.state, "p")[0]
    assert record.quality is not None and record.quality.held == ("s.a",) and record.outcome == "failed"
    assert RunRecord.from_json(json.loads(json.dumps(record.to_json()))) == record
    assert world.built.pop() == {B}
    # Other rows of it come, and none of them goes on; what is wrong is still among what is judged.
    world.source.commit((A, "c", 8, 1))
    world.judged()
    with pytest.raises(QualityFailed):
        world.run()
    assert world.judged() == {"s.a": (2, "failed")} and {A} not in world.built
    # Nothing new, and no change of mind.
    with pytest.raises(QualityFailed):
        world.run()
    world.judged()
    world.source.commit((A, "u", 7, 1))
    assert world.run().outcome == "done"
    assert world.judged() == {"s.a": (2, "ok")} and world.built.pop() == {A}
    world.run()
    assert world.judged() == {}


def test_a_run_that_builds_nothing_does_not_fail_for_it(world: World) -> None:
    world.run()
    world.source.commit((A, "c", 7, -7))
    record = world.runner().run("delta", build=False)
    assert record.outcome == "done" and any("held back" in w and "s.a" in w for w in record.warnings)
    with pytest.raises(QualityFailed):
        world.run()


def test_a_row_that_went_again_holds_nothing_up(world: World) -> None:
    world.run()
    world.source.commit((A, "c", 7, -7))
    with pytest.raises(QualityFailed):
        world.run()
    world.source.commit((A, "d", 7, None))
    assert world.run().outcome == "done"


def test_other_rules_let_it_go(world: World) -> None:
    world.run()
    world.source.commit((A, "c", 7, -7))
    with pytest.raises(QualityFailed):
        world.run()
    world.quality = Quality("block")
    assert world.run().outcome == "done" and world.built.pop() == {A}


@pytest.mark.parametrize("gate_", ["warn", "off"])
def test_without_block_nothing_waits(world: World, gate_: Any) -> None:
    world.quality = replace(world.quality, gate=gate_)
    world.source.commit((A, "c", 7, -7))
    record = world.run()
    assert record.outcome == "done" and world.built == [{A, B}]
    assert (record.quality is None) == (gate_ == "off")
    told = [w for w in record.warnings if "headwater quality s.a" in w]
    assert len(told) == (gate_ == "warn")
    assert world.run().quality is None


def test_a_warning_never_holds(world: World) -> None:
    world.quality = Quality("block", expect=(replace(RULE, severity="warning"),))
    world.source.commit((A, "c", 7, -7))
    assert world.run().outcome == "done" and world.judged()["s.a"] == (4, "warn")


def test_what_cannot_be_judged_holds(world: World) -> None:
    odd = Expectation("expect_column_values_to_match_regex", {"column": "v", "regex": "("})
    world.quality = Quality("block", expect=(odd,))
    with pytest.raises(QualityFailed, match=r"s\.a, s\.b"):
        world.run()
    world.quality = Quality("block", expect=(Expectation("expect_nothing"),))
    with pytest.raises(QualityFailed):
        world.run()
    (past,) = load_past(world.parts.storage)[-1:]
    assert {c.outcome for t in past.tables for c in t.checks if c.fails} == {"unjudged"}


def test_accepted_once(world: World) -> None:
    world.run()
    world.source.commit((A, "c", 7, -7))
    with pytest.raises(QualityFailed):
        world.run()
    assert list(accept(world.parts.place, [A, B])) == [A]
    assert world.run().outcome == "done" and world.built.pop() == {A}
    world.source.commit((A, "c", 8, -7))
    with pytest.raises(QualityFailed):
        world.run()


def test_a_first_load_with_casts_is_accepted_too(world: World) -> None:
    world.casts = {"v": read_cast("@L")}
    world.source.commit((A, "c", 7, -7))
    with pytest.raises(QualityFailed):
        world.run()
    accept(world.parts.place, [A])
    assert world.run().outcome == "done" and world.built.pop() == {A}
    # By other casts everything is another table, and nobody accepted that.
    world.casts = {"v": read_cast("@F")}
    with pytest.raises(QualityFailed):
        world.run()


def test_what_comes_after_it_was_accepted_is_judged(world: World) -> None:
    world.run()
    world.source.commit((A, "c", 7, -7))
    with pytest.raises(QualityFailed):
        world.run()
    accept(world.parts.place, [A])
    world.source.commit((A, "c", 8, -7))
    with pytest.raises(QualityFailed):
        world.run()
    assert world.built == [{A, B}]


def test_a_lost_state_costs_one_look_at_everything(world: World, tmp_path: Path) -> None:
    world.run()
    world.judged()
    world.parts = replace(world.parts, state=SqliteState(tmp_path / "other.db"))
    world.run()
    assert world.judged() == {"s.a": (3, "ok"), "s.b": (3, "ok")}


class Stopped(BaseException):
    """As kill -9, in this process."""


@pytest.mark.parametrize(
    "point", ["quality.before", "quality.after", "quality.judged", "build.before", "build.after"]
)
def test_a_stop_at_any_moment_is_as_none(world: World, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    world.run()
    for value, fails in ((-7, True), (1, False)):
        world.source.commit((A, "c" if fails else "u", 7, value), (B, "u", 1, value + 50))

        def reach(name: str) -> None:
            if name == point:
                raise Stopped

        seen = len(world.built)
        for module in (gate, deliver):
            monkeypatch.setattr(module, "reach", reach)
        with pytest.raises(Stopped):
            world.run()
        for module in (gate, deliver):
            monkeypatch.setattr(module, "reach", failpoints.reach)
        if fails:
            with pytest.raises(QualityFailed, match=r"s\.a"):
                world.run()
            assert not any(A in news for news in world.built[seen:])
        else:
            world.run()
            assert set().union(*world.built[seen:]) >= {A}
    assert load_judged(world.parts.state, "p", lake_id(world.parts.storage)).held == {}


def test_results_are_kept_and_read_back(world: World) -> None:
    world.run()
    world.source.commit((A, "c", 7, -7))
    with pytest.raises(QualityFailed):
        world.run()
    first, second = load_past(world.parts.storage)
    assert (first.verdict, second.verdict, second.held) == ("ok", "failed", (A,))
    assert QualityResult.from_json(json.loads(json.dumps(second.to_json()))) == second
    page = (world.folder / "store" / "quality" / "report.html").read_text()
    assert "held back" in page and "<script" not in page
    assert "-7" not in "".join(p.read_text() for p in (world.folder / "store" / "quality").rglob("*.json"))


def test_a_look_lets_nothing_through(world: World) -> None:
    world.run()
    world.source.commit((A, "c", 7, -7))
    with pytest.raises(QualityFailed):
        world.run()
    before = world.known(A), load_judged(world.parts.state, "p", lake_id(world.parts.storage))
    specs = {t: TableSpec(t, quality=world.quality) for t in (A, B)}
    batch, full = (Gate(world.parts.place).look(specs, "x", full=full) for full in (False, True))
    assert [(t.rows, t.held, t.scope) for t in batch.tables] == [(1, True, "batch"), (3, False, "batch")]
    assert [(t.rows, t.verdict, t.scope) for t in full.tables] == [(4, "failed", "table"), (3, "ok", "table")]
    assert before == (world.known(A), load_judged(world.parts.state, "p", lake_id(world.parts.storage)))


def test_published_views_wait_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[TableId] = []
    monkeypatch.setattr(deliver.Formats, "publish", lambda _, spec: shown.append(spec.table) or ())
    world.formats = ("parquet",)
    world.run()
    world.source.commit((A, "c", 7, -7), (B, "c", 7, 1))
    with pytest.raises(QualityFailed):
        world.run()
    assert sorted(shown) == [A, B, B]
    world.source.commit((A, "u", 7, 1))
    world.run()
    assert shown[3:] == [A]


def test_what_is_handed_off_is_what_was_judged(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.run()
    world.source.commit((A, "c", 7, 1))
    judge_all = Gate._judge_all

    def fold_on(self: Gate, *given: Any) -> None:
        """As a follower's fold does, while it is judged."""
        monkeypatch.setattr(Gate, "_judge_all", judge_all)
        world.source.commit((A, "c", 8, -7))
        world.quality = Quality()
        world.runner().run("delta", build=False)
        judge_all(self, *given)

    monkeypatch.setattr(Gate, "_judge_all", fold_on)
    runner = world.runner()
    world.quality = Quality("block", expect=(RULE,))
    runner.run("delta")
    assert world.staged[-1][A] < world.parts.lake.highest(world.parts.lake.open(A, "changes"))  # type: ignore[arg-type]
    world.quality = Quality("block", expect=(RULE,))
    with pytest.raises(QualityFailed):
        world.run()


def test_without_the_library_it_says_what_to_install(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headwater.quality.gx.find_spec", lambda _: None)
    with pytest.raises(ConfigError) as missing:
        refuse_wrong([TableSpec(A, quality=world.quality)], {})
    assert missing.value.hint == "pip install 'headwater[quality]'"
    refuse_wrong([TableSpec(A)], {})


@pytest.mark.parametrize("first", ["", "import pyspark.sql; "])
def test_the_library_is_imported_without_what_ends_the_process(first: str) -> None:
    """pyspark, which the tests have, calls exit(0) where grpc is missing and the code is not a file."""
    code = (
        f"{first}from headwater.quality.gx import Judge; print([t.success for t in Judge().counts([0, 1])])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout == "[True, False]\n"


def test_the_size_of_batches_is_remembered_and_an_odd_one_told(world: World) -> None:
    world.quality = Quality("warn")
    world.run()
    for n in range(8):
        world.source.commit(*((A, "u", key, n) for key in range(3)))
        world.run()
    assert world.known(A).seen.sizes == (3,) * 8
    world.source.commit(*((A, "c", key, 1) for key in range(100, 200)))
    world.judged()
    world.run()
    assert world.judged() == {"s.a": (100, "warn")} and SMALL > 0


def test_a_follower_judges_and_never_waits(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = {"FOLD_PAUSE": 0.02, "BUILD_PAUSE": 0.05, "RECORD_PAUSE": 0.0, "JUDGING_SHARE": 1.0}
    for name, seconds in quick.items():
        monkeypatch.setattr(follow, name, seconds)
    world.run()
    world.events.clear()
    steps: list[Callable[[], None]] = [
        lambda: world.source.commit((A, "c", 7, -7), (B, "c", 7, 1)),
        lambda: world.source.commit((A, "u", 7, 1)),
    ]
    deadline = time.monotonic() + 60

    def told(held: bool) -> bool:
        return any(e.kind == "table.judged" and e.table == A and e.data["held"] == held for e in world.events)

    def stop() -> bool:
        assert time.monotonic() < deadline, [(e.kind, e.data) for e in world.events]
        if len(steps) == 2 or (len(steps) == 1 and told(True)):
            steps.pop(0)()
        return not steps and told(False) and {A} in world.built

    records = list(Follow(world.runner(), pause=0.01, build=True).rounds(stop))
    assert {B} in world.built
    failed = [r for r in records if r.outcome == "failed"]
    assert failed and all("s.a" in r.error for r in failed) and records[-1].outcome == "done"


def test_a_follower_takes_what_is_accepted_while_nothing_comes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = {"FOLD_PAUSE": 0.02, "BUILD_PAUSE": 0.05, "JUDGING_SHARE": 1.0, "LOOK_PAUSE": 0.1}
    for name, seconds in quick.items():
        monkeypatch.setattr(follow, name, seconds)
    world.run()
    world.events.clear()
    world.built.clear()
    world.source.commit((A, "c", 7, -7))
    deadline, steps = time.monotonic() + 90, ["accept"]

    def stop() -> bool:
        assert time.monotonic() < deadline, [(e.kind, e.data) for e in world.events]
        if steps and any(e.kind == "table.judged" and e.data["held"] for e in world.events):
            with suppress(ConfigError):  # it is told of before it is remembered
                accept(world.parts.place, [A])
                steps.pop()
        return {A} in world.built

    records = list(Follow(world.runner(), pause=0.01, build=True).rounds(stop))
    assert not steps and records[-1].outcome in ("done", "failed")
    assert load_judged(world.parts.state, "p", lake_id(world.parts.storage)).held == {}
