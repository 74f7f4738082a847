# ruff: noqa: E501  one fault, one line
"""The test of the tests: each of these faults, planted into the SQL, is caught."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from headwater.errors import HeadwaterError
from headwater.lake.delta import Lake
from oracle.checks import check, read_lake
from oracle.conftest import Worlds
from oracle.stories import random_story
from oracle.story import tell
from oracle.test_fold import long_tails, play

pytestmark = pytest.mark.slow

#: A mutant must be caught within this many stories.
BUDGET = 8


@dataclass(frozen=True)
class Mutant:
    name: str
    old: str
    new: str


MUTANTS = [
    Mutant("order by time", "PARTITION BY _hw_k0 ORDER BY _hw_seq)", "PARTITION BY _hw_k0 ORDER BY _hw_at, _hw_seq)"),
    Mutant("no order inside a commit", "PARTITION BY _hw_k0 ORDER BY _hw_seq)", "PARTITION BY _hw_k0 ORDER BY _hw_at)"),
    Mutant("unset is NULL", "NOT list_contains(coalesce(_hw_unset, []),", "TRUE OR list_contains(coalesce(_hw_unset, []),"),
    Mutant("unset comes from the mirror only", "ORDER BY _hw_seq ROWS UNBOUNDED PRECEDING)\n)", "ORDER BY NOT _hw_held, -_hw_seq ROWS UNBOUNDED PRECEDING)\n)"),
    Mutant("a new key forgets the old row", "coalesce(origins._hw_origin, lives._hw_life)", "lives._hw_life"),
    Mutant("chains of keys are one link long", "JOIN origins AS o ON l._hw_from = o._hw_to", "JOIN origins AS o ON FALSE"),
    Mutant("a new key leaves the old one", "WHERE _hw_op <> 't'\n    UNION", "WHERE _hw_op <> 't' AND _hw_seq % 4 <> 1\n    UNION"),
    Mutant("odd text stays behind", "struct_extract(\"price\", 't')", "json_extract_string(_hw_text, '/price')"),
    Mutant("truncate is ignored", "FROM _hw_raw WHERE _hw_op = 't'\n", "FROM _hw_raw WHERE FALSE\n"),
    Mutant("truncate misses rows of the batch", "WHERE s._hw_op <> 'd' AND", "WHERE s._hw_op = 'r' AND"),
    Mutant("truncate kills rows that were dead", "WHERE s._hw_op <> 'd' AND", "WHERE"),
    Mutant("a snapshot's equal rows are versions", "WHERE b._hw_seq IS NULL OR", "WHERE TRUE OR"),
    Mutant("a snapshot's changed rows are none", "WHERE b._hw_seq IS NULL OR (", "WHERE b._hw_seq IS NULL AND ("),
    Mutant("a snapshot deletes nothing", "ANTI JOIN _hw_raw AS n ON", "SEMI JOIN (SELECT * FROM _hw_raw WHERE FALSE) AS n ON"),
    Mutant("a snapshot overlooks odd text", " OR n._hw_text IS DISTINCT FROM b._hw_text", ""),
    Mutant("closed by the last change", "row_number() OVER one_key AS _hw_nth", "1 + count(*) OVER (PARTITION BY _hw_k0) - row_number() OVER one_key AS _hw_nth"),
    Mutant("deletes do not close", "WHERE _hw_nth = 1) AS n ON", "WHERE _hw_nth = 1 AND _hw_op <> 'd') AS n ON"),
    Mutant("closed versions of the tail are lost", "WHERE _hw_op <> 'd' AND _hw_seq_to IS NOT NULL", "WHERE FALSE"),
    Mutant("deletes live on in files", "WHERE _hw_seq_to IS NULL AND _hw_op <> 'd'", "WHERE _hw_op <> 'd'"),
    Mutant("the mirror keeps what was replaced", "ANTI JOIN _hw_keys AS k ON", "ANTI JOIN (SELECT * FROM _hw_keys WHERE FALSE) AS k ON"),
    Mutant("a compaction begins too late", "_hw_seq > ", "_hw_seq > 4 + "),
    Mutant("the tail does not hide the base", "ANTI JOIN _hw_newest AS n ON", "ANTI JOIN (SELECT * FROM _hw_newest WHERE FALSE) AS n ON"),
    Mutant("the oldest of the tail is read", "max(_hw_seq) AS _hw_last", "min(_hw_seq) AS _hw_last"),
    Mutant("a deleted row of the tail is read", "SEMI JOIN _hw_newest AS n ON t._hw_seq = n._hw_last", "SEMI JOIN _hw_newest AS n ON t._hw_seq <= n._hw_last"),
    Mutant("the tail closes nothing", "LEFT JOIN (SELECT * FROM _hw_order WHERE _hw_nth = 1)", "LEFT JOIN (SELECT * FROM _hw_order WHERE FALSE)"),
    Mutant("cells come from under the tail", "SELECT CASE _hw_op WHEN 'c' THEN _hw_seq - 1 ELSE _hw_seq END AS _hw_seq", "SELECT _hw_seq - 1 AS _hw_seq"),
]  # fmt: skip


class Planted:
    """A connection that swaps a piece of every statement."""

    def __init__(self, con: Any, mutant: Mutant) -> None:
        self._con, self._mutant, self.hits = con, mutant, 0
        self.within: Planted | None = None

    def cursor(self) -> Planted:
        made = Planted(self._con.cursor(), self._mutant)
        made.within = self.within or self
        return made

    def execute(self, query: str, *args: object) -> Any:
        (self.within or self).hits += self._mutant.old in query
        return self._con.execute(query.replace(self._mutant.old, self._mutant.new), *args)

    def sql(self, query: str) -> Any:
        (self.within or self).hits += self._mutant.old in query
        return self._con.sql(query.replace(self._mutant.old, self._mutant.new))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._con, name)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_a_planted_fault_is_caught(worlds: Worlds, monkeypatch: pytest.MonkeyPatch, mutant: Mutant) -> None:
    connect, planted = Lake.connect, []

    @contextmanager
    def faulty(lake: Lake, memory_limit: str = "") -> Iterator[Any]:
        with connect(lake, memory_limit) as con:
            planted.append(Planted(con, mutant))
            yield planted[-1]

    monkeypatch.setattr(Lake, "connect", faulty)
    for seed in range(BUDGET):
        told = tell(random_story(random.Random(seed)))
        small, large = worlds(), worlds()
        cuts = [False, True, False, False, True] * 9
        try:
            play(small, told, cuts)
            check(told, read_lake(small))
            with long_tails():
                play(large, told, cuts)
                check(told, read_lake(large))
        except (AssertionError, HeadwaterError, StopIteration):
            assert any(p.hits for p in planted)
            return
    pytest.fail(f"survived {BUDGET} stories, planted {sum(p.hits for p in planted)} times")
