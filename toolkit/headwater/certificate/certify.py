"""The way to a certificate: compare, put right if asked to, compare again, write down."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from headwater.canonical import CANONICAL
from headwater.casting import apart
from headwater.certificate import FORMAT, Certificate, Place, write
from headwater.comparing import Comparing, Settled
from headwater.config import TableSpec
from headwater.errors import CastFailed, Corrupt, SchemaConflict
from headwater.handoff.build import Dbt
from headwater.lake import KINDS
from headwater.model import Digest, TableId, TableSchema
from headwater.repair import (
    BUILD_AGAIN,
    MOST,
    READ_AGAIN,
    Repair,
    is_broken,
    log_unseen,
    mend_bases,
    mend_lake,
    mend_warehouse,
    why_not,
)
from headwater.tally import Tally
from headwater.verify import (
    LIMIT,
    Options,
    TableCheck,
    VersionCheck,
    describe,
    name_key,
    name_keys,
    verdict,
)

#: So many keys of a table and target stand in a certificate.
NAMED = 1_000

_IN_LAKE = {"lake", "changes", "mirror", "history"}
_IN_WAREHOUSE = {"warehouse", "warehouse history"}

_SAYS = (
    "The source was cut at one position of its log, and lake and warehouse were brought to it. Each side "
    "computed, in its own engine, the MD5 of the canonical text of every row, and of each slice of the keys "
    "the count of rows and the sums of the four words of these MD5s. Slices that differ were compared row by "
    "row. The files of mirror and history were held against the changes that they are made from."
)


@dataclass(slots=True)
class Outcome:
    """One table: how it was found, how it is now, and what was done in between."""

    check: TableCheck
    versions: Sequence[VersionCheck] = ()
    repair: Repair | None = None
    found: Mapping[str, int] = field(default_factory=dict)

    @property
    def equal(self) -> bool:
        """Whether the table and its histories are as they should be."""
        return self.check.equal and all(its.equal for its in self.versions)

    def counts(self) -> dict[str, int]:
        """How many keys differ, by place; one at least where a place differs."""
        found = {where: self.check.count(where) for where in self.check.counts}
        if not self.check.equal and not any(found.values()):
            found["lake" if self.check.lake != self.check.source else "warehouse"] = 0
        for its in self.versions:
            if not its.equal:
                found[its.where] = sum(its.counts.values())
        return found

    def texts(self, wheres: Iterable[str]) -> list[str]:
        """The keys that differ in some places, by their canonical text."""
        keys = [*self.check.differing, *(key for its in self.versions for key in its.differing)]
        return sorted({key.text for key in keys if key.where in set(wheres)})


def certify(
    comparing: Comparing,
    specs: Mapping[TableId, TableSpec],
    tables: Sequence[TableId],
    place: Place,
    *,
    repair: bool,
) -> Certificate:
    """Compare the tables and write what was found; with `repair`, put right what can be and compare again."""
    started, tally = time.monotonic(), Tally("verify")
    way = _Way(comparing, specs)
    with way.settled(tables, repair=repair) as here:
        outcomes = way.look(here, MOST + 1 if repair else NAMED)
        again = repair and not all(its.equal for its in outcomes)
        if again:
            way.mend_lake(here, outcomes)
    if again:
        way.mend_warehouse(outcomes)
        with way.settled(tables, repair=True) as here:
            now = way.look(here, NAMED)
            for before, its in zip(outcomes, now, strict=True):
                its.found = {**before.found, **before.counts()}
                its.repair = before.repair
            outcomes = now
    document = _document(comparing, here, outcomes, time.monotonic() - started)
    if not document["equal"]:
        comparing.note_differs(tally, str(document["verdict"]))
    return write(place, document)


class _Way:
    """The steps over one pipeline."""

    def __init__(self, comparing: Comparing, specs: Mapping[TableId, TableSpec]) -> None:
        self._comparing, self._specs = comparing, specs
        self._parts, self._runner = comparing.parts, comparing.runner
        self.freed: dict[TableId, Repair] = {}

    @contextmanager
    def settled(self, tables: Sequence[TableId], *, repair: bool) -> Iterator[Settled]:
        """Everything at one position. Rows that somebody took out of the lake may stop a fold on the way:
        with `repair` they are put back by what the lake itself knows of them.
        """
        if repair:
            self._free([table for table in tables if is_broken(self._parts.lake, table)])
        with ExitStack() as stack:
            try:
                here = stack.enter_context(self._comparing.settled(tables))
            except SchemaConflict:
                if not repair or not self._free(tables):
                    raise
                here = stack.enter_context(self._comparing.settled(tables))
            yield here

    def _free(self, tables: Sequence[TableId]) -> bool:
        """Put mirrors and histories right by their changes; whether any was not."""
        for table in tables:
            self._runner.guard()
            done = mend_bases(self._parts, self._specs[table], self._comparing.newest(table))
            if done.keys:
                self.freed[table] = done
        return bool(self.freed)

    def look(self, here: Settled, limit: int) -> list[Outcome]:
        """Compare everything."""
        found = self._comparing.check_all(here, limit)
        freed = [self.freed.get(check.table) for check, _ in found]
        return [
            Outcome(check, versions, repair, dict(repair.keys) if repair else {})
            for (check, versions), repair in zip(found, freed, strict=True)
        ]

    def mend_lake(self, here: Settled, outcomes: Sequence[Outcome]) -> None:
        """Put the lake right, and log what no log told; then bring lake and warehouse to it."""
        for outcome, schema in zip(outcomes, here.schemas, strict=True):
            keys = outcome.texts(_IN_LAKE)
            if not keys or outcome.check.skipped:
                continue
            self._runner.guard()
            spec = self._specs[schema.table]
            try:
                done = mend_lake(self._parts, spec, schema, keys)
            except (CastFailed, Corrupt, SchemaConflict) as failed:
                # One table that its raw log cannot mend is no reason to leave the others.
                done = Repair(schema.table, left=f"{failed}; {failed.hint}")
            outcome.repair = _sum(outcome.repair, done)
            if not outcome.repair.left:
                self._log_unseen(here, schema, outcome, outcome.repair)
            self._tell(outcome.repair)
        self._runner.settle(here.cut.position)
        if self._parts.config.publishes:
            self._runner.delivery(self._parts, self._runner.tell).show_all()

    def _log_unseen(self, here: Settled, schema: TableSchema, outcome: Outcome, repair: Repair) -> None:
        """Log the source's rows of the keys that differ from it still, now that the lake holds the log."""
        parts, check = self._parts, outcome.check
        if not check.count("changes"):
            return  # by the log, all rows are the source's
        options = Options(parts.storage.scratch(), MOST)
        with parts.lake.connect(parts.config.memory_limit) as con:
            target = parts.lake.relation(con, schema.table, empty=schema), con
            left = name_keys(here.cut, schema, check, target, apart(parts, schema), options)
        if left:
            logged = log_unseen(parts, here.cut, schema, left, check, self._runner.guard)
            repair.keys |= {"raw log": logged} if logged else {}
            repair.left = (
                "" if logged else "its columns changed since it was logged; headwater run, and again"
            )

    def mend_warehouse(self, outcomes: Sequence[Outcome]) -> None:
        """Put the warehouse's rows of all keys that differed anywhere as the lake has them now."""
        config = self._parts.config
        if config.warehouse is None:
            return
        places = Dbt(config, Path(config.dbt.project)).built().places()
        for outcome in outcomes:
            table = outcome.check.table
            keys = outcome.texts(_IN_LAKE | _IN_WAREHOUSE)
            schema = self._comparing.newest(table)
            if not keys or outcome.check.skipped:
                continue
            repair = outcome.repair = outcome.repair or Repair(table)
            cure = READ_AGAIN if outcome.texts(_IN_LAKE) else BUILD_AGAIN
            repair.left = repair.left or why_not(self._parts, self._specs[table], schema, keys, cure)
            if repair.left:
                continue
            self._runner.guard()
            done = mend_warehouse(self._parts, self._specs[table], schema, places, keys)
            if done:
                repair.keys["warehouse"] = done
                self._tell(repair)

    def _tell(self, repair: Repair) -> None:
        if repair.keys:
            self._runner.tell("table.repaired", repair.table, dict(repair.keys))


def _sum(before: Repair | None, done: Repair) -> Repair:
    if before is not None:
        done.keys = {**before.keys, **done.keys}
        done.files = {**before.files, **done.files}
    return done


def _document(
    comparing: Comparing, here: Settled, outcomes: Sequence[Outcome], seconds: float
) -> dict[str, object]:
    """The certificate's JSON: names, numbers and keys, no other value of a cell."""
    parts = comparing.parts
    last = parts.log.last()
    equal = all(its.equal for its in outcomes)
    repaired = sum(sum(its.repair.keys.values()) > 0 for its in outcomes if its.repair)
    said = _verdict(outcomes)
    return {
        "format": FORMAT,
        "pipeline": parts.config.name,
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "equal": equal,
        "verdict": said + (f"; {repaired} repaired" if repaired else ""),
        "position": parts.source.show(here.cut.position),
        "entry": last.seq if last else -1,
        "seconds": round(seconds, 3),
        "repairs": f"in {repaired} of {len(outcomes)} tables" if repaired else "none",
        "method": {
            "says": _SAYS,
            "facts": {"hash": "MD5, summed as four 32-bit words", "canonical text": CANONICAL},
        },
        "versions": _versions(),
        "tables": [_table(comparing, its) for its in outcomes],
        "lines": [line for its in outcomes for line in _lines(its)] + [f"verify: {said}"],
    }


def _verdict(outcomes: Sequence[Outcome]) -> str:
    # A table whose history alone is wrong is no equal one.
    return verdict([_judged(its) for its in outcomes])


def _judged(outcome: Outcome) -> TableCheck:
    return replace(outcome.check, equal=outcome.equal)


def _lines(outcome: Outcome) -> list[str]:
    lines = describe(outcome.check)
    for its in outcome.versions:
        if not its.equal:
            lines.append(
                f"  {its.where}: {sum(its.counts.values()):,} keys with other versions than there were"
            )
            lines += [f"  {line}" for line in map(name_key, its.differing[:LIMIT])]
    repair = outcome.repair
    if repair is not None:
        done = [f"{count:,} keys in {where}" for where, count in repair.keys.items()]
        lines += [f"  repaired: {', '.join(done)}"] if done else []
        lines += [f"  not repaired: {repair.left}"] if repair.left else []
    return lines


def _table(comparing: Comparing, outcome: Outcome) -> dict[str, object]:
    check, repair = outcome.check, outcome.repair
    sides = {"source": check.source, "lake": check.lake, **check.more}
    sides |= {"warehouse": check.warehouse} if check.warehouse is not None else {}
    shown = {where: _side(its) for where, its in sides.items() if not check.skipped}
    for its in outcome.versions:
        shown |= {its.where: {**_side(its.found), "expected": _hex(its.expected)}}
    left = {"masked": list(check.masked), "cast to another type": list(check.retyped)}
    left |= {"in quarantine": [f"{check.waiting:,}"] if check.waiting else []}
    newest = comparing.newest(check.table)
    # Of a table without a key nothing tells which versions there should be.
    left |= {} if newest.key or check.skipped else {"versions": ["it has no key"]}
    where = newest.where
    left |= {"rows by a filter": [where]} if where else {}
    done: dict[str, object] = {}
    if repair is not None:
        done = {"found": dict(outcome.found), "keys": repair.keys, "files": repair.files, "left": repair.left}
    lake = comparing.parts.lake
    return {
        "table": str(check.table),
        "equal": outcome.equal,
        "skipped": check.skipped,
        "slices": check.slices,
        "slices_unequal": len(check.unequal),
        "rows_read": check.rows_read,
        "seconds": round(check.seconds, 3),
        "lake_versions": {k: lake.version(check.table, k) for k in KINDS},
        "sides": shown,
        "left_out": {name: its for name, its in left.items() if its},
        "differences": _differences(outcome),
        "repair": done,
    }


def _differences(outcome: Outcome) -> dict[str, object]:
    keys = [*outcome.check.differing, *(key for its in outcome.versions for key in its.differing)]
    found: dict[str, object] = {}
    for where, count in outcome.counts().items():
        named = [key for key in keys if key.where == where][:NAMED]
        shown = [{"key": k.key, "kind": k.kind, "columns": list(k.columns)} for k in named]
        found[where] = {"count": count, "keys": shown}
    return found


def _side(digest: Digest) -> dict[str, object]:
    return {"rows": digest.rows, "digest": _hex(digest)}


def _hex(digest: Digest) -> str:
    return "-".join(f"{word:x}" for word in digest.words)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("headwater", "duckdb", "deltalake", "pyarrow", "psycopg"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
