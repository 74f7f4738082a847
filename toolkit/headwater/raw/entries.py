"""The JSON of the raw log: entries and checkpoints, and what the entries say of each table. No I/O.

The form is an open spec, docs/raw-log.md. Every file ends in the SHA-256 of what precedes it, because JSON
with one flipped bit is often still JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import cast, get_args

from headwater.errors import Corrupt, StorageError
from headwater.model import BatchRef, Entry, Phase, Position, TableId
from headwater.sealing import check_seal, seal

LOG = "raw/log"
CHECKPOINTS = "raw/checkpoints"
#: A checkpoint follows every entry whose number is one less than a multiple of this.
CHECKPOINT_EVERY = 256

_ENTRY = "headwater-raw-log"
_CHECKPOINT = "headwater-raw-checkpoint"
_MAJOR = 1
_PHASES = frozenset(get_args(Phase))
_HEX = re.compile(r"[0-9a-f]*")

Json = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class TableState:
    """What the log says of a table, as of its last entry."""

    epoch: int  # the newest one
    complete: bool  # its snapshot is whole, and changes are being captured
    reload: bool  # rows changed without being logged: read the table again
    schema: str  # fingerprint of its newest schema
    snapshot_entry: int  # the entry that holds the first batch of this epoch
    parts: tuple[str, ...] = ()  # of an epoch that is not complete: what was read of the table, in order

    @property
    def followed(self) -> bool:
        """Whether the log holds the table's changes up to its last entry: the load is whole, or can go on."""
        return self.complete or bool(self.parts)


def entry_path(seq: int) -> str:
    """The name of an entry."""
    return f"{LOG}/{seq:020d}.json"


def checkpoint_path(seq: int) -> str:
    """The name of the checkpoint that follows entry `seq`."""
    return f"{CHECKPOINTS}/{seq:020d}.json"


def number(path: str) -> int:
    """The number in the name of an entry or checkpoint; -1 for a file that is neither."""
    found = re.fullmatch(r".*/([0-9]{20})\.json", path)
    return int(found[1]) if found else -1


def write_entry(entry: Entry) -> bytes:
    """The file of an entry."""
    return seal(
        {
            "format": f"{_ENTRY}/{_MAJOR}",
            "seq": entry.seq,
            "writer": entry.writer,
            "written_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "position": entry.position.token,
            "next_row": entry.next_row,
            "released": [{"namespace": t.namespace, "name": t.name} for t in entry.released],
            "batches": [_batch(ref) for ref in entry.batches],
        }
    )


def read_entry(data: bytes, seq: int) -> Entry:
    """An entry from its file; Corrupt when it is damaged, StorageError when it is newer than this program."""
    path = entry_path(seq)
    doc = _open(data, path, _ENTRY)
    try:
        entry = Entry(
            seq=_int(doc, "seq"),
            position=Position(_str(doc, "position")),
            batches=tuple(_ref(item) for item in _items(doc, "batches")),
            writer=_str(doc, "writer"),
            next_row=_int(doc, "next_row"),
            released=tuple(_table(item) for item in _items(doc, "released")),
        )
    except (KeyError, TypeError, ValueError) as failed:
        raise Corrupt(f"{path}: not an entry of the raw log: {failed}", hint=_RESTORE) from None
    if entry.seq != seq:
        raise Corrupt(f"{path}: holds entry {entry.seq}", hint=_RESTORE)
    return entry


def write_checkpoint(seq: int, tables: Mapping[TableId, TableState]) -> bytes:
    """The file of a checkpoint: a function of the entries up to `seq` alone, the same for every writer."""
    return seal(
        {
            "format": f"{_CHECKPOINT}/{_MAJOR}",
            "seq": seq,
            "tables": [
                {
                    "namespace": table.namespace,
                    "name": table.name,
                    "epoch": state.epoch,
                    "complete": state.complete,
                    "reload": state.reload,
                    "schema": state.schema,
                    "snapshot_entry": state.snapshot_entry,
                    **({"parts": list(state.parts)} if state.parts else {}),
                }
                for table, state in sorted(tables.items())
            ],
        }
    )


def read_checkpoint(data: bytes, seq: int) -> dict[TableId, TableState]:
    """The tables of a checkpoint; StorageError when it is damaged or newer: then fold the entries instead."""
    path = checkpoint_path(seq)
    doc = _open(data, path, _CHECKPOINT)
    try:
        if _int(doc, "seq") != seq:
            raise ValueError("another number")
        return {
            _table(item): TableState(
                epoch=_int(item, "epoch"),
                complete=_bool(item, "complete"),
                reload=_bool(item, "reload"),
                schema=_hex(item, "schema"),
                snapshot_entry=_int(item, "snapshot_entry"),
                parts=_texts(item, "parts") if "parts" in item else (),
            )
            for item in _items(doc, "tables")
        }
    except (KeyError, TypeError, ValueError) as failed:
        raise Corrupt(f"{path}: not a checkpoint of the raw log: {failed}") from None


def fold_tables(tables: dict[TableId, TableState], entries: Iterable[Entry]) -> None:
    """Bring `tables` forward over the next entries."""
    for entry in entries:
        for ref in entry.batches:
            tables[ref.table] = _advance(tables.get(ref.table), ref, entry.seq)
        for table in entry.released:
            if table in tables:
                tables[table] = replace(tables[table], complete=False, parts=())


def _advance(state: TableState | None, ref: BatchRef, seq: int) -> TableState:
    if state is None or ref.epoch > state.epoch:
        state = TableState(ref.epoch, False, False, ref.schema, seq)
    elif ref.epoch < state.epoch:
        return state
    if ref.phase == "snapshot_end":
        return replace(state, complete=True, reload=False, schema=ref.schema, parts=())
    reload = state.reload or (ref.phase == "changes" and ref.reload)
    parts = state.parts
    if ref.schema != state.schema and not state.complete:
        # What was read so far has other columns than what would be read now.
        parts = ()
    elif ref.part:
        parts = (*parts, ref.part)
    return replace(state, reload=reload, schema=ref.schema, parts=parts)


_RESTORE = "restore the folder raw/log from a backup; its entries cannot be made again"


def _open(data: bytes, path: str, kind: str) -> Json:
    """The JSON object of a sealed file of this kind."""
    check_seal(data, path, hint=_RESTORE)
    try:
        doc = json.loads(data)
        name, _, version = str(doc["format"]).partition("/")
        major = int(version.partition(".")[0])
    except (ValueError, KeyError, TypeError):
        raise Corrupt(f"{path}: not JSON of the raw log", hint=_RESTORE) from None
    if name == kind and major > _MAJOR:
        raise StorageError(f"{path}: written by a newer headwater", hint="pip install --upgrade headwater")
    if name != kind or major != _MAJOR:
        raise Corrupt(f"{path}: is {name}/{version}, not {kind}/{_MAJOR}", hint=_RESTORE)
    return cast(Json, doc)


def _batch(ref: BatchRef) -> Json:
    return {
        "namespace": ref.table.namespace,
        "name": ref.table.name,
        "epoch": ref.epoch,
        "phase": ref.phase,
        "schema": ref.schema,
        "path": ref.path,
        "rows": ref.rows,
        "bytes": ref.bytes,
        "sha256": ref.sha256,
        "first_seq": ref.first_seq,
        "last_seq": ref.last_seq,
        "reload": ref.reload,
        "memory": ref.memory,
        **({"part": ref.part} if ref.part else {}),
    }


def _ref(item: Json) -> BatchRef:
    phase = _str(item, "phase")
    if phase not in _PHASES:
        raise ValueError(f"phase {phase!r}")
    return BatchRef(
        table=_table(item),
        epoch=_int(item, "epoch"),
        phase=cast(Phase, phase),
        schema=_hex(item, "schema"),
        path=_str(item, "path"),
        rows=_int(item, "rows"),
        bytes=_int(item, "bytes"),
        sha256=_hex(item, "sha256"),
        first_seq=_int(item, "first_seq"),
        last_seq=_int(item, "last_seq"),
        reload=_bool(item, "reload"),
        memory=_int(item, "memory"),
        part=_str(item, "part") if "part" in item else "",
    )


def _table(item: Json) -> TableId:
    return TableId(_str(item, "namespace"), _str(item, "name"))


def _items(doc: Json, name: str) -> list[Json]:
    value = doc[name]
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise TypeError(f"{name} is no list of objects")
    return cast(list[Json], value)


def _str(doc: Json, name: str) -> str:
    value = doc[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} is no string")
    return value


def _texts(doc: Json, name: str) -> tuple[str, ...]:
    value = doc[name]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError(f"{name} is no list of strings")
    return tuple(value)


def _hex(doc: Json, name: str) -> str:
    value = _str(doc, name)
    if not _HEX.fullmatch(value):
        raise ValueError(f"{name} is not hexadecimal")
    return value


def _int(doc: Json, name: str) -> int:
    value = doc[name]
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError(f"{name} is no number")
    return value


def _bool(doc: Json, name: str) -> bool:
    value = doc[name]
    if not isinstance(value, bool):
        raise TypeError(f"{name} is neither true nor false")
    return value
