"""Figures of a run, out of its events."""

from headwater.events import Event
from headwater.events.gauges import MESSAGES, Gauges
from headwater.model import TableId

ORDERS, USERS = TableId("shop", "orders"), TableId("shop", "users")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def told(gauges: Gauges, kind: str, table: TableId | None = None, **data: object) -> None:
    gauges(Event(kind, "shop", table, data))  # type: ignore[arg-type]


def test_a_load_and_the_changes_after_it() -> None:
    gauges = Gauges(clock := Clock())
    told(gauges, "run.started", run_id="1", mode="full")
    told(gauges, "table.loading", ORDERS, rows=100, total=400, bytes=10, eta=3)
    told(gauges, "table.loading", ORDERS, rows=300, total=400, bytes=30, eta=1)
    clock.now += 1
    told(gauges, "table.loading", USERS, rows=50, total=0, bytes=5)
    newest, older = gauges.tables()
    assert (newest.table, newest.rows, newest.total, newest.eta) == (USERS, 50, 0, None)
    assert (older.rows, older.total, older.bytes, older.eta, older.phase) == (300, 400, 30, 1, "loading")
    assert gauges.rows_per_second() == 350 / 5 and gauges.counts() == (2, 350)
    told(gauges, "table.loaded", ORDERS, rows=400, bytes=40)
    told(gauges, "changes.captured", ORDERS, rows=7)
    told(gauges, "table.refreshed", ORDERS, inserted=400, updated=2, deleted=1)
    [orders] = [t for t in gauges.tables() if t.table == ORDERS]
    assert (orders.phase, orders.lake, orders.rows) == ("in the lake", (400, 2, 1), 307)
    clock.now += 6
    assert gauges.rows_per_second() == 0


def test_a_new_run_begins_at_nothing() -> None:
    gauges = Gauges(Clock())
    told(gauges, "changes.captured", ORDERS, rows=7)
    told(gauges, "run.started", run_id="2", mode="delta")
    assert gauges.counts() == (0, 0) and gauges.rows_per_second() == 0 and gauges.stage


def test_what_fails_is_said_once_with_what_to_do() -> None:
    gauges = Gauges(Clock())
    for _ in range(3):
        told(gauges, "table.failed", ORDERS, error="no such type", seconds=2.0)
    told(gauges, "wal.warning", level="critical", says="the log fills up", hint="headwater run")
    warning, failure = gauges.messages()
    assert (warning.level, warning.hint) == ("error", "headwater run")
    assert failure.text == "shop.orders cannot be folded: no such type" and "again in 2.0 s" in failure.hint
    assert gauges.tables()[0].phase == "failed"
    for n in range(2 * MESSAGES):
        gauges.say("info", str(n))
    assert len(gauges.messages()) == MESSAGES


def test_the_chart_and_how_far_the_source_was_read() -> None:
    gauges = Gauges(clock := Clock())
    told(gauges, "changes.drained", seconds=0.5)
    assert gauges.drained_at == clock.now - 0.5
    told(gauges, "changes.captured", ORDERS, rows=50)
    gauges.sample(1024, 0.5)
    [point] = gauges.points()
    assert (point.rows_per_second, point.lag_bytes, point.lag_seconds) == (10.0, 1024, 0.5)
