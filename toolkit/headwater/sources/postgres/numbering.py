"""Which columns a RELATION message speaks of: it names them in the order of their numbers, without these.

A column keeps its number for life, no number is given twice, and a message lists what lived at its time. So
the columns known before and those of the catalogue frame it: the cheapest way to lay the message's names over
the numbers between is taken. It cannot tell a column from one that was dropped and made again alike: then the
one of today counts, and the table is read again (`is_unsure`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

_IMPOSSIBLE = 100.0


@dataclass(frozen=True, slots=True)
class Look:
    """What a column was called, and its type as SQL spells it."""

    name: str
    type: str


def number_columns(
    told: Sequence[Look], before: Mapping[int, Look], now: Mapping[int, Look], last: int
) -> list[int]:
    """The number of each column of a message; `last` is the highest that the table ever gave."""
    if list(now.values()) == list(told):
        return list(now)
    known = max(before, default=0)
    numbers = [n for n in range(1, last + 1) if n > known or n in before]

    @cache
    def lay(at: int, place: int) -> tuple[float, tuple[int, ...]]:
        """The cheapest way to lay what is told from `at` on over the numbers from `place` on."""
        if place == len(numbers):
            return (_IMPOSSIBLE * (len(told) - at), ())
        number = numbers[place]
        cost, rest = lay(at, place + 1)
        skipped = cost + _skip(number, before, now, ended=at == len(told)), rest
        if at == len(told):
            return skipped
        cost, rest = lay(at + 1, place + 1)
        taken = cost + _match(told[at], before.get(number), now.get(number)), (number, *rest)
        return min(taken, skipped, key=lambda way: way[0])

    # From behind, so that wide tables do not go deep.
    for place in range(len(numbers), -1, -1):
        for at in range(len(told), -1, -1):
            lay(at, place)
    found = list(lay(0, 0)[1])
    return found if len(found) == len(told) else [0] * len(told)


def is_unsure(
    told: Sequence[Look], numbers: Sequence[int], before: Mapping[int, Look], now: Collection[int], last: int
) -> bool:
    """Whether rows under a message may be of columns that looked the same and are gone since."""
    if not before:
        return False
    if list(before.values()) == list(told) and list(before) != list(numbers):
        return True
    passed = any(n not in now for n in range(max(before) + 1, last + 1))
    return passed and any(n not in before for n in numbers)


def _skip(number: int, before: Mapping[int, Look], now: Mapping[int, Look], *, ended: bool) -> float:
    """What it takes to believe that a column did not live yet, or no more."""
    if number in before:
        return 10.0 if number in now else 1.0
    if number in now:
        return 0.0 if ended else 10.0
    return 0.0 if ended else 0.5


def _match(told: Look, *looks: Look | None) -> float:
    """What it takes to believe that a column was once called so."""
    known = [look for look in looks if look is not None]
    if not known:
        return 1.5
    name = 0.0 if told.name in {look.name for look in known} else 2.0
    return name + (0.0 if told.type in {look.type for look in known} else 1.0)
