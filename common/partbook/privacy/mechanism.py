"""The distributed discrete Gaussian mechanism: a node's clipped updates, as whole numbers with its share of the noise.

After Kairouz, Liu and Steinke 2021 (arXiv 2102.06387), with the recording, not the node, as what is protected:

1. one recording's update, real and of L2 norm at most C, is scaled and rounded at random to whole numbers, again and
   again until their L2 norm is at most Δ (there: conditional rounding);
2. the node adds up its recordings and clamps every coordinate, which brings no two sums further apart;
3. it adds discrete Gaussian noise of variance V and `largest`, so that a field value from 0 to `span` travels.

So one recording more or less moves what a node noises by at most Δ in L2 norm, in whole numbers. Only integers are
compared; but floating point has one way around that: a recording's company in a batch may change the last bits of the
*others'* updates, and with them a rounding here and there. `COMPANY` leaves a hundredth of Δ for it, ten times what
tests/training/test_company.py lets it be: any `honest` members together add noise of variance at least (1.01 σΔ)²,
and σ is what is accounted. Noise beyond 12 standard deviations is drawn anew, to fit the grid, which costs
`truncation`. That a sum of discrete Gaussians is not quite a discrete Gaussian costs `slack`.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from partbook.errors import ValueOutOfRange
from partbook.privacy.gaussian import discrete_gaussian
from partbook.secagg.grid import FINEST_BITS, decoded

COMPANY: Final = Fraction(101, 100)
"""What one recording may move a sum by, over what its own vector does."""

# Standard deviations of one member's noise that the grid has room for.
_TAIL: Final = 12

# Room for the recordings of one node, in sensitivities.
_SUM_ROOM: Final = 4

# From here on, a sum of discrete Gaussians is one but for a factor within 10^-66 of 1.
_LEAST_VARIANCE: Final = 16

# A float32 vector clipped by float64 arithmetic may lie above the norm bound by one part in 2^24.
_NORM_SLACK: Final = 2.0**-23

# Each succeeds with probability 0.39 at least, so that all of them fail with less than 10^-13.
_ROUNDINGS: Final = 64

_KEY_BYTES: Final = 32

_BLOCK: Final = 8192
_ZEROS: Final = memoryview(bytes(4 * _BLOCK))


@dataclass(frozen=True, slots=True)
class NoisyGrid:
    """A grid of whole numbers on which members add up clipped updates and noise.

    Attributes:
        bits: of a field value, 2 to 24.
        clip: C, L2 norm of one recording's update, in units of the model's parameters.
        dimension: d, trained numbers.
        noise_multiplier: σ, standard deviation over sensitivity of the noise of `honest` members together.
        honest: members whose noise counts.
    """

    bits: int
    clip: float
    dimension: int
    noise_multiplier: float
    honest: int

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= FINEST_BITS:
            raise ValueError(f"A grid has 2 to {FINEST_BITS} bits, not {self.bits}.")
        if not (math.isfinite(self.clip) and self.clip > 0):
            raise ValueError(f"A clip is a positive number, not {self.clip}.")
        if not (math.isfinite(self.noise_multiplier) and self.noise_multiplier > 0):
            raise ValueError(f"A noise multiplier is a positive number, not {self.noise_multiplier}.")
        if self.dimension < 1 or self.honest < 1:
            raise ValueError(
                f"A sum has at least one coordinate and one member with noise, not {self.dimension} and {self.honest}."
            )
        # That is norm_before < √d: a sum would be rounding more than anything else.
        if self.sensitivity**2 < 1.25 * self.dimension + 1.5 * math.sqrt(self.dimension):
            raise ValueError(
                f"A grid of {self.bits} bits is too coarse for {self.dimension} numbers with a noise multiplier of "
                f"{self.noise_multiplier:g} from {self.honest} members: take more bits, less noise or more members."
            )
        if self.variance < _LEAST_VARIANCE:
            raise ValueError(
                f"With {self.bits} bits and a noise multiplier of {self.noise_multiplier:g}, each of {self.honest} "
                f"members adds noise of variance {self.variance} in steps of the grid, and {_LEAST_VARIANCE} is the "
                "least: take more bits or more noise."
            )
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise ValueError(f"A clip of {self.clip:g} is beyond what float64 can scale to a grid.")
        # Noise is taken from what the grid holds, and a sum is left the room for several recordings.
        assert self.signal_bound >= self.sensitivity

    @property
    def largest(self) -> int:
        """The grid's last point."""
        return int(2 ** (self.bits - 1) - 1)

    @property
    def span(self) -> int:
        """The largest field value."""
        return 2 * self.largest

    @property
    def sensitivity(self) -> int:
        """Δ, the L2 norm that one recording's rounded update never exceeds, in steps of the grid."""
        noise = float(COMPANY) * self.noise_multiplier / math.sqrt(self.honest)
        return int(self.largest / (_SUM_ROOM + _TAIL * noise))

    @property
    def variance(self) -> int:
        """V, of one member's noise: (1.01 σΔ)² / honest, rounded up, in steps of the grid, squared."""
        return math.ceil((COMPANY * Fraction(self.noise_multiplier) * self.sensitivity) ** 2 / self.honest)

    @property
    def tail(self) -> int:
        """The largest noise one member adds to a coordinate: 12 √V, rounded down."""
        return math.isqrt(_TAIL**2 * self.variance)

    @property
    def signal_bound(self) -> int:
        """The largest absolute value of one member's sum, before noise."""
        return self.largest - self.tail

    @property
    def norm_before(self) -> float:
        """c, the L2 norm in steps to which C is scaled: the largest with c² + d/4 + (c + √d/2) <= Δ².

        With it a random rounding has norm at most Δ with probability 1 - e^(-1/2) > 0.39 at least (Kairouz et al.
        2021, conditional rounding with β = e^(-1/2)). It decides how often one rounds, never what is guaranteed.
        """
        return (math.sqrt(1 + 4 * self.sensitivity**2 - self.dimension - 2 * math.sqrt(self.dimension)) - 1) / 2

    @property
    def scale(self) -> float:
        """Steps of the grid per unit."""
        return self.norm_before / self.clip

    @property
    def slack(self) -> float:
        """The log of how far off 1 the density of `honest` members' noise is from a discrete Gaussian's, at most.

        By Kairouz et al. 2021, on the convolution of discrete Gaussians, at most 5 Σ exp(-2π² V k / (k + 1)) in each
        coordinate, k from 1 to honest - 1; each term is at most that of k = 1. Where it is less than a float can
        hold, the least float that is held in full stands for it.
        """
        if self.honest == 1:
            return 0.0
        log = math.log(5.0 * self.dimension * (self.honest - 1)) - math.pi**2 * self.variance
        return max(math.exp(log) * (1 + 2**-20), sys.float_info.min)

    @property
    def truncation(self) -> float:
        """Total variation between one member's noise as it is and without its tail cut, over all d coordinates.

        A discrete Gaussian is subgaussian, so beyond λ√V with probability at most 2 exp(-λ² / 2) (Canonne, Kamath and
        Steinke 2020, arXiv 2004.00010, §2). If the uncut sum is (ε, δ)-private, the cut one is so with
        δ + (1 + exp(ε)) times this.
        """
        return math.nextafter(2.0 * self.dimension * math.exp(-(_TAIL**2) / 2), math.inf)

    def fits(self, cohort: int, modulus: int) -> bool:
        """Whether the field values of `cohort` members sum up to less than `modulus`, whatever they are."""
        return cohort * self.span < modulus

    def rounded(self, update: NDArray[np.float32], words: Callable[[int], bytes] = os.urandom) -> NDArray[np.int64]:
        """One recording's update on the grid, of L2 norm at most `sensitivity`, always.

        Without bias but for what is rounded anew; how often that is depends on the update, and so does the time.

        Args:
            update: (d,) float32 or float64, of L2 norm at most `clip`. Above it by no more than float32's rounding, it
                is scaled down.
            words: draws that many random bytes; it is asked for one 32-byte key. Anything but the default is for
                simulations, which must be repeatable.

        Returns:
            (d,) whole numbers.

        Raises:
            ValueOutOfRange: the update is not finite, or longer than the clip. No value of it is told.
        """
        if update.dtype not in (np.float32, np.float64) or update.shape != (self.dimension,):
            raise ValueError(
                f"An update is {self.dimension} numbers of float32 or float64, not {update.shape} of {update.dtype}."
            )
        # Block by block: what lies in between stays in the cache, and asks the system for no memory.
        blocks = [slice(start, start + _BLOCK) for start in range(0, self.dimension, _BLOCK)]
        norm = math.sqrt(sum(float(np.dot(exact, exact)) for exact in _exact(update, blocks)))
        # Written so that NaN, which compares as False, is refused too.
        if not norm <= self.clip * (1 + _NORM_SLACK):
            raise ValueOutOfRange(
                f"A recording's update is not a finite vector of L2 norm {self.clip:g} or less. Clip it in float64 "
                "before it is put on the grid; if training diverged, lower its learning rate."
            )
        scale = self.scale * min(1.0, self.clip / norm) if norm else self.scale
        dither = Cipher(algorithms.AES(words(_KEY_BYTES)), modes.CTR(bytes(16))).encryptor()
        rounded = np.empty(self.dimension, np.int64)
        for _ in range(_ROUNDINGS):
            for block, exact in zip(blocks, _exact(update, blocks), strict=True):
                exact *= scale
                below = np.floor(exact)
                # The fraction in units of 2^-32: a random word is below it, and the number rounded up, with that
                # probability.
                exact -= below
                exact *= 2.0**32
                below += np.frombuffer(dither.update(_ZEROS[: 4 * len(exact)]), np.dtype("<u4")) < exact
                rounded[block] = below
            if self._is_short(rounded):
                return rounded
        # Towards 0 every coordinate shrinks, and with them the norm.
        for block, exact in zip(blocks, _exact(update, blocks), strict=True):
            rounded[block] = np.trunc(exact * scale)
        assert self._is_short(rounded)
        return rounded

    def noisy(self, total: NDArray[np.int64], words: Callable[[int], bytes] = os.urandom) -> NDArray[np.int64]:
        """A node's sum of rounded updates, clamped to `signal_bound` and with its share of the noise.

        Args:
            total: (d,) int64, the sum of what `rounded` gave for the sampled recordings; zeros if none was sampled.
            words: draws that many random bytes. Anything but the default is for simulations, which must be repeatable.

        Returns:
            (d,) whole numbers from -largest to largest.
        """
        if total.dtype != np.int64 or total.shape != (self.dimension,):
            raise ValueError(f"A node's sum is {self.dimension} int64, not {total.shape} of {total.dtype}.")
        noise = discrete_gaussian(self.variance, self.dimension, words)
        while len(beyond := np.flatnonzero(np.abs(noise) > self.tail)):
            noise[beyond] = discrete_gaussian(self.variance, len(beyond), words)
        noise += np.clip(total, -self.signal_bound, self.signal_bound)
        return noise

    def contribution(self, total: NDArray[np.int64], words: Callable[[int], bytes] = os.urandom) -> NDArray[np.uint32]:
        """What a node sends, under masks: `noisy`, shifted by `largest`; (d,) field values in [0, span]."""
        return (self.noisy(total, words) + self.largest).astype(np.uint32)

    def decode(self, total: NDArray[np.integer[Any]], contributions: int) -> NDArray[np.float64]:
        """The noisy sum of the updates whose contributions sum up to `total`.

        Args:
            total: (d,) whole numbers.
            contributions: members that are in the sum, at least 1.

        Returns:
            (d,) in units of the model's parameters; by what it is divided is the plan's business.

        Raises:
            ValueOutOfRange: a total is more than so many contributions can reach, so a mask is left in it or
                somebody sent more than the grid holds. The message gives the first such index.
        """
        if total.dtype.kind not in "iu" or total.shape != (self.dimension,):
            raise ValueError(f"A sum is {self.dimension} whole numbers, not {total.shape} of {total.dtype}.")
        return decoded(total, contributions, self.largest, self.scale)

    def _is_short(self, rounded: NDArray[np.int64]) -> bool:
        """Whether the L2 norm is at most `sensitivity`, in integers.

        int64 holds the squares' sum: before rounding the norm is at most c + 1 < Δ + 1, rounding moves it by less than
        √d <= c, and Δ < 2^21, so what is summed stays below (2^22 + 1)² < 2^45, far from 2^63.
        """
        return int(np.dot(rounded, rounded)) <= self.sensitivity**2


def _exact(update: NDArray[np.floating], blocks: Sequence[slice]) -> Iterator[NDArray[np.float64]]:
    """Copies of an update's blocks, in float64."""
    return (update[block].astype(np.float64) for block in blocks)
