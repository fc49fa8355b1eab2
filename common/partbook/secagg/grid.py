"""Real numbers ↔ whole numbers on a public grid, so that sums in a ring are exact.

A value x with |x| <= clip lies at x · scale on a line of whole numbers from -largest to largest. It goes to one
of the two neighbours at random, the nearer the likelier, so that its expectation is x (stochastic rounding), and
`largest` is added: a field value from 0 to `span`, never negative, which can travel in a ring.

After summing over m contributions, at every coordinate and with scale = largest / clip:

- the error is less than m / scale, always;
- its expectation is within m · 2^-30 / scale of 0 for any given values (random bits: 2^-32, the product
  x · scale in float64: 2^-31, both in steps of the grid);
- its variance is at most m / (4 scale²), for a step of 1 taken with probability f has f (1 - f) <= 1/4.

Random bits come from an AES-256-CTR keystream under a fresh 32-byte key, 32 bits a coordinate.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from partbook.errors import ValueOutOfRange

FINEST_BITS: Final = 24

# A float32 training loop clips to the float32 nearest to `clip`, which may lie above it by one part in 2^24.
# Twice that is let through and put on the last grid point, less than one step away since largest < 2^23.
_SLACK: Final = 2.0**-23

# Values, random words and float64 intermediates of one block fit a core's second-level cache.
_BLOCK: Final = 2**15

_KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Grid:
    """Whole numbers from -largest to largest, over reals from -clip to clip.

    Attributes:
        bits: of a field value, 2 to 24.
        clip: the largest absolute value, in units of the model's parameters.
    """

    bits: int
    clip: float

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= FINEST_BITS:
            raise ValueError(f"A grid has 2 to {FINEST_BITS} bits, not {self.bits}.")
        if not (math.isfinite(self.clip) and self.clip > 0 and math.isfinite(self.scale)):
            raise ValueError(f"A grid's clip is a positive number, and not so small as {self.clip}.")

    @property
    def largest(self) -> int:
        """The grid's last point."""
        return int(2 ** (self.bits - 1) - 1)

    @property
    def scale(self) -> float:
        """Steps of the grid per unit."""
        return self.largest / self.clip

    @property
    def span(self) -> int:
        """The largest field value."""
        return 2 * self.largest

    def fits(self, cohort: int, modulus: int) -> bool:
        """Whether the field values of `cohort` members sum up to less than `modulus`, whatever they are."""
        return cohort * self.span < modulus

    def quantise(
        self, values: NDArray[np.floating[Any]], words: Callable[[int], bytes] = os.urandom
    ) -> NDArray[np.uint32]:
        """Field values of `values`, rounded at random without bias.

        Args:
            values: (d,) float32 or float64, each within [-clip, clip]. Those beyond it by no more than
                float32's rounding of `clip` count as `clip`.
            words: draws that many random bytes; it is asked for one 32-byte key. Anything but the default
                is for simulations, which must be repeatable.

        Returns:
            (d,) whole numbers in [0, span].

        Raises:
            ValueOutOfRange: a value is not finite or beyond the clip. The message gives the first such index.
        """
        if values.dtype not in (np.float32, np.float64) or values.ndim != 1:
            raise ValueError(
                f"A grid takes one dimension of float32 or float64, not {values.ndim} of {values.dtype.name}."
            )
        limit = self.clip * (1 + _SLACK)
        dither = Cipher(algorithms.AES(words(_KEY_BYTES)), modes.CTR(bytes(16))).encryptor()
        size = min(_BLOCK, len(values))
        zeros, bits = bytes(4 * size), np.empty(size, np.dtype("<u4"))
        exact, below = np.empty(size, np.float64), np.empty(size, np.float64)
        fields = np.empty(len(values), np.uint32)
        for start in range(0, len(values), _BLOCK):
            block = values[start : start + _BLOCK]
            x, floor, random = exact[: len(block)], below[: len(block)], bits[: len(block)]
            x[:] = block
            # Written so that NaN, which compares as False, is refused too.
            if not (np.abs(x, out=floor).max() <= limit):
                index = start + int(np.argmin(floor <= limit))
                raise ValueOutOfRange(
                    f"Coordinate {index} of {len(values)} is not a number within the clip of {self.clip:g}. "
                    "Clip the vector before it is put on the grid; if training diverged, lower its learning rate."
                )
            np.multiply(x, self.scale, out=x)
            np.clip(x, -self.largest, self.largest, out=x)
            np.floor(x, out=floor)
            # The fraction in units of 2^-32: a random word is below it, and x rounded up, with that probability.
            np.subtract(x, floor, out=x)
            np.multiply(x, 2.0**32, out=x)
            dither.update_into(zeros[: 4 * len(block)], random.view(np.uint8).data)
            floor += random < x
            floor += self.largest
            fields[start : start + _BLOCK] = floor
        return fields

    def dequantise_sum(self, total: NDArray[np.integer[Any]], contributions: int) -> NDArray[np.float64]:
        """The sum of the real vectors whose field values sum up to `total`.

        Args:
            total: (d,) whole numbers.
            contributions: members that are in the sum, at least 1.

        Raises:
            ValueOutOfRange: a total is more than so many contributions can reach, so a mask is left in it or
                somebody sent more than the grid holds. The message gives the first such index.
        """
        if total.dtype.kind not in "iu" or total.ndim != 1:
            raise ValueError(f"A sum is one dimension of whole numbers, not {total.ndim} of {total.dtype.name}.")
        return decoded(total, contributions, self.largest, self.scale)


def decoded(total: NDArray[np.integer[Any]], contributions: int, largest: int, scale: float) -> NDArray[np.float64]:
    """Sums (d,) of field values from 0 to 2·`largest`, as sums of the reals they stand for, `scale` steps a unit.

    Raises:
        ValueOutOfRange: a total is more than so many contributions can reach. The message gives the first such index.
    """
    if contributions < 1:
        raise ValueError(f"A sum has at least one contribution, not {contributions}.")
    most = contributions * 2 * largest
    if len(total) and (total.max() > most or total.min() < 0):
        index = int(np.argmax((total > most) | (total < 0)))
        raise ValueOutOfRange(
            f"Coordinate {index} of {len(total)} is no sum of {contributions} contributions on this grid: a mask "
            "was not removed, or a member sent a value beyond the grid. Abort the round and keep the last model."
        )
    result = total.astype(np.float64)
    result -= contributions * largest
    result /= scale
    return result
