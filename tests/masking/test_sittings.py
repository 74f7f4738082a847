"""Masks that change between two sittings of a load: no row of before is taken for one under the new masks."""

from __future__ import annotations

import hmac
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from headwater import load
from headwater.capture import Capture
from headwater.config import Config, Mask, TableSpec
from headwater.errors import Conflict
from headwater.masking import Masked
from headwater.masking.functions import MaskKey
from headwater.raw import RawLog
from headwater.secrets import Secret
from headwater.sources.postgres import PostgresSource, copies, cut, parts
from headwater.storage import Storage
from postgres.rig import table
from servers.postgres import Database

pytestmark = pytest.mark.live

T = table("t")
ROWS = 3000
OLD, NEW = "0123456789abcdef" * 2, "fedcba9876543210" * 2
MASKS: dict[str, tuple[dict[str, Mask], str]] = {
    "none": ({}, OLD),
    "hash": ({"v": Mask("hash")}, OLD),
    "another key": ({"v": Mask("hash")}, NEW),
    "redact": ({"v": Mask("redact", 2)}, OLD),
    "null": ({"v": Mask("null")}, OLD),
}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many parts of a few batches."""
    monkeypatch.setattr(parts, "PART_BYTES", 64 << 10)
    monkeypatch.setattr(parts, "_FEWEST", 2)
    monkeypatch.setattr(load, "SMALL", 0)
    monkeypatch.setattr(copies, "PIECE", 16 << 10)
    monkeypatch.setattr(cut, "BATCH", 32 << 10)


def capture(db: Database, storage: Storage, name: str, entries: int | None = None) -> None:
    """Load and follow under these masks; with `entries`, the runner is lost before it commits one more."""
    masks, secret = MASKS[name]
    spec = TableSpec(T, masks=masks)
    config = Config("x", {}, "/x", tables=("public.t",), overrides={"public.t": spec} if masks else {})
    done = 0

    def guard() -> None:
        nonlocal done
        if done == entries:
            raise Conflict("somebody else")
        done += 1

    own = PostgresSource(url=db.url, slot="hw_test", publication="hw_test", connections=2)
    source = Masked(own, config, MaskKey(Secret(secret)))
    try:
        infos = [info for info in source.tables() if info.schema.table == T]
        run = Capture(source, RawLog(storage), infos, guard=guard)
        if entries is None:
            run.start()
            run.drain()
        else:
            with pytest.raises(Conflict):
                run.start()
    finally:
        source.close()


def masked(name: str, text: str) -> str | None:
    masks, secret = MASKS[name]
    match masks["v"].kind if masks else "":
        case "hash":
            return hmac.digest(secret.encode(), text.encode(), "sha256").hex()
        case "redact":
            return "****" + text[-2:]
        case "null":
            return None
    return text


def newest(log: RawLog) -> tuple[int, dict[int, str | None]]:
    """The newest epoch, and its rows as they are in the end."""
    refs = [ref for entry in log.entries() for ref in entry.batches if ref.table == T]
    epoch = max(ref.epoch for ref in refs)
    rows = [
        row
        for ref in refs
        if ref.rows and ref.epoch == epoch
        for row in pq.read_table(log.fetch(ref)).to_pylist()
    ]
    now: dict[int, str | None] = {}
    for row in sorted(rows, key=lambda row: row["_hw_seq"]):
        now.pop(row["id"], None)
        if row["_hw_op"] != "d":
            now[row["id"]] = row["v"]
    return epoch, now


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("before", "after", "again", "written"),
    [
        ("none", "hash", True, True),
        ("none", "hash", True, False),
        ("hash", "another key", True, False),
        ("redact", "none", True, True),
        ("hash", "null", True, False),
        ("hash", "hash", False, True),
    ],
)
def test_other_masks_between_two_sittings(
    pg: Database, tmp_path: Path, before: str, after: str, again: bool, written: bool
) -> None:
    pg.run("create table t(id int primary key, v text)")
    pg.run(f"insert into t select i, repeat(md5(i::text), 4) from generate_series(1, {ROWS}) i; analyze t")
    with Storage.open(str(tmp_path / "store"), cache=tmp_path) as storage:
        capture(pg, storage, before, entries=4)
        state = RawLog(storage).tables()[T]
        assert not state.complete and len(state.parts) > 1
        if written:
            pg.run("update t set v = 'changed ' || id where id % 7 = 0; delete from t where id % 11 = 0;"
                   " insert into t values (0, 'new one')")  # fmt: skip
        capture(pg, storage, after)
        pg.run("update t set v = 'and later' where id = 5")
        capture(pg, storage, after)
        epoch, found = newest(RawLog(storage))
        assert found == {key: masked(after, text) for key, text in pg.run("select id, v from t")}
        assert epoch == 1 + again
        assert RawLog(storage).tables()[T].complete
