"""`explain` against the stories of the fold's oracle, and word for word on one small story."""

import json
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from headwater.config import TableSpec
from headwater.errors import ConfigError
from headwater.explain import Step, explain
from headwater.model import Column, TableId, TableSchema
from headwater.state import RunRecord
from oracle.conftest import Worlds
from oracle.conftest import worlds as worlds  # noqa: PLC0414  a fixture
from oracle.stories import KEYS, random_story
from oracle.story import TABLE, Batch, Row, raw_table, tell
from oracle.world import World

WORDS = {"r": "read", "c": "insert", "u": "update", "d": "delete"}
AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("seed", range(6))
def test_it_tells_every_version_of_every_key(worlds: Worlds, seed: int) -> None:
    told = tell(random_story(random.Random(seed)))
    world = worlds()
    world.write(told.entries)
    if any(step for step in told.versions):
        world.refresh()
    for key in range(1, KEYS + 1):
        steps = [s for s in explain(world.log, world.lake, TABLE, str(key)) if s.key == f"id={key}"]
        versions = [(seq, WORDS[op]) for seq, op, its, _, _ in told.versions if its == key]
        wanted = [
            (s.seq, "delete" if s.op == "truncate" else s.op)
            for s in steps
            if (s.op, s.note) != ("read", "as it was")
        ]
        own = set(versions)
        assert [w for w in wanted if w in own] == versions
        # What is left over are re-insertions of an equal row in a full load, and nothing else.
        assert all(op == "read" for _, op in set(wanted) - own)
        seqs = [s.seq for s in steps]
        assert seqs == sorted(set(seqs))
        _check_columns(steps, {(seq, k): row for seq, _, k, row, _ in told.versions}, key)


def _check_columns(steps: Sequence[Step], rows: dict[tuple[int, int], Row], key: int) -> None:
    """Where two versions follow each other, the changed columns are those that differ."""
    before: Row | None = None
    for step in steps:
        now = rows.get((step.seq, key))
        if step.op == "update" and before is not None and now is not None:
            assert set(step.changed) == {n for n in now if now[n] != before.get(n)}
        before = None if step.op in ("delete", "truncate") else now or before


ACCOUNT = TableSchema(
    TableId("bank", "account"),
    (
        Column("branch", pa.string(), "text"),
        Column("nr", pa.int64(), "int8"),
        Column("owner", pa.string(), "text"),
        Column("since", pa.date32(), "date"),
    ),
    ("branch", "nr"),
)


def row(
    op: str, seq: int, branch: str | None, nr: int | None, *cells: object, unset: Sequence[str] = ()
) -> Row:
    owner, since = [*cells, None, None][:2]
    return {
        "branch": branch, "nr": nr, "owner": owner, "since": since, "_hw_op": op, "_hw_seq": seq,
        "_hw_pos": f"0/{seq:X}", "_hw_at": AT, "_hw_tx": f"{seq // 4}", "_hw_unset": list(unset) or None,
        "_hw_text": None,
    }  # fmt: skip


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[World]:
    with opened(tmp_path) as world:
        day = date(2020, 1, 1)
        world.write(
            [
                [
                    Batch(
                        ACCOUNT,
                        [row("r", 2, "A", 1, "Ann", day), row("r", 6, "B", 2, "canary")],
                        "snapshot_end",
                        1,
                    )
                ],
                [Batch(ACCOUNT, [row("u", 10, "A", 1, "Ann B", unset=["since"])], "changes", 1)],
                [
                    Batch(
                        ACCOUNT,
                        [
                            row("d", 13, "A", 1, unset=["owner", "since"]),
                            row("c", 14, "A,x", 7, "Ann B", unset=["since"]),
                            row("d", 18, "B", 2, unset=["owner", "since"]),
                            row("c", 22, "A", 1, "other", day),
                            row("u", 26, "A,x", 7, "Ann C", day),
                        ],
                        "changes",
                        1,
                    )
                ],
            ]
        )
        world.refresh()
        world.write([[Batch(ACCOUNT, [row("t", 30, None, None)], "changes", 1)]])
        yield world


@contextmanager
def opened(folder: Path, table: TableId = ACCOUNT.table) -> Iterator[World]:
    world = World(folder, TableSpec(table))
    yield world
    world.close()


def told(world: World, key: str) -> list[tuple[int, str, str, tuple[str, ...], str]]:
    steps = explain(world.log, world.lake, ACCOUNT.table, key)
    return [(s.seq, s.op, s.key, s.changed, s.note) for s in steps]


def test_a_key_change_is_followed_both_ways(bank: World) -> None:
    before = [
        (2, "read", "branch=A,nr=1", (), ""),
        (10, "update", "branch=A,nr=1", ("owner",), ""),
        (13, "delete", "branch=A,nr=1", (), "the key changes"),
        (14, "insert", 'branch="A,x",nr=7', ("branch", "nr"), "the key was branch=A,nr=1"),
        (26, "update", 'branch="A,x",nr=7', ("owner",), ""),
        (30, "truncate", 'branch="A,x",nr=7', (), ""),
    ]
    assert told(bank, '"A,x",7') == before
    # The second life of A,1 is no part of the story of A,x 7, but it is of its own.
    own = told(bank, "A,1")
    assert [s for s in own if s in before] == [s for s in before if s[0] != 30 or s in own]
    assert (22, "insert", "branch=A,nr=1", (), "") in own
    assert [s[0] for s in own] == [2, 10, 13, 14, 22, 26, 30]


def test_only_the_life_that_led_to_the_key_is_told(tmp_path: Path) -> None:
    day = date(2020, 1, 1)
    changes = [
        row("c", 10, "C", 5, "first", day), row("d", 14, "C", 5), row("c", 18, "C", 5, "second", day),
        row("d", 21, "C", 5), row("c", 22, "D", 6, "second", day),
        row("d", 26, "D", 6), row("c", 30, "D", 6, "third", day),
        row("d", 33, "D", 6), row("c", 34, "C", 5, "third", day),
        row("d", 38, "C", 5), row("c", 42, "C", 5, "last", day),
    ]  # fmt: skip
    with opened(tmp_path) as world:
        world.write([[Batch(ACCOUNT, [], "snapshot_end", 1)], [Batch(ACCOUNT, changes, "changes", 1)]])
        assert [s[0] for s in told(world, "D,6")] == [18, 21, 22, 26, 30, 33, 34, 38]


def test_a_key_change_under_another_key_of_the_table(tmp_path: Path) -> None:
    day = date(2020, 1, 1)
    named = replace(ACCOUNT, key=("owner",))
    changes = [row("c", 10, "C", 5, "ada", day), row("d", 13, "C", 5), row("c", 14, "D", 6, "ada", day)]
    with opened(tmp_path) as world:
        world.write([[Batch(ACCOUNT, [], "snapshot_end", 1)], [Batch(ACCOUNT, changes, "changes", 1)]])
        world.write([[Batch(named, [row("r", 26, "D", 6, "ada", day)], "snapshot_end", 2)]])
        assert [(s[0], s[1]) for s in told(world, "ada")] == [(10, "insert"), (14, "insert"), (26, "read")]


def test_it_says_where_each_change_lies(bank: World) -> None:
    steps = explain(bank.log, bank.lake, ACCOUNT.table, "nr=2,branch=B")
    assert [(s.op, s.entry, s.position, s.tx, s.at) for s in steps] == [
        ("read", 0, "0/6", "1", AT),
        ("delete", 2, "0/12", "4", AT),
    ]
    first, second = steps
    assert (bank.storage.local / first.file).exists() and first.file != second.file
    assert first.lake_version is not None and second.lake_version is not None
    truncated = explain(bank.log, bank.lake, ACCOUNT.table, "A,1")[-1]
    assert (truncated.op, truncated.entry, truncated.lake_version) == ("truncate", 3, None)


def test_values_are_shown_only_when_asked_for(bank: World) -> None:
    steps = explain(bank.log, bank.lake, ACCOUNT.table, "B,2")
    assert "canary" not in str(steps)
    asked = explain(bank.log, bank.lake, ACCOUNT.table, "A,1", values=True)
    assert asked[0].values == {"branch": "A", "nr": "1", "owner": "Ann", "since": "2020-01-01"}
    assert asked[1].values == {"branch": "A", "nr": "1", "owner": "Ann B"}


@pytest.mark.parametrize("key", ["C,1", "A,999", "'; drop table x; --,1", "\x00,1"])
def test_a_key_that_never_was_has_no_story(bank: World, key: str) -> None:
    if "\0" in key:
        with pytest.raises(ConfigError):
            explain(bank.log, bank.lake, ACCOUNT.table, key)
    else:
        assert explain(bank.log, bank.lake, ACCOUNT.table, key) == []


@pytest.mark.parametrize(
    ("table", "key", "says"),
    [
        (ACCOUNT.table, "A,one", "cannot be a key of bank.account \\(branch text, nr int8\\)"),
        (ACCOUNT.table, "A,1.5", "cannot be a key"),
        (ACCOUNT.table, "A,99999999999999999999", "cannot be a key"),
        (ACCOUNT.table, "A", "does not name a value for each of: branch, nr"),
        (TableId("bank", "nothing"), "1", "was never captured"),
    ],
)
def test_it_says_what_is_wrong_with_a_key(bank: World, table: TableId, key: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        explain(bank.log, bank.lake, table, key)


def test_a_table_without_a_key_is_refused(tmp_path: Path) -> None:
    bare = TableSchema(ACCOUNT.table, ACCOUNT.columns, ())
    with opened(tmp_path) as world:
        world.write([[Batch(bare, [row("r", 2, "A", 1)], "snapshot_end", 1)]])
        with pytest.raises(ConfigError, match="has no key"):
            explain(world.log, world.lake, ACCOUNT.table, "A,1")


def test_keys_of_types_whose_text_is_not_their_own(tmp_path: Path) -> None:
    table = TableId("odd", "keys")
    columns = (
        Column("at", pa.timestamp("us", "UTC")), Column("n", pa.decimal128(10, 2)), Column("f", pa.float64()),
        Column("y", pa.binary()), Column("filename", pa.bool_()),
    )  # fmt: skip
    schema = TableSchema(table, columns, tuple(c.name for c in columns))
    meta = {"_hw_pos": "", "_hw_at": AT, "_hw_tx": "", "_hw_unset": None}
    rows: list[Row] = [
        {
            "at": AT,
            "n": "1.50",
            "f": -0.5,
            "y": b"\x00a",
            "filename": True,
            "_hw_op": "r",
            "_hw_seq": 2,
            **meta,
        },
        {
            "at": None,
            "n": None,
            "f": float("nan"),
            "y": b"",
            "filename": False,
            "_hw_op": "r",
            "_hw_seq": 6,
            **meta,
        },
    ]
    rows[0] |= {"n": Decimal("1.50"), "_hw_text": None}
    rows[1]["_hw_text"] = json.dumps({"at": "infinity", "n": "NaN"})
    assert raw_table(Batch(schema, rows, "snapshot_end", 1)).num_rows == 2
    with opened(tmp_path, table) as world:
        world.write([[Batch(schema, rows, "snapshot_end", 1)]])
        for key in (
            'at=2026-01-01 00:00:00+00,n=1.5,f=-0.5,y="\\\\x00a",filename=true',
            'infinity,NaN,nan,"",f',
        ):
            (step,) = explain(world.log, world.lake, table, key)
            again = explain(world.log, world.lake, table, step.key)
            assert [s.seq for s in again] == [step.seq]


def run(name: str, hour: int, built: tuple[int, int]) -> RunRecord:
    at = datetime(2026, 1, 1, hour, tzinfo=UTC)
    return RunRecord(name, "p", "delta", at, at, "done", built={str(ACCOUNT.table): built})


def test_it_says_which_run_built_a_change_first(bank: World) -> None:
    def told(*runs: RunRecord) -> list[tuple[int, str, str]]:
        steps = explain(bank.log, bank.lake, ACCOUNT.table, "A,1", runs=runs)
        return [(s.entry, s.warehouse, s.run) for s in steps if s.entry in (0, 1, 3)]

    assert told() == [(0, "", ""), (1, "", ""), (3, "", "")]
    later, first = run("b", 2, (0, 1)), run("a", 1, (-1, 0))
    assert told(later, first) == [(0, "built", "a"), (1, "built", "b"), (3, "not yet", "")]
    # The record of the first is gone: what it took is in the warehouse all the same.
    assert told(later) == [(0, "built", ""), (1, "built", "b"), (3, "not yet", "")]
    # Built anew from the start, later: who was first stays first.
    assert told(run("c", 3, (-1, 3)), later, first)[0] == (0, "built", "a")


def test_the_row_before_and_after_each_change_as_far_as_it_is_known(bank: World) -> None:
    steps = explain(bank.log, bank.lake, ACCOUNT.table, "A,1", values=True)
    ann = {"branch": "A", "nr": "1", "owner": "Ann", "since": "2020-01-01"}
    assert [s.before for s in steps[:3]] == [{}, ann, ann | {"owner": "Ann B"}]
    assert steps[1].row == ann | {"owner": "Ann B"} and steps[2].row == {}
    assert (
        steps[3].row == ann | {"branch": "A,x", "nr": "7", "owner": "Ann B"}
        and steps[3].before == steps[2].before
    )
