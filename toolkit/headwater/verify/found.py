"""What a comparison found: of one key, of one table, of all of them; and what is not to be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

from headwater.model import EACH_RUN, SKIPPED, Digest, Position, TableId, TableSchema

Kind = Literal["missing", "extra", "different"]

#: The most keys that `verify` names for one table and target.
LIMIT = 20


@dataclass(frozen=True, slots=True)
class KeyDifference:
    """One key that is not the same: missing in the target, extra there, or different in the named columns."""

    where: str  # lake | warehouse, and in a certificate: changes | history | warehouse history
    key: str  # as `headwater explain` takes it; for a table without a key the MD5 of the row
    kind: Kind
    columns: tuple[str, ...] = ()
    text: str = field(default="", compare=False, repr=False)  # its canonical text (`row_text`)


@dataclass(frozen=True, slots=True)
class Apart:
    """What a lake does not have as the source has it, by its casts.

    columns   those with another type
    keys      canonical texts (`row_text`) of keys that wait in the quarantine
    rows      of a table without a key, how many rows wait
    """

    columns: frozenset[str] = frozenset()
    keys: Sequence[str] = ()
    rows: int = 0


@dataclass(frozen=True, slots=True)
class TableCheck:
    """One table compared; a target that lacks the table counts as empty. `warehouse` is None without one."""

    table: TableId
    source: Digest
    lake: Digest
    warehouse: Digest | None
    equal: bool
    differing: tuple[KeyDifference, ...]
    seconds: float
    masked: tuple[str, ...] = ()  # columns that the source cannot be compared in
    retyped: tuple[str, ...] = ()  # columns with another type than in the source, not compared
    waiting: int = 0  # keys (without a key: rows) in the quarantine, not compared
    skipped: str = ""  # why it was not compared; "" where it was
    slices: int = 1  # that the table was compared in
    unequal: tuple[int, ...] = ()  # of these, the ones that differ in some target
    rows_read: int = 0  # of the source, to name the keys
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # all differing keys: where, kind
    more: Mapping[str, Digest] = field(default_factory=dict)  # what else was compared with the source

    def count(self, where: str) -> int:
        """How many keys differ in a target."""
        return sum(self.counts.get(where, {}).values())


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """Every table compared at one position of the source."""

    position: Position
    tables: tuple[TableCheck, ...]

    @property
    def equal(self) -> bool:
        """Whether every table is equal in every target it has."""
        return all(check.equal for check in self.tables)

    def lines(self) -> list[str]:
        """The report for a person, plain text; the last line is the verdict."""
        lines = [line for check in self.tables for line in describe(check)]
        return [*lines, f"verify: {verdict(self.tables)}"]

    def to_json(self) -> dict[str, object]:
        """The report as plain values for a JSON writer."""
        tables = [check_json(check) for check in self.tables]
        return {"equal": self.equal, "position": self.position.token, "tables": tables}


def check_json(check: TableCheck) -> dict[str, object]:
    """One table as plain values; of a key, only what `explain` takes."""
    doc = asdict(check)
    doc["table"], doc["unequal"] = str(check.table), len(check.unequal)
    doc["differing"] = [{k: v for k, v in key.items() if k != "text"} for key in doc["differing"]]
    return doc


def verdict(tables: Sequence[TableCheck]) -> str:
    """How many tables are equal, or are not."""
    wrong = sum(not check.equal for check in tables)
    skipped = sum(bool(check.skipped) for check in tables)
    total = len(tables) - skipped
    said = f"{wrong} of {total} tables differ" if wrong else f"{total} tables equal"
    return said + (f", {skipped} not compared" if skipped else "")


def why_apart(schema: TableSchema) -> str:
    """Why the source has other rows than the copy, of right."""
    if schema.loaded == EACH_RUN:
        return "read whole with each run, without a log, and so as of then"
    if schema.loaded == SKIPPED:
        return "its first load was skipped; headwater resync loads it"
    return "its load was filtered (initial_where), so that rows are left out that no change told of"


def describe(check: TableCheck) -> list[str]:
    """The lines of one table."""
    if check.skipped:
        return [f"{check.table}  not compared: {check.skipped}"]
    rows = f"{check.source.rows:,} rows" if check.equal else _counts(check)
    lines = [f"{check.table}  {'equal' if check.equal else 'DIFFERS'}  {rows}  {check.seconds:.1f} s"]
    lines += _left_out(check)
    for where, its in (("lake", check.lake), ("warehouse", check.warehouse), *check.more.items()):
        named = [found for found in check.differing if found.where == where][:LIMIT]
        lines += [f"  {name_key(found)}" for found in named]
        if check.count(where) > len(named):
            lines.append(f"  {where}: only the first {len(named)} of {check.count(where):,} keys are named")
        elif not named and not check.equal and its not in (None, check.source):
            lines.append(f"  {where}: {_empty(where) if its == Digest(0) else _UNNAMED}")
    return lines


def name_key(found: KeyDifference) -> str:
    """One key on one line."""
    columns = f" in {', '.join(found.columns)}" if found.columns else ""
    return f"{found.where}: {found.key}  {found.kind}{columns}"


def _left_out(check: TableCheck) -> list[str]:
    """What of a table was not compared."""
    lines = []
    if check.masked:
        number = f"{len(check.masked)} column{'s' if len(check.masked) > 1 else ''}"
        lines.append(f"  {number} masked, not compared: {', '.join(check.masked)}")
    if check.retyped:
        lines.append(f"  cast to another type, not compared: {', '.join(check.retyped)}")
    if check.waiting:
        lines.append(f"  {check.waiting:,} in quarantine, not compared: headwater quarantine list")
    return lines


def _empty(where: str) -> str:
    # A run builds what it brought, not what somebody dropped.
    cure = "headwater dbt build --full-refresh" if where == "warehouse" else "headwater run"
    return f"nothing there; {cure}, then headwater verify"


_UNNAMED = "no row differs, so the source hashes in another way than it is read; please report this"


def _counts(check: TableCheck) -> str:
    sides = {"source": check.source, "lake": check.lake, "warehouse": check.warehouse}
    return ", ".join(f"{name} {its.rows:,} rows" for name, its in sides.items() if its)
