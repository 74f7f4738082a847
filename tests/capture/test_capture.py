"""Capture against a scripted source: the log is in order, whole, and the same after any failure."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capture.script import KEPT, Change, ScriptSource, info_of, schema_of
from headwater.capture import Capture
from headwater.errors import Conflict, PositionLost, SourceError
from headwater.model import Column, TableId, TableInfo
from headwater.raw import RawLog
from headwater.storage import Storage

A, B, C = TableId("s", "a"), TableId("s", "b"), TableId("s", "c")


class Stopped(Exception):
    """The process is gone."""


def open_log(folder: Path) -> RawLog:
    return RawLog(Storage.open(str(folder / "store"), cache=folder / "cache"))


def logged(log: RawLog) -> list[dict[str, Any]]:
    """Every row an entry names, as the log orders them, with its table and epoch."""
    rows = []
    for entry in log.entries():
        for ref in entry.batches:
            if ref.rows:
                for values in pq.read_table(log.fetch(ref)).to_pylist():
                    rows.append({**values, "table": ref.table, "epoch": ref.epoch})
    return sorted(rows, key=lambda r: int(r["_hw_seq"]))


def replay(log: RawLog, table: TableId) -> dict[int, int | None]:
    """The table as its newest epoch of the log gives it."""
    epoch = log.tables()[table].epoch
    now: dict[int, int | None] = {}
    for values in logged(log):
        if values["table"] == table and values["epoch"] == epoch:
            before = now.pop(values["id"], KEPT)
            if values["_hw_op"] != "d":
                now[values["id"]] = before if values["_hw_unset"] else values["v"]
    return now


def run(
    source: ScriptSource, log: RawLog, tables: list[TableId], reload: tuple[TableId, ...] = ()
) -> Capture:
    capture = Capture(source, log, [info_of(t) for t in tables])
    capture.start(reload)
    capture.drain()
    return capture


def test_full_then_delta(tmp_path: Path) -> None:
    source, log = ScriptSource([A, B]), open_log(tmp_path)
    source.commit((A, "c", 1, 10), (B, "c", 1, 100))
    run(source, log, [A, B])
    source.commit((A, "u", 1, 11), (B, "d", 1, None), (A, "c", 2, 20))
    run(source, log, [A, B])
    assert replay(log, A) == {1: 11, 2: 20}
    assert replay(log, B) == {}
    seqs = [r["_hw_seq"] for r in logged(log)]
    assert seqs == sorted(set(seqs))
    assert [r["_hw_op"] for r in logged(log)] == ["r", "r", "u", "d", "c"]


def test_what_commits_while_a_table_is_read_is_logged_once_and_after_it(tmp_path: Path) -> None:
    source, log = ScriptSource([A, B]), open_log(tmp_path)
    source.commit((A, "c", 1, 10))
    run(source, log, [A])
    source.commit((A, "u", 1, 11), (B, "c", 5, 50))
    source.during_cut = [[(B, "u", 5, 51), (A, "u", 1, 12)]]
    run(source, log, [A, B])
    assert replay(log, A) == {1: 12}
    assert replay(log, B) == {5: 51}
    assert [(r["table"].name, r["_hw_op"], r["v"]) for r in logged(log)] == [
        ("a", "r", 10), ("a", "u", 11), ("b", "r", 50), ("b", "u", 51), ("a", "u", 12),
    ]  # fmt: skip


def test_a_table_let_go_and_taken_again_is_read_again(tmp_path: Path) -> None:
    source, log = ScriptSource([A, B]), open_log(tmp_path)
    source.commit((A, "c", 1, 1), (B, "c", 1, 1))
    run(source, log, [A, B])
    run(source, log, [B])
    source.commit((A, "u", 1, 2))
    run(source, log, [B])
    run(source, log, [A, B])
    assert replay(log, A) == {1: 2}
    assert log.tables()[A].epoch == 2
    assert log.tables()[B].epoch == 1


def test_a_resync_goes_through_the_old_epoch_first(tmp_path: Path) -> None:
    source, log = ScriptSource([A]), open_log(tmp_path)
    source.commit((A, "c", 1, 1))
    run(source, log, [A])
    source.commit((A, "u", 1, 2))
    run(source, log, [A], (A,))
    assert [(r["epoch"], r["_hw_op"], r["v"]) for r in logged(log)] == [(1, "r", 1), (1, "u", 2), (2, "r", 2)]


def test_unlogged_changes_are_read_again_in_the_same_run(tmp_path: Path) -> None:
    source, log = ScriptSource([A, B]), open_log(tmp_path)
    source.commit((A, "c", 1, 1), (B, "c", 1, 1))
    run(source, log, [A, B])
    source.commit((A, "u", 1, 2))
    source.reload_at = {(1, A)}
    run(source, log, [A, B])
    state = log.tables()
    assert (state[A].epoch, state[A].complete, state[A].reload) == (2, True, False)
    assert state[B].epoch == 1


def test_a_table_altered_without_a_logged_change_is_read_again(tmp_path: Path) -> None:
    source, log = ScriptSource([A, B]), open_log(tmp_path)
    source.commit((A, "c", 1, 1), (B, "c", 1, 1))
    run(source, log, [A, B])
    source.altered = {A, B}
    other = replace(schema_of(A), columns=(*schema_of(A).columns, Column("w", pa.int64())))
    Capture(source, log, [TableInfo(other), info_of(B)]).start()
    assert (log.tables()[A].epoch, log.tables()[B].epoch) == (2, 1)


def test_a_lost_position_needs_every_table_to_be_read_again(tmp_path: Path) -> None:
    source, log = ScriptSource([A, B]), open_log(tmp_path)
    source.commit((A, "c", 1, 1), (B, "c", 1, 1))
    run(source, log, [A, B])
    source.commit((A, "u", 1, 2))
    source.lost = True
    with pytest.raises(PositionLost):
        Capture(source, log, [info_of(A), info_of(B)]).start([A])
    assert source.lost
    done = Capture(source, log, [info_of(A), info_of(B)]).start([A, B])
    assert "recreated" in done.gap
    assert (replay(log, A), replay(log, B)) == ({1: 2}, {1: 1})


def test_silence_while_the_source_is_ahead_is_a_failure(tmp_path: Path) -> None:
    source, log = ScriptSource([A]), open_log(tmp_path)
    source.commit((A, "c", 1, 1))
    capture = run(source, log, [A])
    source.commit((A, "u", 1, 2))
    source.silent = True
    with pytest.raises(SourceError, match="100 bytes ahead"):
        capture.drain()


def test_a_lost_lease_stops_before_the_next_entry(tmp_path: Path) -> None:
    source, log = ScriptSource([A]), open_log(tmp_path)
    source.commit((A, "c", 1, 1))

    def lost() -> None:
        raise Conflict("another runner")

    with pytest.raises(Conflict):
        Capture(source, log, [info_of(A)], guard=lost).start()
    assert log.last() is None
    assert source.confirmed == 0


def test_an_idle_pipeline_moves_its_position_only_when_a_segment_of_log_hangs_on_it(tmp_path: Path) -> None:
    source, log = ScriptSource([A, B]), open_log(tmp_path)
    source.commit((A, "c", 1, 1))
    run(source, log, [A])
    source.commit((B, "c", 1, 1))
    run(source, log, [A])
    assert source.confirmed == 1
    source.transactions += [[(B, "u", 1, n)] for n in range(200_000)]
    source.window = 100_000
    run(source, log, [A])
    assert source.confirmed == 200_002


def fill(source: ScriptSource, table: TableId, rows: int) -> None:
    source.commit(*((table, "c", key, key * 10) for key in range(rows)))


def test_a_load_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    source, log = ScriptSource([A]), open_log(tmp_path)
    fill(source, A, 12)
    source.pieces, source.readers, source.fail_at = 3, 1, "0:4-6"
    with pytest.raises(SourceError, match="4-6 cannot be read"):
        run(source, log, [A])
    assert [part for _, part in source.reads] == ["0:0-2", "0:2-4", "0:4-6"]
    assert log.tables()[A].parts == ("0:0-2", "0:2-4")
    source.commit((A, "u", 1, KEPT), (A, "d", 2, None), (A, "u", 3, 33), (A, "c", 50, 500))
    source.fail_at, source.reads = None, []
    run(source, open_log(tmp_path), [A])
    assert [part for _, part in source.reads] == ["keys", "0:4-6"]
    log = open_log(tmp_path)
    assert (log.tables()[A].epoch, log.tables()[A].complete, log.tables()[A].parts) == (1, True, ())
    assert replay(log, A) == source.rows(A, len(source.transactions))
    (entry,) = [e for e in log.entries() for r in e.batches if r.phase == "snapshot_end"]
    assert entry.position == source.head()


def test_a_cut_that_was_held_for_long_is_followed_by_another(tmp_path: Path) -> None:
    source, log = ScriptSource([A, B]), open_log(tmp_path)
    fill(source, A, 12)
    fill(source, B, 12)
    source.pieces, source.readers, source.patience = 3, 1, 1
    source.during_cut = [[(A, "u", 3, 1), (B, "d", 4, None)], [(B, "u", 5, 1)]]
    run(source, log, [A, B])
    parts = [read for read in source.reads if read[1] != "keys"]
    assert sorted(parts) == sorted((t, f"0:{n}-{n + 2}") for t in (A, B) for n in (0, 2, 4))
    assert {t: log.tables()[t].epoch for t in (A, B)} == {A: 1, B: 1}
    assert replay(log, A) == source.rows(A, len(source.transactions))
    assert replay(log, B) == source.rows(B, len(source.transactions))
    assert len({e.position for e in log.entries()}) > 1


@pytest.mark.parametrize("how", ["rewritten", "asked for", "altered", "told to reload", "let go"])
def test_a_load_that_cannot_go_on_begins_again(tmp_path: Path, how: str) -> None:
    source, log = ScriptSource([A, B]), open_log(tmp_path)
    fill(source, A, 12)
    source.pieces, source.readers, source.fail_at = 3, 1, "0:4-6"
    with pytest.raises(SourceError):
        run(source, log, [A])
    source.fail_at, source.reads = None, []
    source.rewrites += how == "rewritten"
    source.altered = {A} if how == "altered" else set()
    source.commit((A, "u", 1, 5))
    if how == "told to reload":
        source.reload_at = {(1, A)}
    if how == "let go":
        run(source, open_log(tmp_path), [B])
    infos = [info_of(A)]
    if how == "altered":
        infos = [TableInfo(replace(schema_of(A), columns=(*schema_of(A).columns, Column("w", pa.int64()))))]
    Capture(source, open_log(tmp_path), infos).start([A] if how == "asked for" else [])
    log = open_log(tmp_path)
    assert len([part for table, part in source.reads if table == A]) == 3
    assert (log.tables()[A].epoch, log.tables()[A].complete) == (2, True)
    assert replay(log, A) == source.rows(A, len(source.transactions))


def test_the_progress_of_a_load_is_told(tmp_path: Path) -> None:
    source, log = ScriptSource([A]), open_log(tmp_path)
    fill(source, A, 12)
    source.pieces = 3
    seen: list[tuple[str, dict[str, int]]] = []
    capture = Capture(source, log, [info_of(A)], lambda kind, _, data: seen.append((kind, dict(data))))
    capture.start()
    assert [kind for kind, _ in seen][-1] == "table.loaded"
    assert seen[-1][1]["rows"] == 12
    assert [d["rows"] for kind, d in seen if kind == "table.loading"][-1] == 12


ops = st.tuples(
    st.sampled_from([A, B, C]),
    st.sampled_from("cud"),
    st.integers(0, 3),
    st.one_of(st.integers(0, 9), st.just(KEPT)),
)
steps = st.lists(
    st.tuples(
        st.lists(st.lists(ops, min_size=1, max_size=4), max_size=4),  # transactions before the run
        st.lists(st.lists(ops, min_size=1, max_size=2), max_size=2),  # while tables are read
        st.sets(st.sampled_from([A, B, C]), min_size=1),  # chosen tables
        st.sets(st.sampled_from([A, B, C])),  # read again
        st.one_of(st.none(), st.integers(1, 9)),  # which durable write kills the run
        st.booleans(),  # before or after it
        st.sampled_from([1, 2, 3]),  # parts of a table
        st.integers(0, 3),  # how many parts a cut has time for
        st.booleans(),  # all heaps are rewritten
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=40)
@given(steps)
def test_any_story_with_any_stops_equals_the_source(
    tmp_path_factory: pytest.TempPathFactory, story: Any
) -> None:
    folder = tmp_path_factory.mktemp("story")
    source = ScriptSource([A, B, C])
    end = ([], [], {A, B, C}, set(), None, False, 2, 1, False)
    for before, during, chosen, reload, nth, after, pieces, patience, rewritten in [*story, end]:
        for changes in before:
            source.transactions.append(_valid(source, changes))
        source.during_cut = [[c for c in changes if c[3] != KEPT] for changes in during]
        source.pieces, source.patience = pieces, patience
        source.rewrites += rewritten
        log = open_log(folder)
        if nth is not None:
            _kill_at(log, nth, after)
        try:
            run(source, log, sorted(chosen), tuple(sorted(reload & chosen)))
        except Stopped:
            run(source, open_log(folder), sorted(chosen), tuple(sorted(reload & chosen)))
        log = open_log(folder)
        for table in chosen:
            assert replay(log, table) == source.rows(table, len(source.transactions))
        rows = logged(log)
        assert len({r["_hw_seq"] for r in rows}) == len(rows)
        changes = [(r["table"], r["epoch"], r["_hw_pos"], r["_hw_seq"]) for r in rows if r["_hw_op"] != "r"]
        assert [int(c[2]) for c in changes] == sorted(int(c[2]) for c in changes)
        for table in chosen:
            newest = log.tables()[table].epoch
            got = [(int(r["_hw_pos"]), r["id"], r["_hw_op"]) for r in rows
                   if (r["table"], r["epoch"]) == (table, newest) and r["_hw_op"] != "r"]  # fmt: skip
            first = got[0][0] if got else len(source.transactions)
            assert got == [(n, key, op) for n, changes in enumerate(source.transactions) if n >= first
                           for name, op, key, _ in changes if name == table]  # fmt: skip


def _valid(source: ScriptSource, changes: list[Change]) -> list[Change]:
    """Only what is there can keep its value."""
    there = {(t, key) for t in source.names for key in source.rows(t, len(source.transactions))}
    valid: list[Change] = []
    for t, op, key, value in changes:
        keeps = value == KEPT and op == "u" and (t, key) in there
        valid.append((t, op, key, None if op == "d" else value if keeps or value != KEPT else 5))
        there = there - {(t, key)} if op == "d" else there | {(t, key)}
    return valid


def _kill_at(log: RawLog, nth: int, after: bool) -> None:
    left = [nth]
    storage = log._storage
    for name in ("create", "upload"):
        real = getattr(storage, name)

        def put(*args: Any, real: Any = real, **options: Any) -> Any:
            left[0] -= 1
            if left[0] == 0 and not after:
                raise Stopped
            done = real(*args, **options)
            if left[0] == 0:
                raise Stopped
            return done

        setattr(storage, name, put)
