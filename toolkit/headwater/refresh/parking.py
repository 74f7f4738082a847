"""Parking: of the raw rows of a segment, those that wait, because of a value that does not fit.

Rows come as `headwater.fold.retype` leaves them: a text beside a cast column says a value does not fit.
A row like that waits, and so does each later change of its key, until the table is read again or emptied. In
a table without a key the row waits alone. All other rows go on to the fold as if nothing had happened.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from headwater.canonical import held_types, literal, quote, shown_text
from headwater.columns import cast_from, changed_types, ident, odd_text
from headwater.errors import CastFailed
from headwater.fold import Segment, json_of
from headwater.fold.retype import cast_of
from headwater.lake import Change, Held
from headwater.lake.layout import CARRIED
from headwater.lake.tail import SETTLED
from headwater.model import Mark, TableSchema
from headwater.quarantine import (
    DROPS,
    OWN,
    key_schema,
    parked_rows,
    quarantine_layout,
    standing,
)
from headwater.refresh.parts import Bench, Work, read_again

#: A raw schema, and the local files that have it.
Pieces = Iterable[tuple[TableSchema, Sequence[str]]]


class Parking:
    """One segment of one table with casts. Reads `_hw_sent`, leaves `_hw_raw` and `_hw_parked`.

    parked, nulled    rows that wait now, and rows that came in with NULL for a value that does not fit
    settled           rows that waited before this number do not any more; None where that stays as it was
    """

    def __init__(self, work: Work, bench: Bench, segment: Segment, seen: Sequence[TableSchema]) -> None:
        self._work, self._bench, self._segment, self._shape = work, bench, segment, bench.shape
        self._run, self._rows, self._ask = bench.run, bench.rows, bench.ask
        self._schema = bench.schema
        self._policy = work.spec.on_cast_error or "quarantine"
        names = {ident(c): c.name for c in bench.schema.columns}
        #: What people are told: the columns as the source calls them.
        self._called = {c.name: c.source_name for c in bench.schema.columns}
        casts = {
            names[ident(c)]: its
            for schema in seen
            for c in schema.columns
            if (its := cast_of(c, work.spec.casts))
        }
        self._rules = {name: its.letters() or _said(its.words()) for name, its in casts.items()}
        self.parked = self.nulled = 0
        self.settled: int | None = None

    # What waits.

    def park_snapshot(self, first: int) -> None:
        """Set aside what does not fit in a full load that begins at `first`; what waited is settled."""
        self.settled = first
        self._begin()
        if self._judge():
            self._run(
                f"CREATE TEMP TABLE _hw_parked AS SELECT {self._bench.parts}, _hw_seq FROM _hw_sent "
                f"WHERE {self._wrong}"
            )
            self._pass_on()

    def park_changes(self) -> None:
        """Set aside what does not fit among changes, and what they may not overtake."""
        emptied = self._rows("SELECT max(_hw_seq) FROM _hw_sent WHERE _hw_op = 't'")[0][0]
        self.settled = None if emptied is None else int(emptied)
        self._begin()
        if not self._schema.key:
            self._fill()
            if self._judge():
                self._run(f"CREATE TEMP TABLE _hw_parked AS SELECT _hw_seq FROM _hw_sent WHERE {self._wrong}")
                self._pass_on()
            return
        waiting = parked_rows(self._work.lake, self._work.held)
        if waiting is not None and not self._ask(f"SELECT count(*) FROM {waiting}"):
            waiting = None
        if self._judge() or waiting is not None:
            self._line_up(waiting)
            self._pass_on()

    def base(self, rows: str) -> str:
        """Rows that a full load is compared with, without those whose keys wait: they stay as they are."""
        if not self._schema.key or not self.parked:
            return rows
        same = self._shape.same_key("b", "p")
        return f"SELECT b.* FROM ({rows}) AS b ANTI JOIN _hw_parked AS p ON {same}"

    def _begin(self) -> None:
        """Rows given up come in with NULL. Without a key their text is given up, wherever it is."""
        given_up = "SELECT CAST(NULL AS BIGINT) AS _hw_seq, CAST(NULL AS VARCHAR) AS _hw_text WHERE FALSE"
        quarantine = self._quarantine
        if quarantine is not None and DROPS in quarantine.notes:
            scan = self._work.lake.scan(quarantine)
            given_up = f"SELECT _hw_seq, _hw_text FROM {scan} WHERE _hw_dropped"
        self._run(f"CREATE TEMP TABLE _hw_given_up AS {given_up}")

    @property
    def _quarantine(self) -> Held | None:
        return self._work.held.get("quarantine") or self._work.old.get("quarantine")

    @property
    def _bad(self) -> str:
        """SQL of whether a row has a value that does not fit."""
        texts = ", ".join(map(odd_text, self._rules)) or "NULL"
        deletes = " AND _hw_op <> 'd'" if self._schema.key else ""
        return f"(_hw_text IS NOT NULL AND _hw_op <> 't'{deletes} AND coalesce({texts}) IS NOT NULL)"

    @property
    def _wrong(self) -> str:
        """SQL of whether a row has one that was not given up."""
        mark = "_hw_seq" if self._schema.key else "_hw_text"
        return f"({self._bad} AND {mark} NOT IN (SELECT {mark} FROM _hw_given_up WHERE {mark} IS NOT NULL))"

    def _judge(self) -> bool:
        """Whether some row has to wait. Where none does, all of them go on."""
        bad, wrong = (
            self._rows(
                f"SELECT count(*) FILTER ({self._bad}), count(*) FILTER ({self._wrong}) FROM _hw_sent"
            )[0]
            if self._rules
            else (0, 0)
        )
        if wrong and self._policy == "fail":
            self._refuse()
        waits = bool(wrong) and self._policy == "quarantine"
        self.nulled = int(bad) - int(wrong) if waits else int(bad)
        self._run("CREATE TEMP VIEW _hw_raw AS SELECT * FROM _hw_sent")
        return waits

    def _pass_on(self) -> None:
        """Let the rows go on that do not wait."""
        self._run(
            "CREATE OR REPLACE TEMP VIEW _hw_raw AS SELECT s.* FROM _hw_sent AS s "
            "ANTI JOIN _hw_parked AS p ON s._hw_seq = p._hw_seq"
        )
        self.parked = self._ask(f"SELECT count(*) FROM _hw_parked WHERE _hw_seq > {self._after}")

    @property
    def _after(self) -> int:
        """What waits before this number is settled within the segment."""
        return -1 if self.settled is None or self._segment.snapshot else self.settled

    def _line_up(self, waiting: str | None) -> None:
        """The rows that wait under a key: from the first that does not fit to the next truncate.

        A row that came from another key by a change of key, and takes cells from there, waits with it.
        """
        parts = self._bench.parts
        wrong = self._wrong if self._policy == "quarantine" and self._rules else "FALSE"
        era = "0"
        if self.settled is not None:
            era = "count(*) FILTER (_hw_op = 't') OVER (ORDER BY _hw_seq ROWS UNBOUNDED PRECEDING)"
        self._run(
            f"CREATE TEMP TABLE _hw_places AS SELECT * FROM (SELECT {parts}, _hw_op, _hw_seq, "
            f"coalesce(len(_hw_unset), 0) > 0 AS lacks, {wrong} AS wrong, {era} AS era FROM _hw_sent) "
            "WHERE _hw_op <> 't'",
            f"CREATE TEMP TABLE _hw_from AS SELECT {parts}, era, min(_hw_seq) AS _hw_first "
            f"FROM _hw_places WHERE wrong GROUP BY {parts}, era",
        )
        if waiting is not None:
            quarantine = self._work.held["quarantine"]
            assert quarantine is not None
            cells = ", ".join(cast_from(quarantine.schema, key_schema(self._schema)))
            rows = f"SELECT {cells}, _hw_text FROM {waiting}"
            keys = f"SELECT DISTINCT {self._shape.named_parts} FROM ({rows})"
            self._run(f"INSERT INTO _hw_from SELECT {parts}, 0, -1 FROM ({keys})")
        moved = f"""
            INSERT INTO _hw_from
            SELECT {", ".join(f"c.{part}" for part in self._shape.parts)}, c.era, min(c._hw_seq)
            FROM _hw_places AS c
            JOIN _hw_places AS d ON d._hw_seq = c._hw_seq - 1 AND d._hw_op = 'd'
            SEMI JOIN _hw_from AS f
                ON {self._shape.same_key("d", "f")} AND d.era = f.era AND d._hw_seq >= f._hw_first
            ANTI JOIN _hw_from AS g
                ON {self._shape.same_key("c", "g")} AND c.era = g.era AND g._hw_first <= c._hw_seq
            WHERE c._hw_op = 'c' AND c.lacks
            GROUP BY ALL
        """
        while self._ask(moved):  # a chain of changes of key takes a step for each
            pass
        self._run(
            f"CREATE TEMP TABLE _hw_parked AS SELECT {parts}, _hw_seq FROM _hw_places AS p "
            f"SEMI JOIN _hw_from AS f ON {self._shape.same_key('p', 'f')} "
            "AND p.era = f.era AND p._hw_seq >= f._hw_first"
        )

    def _fill(self) -> None:
        """Without a key: new rows get the cells they lack from the old ones, which may not fit."""
        if self._ask("SELECT count(*) FROM _hw_sent WHERE _hw_op = 'c' AND len(_hw_unset) > 0"):
            self._run(
                "ALTER TABLE _hw_sent RENAME TO _hw_lacking"
                if self._kept
                else "ALTER VIEW _hw_sent RENAME TO _hw_lacking",
                f"CREATE TEMP TABLE _hw_sent AS {self._shape.keyless_filled()}",
            )

    @property
    def _kept(self) -> bool:
        found = "SELECT count(*) FROM duckdb_tables() WHERE table_name = '_hw_sent' AND temporary"
        return bool(self._ask(found))

    def _refuse(self) -> None:
        """Raise for the first row that does not fit."""
        texts = [f"({literal(name)}, {odd_text(name)})" for name in self._rules]
        key = [f"CAST({quote(name)} AS VARCHAR)" for name in self._schema.key]
        seq, entry, cells, *shown = self._rows(
            f"SELECT _hw_seq, _hw_entry, [{', '.join(texts)}], {', '.join([*key, 'NULL'])} FROM _hw_sent "
            f"WHERE {self._wrong} ORDER BY _hw_seq LIMIT 1"
        )[0]
        name, text = next((name, text) for name, text in cells if text is not None)
        value = repr(text) if len(text) <= 80 else f"{text[:80]!r}..."
        of = f" (key {', '.join('NULL' if k is None else str(k)[:80] for k in shown[:-1])})" if key else ""
        table, called = self._work.spec.table, self._called[name]
        raise CastFailed(
            f"{table}: {called} = {value} does not fit {self._rules[name]}{of}, "
            f"change {seq} of raw log entry {entry}",
            hint=f"mend the rule of {called} in `cast`, or choose on_cast_error: quarantine; or mend the row,"
            f" then: {read_again(table)}",
        )

    # What becomes of it.

    def change(self, pieces: Pieces, before: Held | None) -> Change | None:
        """The next version of the quarantine; None when it stays as it is. `before`: of the same making."""
        settled = self._settled_before(before)
        if not self.parked and not settled:
            return None
        layout, key = quarantine_layout(self._schema), key_schema(self._schema)
        cells = ", ".join([*(quote(c.name) for c in key.columns), *CARRIED, *OWN])
        kept: list[str] = []
        source = before or self._work.old.get("quarantine")
        anew = source is not None and (before is None or settled > 0 or changed_types(source.schema, key))
        if source is not None and anew:
            stays = "_hw_dropped" if before is None else f"_hw_dropped OR _hw_seq >= {self._stood}"
            old = ", ".join([*cast_from(source.schema, key), *CARRIED, *OWN])
            kept = [f"SELECT {old} FROM {self._work.lake.scan(source)} WHERE {stays}"]
        mark = before.mark.seq if before else -1
        if self.parked:
            kept.append(f"SELECT {cells} FROM ({self._waiting(pieces)}) WHERE _hw_entry > {mark}")
        add = self._bench.write(" UNION ALL ".join(kept), layout, ["_hw_seq"])
        drops = source.notes.get(DROPS) if source else None
        notes = {**self._work.making, **({DROPS: drops} if drops else {})}
        reached = Mark(self._segment.epoch, self._segment.last)
        return Change(reached, key, layout, add, replace=anew, notes=notes)

    @property
    def _stood(self) -> int:
        stands = standing(self._work.held)
        return int(stands.notes.get(SETTLED, -1)) if stands else -1

    def _settled_before(self, before: Held | None) -> int:
        """How many rows in the quarantine were settled, for good, before this segment."""
        if before is None or self._stood < 0:
            return 0
        scan = self._work.lake.scan(before)
        return self._ask(f"SELECT count(*) FROM {scan} WHERE NOT _hw_dropped AND _hw_seq < {self._stood}")

    def _waiting(self, pieces: Pieces) -> str:
        """SQL of the rows that wait, with the source's texts."""
        texts = []
        for schema, paths in pieces:
            called, held = {c.name: c.source_name for c in schema.columns}, held_types(schema)
            shown = [shown_text(name, held[name], beside=True) for name in called]
            files = ", ".join(map(literal, paths))
            texts.append(
                f"SELECT _hw_seq, coalesce({json_of([*called.values()], shown)}, '{{}}') AS _hw_row, "
                f"CASE WHEN len(_hw_unset) > 0 THEN CAST(to_json({_renamed(called)}) AS VARCHAR) END "
                f"AS _hw_left FROM read_parquet([{files}])"
            )
        flags = {
            odd_text(n): (literal(self._called[n]), literal(f"{self._called[n]}: {rule}"))
            for n, rule in self._rules.items()
        }
        names = [f"CASE WHEN {text} IS NOT NULL THEN {told} END" for text, (told, _) in flags.items()]
        rules = [f"CASE WHEN {text} IS NOT NULL THEN {told} END" for text, (_, told) in flags.items()]
        wrong = self._wrong if flags else "FALSE"
        return f"""
            SELECT s.*, r._hw_row, r._hw_left AS _hw_unset, FALSE AS _hw_dropped
            FROM (
                SELECT * EXCLUDE (_hw_unset), {_joined(names, wrong)} AS _hw_column,
                    {_joined(rules, wrong)} AS _hw_rule
                FROM _hw_sent SEMI JOIN _hw_parked USING (_hw_seq)
                WHERE _hw_seq > {self._after}
            ) AS s
            JOIN ({" UNION ALL ".join(texts)}) AS r USING (_hw_seq)
        """


def _joined(texts: Sequence[str], condition: str) -> str:
    """SQL of the texts that are not null, joined by a comma; NULL without the condition."""
    return f"CASE WHEN {condition} THEN concat_ws(', ', {', '.join(texts) or 'NULL'}) END"


def _renamed(called: Mapping[str, str]) -> str:
    """SQL of `_hw_unset` with the names that the source has for the columns."""
    cases = " ".join(f"WHEN {literal(n)} THEN {literal(said)}" for n, said in called.items() if n != said)
    return (
        f"list_transform(_hw_unset, lambda _hw_name: CASE _hw_name {cases} ELSE _hw_name END)"
        if cases
        else "_hw_unset"
    )


def _said(words: Mapping[str, object]) -> str:
    return json.dumps(words, ensure_ascii=False)
