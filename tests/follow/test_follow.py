"""A follower over a scripted source: capture waits for nobody, what fails fails alone, the end is orderly."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from capture.script import ScriptSource, info_of
from headwater import deliver, follow
from headwater.config import Config, TableSpec, WarehouseConfig
from headwater.deliver import Parts
from headwater.errors import (
    Conflict,
    HeadwaterError,
    PositionLost,
    PreflightFailed,
    SchemaConflict,
    SourceError,
    StorageError,
    WarehouseError,
)
from headwater.events import Event
from headwater.follow import Follow
from headwater.handoff.build import BuildResult, ModelResult
from headwater.lake.delta import Lake
from headwater.memo import load_folded
from headwater.model import Position, TableId
from headwater.raw import RawLog
from headwater.run import Runner
from headwater.state import RunRecord, last_runs
from headwater.state.sqlite import SqliteState
from headwater.storage import Storage
from headwater.tally import Tally

A, B = TableId("s", "a"), TableId("s", "b")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {
        "FOLD_PAUSE": 0.02,
        "BUILD_PAUSE": 0.05,
        "RECORD_PAUSE": 0.0,
        "LOOK_PAUSE": 0.05,
    }.items():
        monkeypatch.setattr(follow, name, seconds)


@dataclass
class World:
    """A pipeline over a script, and a follower that the test drives round by round."""

    folder: Path
    source: ScriptSource
    parts: Parts
    events: list[Event] = field(default_factory=list)
    records: list[RunRecord] = field(default_factory=list)
    stopped: bool = False
    threads: set[str] = field(default_factory=set)
    guard: Callable[[], None] = lambda: None

    def follow(self, until: Callable[[], bool], *, build: bool = False, seconds: float = 30) -> None:
        """Follow until something holds, then ask for the end."""
        deadline = time.monotonic() + seconds

        def stop() -> bool:
            assert time.monotonic() < deadline, [e.kind for e in self.events]
            return self.stopped or until()

        runner = self.runner()
        for record in Follow(runner, pause=0.01, build=build).rounds(stop):
            self.records.append(record)

    def runner(self) -> Runner:
        specs = {t: TableSpec(t) for t in self.source.names}
        infos = [info_of(t) for t in self.source.names]
        parts = replace(self.parts, log=RawLog(self.parts.storage))
        return Runner(parts, specs, infos, (self.hear,), guard=self.guard)

    def tell(self, kind: str, table: TableId | None, data: Mapping[str, Any]) -> None:
        self.hear(Event(kind, "p", table, data))

    def hear(self, event: Event) -> None:
        self.threads.add(threading.current_thread().name)
        self.events.append(event)

    def heard(self, kind: str) -> list[Event]:
        return [e for e in self.events if e.kind == kind]

    def entries(self) -> int:
        last = RawLog(self.parts.storage).last()
        return last.seq + 1 if last else 0

    def rows(self, table: TableId) -> dict[int, int | None]:
        lake = Lake(self.parts.storage, "1GB")
        with lake.connect() as con:
            scan = lake.relation(con, table)
            return {key: value for key, value in con.execute(f"SELECT id, v FROM {scan}").fetchall()}

    def rows_soon(self, table: TableId) -> dict[int, int | None]:
        """The rows, if there are any yet."""
        return self.rows(table) if Lake(self.parts.storage, "1GB").mark(table) else {}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    config = Config(
        "p", {"kind": "script"}, str(tmp_path / "store"),
        warehouse=WarehouseConfig(path=str(tmp_path / "w.duckdb")),
    )  # fmt: skip
    source, storage = ScriptSource([A, B], window=1), Storage.open(config.store, cache=tmp_path / "cache")
    state = SqliteState(tmp_path / "state.db")
    parts = Parts(config, source, ScriptSource([]), storage, RawLog(storage), Lake(storage), state)
    source.commit((A, "c", 1, 10), (B, "c", 1, 10))
    yield World(tmp_path, source, parts)
    storage.close()
    state.close()


def equal(world: World) -> bool:
    upto = len(world.source.transactions)
    return all(world.rows(t) == world.source.rows(t, upto) for t in (A, B))


def test_what_is_committed_is_captured_folded_and_recorded(world: World) -> None:
    numbers = itertools.count(2)

    def busy() -> bool:
        number = next(numbers)
        if number < 30:
            world.source.commit((A, "c", number, number), (B, "u", 1, number))
        return number > 30 and world.source.confirmed == len(world.source.transactions)

    world.follow(busy)
    assert equal(world)
    assert sum(r.tables["s.a"].rows_in for r in world.records if r.tables) == 29
    assert sum(r.tables["s.a"].inserted for r in world.records if r.tables) == 29
    assert sum(r.entries for r in world.records) == world.entries()
    assert world.records == last_runs(world.parts.state, "p", 1000)[::-1]
    ends = [r for r in world.records if r.entries]
    assert [r.from_position for r in ends[1:]] == [r.to_position for r in ends[:-1]]
    assert {r.outcome for r in world.records} == {"done"}


def test_the_sinks_are_called_in_the_caller_s_thread(world: World) -> None:
    before = threading.active_count()
    world.follow(lambda: bool(world.heard("table.refreshed")))
    assert world.threads == {threading.main_thread().name}
    assert threading.active_count() <= before


def test_capture_goes_on_while_a_fold_hangs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fold, hung, free = deliver.refresh, threading.Event(), threading.Event()

    def hang(*given: Any, **more: Any) -> Any:
        hung.set()
        assert free.wait(20)
        return fold(*given, **more)

    monkeypatch.setattr(deliver, "refresh", hang)

    def meanwhile() -> bool:
        if hung.is_set() and len(world.source.transactions) < 20:
            world.source.commit((A, "u", 1, len(world.source.transactions)))
        if world.source.confirmed == 20:
            free.set()
        return free.is_set()

    world.follow(meanwhile)
    assert equal(world)


def test_a_lake_that_cannot_be_written_is_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fold, tries = deliver.refresh, itertools.count(1)

    def fail(*given: Any, **more: Any) -> Any:
        number = next(tries)
        if number == 1:
            raise StorageError("no space left", hint="df -h")
        if number == 2:
            raise ZeroDivisionError("a bug")
        return fold(*given, **more)

    monkeypatch.setattr(deliver, "refresh", fail)
    monkeypatch.setattr(follow.random, "uniform", lambda *_: 0.01)
    world.follow(lambda: bool(world.heard("table.refreshed")))
    assert equal(world)
    errors = ["no space left", "this is a bug in headwater: ZeroDivisionError: a bug"]
    assert [e.data["error"] for e in world.heard("refresh.failed")] == errors
    failed = [r for r in world.records if r.outcome == "failed"]
    assert (failed[0].error, failed[0].hint) == ("no space left", "df -h")
    # Both fell into one record, or each into its own.
    assert any("a bug" in text for r in failed for text in (r.error, *r.warnings))
    assert world.records[-1].outcome == "done"


def test_a_table_that_cannot_be_folded_stops_no_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fold, broken = deliver.refresh, {A}

    def refuse(log: Any, lake: Any, specs: Mapping[TableId, TableSpec], **more: Any) -> Any:
        more["failed"].update({t: SchemaConflict(f"{t}: does not fit") for t in broken & specs.keys()})
        return fold(log, lake, {t: s for t, s in specs.items() if t not in broken}, **more)

    world.follow(lambda: equal_soon(world))
    monkeypatch.setattr(deliver, "refresh", refuse)
    world.source.commit((A, "u", 1, 11), (B, "u", 1, 11))

    def later() -> bool:
        if world.heard("table.failed") and len(world.source.transactions) < 6:
            world.source.commit((A, "u", 1, len(world.source.transactions)), (B, "u", 1, 12))
        return world.rows(B) == {1: 12}

    with pytest.raises(SchemaConflict, match="does not fit"):
        world.follow(later)
    assert world.rows(A) == {1: 10}
    assert last_runs(world.parts.state, "p")[0].outcome == "failed"
    # Whoever comes next knows that this table is behind.
    with pytest.raises(SchemaConflict):
        world.runner().run("delta", build=False)
    broken.clear()
    world.runner().run("delta", build=False)
    assert equal(world)


def test_a_table_that_failed_is_tried_again_by_itself(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fold, tries = deliver.refresh, itertools.count(1)

    def refuse(log: Any, lake: Any, specs: Mapping[TableId, TableSpec], **more: Any) -> Any:
        if A in specs and next(tries) <= 1:
            more["failed"][A] = StorageError("not yet")
            specs = {t: s for t, s in specs.items() if t != A}
        return fold(log, lake, specs, **more)

    monkeypatch.setattr(deliver, "refresh", refuse)
    world.follow(lambda: any(e.table == A for e in world.heard("table.refreshed")))
    assert len(world.heard("table.failed")) == 1
    assert equal(world)
    folded = load_folded(world.parts.state, "p", world.parts.storage.read("lake/id.json")[8:-2].decode())
    assert folded.through == world.entries() - 1


def test_a_build_that_fails_stops_neither_capture_nor_fold(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = itertools.count(1)

    def publish(*_: Any, **__: Any) -> BuildResult:
        if next(tries) <= 2:
            raise WarehouseError("could not set lock")
        return BuildResult((ModelResult("m", "success", 1, 0.1),), 3)

    monkeypatch.setattr(deliver, "publish", publish)

    def later() -> bool:
        if len(world.heard("handoff.failed")) == 1 and len(world.source.transactions) < 4:
            world.source.commit((A, "u", 1, len(world.source.transactions)))
        return bool(world.heard("handoff.finished"))

    world.follow(later, build=True)
    assert equal(world)
    assert len(world.heard("handoff.failed")) == 2
    assert sum(r.models_built for r in world.records) == len(world.heard("handoff.finished"))
    assert sum(r.tests_passed for r in world.records) == 3 * len(world.heard("handoff.finished"))


def test_a_build_that_fails_at_the_end_is_raised(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def publish(*_: Any, **__: Any) -> BuildResult:
        raise WarehouseError("could not set lock")

    monkeypatch.setattr(deliver, "publish", publish)
    with pytest.raises(WarehouseError):
        world.follow(lambda: bool(world.heard("handoff.failed")), build=True)
    assert equal(world)
    assert last_runs(world.parts.state, "p")[0].error == "could not set lock"


def test_a_source_that_is_away_is_asked_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow.random, "uniform", lambda *_: 0.01)
    changes, tries = world.source.changes, itertools.count(1)

    def away(*given: Any, **more: Any) -> Any:
        if next(tries) in (1, 2):
            raise SourceError("connection refused")
        return changes(*given, **more)

    monkeypatch.setattr(world.source, "changes", away)
    world.follow(lambda: bool(world.heard("table.refreshed")))
    assert [e.data["error"] for e in world.heard("run.retrying")] == ["connection refused"] * 2
    assert equal(world)


def test_one_that_starts_over_leaves_a_table_that_is_gone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow.random, "uniform", lambda *_: 0.01)
    prepare, changes, there = world.source.prepare, world.source.changes, [A, B]

    def refuse(tables: Sequence[TableId], since: Position | None) -> Sequence[TableId]:
        if not set(tables) <= set(there):
            raise PreflightFailed("s.a does not exist")
        return prepare(tables, since)

    def unpublished(*given: Any, **more: Any) -> Iterator[Any]:
        if world.rows_soon(B) == {1: 10} and there == [A, B]:
            there.remove(A)
            world.source.commit((A, "u", 1, 11), (B, "u", 1, 11))
            raise PreflightFailed("s.b is not published any more")
        return changes(*given, **more)

    monkeypatch.setattr(world.source, "prepare", refuse)
    monkeypatch.setattr(world.source, "changes", unpublished)
    monkeypatch.setattr(world.source, "tables", lambda: [info_of(t) for t in there])
    world.follow(lambda: world.rows_soon(B) == {1: 11})
    assert len(world.heard("run.retrying")) == 1
    assert world.rows(A) == {1: 11}, "what the log still had of it is taken in"
    assert all(s.followed for s in RawLog(world.parts.storage).tables().values()), "its policy comes later"


def test_a_store_that_is_away_is_asked_again_and_nothing_is_logged_twice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow.random, "uniform", lambda *_: 0.01)
    append, tries = RawLog.append, itertools.count(1)

    def lose(log: RawLog, *given: Any, **more: Any) -> Any:
        entry = append(log, *given, **more)
        if next(tries) == 2:
            raise StorageError("no answer")  # it arrived all the same
        return entry

    monkeypatch.setattr(RawLog, "append", lose)

    def later() -> bool:
        # Not before the load: it would read them as one row.
        if world.heard("table.loaded") and len(world.source.transactions) < 8:
            world.source.commit((A, "u", 1, len(world.source.transactions)))
        return bool(world.heard("run.retrying")) and world.source.confirmed == 8

    world.follow(later)
    assert equal(world)
    assert sum(r.tables["s.a"].rows_in for r in world.records if r.tables) == 8


@pytest.mark.parametrize("error", [PositionLost("the slot is gone"), Conflict("another writer")])
def test_what_cannot_go_on_is_raised(
    world: World, monkeypatch: pytest.MonkeyPatch, error: HeadwaterError
) -> None:
    world.source.commit((A, "u", 1, 11))

    def lost(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(world.source, "changes", lost)
    before = threading.active_count()
    with pytest.raises(type(error)):
        world.follow(lambda: False)
    record = last_runs(world.parts.state, "p")[0]
    assert (record.outcome, record.error) == ("failed", str(error))
    assert threading.active_count() <= before


def test_a_state_that_cannot_be_written_loses_no_count(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    save, tries = world.parts.state.save, itertools.count(1)

    def full(key: str, *given: Any, **more: Any) -> Any:
        if "/runs/" in key and next(tries) <= 3:
            raise StorageError("no space left")
        return save(key, *given, **more)

    monkeypatch.setattr(world.parts.state, "save", full)
    world.follow(lambda: len(world.heard("record.failed")) == 3 and bool(world.heard("run.finished")))
    assert sum(r.entries for r in world.records) == world.entries()
    assert equal(world)


def test_a_lost_lease_ends_it(world: World) -> None:
    def guard() -> None:
        if world.heard("table.refreshed"):
            raise Conflict("another runner took over")

    world.guard = guard
    with pytest.raises(Conflict, match="took over"):
        world.follow(lambda: False)


def test_the_end_comes_behind_the_piece_in_hand(world: World) -> None:
    world.follow(lambda: equal_soon(world))
    for number in range(2, 400):
        world.source.commit((A, "c", number, number))
    before = world.entries()
    world.follow(lambda: world.entries() > before)
    assert before < world.entries() < before + 100
    there = world.rows(A)
    assert there == world.source.rows(A, world.source.confirmed)
    world.runner().run("delta", build=False)
    assert equal(world)


def test_a_caller_that_walks_away_leaves_no_thread(world: World) -> None:
    before = threading.active_count()
    rounds = Follow(world.runner(), pause=0.01, build=False).rounds(lambda: False)
    next(rounds)
    rounds.close()
    assert threading.active_count() <= before


def equal_soon(world: World) -> bool:
    return len({e.table for e in world.heard("table.refreshed")}) == 2


def test_a_mark_never_runs_ahead_of_what_was_folded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the build would believe it has seen an entry that the lake does not hold yet."""
    world.runner().run("full", build=False)
    fold = deliver.refresh
    world.source.commit((A, "u", 1, 11))
    runner = world.runner()
    capture = runner.capture(RawLog(world.parts.storage), lambda: None, world.tell)
    capture.start()
    capture.drain()
    before = world.entries() - 1

    def late(*given: Any, **more: Any) -> Any:
        done = fold(*given, **more)
        world.source.commit((A, "u", 1, 12))
        capture.drain()
        return done

    monkeypatch.setattr(deliver, "refresh", late)
    delivery = runner.delivery(runner.parts, world.tell)
    delivery.refresh(Tally("delta"))
    assert world.entries() - 1 == before + 1
    assert (delivery.folded().through, delivery.folded().marks[A]) == (before, before)
