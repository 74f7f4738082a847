"""A pipeline that answers with what a test puts in, and notes what it was asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Self

import pyarrow as pa

from headwater.certificate import Certificate
from headwater.config import Config, load
from headwater.errors import HeadwaterError
from headwater.events import Event, Sink
from headwater.model import Column, Digest, Finding, Position, TableId, TableInfo, TableSchema
from headwater.overview import Plan, Status, TablePlan, TableStatus
from headwater.state import RunRecord, TableCount
from headwater.verify import KeyDifference, TableCheck, VerifyReport

BEGAN = datetime(2026, 11, 23, 8, 30, tzinfo=UTC)
HOSTILE = TableId("public", "x\x1b[2J\n\u202e{{7*7}}")


def make_record(**given: Any) -> RunRecord:
    values: dict[str, Any] = {
        "run_id": "ab12", "pipeline": "shop", "mode": "delta", "started_at": BEGAN,
        "ended_at": BEGAN + timedelta(seconds=4.2), "outcome": "done", "from_position": "0/16B3740",
        "to_position": "0/16B9A10", "source_head": "0/16B9A10", "behind_bytes": 0, "entries": 2,
        "tables": {"public.orders": TableCount(1200, 1000, 150, 50, 1200), "public.quiet": TableCount()},
        "models_built": 6, "tests_passed": 14,
    }  # fmt: skip
    return RunRecord(**{**values, **given})


def make_infos() -> list[TableInfo]:
    columns = (Column("id", pa.int64(), "bigint", nullable=False), Column("note", pa.string(), "text"))
    orders = TableSchema(TableId("public", "orders"), columns, ("id",))
    return [
        TableInfo(orders, 12345, 6 << 20),
        TableInfo(
            TableSchema(TableId("public", "odd.name"), columns), None, None, "view", "a view has no log"
        ),
        TableInfo(TableSchema(HOSTILE, columns), 0, 0),
    ]


def make_status(**given: Any) -> Status:
    values: dict[str, Any] = {
        "pipeline": "shop", "store": "/srv/lake", "entries": 7, "position": "0/16B9A10", "behind_bytes": 4096,
        "source": {"version": "15.4", "safe_wal_bytes": None}, "source_error": "", "wal": None,
        "tables": [TableStatus(TableId("public", "orders"), 1, True, 2, False)],
        "runs": [make_record()], "holder": "",
    }  # fmt: skip
    return Status(**{**values, **given})


@dataclass(frozen=True)
class Step:
    position: str
    at: datetime
    op: str
    file: str
    note: str = ""


class StandIn:
    """Stands in for headwater.Pipeline."""

    calls: ClassVar[list[tuple[Any, ...]]]
    opened: ClassVar[list[Config]]
    answers: ClassVar[dict[str, Any]]
    events: ClassVar[list[Event]]

    @classmethod
    def reset(cls) -> None:
        cls.calls, cls.opened, cls.events = [], [], []
        equal = TableCheck(TableId("public", "orders"), Digest(3), Digest(3), Digest(3), True, (), 0.1)
        cls.answers = {
            "check": [Finding("ok", "wal_level", "logical")],
            "tables": make_infos(),
            "plan": Plan(
                [TablePlan(TableId("public", "orders"), "load", "history", 12345, 6 << 20, "new")], None
            ),
            "run": make_record(),
            "follow": [make_record(), make_record(run_id="cd34", behind_bytes=None)],
            "status": make_status(),
            "compact": [HOSTILE],
            "verify": VerifyReport(Position("0/16B9A10"), (equal,)),
            "certify": Certificate(
                {"equal": True, "lines": ["a  equal", "verify: 1 tables equal"]}, "c/x.json", "c/x.html"
            ),
            "explain": [
                Step("0/16B3740", BEGAN, "c", "a.parquet"),
                Step("0/16B3741", BEGAN, "u", "b.parquet"),
            ],
            "dbt_generate": Step("", BEGAN, "", "models/x.sql"),
            "dbt_build": None,
        }

    def __init__(self, config: Config) -> None:
        self.config = config

    @classmethod
    def open(cls, source: str | Config = "headwater.yml") -> Self:
        config = source if isinstance(source, Config) else load(source)
        cls.opened.append(config)
        return cls(config)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.calls.append(("close",))

    def _answer(self, name: str, *given: Any) -> Any:
        self.calls.append((name, *given))
        answer = self.answers[name]
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def check(self, tables: Sequence[str] | None = None) -> Any:
        return self._answer("check", tables)

    def tables(self) -> Any:
        return self._answer("tables")

    def plan(self) -> Any:
        return self._answer("plan")

    def run(
        self,
        mode: str = "auto",
        tables: Sequence[str] | None = None,
        sinks: Sequence[Sink] = (),
        *,
        build: bool = True,
    ) -> Any:
        for event in self.events:
            for sink in sinks:
                sink(event)
        return self._answer("run", mode, tables, build)

    def follow(
        self,
        sinks: Sequence[Sink] = (),
        pause: float = 1.0,
        stop: Callable[[], bool] = lambda: False,
        *,
        build: bool = True,
    ) -> Iterator[RunRecord]:
        yield from self._answer("follow", pause, stop(), build)

    def status(self) -> Any:
        return self._answer("status")

    def verify(self, tables: Sequence[str] | None = None, sinks: Sequence[Sink] = ()) -> Any:
        return self._answer("verify", tables)

    def certify(
        self, tables: Sequence[str] | None = None, *, folder: str | None = None, repair: bool = False,
        sinks: Sequence[Sink] = (),
    ) -> Any:  # fmt: skip
        return self._answer("certify", tables, folder, repair)

    def compact(self, tables: Sequence[str] | None = None) -> Any:
        return self._answer("compact", tables)

    def explain(self, table: str, key: str, *, values: bool = False) -> Any:
        return self._answer("explain", table, key, values)

    def dbt_generate(self, *, force: bool = False) -> Any:
        return self._answer("dbt_generate", force)

    def dbt_build(self, *, full_refresh: bool = False) -> Any:
        return self._answer("dbt_build", full_refresh)


DIFFERENT = VerifyReport(
    Position("0/1"),
    (
        TableCheck(
            HOSTILE, Digest(3), Digest(2), None, False, (KeyDifference("lake", "id=7", "missing"),), 0.1
        ),
    ),
)
FAILURE = HeadwaterError("the source went away: \x1b[31mred\nsecond line", hint="first\nsecond")
