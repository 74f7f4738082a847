"""Positions: where in which server's log, and through which slot, we stand. The token is compact JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass

from headwater.errors import PositionLost
from headwater.model import Position


@dataclass(frozen=True, slots=True)
class Place:
    """A position taken apart.

    lsn          commits whose record starts before it are ours already
    system       the cluster's identifier; initdb and pg_upgrade make a new one
    timeline     grows by one with each promotion
    database     oid of the database
    slot         name of the slot
    publication  oid of the publication: one made again has not published what came between
    witness      commit LSN and id of the last transaction that came through the slot or "": should the slot
                 hand that stretch of log out again without this transaction, history was rewritten
    """

    lsn: int
    system: str
    timeline: int
    database: int
    slot: str
    publication: int
    witness: str = ""

    def position(self) -> Position:
        """The token that `read_place` takes."""
        doc: dict[str, str | int] = {
            "lsn": format_lsn(self.lsn),
            "sys": self.system,
            "tli": self.timeline,
            "db": self.database,
            "slot": self.slot,
            "pub": self.publication,
        }
        if self.witness:
            doc["last"] = self.witness
        return Position(json.dumps(doc, separators=(",", ":")))

    def witness_lsn(self) -> int:
        """Where the witness committed; -1 when there is none."""
        return parse_lsn(self.witness.partition(":")[0]) if self.witness else -1


def read_place(position: Position) -> Place:
    """What a token says; raises PositionLost for one that is not of this kind of source."""
    try:
        doc = json.loads(position.token)
        return Place(
            parse_lsn(doc["lsn"]), str(doc["sys"]), int(doc["tli"]), int(doc["db"]), str(doc["slot"]),
            int(doc["pub"]), str(doc.get("last", "")),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError):
        pass
    raise PositionLost("the position in the raw log is not one of a PostgreSQL source")


def parse_lsn(text: str) -> int:
    """`X/Y` as a number."""
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


def format_lsn(lsn: int) -> str:
    """A number as `X/Y`, as PostgreSQL spells it."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"
