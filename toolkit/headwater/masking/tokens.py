"""Tokens: texts that look like the ones they stand for, one for each, by a keyed permutation.

Every character that may carry meaning is replaced by one of its class: ASCII digits, small and capital
letters by their like, all other letters, marks and numbers by one of the same general category of
Unicode 3.2 (which Python keeps frozen, so that tokens are the same under every version of it). All else, such
as `@`, `-` and blanks, stays, and so do the length and the place of everything.

The characters of one text are a number with one digit for each place; a Feistel network over SHA-256, keyed
by HMAC, permutes the numbers of one shape. So two texts never share a token. Texts of a few characters have
few tokens: who knows how often which value occurs can guess them. Use `hash` where no shape is needed.
"""

from __future__ import annotations

import hmac
from functools import cache, lru_cache
from hashlib import sha256, shake_256
from string import ascii_lowercase, ascii_uppercase, digits
from unicodedata import ucd_3_2_0

_ROUNDS = 8
#: Longer texts are permuted in pieces, each with a tweak from all before it: numbers stay small.
_PIECE = 64

_ASCII = {c: kind for kind in (digits, ascii_lowercase, ascii_uppercase) for c in kind}
_INDEX = {c: n for kind in (digits, ascii_lowercase, ascii_uppercase) for n, c in enumerate(kind)}
_OTHERS = frozenset({"Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Co", "Cn"})
_SURROGATES = range(0xD800, 0xE000)


def make_token(text: str | None, key: bytes) -> str | None:
    """The token of a text; None stays None."""
    if text is None:
        return None
    done: list[str] = []
    for start in range(0, len(text), _PIECE):
        done.append(_permute(text[start : start + _PIECE], text[:start], key))
    return "".join(done)


def _permute(piece: str, before: str, key: bytes) -> str:
    alphabets = [_ASCII.get(c) or _alphabet(c) for c in piece]
    places = [n for n, alphabet in enumerate(alphabets) if alphabet]
    if not places:
        return piece
    # What stays as it is, and what came before, choose the permutation.
    shape = "".join(a[0] if a else "\0" + c for a, c in zip(alphabets, piece, strict=True))
    tweak = hmac.digest(key, f"{len(before)}:{before}{shape}".encode("utf-8", "surrogatepass"), "sha256")
    half = (len(places) + 1) // 2
    left, right = places[:half], places[half:]
    a, size_a = _number(piece, alphabets, left)
    b, size_b = _number(piece, alphabets, right)
    for step in range(0, _ROUNDS, 2):
        a = (a + _noise(tweak, step, b, size_a)) % size_a
        b = (b + _noise(tweak, step + 1, a, size_b)) % size_b
    letters = list(piece)
    _spell(letters, alphabets, left, a)
    _spell(letters, alphabets, right, b)
    return "".join(letters)


def _noise(tweak: bytes, step: int, number: int, size: int) -> int:
    """A number below `size` that looks random; as good as even, by 64 bits or more than it needs.

    The tweak is secret and of one length, so that a plain hash behind it is as good as a keyed one.
    """
    if size == 1:
        return 0
    seed = sha256(b"%b%d:%x" % (tweak, step, number)).digest()
    width = size.bit_length() // 8 + 9
    return int.from_bytes(seed if width <= 32 else shake_256(seed).digest(width)) % size


def _number(text: str, alphabets: list[str], places: list[int]) -> tuple[int, int]:
    """The characters at these places as one number, and how many numbers there are."""
    number, size = 0, 1
    for place in places:
        alphabet = alphabets[place]
        digit = _INDEX.get(text[place])
        number = number * len(alphabet) + (_index(alphabet)[text[place]] if digit is None else digit)
        size *= len(alphabet)
    return number, size


def _spell(letters: list[str], alphabets: list[str], places: list[int], number: int) -> None:
    for place in reversed(places):
        number, digit = divmod(number, len(alphabets[place]))
        letters[place] = alphabets[place][digit]


@lru_cache(maxsize=65536)
def _alphabet(character: str) -> str:
    """The characters that may take the place of one beyond ASCII, in order; "" when it stays."""
    return "" if character.isascii() else _category(ucd_3_2_0.category(character))


@cache
def _category(name: str) -> str:
    if name not in _OTHERS:
        return ""
    points = (p for p in range(0x80, 0x110000) if p not in _SURROGATES)
    return "".join(c for c in map(chr, points) if ucd_3_2_0.category(c) == name)


@cache
def _index(alphabet: str) -> dict[str, int]:
    return {character: n for n, character in enumerate(alphabet)}
