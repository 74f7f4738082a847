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
from oracle.test_fold import play

pytestmark = pytest.mark.slow

#: A mutant must be caught within this many stories.
BUDGET = 8


@dataclass(frozen=True)
class Mutant:
    name: str
    old: str
    new: str
    stop: tuple[str, int] | None = None  # it shows only after a stop here


MUTANTS = [
    Mutant("order by time", "PARTITION BY _hw_k0 ORDER BY _hw_seq)", "PARTITION BY _hw_k0 ORDER BY _hw_at, _hw_seq)"),
    Mutant("no order inside a commit", "PARTITION BY _hw_k0 ORDER BY _hw_seq)", "PARTITION BY _hw_k0 ORDER BY _hw_at)"),
    Mutant("unset is NULL", "NOT list_contains(coalesce(_hw_unset, []),", "TRUE OR list_contains(coalesce(_hw_unset, []),"),
    Mutant("unset comes from the mirror only", "ORDER BY _hw_seq ROWS UNBOUNDED PRECEDING)\n)", "ORDER BY NOT _hw_held, -_hw_seq ROWS UNBOUNDED PRECEDING)\n)"),
    Mutant("a new key forgets the old row", "coalesce(origins._hw_origin, lives._hw_life)", "lives._hw_life"),
    Mutant("chains of keys are one link long", "JOIN origins AS o ON l._hw_from = o._hw_to", "JOIN origins AS o ON FALSE"),
    Mutant("a new key leaves the old one", "WHERE _hw_op <> 't'\n", "WHERE _hw_op <> 't' AND _hw_seq % 4 <> 1\n"),
    Mutant("odd text stays behind", "struct_extract(\"price\", 't')", "json_extract_string(_hw_text, '/price')"),
    Mutant("truncate is ignored", "FROM _hw_raw WHERE _hw_op = 't'\n", "FROM _hw_raw WHERE FALSE\n"),
    Mutant("truncate misses rows of the batch", "WHERE s._hw_op <> 'd' AND", "WHERE s._hw_op = 'r' AND"),
    Mutant("truncate kills rows that were dead", "WHERE s._hw_op <> 'd' AND", "WHERE"),
    Mutant("a snapshot's equal rows are versions", "WHERE b._hw_seq IS NULL OR", "WHERE TRUE OR"),
    Mutant("a snapshot's changed rows are none", "WHERE b._hw_seq IS NULL OR (", "WHERE b._hw_seq IS NULL AND ("),
    Mutant("a snapshot deletes nothing", "ANTI JOIN _hw_raw AS n ON", "SEMI JOIN (SELECT * FROM _hw_raw WHERE FALSE) AS n ON"),
    Mutant("a snapshot overlooks odd text", " OR n._hw_text IS DISTINCT FROM b._hw_text", ""),
    Mutant("closed by the last change", "ORDER BY _hw_seq) = 1", "ORDER BY _hw_seq DESC) = 1"),
    Mutant("deletes do not close", "FROM _hw_versions\n    WHERE _hw_entry >", "FROM _hw_versions\n    WHERE _hw_op <> 'd' AND _hw_entry >"),
    Mutant("closed versions of the batch are lost", "AND _hw_op <> 'd' AND _hw_seq_to IS NOT NULL", "AND FALSE"),
    Mutant("deletes live on", "_hw_op <> 'd' AND _hw_seq_to IS NULL AS _hw_live", "_hw_seq_to IS NULL AS _hw_live"),
    Mutant("the mirror keeps what was replaced", "ANTI JOIN _hw_gone AS k ON", "ANTI JOIN (SELECT * FROM _hw_gone WHERE FALSE) AS k ON"),
    Mutant("open rows stay open", "ANTI JOIN _hw_ended AS k ON", "ANTI JOIN (SELECT * FROM _hw_ended WHERE FALSE) AS k ON"),
    Mutant("no dedup after a stop", "_hw_entry > ", "_hw_entry + 1000 > ", ("history.before", 1)),
]  # fmt: skip


class Planted:
    """A connection that swaps a piece of every statement."""

    def __init__(self, con: Any, mutant: Mutant) -> None:
        self._con, self._mutant, self.hits = con, mutant, 0

    def execute(self, query: str, *args: object) -> Any:
        self.hits += self._mutant.old in query
        return self._con.execute(query.replace(self._mutant.old, self._mutant.new), *args)

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
        world = worlds()
        try:
            play(world, told, [False, True, False, False, True] * 9, mutant.stop)
            check(told, read_lake(world))
        except (AssertionError, HeadwaterError, StopIteration):
            assert any(p.hits for p in planted)
            return
    pytest.fail(f"survived {BUDGET} stories, planted {sum(p.hits for p in planted)} times")
