"""Discrete Gaussian noise: whole numbers x with probability proportional to exp(-x² / 2V), exactly.

How a number is drawn, with W the power of two next below √V / 8, at least 1:

1. z >= 0 with probability proportional to exp(-(zW)² / 2V), by inversion of its cumulative distribution;
2. u uniform in [0, W), which takes no arithmetic as W is a power of two;
3. zW + u is kept with probability exp(-(2zWu + u²) / 2V), more than 0.9 on average: what is kept has |x|'s density;
4. a random sign; the negative zero is thrown away, or zero would come twice as often.

Steps 1 to 4 are those of BLISS (Ducas, Durmus, Lepoint and Lyubashevsky 2013, eprint 2013/383), whose coarse part has a
fixed shape where ours is any; comparing lazily, so that nothing is rounded, is as in Karney 2016 (arXiv 1303.6257). The
distribution, and why noise must not be drawn in floating point: Canonne, Kamath and Steinke 2020 (arXiv 2004.00010).

What is exact: everything. A decision compares a uniform real, of which 32 bits are drawn, with a real number known to
lie between two multiples of 2^-32. Where those bits do not decide, more bits are drawn and the number is enclosed
more tightly, until they do; so no probability is rounded, and the tails have no end. It happens once in some
million draws. Samples never meet floating point, whose gaps made textbook samplers leak (Mironov 2012).

Cost: 12 bytes of keystream a trial and a fixed number of passes over cached blocks, whatever V is; the tables take
some milliseconds for each new V. Time is not constant: it depends a little on what was thrown away, and a caller
whose adversary can time single calls to the microsecond should know that.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from decimal import MAX_EMAX, MIN_EMIN, ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction
from functools import lru_cache
from itertools import count
from math import isqrt
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

# Below, nearly every sample is 0 and nobody means to hide anything; above, products in int64 would need another proof.
SMALLEST_VARIANCE: Final = Fraction(1, 2**16)
LARGEST_VARIANCE: Final = Fraction(2**48)

_KEY_BYTES: Final = 32

# Words and intermediates of one block fit a core's second-level cache.
_BLOCK: Final = 2**14

# Bits of a uniform real that are drawn at first, and then each time they do not decide.
_BITS: Final = 32
_MORE_BITS: Final = 64

# The first 16 of those bits name z, except in cells of the line that a boundary between two z's runs through.
_CELL_BITS: Final = 16
_UNSURE: Final = 255

# Exponents are held in units of 2^-31; their first 11 bits look up a table, the other 20 are a first-order term.
_EXPONENT_BITS: Final = 31
_STEP_BITS: Final = 20

# Reciprocals of 2V carry this many bits beyond an exponent's; with exponents below 1 products stay below 2^62.
_RECIPROCAL_BITS: Final = 31

# More than `_exponential` is ever off.
_MARGIN: Final = Decimal("1e-9")


def discrete_gaussian(
    variance: Fraction | int, size: int, words: Callable[[int], bytes] = os.urandom
) -> NDArray[np.int64]:
    """Independent samples of the discrete Gaussian of mean 0 and parameter σ² = `variance`.

    Its variance is at most `variance`, and as good as equal to it from 1 upwards (Canonne et al. 2020, §2).

    Args:
        variance: from 2^-16 to 2^48, an exact number; public, for tables are kept for it.
        size: how many samples.
        words: draws that many random bytes; it is asked for one 32-byte key. Anything but the default is for
            simulations and tests, which must be repeatable.

    Returns:
        (size,) whole numbers.
    """
    if not isinstance(variance, (int, Fraction)) or not SMALLEST_VARIANCE <= variance <= LARGEST_VARIANCE:
        raise ValueError(f"A discrete Gaussian's variance is a whole number or fraction in [2^-16, 2^48]: {variance}.")
    if size < 0:
        raise ValueError(f"Nobody draws {size} samples.")
    sampler = _Sampler(_tables(Fraction(variance)), words(_KEY_BYTES))
    samples = np.empty(size, np.int64)
    filled = 0
    while filled < size:
        # A quarter more than is missing, as some are thrown away; too few only means another turn.
        drawn = sampler.draw(min(_BLOCK, (size - filled) * 5 // 4 + 16))[: size - filled]
        samples[filled : filled + len(drawn)] = drawn
        filled += len(drawn)
    return samples


@dataclass(frozen=True, slots=True, eq=False)
class _Tables:
    """What drawing with one variance needs; all of it public.

    Attributes:
        variance: V.
        width: W.
        cells: (2^16,) uint8: z for words that begin with these 16 bits, or `_UNSURE`.
        at_least, below: (zs,) int64: a 32-bit word surely means more than z if it is >= at_least[z], and surely
            no more than z if it is < below[z].
        dropped_bits: lowest bits of 2zWu + u² that the fast test of step 3 leaves out.
        reciprocal: 2^(62 + dropped_bits) / 2V, rounded down; 0 where W is 1 and every exponent is 0.
        exponentials: (2^11,) int64: 2^32 exp(-i / 2^11), rounded down.
        doubt: the fast test's fixed-point probability is less than this off, in units of 2^-32.
    """

    variance: Fraction
    width: int
    cells: NDArray[np.uint8]
    at_least: NDArray[np.int64]
    below: NDArray[np.int64]
    dropped_bits: int
    reciprocal: int
    exponentials: NDArray[np.int64]
    doubt: int


class _Sampler:
    """Draws blocks of samples from the keystream of one key."""

    def __init__(self, tables: _Tables, key: bytes) -> None:
        self._tables = tables
        self._stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
        self._zeros = bytes(12 * _BLOCK)
        self._words = np.empty(3 * _BLOCK, np.dtype("<u4"))
        self._buffers = np.empty((4, _BLOCK), np.int64)
        self._bytes = np.empty(_BLOCK, np.uint8)

    def draw(self, trials: int) -> NDArray[np.int64]:
        """Samples of so many trials, at most `_BLOCK`: fewer than `trials`, by chance."""
        tables = self._tables
        words = self._words[: 3 * trials]
        self._stream.update_into(self._zeros[: 12 * trials], words.view(np.uint8).data)
        coarse, fine, chance = words.reshape(3, trials)
        start, low, product, scratch = self._buffers[:, :trials]

        far = self._invert(coarse, start)
        start *= tables.width
        np.bitwise_and(fine, np.uint32(tables.width - 1), out=low)

        # 2zWu + u².
        np.add(start, start, out=product)
        product += low
        product *= low
        start += low
        kept = self._accept(product, chance, scratch, far)

        # 1 where negative; with it, zero is thrown away.
        sign = np.right_shift(fine, np.uint32(31), out=low)
        kept &= start >= sign
        np.negative(sign, out=sign)
        start ^= sign
        start -= sign
        samples: NDArray[np.int64] = start[kept]
        return samples

    def _invert(self, coarse: NDArray[np.uint32], z: NDArray[np.int64]) -> list[int]:
        """Step 1: write the z that each uniform real means, by its first 32 bits where these suffice.

        Returns the indices where they did not: the z there may be larger than the fast test of step 3 is made for.
        """
        tables = self._tables
        np.right_shift(coarse, np.uint32(_BITS - _CELL_BITS), out=z)
        # `clip` spares the take a copy; the indices are in range.
        looked_up = np.take(tables.cells, z, out=self._bytes[: len(z)], mode="clip")
        z[:] = looked_up
        unsure = np.flatnonzero(looked_up == _UNSURE)
        rest = coarse[unsure].astype(np.int64)
        found = np.searchsorted(tables.at_least, rest, side="right")
        z[unsure] = found
        undecided: list[int] = unsure[rest >= tables.below[found]].tolist()
        for index in undecided:
            z[index] = self._invert_exactly(int(coarse[index]))
        return undecided

    def _accept(
        self, product: NDArray[np.int64], chance: NDArray[np.uint32], scratch: NDArray[np.int64], far: list[int]
    ) -> NDArray[np.bool_]:
        """Step 3: True with probability exp(-product / 2V), by 32 bits of chance where these suffice and not `far`."""
        # How far the word lies under the probability: by more than `doubt`, either way, is sure.
        margin = self._probability(product, scratch)
        margin -= chance
        kept = margin > self._tables.doubt
        np.abs(margin, out=margin)
        for index in [*np.flatnonzero(margin <= self._tables.doubt).tolist(), *far]:
            kept[index] = self._accept_exactly(int(product[index]), int(chance[index]))
        return kept

    def _probability(self, product: NDArray[np.int64], scratch: NDArray[np.int64]) -> NDArray[np.int64]:
        """2^32 exp(-product / 2V), less than `doubt` off; see `_tables`."""
        tables = self._tables
        exponent = np.right_shift(product, tables.dropped_bits, out=scratch)
        exponent *= tables.reciprocal
        exponent >>= _RECIPROCAL_BITS
        step = exponent >> _STEP_BITS
        exponent &= 2**_STEP_BITS - 1
        probability = np.take(tables.exponentials, step, mode="clip")
        exponent *= probability
        exponent >>= _EXPONENT_BITS
        probability -= exponent
        return probability

    def _invert_exactly(self, word: int) -> int:
        """Step 1 for a uniform real that begins with these 32 bits, with as many more as it takes."""
        tables = self._tables
        for bits in count(_BITS, _MORE_BITS):
            z = 0
            enclosures = _cumulative(tables.variance, tables.width, bits)
            while z < len(enclosures) and enclosures[z][1] <= word:
                z += 1
            if z < len(enclosures) and word < enclosures[z][0]:
                return z
            word = self._extended(word)
        raise AssertionError

    def _accept_exactly(self, product: int, word: int) -> bool:
        """Step 3 for a uniform real that begins with these 32 bits, with as many more as it takes."""
        exponent = product / (2 * self._tables.variance)
        for bits in count(_BITS, _MORE_BITS):
            lower, upper = _exponential(exponent, bits)
            if word < lower:
                return True
            if word >= upper:
                return False
            word = self._extended(word)
        raise AssertionError

    def _extended(self, word: int) -> int:
        return word << _MORE_BITS | int.from_bytes(self._stream.update(bytes(_MORE_BITS // 8)), "little")


@lru_cache(maxsize=32)
def _tables(variance: Fraction) -> _Tables:
    """The tables of one variance.

    Why products fit: `at_least` ends at the first z that less than 2^-32 of the distribution lies beyond, so that zW
    is below 7 √V; with u < W <= √V / 8, an exponent (2zWu + u²) / 2V is below 1, which is asserted. A larger z comes
    only from the exact way, and goes on by it.

    Why `doubt` suffices, in units of 2^-32: the exponent is rounded down three times, which makes it too small by
    less than (1 + reciprocal's share + dropped bits' share) 2^-31, and the probability too large by at most as much,
    for exp(-y) has no slope above 1; exp(-l) lies at most l² / 2 < 2^-23, or 512 units, above 1 - l for l < 2^-11;
    a table entry is less than 1 too small; and the product taken from it is less than 1 too small.
    """
    width = 1 << max(0, (isqrt(int(variance)) // 8).bit_length() - 1)
    enclosures = [(min(low, 2**_BITS), min(high, 2**_BITS)) for low, high in _cumulative(variance, width, _BITS)]
    last = next(z for z, (_, high) in enumerate(enclosures) if high == 2**_BITS)
    below, at_least = np.array(enclosures[: last + 1], np.int64).T.copy()
    assert last < _UNSURE

    starts = np.arange(2**_CELL_BITS, dtype=np.int64) << (_BITS - _CELL_BITS)
    ends = starts + (1 << (_BITS - _CELL_BITS)) - 1
    of_start = np.searchsorted(at_least, starts, side="right")
    cells = np.where(ends < below[of_start], of_start, _UNSURE).astype(np.uint8)

    most = 2 * last * width * (width - 1) + (width - 1) ** 2
    assert most < 2 * variance
    dropped_bits = max(0, most.bit_length() - 31)
    reciprocal = int(2 ** (_EXPONENT_BITS + _RECIPROCAL_BITS + dropped_bits) / (2 * variance)) if most else 0
    assert (most >> dropped_bits) * reciprocal < 2 ** (_EXPONENT_BITS + _RECIPROCAL_BITS)
    of_reciprocal = Fraction(most >> dropped_bits, 2**_RECIPROCAL_BITS)
    of_dropped = Fraction(2**dropped_bits - 1) * 2**_EXPONENT_BITS / (2 * variance)
    of_exponent = 2 ** (_BITS - _EXPONENT_BITS) * (1 + of_reciprocal + of_dropped)
    of_slope = 2 ** (_BITS - 2 * (_EXPONENT_BITS - _STEP_BITS) - 1)
    doubt = int(of_exponent) + 1 + of_slope + 2
    return _Tables(variance, width, cells, at_least, below, dropped_bits, reciprocal, _exponentials(), doubt)


@lru_cache(maxsize=1)
def _exponentials() -> NDArray[np.int64]:
    steps = 2 ** (_EXPONENT_BITS - _STEP_BITS)
    return np.array([_exponential(Fraction(i, steps), _BITS)[0] for i in range(steps)], np.int64)


@lru_cache(maxsize=32)
def _cumulative(variance: Fraction, width: int, bits: int) -> list[tuple[int, int]]:
    """Whole numbers (low, high), low <= 2^bits P[Z <= z] <= high, for z = 0, 1, … until less than 2^-bits is beyond.

    The infinite sum of the weights w(z) = exp(-(zW)² / 2V) is cut at a z = e after which their ratio is at most
    exp(-x), x = (2e + 1) W² / 2V, so what is left out is at most w(e) / (exp(x) - 1) <= w(e) / x.
    """
    guard = bits + 32
    weights: list[tuple[int, int]] = []
    while not weights or weights[-1][1] > 1:
        weights.append(_exponential(Fraction((len(weights) * width) ** 2) / (2 * variance), guard))
    ratio_exponent = Fraction((2 * len(weights) - 1) * width**2) / (2 * variance)
    beyond = int(weights[-1][1] / ratio_exponent) + 1
    least, most = sum(low for low, _ in weights), sum(high for _, high in weights) + beyond
    enclosures, low_sum, high_sum = [], 0, 0
    for low, high in weights:
        low_sum, high_sum = low_sum + low, high_sum + high
        enclosures.append(((low_sum << bits) // most, -((-high_sum << bits) // least)))
    return enclosures


def _exponential(x: Fraction, bits: int) -> tuple[int, int]:
    """Whole numbers (low, high) with low <= 2^bits exp(-x) <= high, for x >= 0; both are 2^bits for x = 0.

    Each of three operations is off by one unit of its last digit at most, x's by one of x's: with p digits,
    altogether by less than 2^bits (x exp(-x) + 2) 10^(1-p) < 10^-10, whatever x is.
    """
    if x == 0:
        return 1 << bits, 1 << bits
    context = Context(prec=bits * 10 // 33 + 15, rounding=ROUND_HALF_EVEN, Emin=MIN_EMIN, Emax=MAX_EMAX, traps=[])
    near = context.exp(context.divide(Decimal(-x.numerator), Decimal(x.denominator)))
    scaled = context.multiply(near, Decimal(1 << bits))
    low = context.subtract(scaled, _MARGIN).to_integral_value(ROUND_FLOOR)
    high = context.add(scaled, _MARGIN).to_integral_value(ROUND_CEILING)
    return max(0, int(low)), int(high)
