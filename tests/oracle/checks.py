"""The three comparisons with the truth, and what must hold of any history."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence

from oracle.story import Row, Told
from oracle.world import World, plain

Facts = dict[str, list[Row]]


def read_lake(world: World) -> Facts:
    """Every row of the three tables, in one order."""
    return {
        "changes": world.rows("changes", "_hw_seq, id"),
        "history": world.rows("history", "_hw_seq, id"),
        "mirror": world.rows("mirror", "_hw_seq, id"),
    }


def check(told: Told, facts: Facts) -> None:
    """Raise AssertionError where the lake is not what happened."""
    names = [c.name for c in told.schema.columns]
    check_versions(told, facts["changes"], names)
    check_history(told, facts["history"], names)
    check_mirror(told, facts["mirror"], names)


def check_versions(told: Told, changes: Sequence[Row], names: Sequence[str]) -> None:
    """I1: for each key, every version in order, deletes with what the log carried of them."""
    truth, found = defaultdict(list), defaultdict(list)
    for seq, op, key, row, at in told.versions:
        truth[key].append((seq, op, {name: row.get(name) for name in names}, at))
    for change in changes:
        found[change["id"]].append(
            (change["_hw_seq"], change["_hw_op"], plain(change, names), change["_hw_at"])
        )
    assert dict(found) == dict(truth), "I1: versions"


def check_history(told: Told, history: Sequence[Row], names: Sequence[str]) -> None:
    """I2: the state as of every commit; one open version a key, no gap, no overlap."""
    for seq, rows in told.commits:
        truth = {key: {name: row.get(name) for name in names} for key, row in rows.items()}
        then = [
            h for h in history
            if _int(h["_hw_seq"]) <= seq and (h["_hw_seq_to"] is None or _int(h["_hw_seq_to"]) > seq)
        ]  # fmt: skip
        found = {h["id"]: plain(h, names) for h in then}
        assert len(found) == len(then) and found == truth, f"I2: as of {seq}"
    ends: dict[object, list[tuple[int, str, object]]] = defaultdict(list)
    for seq, op, key, _row, at in told.versions:
        ends[key].append((seq, op, at))
    for h in history:
        mine = ends[h["id"]]
        place = next(n for n, (seq, _, _) in enumerate(mine) if seq == h["_hw_seq"])
        assert h["valid_from"] == h["_hw_at"] == mine[place][2]
        nothing: tuple[object, str, object] = (None, "", None)
        seq_to, _, valid_to = mine[place + 1] if place + 1 < len(mine) else nothing
        assert (h["_hw_seq_to"], h["valid_to"]) == (seq_to, valid_to), "contiguous"
        assert h["is_current"] is (seq_to is None)
    assert len(history) == sum(op != "d" for _, op, *_ in told.versions)


def check_mirror(told: Told, mirror: Sequence[Row], names: Sequence[str]) -> None:
    """I3: the table as it is now."""
    found = {m["id"]: plain(m, names) for m in mirror}
    assert len(found) == len(mirror)
    assert found == {k: {name: r.get(name) for name in names} for k, r in told.live.items()}, "I3: mirror"


def _int(value: object) -> int:
    assert isinstance(value, int)
    return value


def describe(told: Told) -> str:
    """The log of a story, for a failure's report."""
    return "\n".join(
        json.dumps([b.phase, b.epoch, [{k: str(v) for k, v in r.items() if v is not None} for r in b.rows]])
        for entry in told.entries
        for b in entry
    )
