"""numeric in binary: digits of 10,000 each, put together to the 128-bit number of Arrow's decimal.

Format: numeric_send in src/backend/utils/adt/numeric.c; number of digits, weight of the first one, sign and
scale, 16 bits each, then the digits, 16 bits each.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from headwater.sources.postgres.cells import Bytes, Cells, Ints, Mask, records

_PLUS, _MINUS = 0x0000, 0x4000
#: NaN, Infinity and -Infinity, in this order.
_SPECIAL = (0xC000, 0xD000, 0xF000)
#: Digits in a limb, limbs in a number: 38 decimals and the 3 that fill up the last digit.
_IN_LIMB, _LIMBS = 4, 3
_POWERS = 10_000 ** np.arange(_IN_LIMB)
#: Of a word of four digits: those there are, by their number; the bits behind place 0, by the first one's.
_KEPT = np.array([2**64 - 2 ** (64 - 16 * count) for count in range(_IN_LIMB + 1)], np.uint64)
_BELOW = np.array([16 * (_IN_LIMB - 1 - place) for place in range(_IN_LIMB)], np.uint64)
_EVERY_OTHER, _TEN_THOUSAND = np.uint64(0x0000_FFFF_0000_FFFF), np.uint64(10_000)
_16, _DIGIT = np.uint32(16), np.uint32(0xFFFF)
_LOW = np.uint64(0xFFFF_FFFF)
_32 = np.uint64(32)


def read_decimals(cells: Cells, precision: int, scale: int) -> tuple[Bytes, Bytes, Mask]:
    """The cells as little-endian 128-bit numbers, shape (n, 16); which are special, and which are no value.

    Special is 0, or 1, 2, 3 for NaN, Infinity, -Infinity. Numbers are arbitrary where there is no value, or a
    special one. A value with another scale, or more digits than `precision`, is none.
    """
    plain = _read_plain(cells, precision, scale)
    if plain is not None:
        return plain, np.zeros(len(plain), np.uint8), np.zeros(len(plain), bool)
    view = np.ndarray((len(cells.data) - 1,), ">u2", cells.data, 0, (1,))
    at, valid = cells.starts, cells.has_value()
    head = np.ndarray((len(cells.data) - 7,), np.dtype((np.void, 8)), cells.data, 0, (1,))[at]
    count, weight, sign, dscale = head.view(">u2").reshape(-1, 4).T.astype(np.int64)
    weight = (weight + 0x8000) % 0x10000 - 0x8000
    special = np.zeros(len(at), np.uint8)
    if (sign > _MINUS).any():
        for code, word in enumerate(_SPECIAL, 1):
            special[sign == word] = code
    bad = cells.lengths != 8 + 2 * count
    bad |= ~(((sign == _PLUS) | (sign == _MINUS)) & (dscale == scale)) & (special == 0)
    bad |= (special > 0) & (count > 0)
    usable = valid & ~bad & (special == 0)
    pad = -scale % 4
    # With `pad` zeros behind them numbers are whole ones in digits of 10,000; `place` is the first one's.
    count, place = np.where(usable, count, 0), weight + (scale + pad) // 4
    limbs, wrong = _sum_digits(view, at, count, place)
    if pad:
        wrong |= limbs[0] % 10**pad != 0
    wrong |= _too_long(limbs, precision + pad)
    return _pack(limbs, pad, (sign == _MINUS) & usable, precision), special, bad | (wrong & usable)


def _read_plain(cells: Cells, precision: int, scale: int) -> Bytes | None:
    """The same for numbers of one limb, which most columns hold alone; None if any asks for more care."""
    valid = cells.has_value()
    if valid.all():
        return _read_limbs(cells, precision, scale) if len(valid) else None
    held = _read_plain(cells.pick(valid), precision, scale)
    if held is None:
        return None
    numbers = np.zeros((len(valid), 16), np.uint8)
    numbers[valid] = held
    return numbers


def _read_limbs(cells: Cells, precision: int, scale: int) -> Bytes | None:
    pad = -scale % 4
    cell = records(cells.data, cells.starts, 16)
    head, sign = np.ndarray((2, len(cell)), ">u4", cell, 0, (4, 16)).astype(np.uint32)
    count, place = head >> _16, (head + np.uint32((scale + pad) // 4)) & _DIGIT
    careful = (sign & ~np.uint32(_MINUS << 16)) != scale
    careful |= cells.lengths != 8 + 2 * count.astype(np.int64)
    # A last digit behind place 0 needs care too: the shift below would drop it.
    careful |= (count > place + 1) | (place >= _IN_LIMB)
    if careful.any():
        return None
    digits = np.ndarray((len(cell),), ">u8", cell, 8, (16,)).astype(np.uint64)
    # 16 bits for each digit: none behind the last one, and that of place 0 lowest.
    digits = (digits & _KEPT[count]) >> _BELOW[place]
    pairs = (digits >> np.uint64(16) & _EVERY_OTHER) * _TEN_THOUSAND + (digits & _EVERY_OTHER)
    limb = ((pairs >> _32) * _TEN_THOUSAND**2 + (pairs & _LOW)).view(np.int64)
    number = limb // 10**pad
    wrong = digits.view(np.uint16).max() > 9999 or int(number.max()) >= 10**precision
    if wrong or (pad and (number * 10**pad != limb).any()):
        return None
    return _widen(number, sign > _DIGIT)


def _widen(number: npt.NDArray[np.int64], negative: Mask) -> Bytes:
    """Numbers and their signs in two's complement of 128 bits."""
    both = np.empty((len(number), 2), np.int64)
    both[:, 0] = number
    np.negative(number, out=both[:, 0], where=negative)
    np.right_shift(both[:, 0], 63, out=both[:, 1])
    return both.view(np.uint8)


def _sum_digits(
    view: npt.NDArray[np.uint16], at: Ints, count: Ints, place: Ints
) -> tuple[npt.NDArray[np.int64], Mask]:
    """Limbs of 10**16, the lowest first, of numbers whose first digit has this place; which do not fit."""
    rows = len(at)
    limbs = np.zeros((_LIMBS, rows), np.int64)
    wrong = np.zeros(rows, bool)
    which = np.flatnonzero(count)
    k = 0
    while len(which):
        digit = view[at[which] + (8 + 2 * k)].astype(np.int64)
        here = place[which] - k
        outside = (here < 0) | (here >= _IN_LIMB * _LIMBS)
        unfit = (digit >= 10_000) | (outside & (digit != 0))
        if unfit.any():
            wrong[which[unfit]] = True
        if outside.any() or unfit.any():
            digit[outside | unfit] = 0
            here = here.clip(0, _IN_LIMB * _LIMBS - 1)
        limbs.reshape(-1)[(here >> 2) * rows + which] += digit * _POWERS[here & 3]
        k += 1
        which = which[count[which] > k]
    return limbs, wrong


def _too_long(limbs: npt.NDArray[np.int64], digits: int) -> Mask:
    """Which have more decimal digits."""
    top = digits // 16
    too_long: Mask = limbs[top] >= 10 ** (digits - 16 * top)
    for limb in limbs[top + 1 :]:
        too_long |= limb != 0
    return too_long


def _pack(limbs: npt.NDArray[np.int64], pad: int, negative: Mask, precision: int) -> Bytes:
    """limbs / 10**pad, in two's complement."""
    low = limbs[0] // 10**pad if pad else limbs[0]
    if precision <= 18:
        return _widen(limbs[1] * 10 ** (16 - pad) + low, negative)
    words = [np.zeros(len(low), np.uint64) for _ in range(4)]
    for limb, factors in ((limbs[2], ()), (limbs[1], (10**8, 10**8)), (low, (10**8, 10 ** (8 - pad)))):
        for factor in factors:
            _multiply(words, np.uint64(factor))
        _add(words, limb.astype(np.uint64))
    return _signed(words, negative)


def _multiply(words: list[npt.NDArray[np.uint64]], factor: np.uint64) -> None:
    """Numbers of four 32-bit words, the lowest first, times a number below 2**32."""
    carry = np.zeros_like(words[0])
    for k, word in enumerate(words):
        product = word * factor + carry
        words[k], carry = product & _LOW, product >> _32


def _add(words: list[npt.NDArray[np.uint64]], more: npt.NDArray[np.uint64]) -> None:
    carry = more
    for k, word in enumerate(words):
        total = word + (carry & _LOW)
        words[k], carry = total & _LOW, (carry >> _32) + (total >> _32)


def _signed(words: list[npt.NDArray[np.uint64]], negative: Mask) -> Bytes:
    low, high = words[0] | words[1] << _32, words[2] | words[3] << _32
    flipped_low = ~low + np.uint64(1)
    flipped_high = ~high + (flipped_low == 0)
    both = np.stack((np.where(negative, flipped_low, low), np.where(negative, flipped_high, high)), axis=1)
    return both.view(np.uint8).reshape(-1, 16)
