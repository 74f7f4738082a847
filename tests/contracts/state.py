"""What every StateStore must do: subclass, give the fixtures `store` (new, empty) and `again` (reopened)."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from headwater.errors import Conflict
from headwater.state import RunRecord, StateStore, TableCount, append_run, last_runs


def record(number: int, **given: object) -> RunRecord:
    began = datetime(2026, 11, 23, 8, tzinfo=UTC) + timedelta(minutes=number)
    return RunRecord(f"run{number}", "shop", "delta", began, began + timedelta(seconds=3), "done", **given)  # type: ignore[arg-type]


class StateContract:
    """One suite for all stores."""

    def test_a_first_save_expects_nothing(self, store: StateStore) -> None:
        assert store.load("a") is None
        assert store.save("a", {"x": 1}, expect=0).version == 1
        with pytest.raises(Conflict):
            store.save("a", {"x": 2}, expect=0)
        saved = store.load("a")
        assert saved is not None
        assert (saved.value, saved.version) == ({"x": 1}, 1)

    def test_the_loser_is_told_and_changes_nothing(self, store: StateStore) -> None:
        one = store.save("a", {"x": 1}, expect=0)
        store.save("a", {"x": 2}, expect=one.version)
        for stale in (one.version, 7):
            with pytest.raises(Conflict):
                store.save("a", {"x": 3}, expect=stale)
        assert store.load("a").value == {"x": 2}  # type: ignore[union-attr]

    def test_replacing_what_is_not_there_is_a_conflict(self, store: StateStore) -> None:
        with pytest.raises(Conflict):
            store.save("a", {}, expect=1)

    @pytest.mark.parametrize(
        "value",
        [{}, {"n": None, "deep": [{"a": [1, 2.5, True, "ü\n\"'"]}]}, {"big": "x" * 300_000}, {"i": 2**70}],
    )
    def test_values_come_back_as_they_were(self, store: StateStore, value: dict[str, object]) -> None:
        store.save("a", value, expect=0)
        assert store.load("a").value == value  # type: ignore[union-attr]

    def test_a_saved_value_is_not_a_view_of_the_callers(self, store: StateStore) -> None:
        given = {"x": [1]}
        store.save("a", given, expect=0)
        given["x"].append(2)
        assert store.load("a").value == {"x": [1]}  # type: ignore[union-attr]

    def test_keys_are_sorted_and_prefixes_are_plain_text(self, store: StateStore) -> None:
        for key in ("b/2", "b/10", "b%x", "b_x", "B/1", "ä/1", "b/", "b"):
            store.save(key, {}, expect=0)
        assert list(store.keys("b/")) == ["b/", "b/10", "b/2"]
        assert list(store.keys("b%")) == ["b%x"]
        assert list(store.keys("b_")) == ["b_x"]
        assert list(store.keys("ä")) == ["ä/1"]
        assert list(store.keys("b/", last=2)) == ["b/10", "b/2"]
        assert list(store.keys("b/", last=0)) == []
        assert list(store.keys("none")) == []
        assert len(store.keys("")) == 8

    def test_drop_forgets_and_may_be_repeated(self, store: StateStore) -> None:
        store.save("a", {}, expect=0)
        store.drop("a")
        store.drop("a")
        assert store.load("a") is None
        assert store.save("a", {"x": 1}, expect=0).version == 1

    def test_of_many_threads_one_wins(self, store: StateStore) -> None:
        start = threading.Barrier(8)

        def save(number: int) -> bool:
            start.wait()
            try:
                store.save("a", {"n": number}, expect=0)
            except Conflict:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(save, range(8))) == 1

    def test_what_was_saved_survives_closing(self, store: StateStore, again: StateStore) -> None:
        store.save("a", {"x": 1}, expect=0)
        store.close()
        store.close()
        assert again.load("a").value == {"x": 1}  # type: ignore[union-attr]
        assert again.warnings == ()

    def test_run_records_come_back_newest_first(self, store: StateStore) -> None:
        counts = {"public.orders": TableCount(7, 1, 2, 3, 4)}
        full = record(
            3, tables=counts, from_position="0/1", behind_bytes=0, warnings=("old",), error="e", hint="h"
        )
        for one in (record(1), record(2), full):
            append_run(store, one)
        assert last_runs(store, "shop", 2) == [full, record(2)]
        assert last_runs(store, "other") == []

    def test_run_records_are_kept_up_to_a_number(self, store: StateStore) -> None:
        for number in range(1, 13):
            append_run(store, record(number), keep=10)
        assert [r.run_id for r in last_runs(store, "shop", 99)] == [f"run{n}" for n in range(12, 2, -1)]
