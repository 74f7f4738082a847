"""Drawing stories from a seed: moves over few keys, so that they meet. A failure names the seed."""

from __future__ import annotations

import random

from oracle.story import VERBS, Deed, Move, Verb

KEYS = 5


def random_story(dice: random.Random, length: int = 10) -> list[Deed]:
    """A story in which every kind of deed and verb is likely: what is drawn too seldom is not tested."""
    return [_deed(dice) for _ in range(length)]


def random_cuts(dice: random.Random) -> list[bool]:
    """After which entries to fold."""
    return [dice.random() < 0.3 for _ in range(100)]


def random_stop(dice: random.Random) -> tuple[str, int]:
    """A place between two commits to stop at."""
    kind, side = dice.choice(["changes", "history", "mirror"]), dice.choice(["before", "after"])
    return f"{kind}.{side}", dice.randint(1, 2)


def _deed(dice: random.Random) -> Deed:
    kind = dice.choices(["commit", "resync", "cut off", "add column", "widen"], [12, 4, 1, 1, 1])[0]
    moves: list[Move] = []
    for _ in range(dice.randint(2, 8) if kind == "commit" else dice.randint(1, 4)):
        moves.append(_move(dice, moves[-1] if moves else None) if kind == "commit" else _unseen(dice))
    return Deed(kind, tuple(moves), dice.choice([1, 1, 60, 0, -30]), dice.random() < 0.5)  # type: ignore[arg-type]


def _move(dice: random.Random, before: Move | None) -> Move:
    if before and before.verb == "rekey" and dice.random() < 0.5:
        return Move("rekey", before.other, dice.randint(1, KEYS), dice.randint(0, 40), True)
    key, other = dice.randint(1, KEYS), dice.randint(1, KEYS)
    return Move(dice.choice(VERBS), key, other, dice.randint(0, 40), dice.random() < 0.6)


def _unseen(dice: random.Random) -> Move:
    verb: Verb = dice.choices(["insert", "touch", "delete", "truncate"], [8, 6, 8, 1])[0]  # type: ignore[assignment]
    return Move(verb, dice.randint(1, KEYS), 1, dice.randint(0, 40), False)
