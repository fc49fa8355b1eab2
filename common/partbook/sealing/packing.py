"""Several values in one slot: digits of a number whose radix no digit of a sum can reach.

With values of 0..span and at most `cohort` of them added up, a sum is at most cohort * span; in radix
cohort * span + 1 the digits of packed vectors add up without a carry, and F digits fit a slot while
radix^F <= t. With 16-bit values (span 2^16 - 2) that is two a slot for any cohort up to 256, of which the seal's
noise allows 128: 8 bytes a parameter.

Parameter i is digit i mod F, lowest first, of slot i div F; digits behind the last parameter are zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from partbook.errors import ConfigError, ValueOutOfRange
from partbook.sealing.parameters import MAX_CONTRIBUTIONS
from partbook.secagg.rings import T


@dataclass(frozen=True, slots=True)
class Packing:
    """How the vectors of one round are packed; every member and the custodian derive it from the plan.

    Attributes:
        span: largest value of a parameter; values are 0..span.
        cohort: most contributions that are added up.

    Raises:
        ConfigError: a sum does not fit a slot, or the cohort is larger than a sealed sum allows.
    """

    span: int
    cohort: int

    def __post_init__(self) -> None:
        if not 1 <= self.cohort <= MAX_CONTRIBUTIONS:
            raise ConfigError(
                f"A sealed sum has 1 to {MAX_CONTRIBUTIONS} contributions and the cohort is {self.cohort}: more would "
                "drown it in the encryption's noise. Take a smaller cohort, or the masked mode."
            )
        if self.span < 1 or self.radix > T:
            raise ConfigError(
                f"Values of 0 to {self.span} from {self.cohort} members do not fit a slot of the seal (48 bits); "
                "quantise to fewer bits."
            )

    @property
    def radix(self) -> int:
        """One more than the largest sum of one parameter."""
        return self.cohort * self.span + 1

    @property
    def fields(self) -> int:
        """Parameters a slot, F: the most with radix^F <= t."""
        fields = 1
        while self.radix ** (fields + 1) <= T:
            fields += 1
        return fields

    def slots(self, length: int) -> int:
        """Slots that `length` parameters take."""
        return -(-length // self.fields)

    def pack(self, values: NDArray[np.uint32]) -> NDArray[np.uint64]:
        """The slots, each in [0, t), for `values`.

        Args:
            values: (d,), each in 0..span.

        Returns:
            (slots(d),).

        Raises:
            ValueOutOfRange: a value exceeds the span; it would spill into its neighbour.
        """
        if values.ndim != 1 or values.dtype != np.uint32:
            raise ValueError(f"one dimension of uint32 is packed, not {values.ndim} of {values.dtype}")
        if values.size and (largest := int(values.max())) > self.span:
            raise ValueOutOfRange(
                f"Value {largest} at index {int(values.argmax())} is above {self.span}, the largest of the grid; "
                "the plan's packing and its grid disagree."
            )
        fields, count = self.fields, self.slots(values.size)
        digits = np.zeros((count, fields), dtype=np.uint64)
        digits.reshape(-1)[: values.size] = values
        packed = digits[:, fields - 1].copy()
        for field in reversed(range(fields - 1)):
            packed *= np.uint64(self.radix)
            packed += digits[:, field]
        return packed

    def unpack(self, slots: NDArray[np.uint64], length: int, contributions: int) -> NDArray[np.uint64]:
        """The sums of `length` parameters from the sum of `contributions` packed vectors.

        Args:
            slots: (slots(length),), reduced into [0, t).
            length: d.
            contributions: how many vectors were added up, 1..cohort.

        Returns:
            (d,), each in 0..contributions * span.

        Raises:
            ValueOutOfRange: a digit no such sum can have: a contribution was not packed so, the count is wrong, or
                what was opened is not the sum.
        """
        if slots.shape != (self.slots(length),) or slots.dtype != np.uint64:
            raise ValueError(f"{length} parameters have {self.slots(length)} uint64 slots, not {slots.shape}")
        if not 1 <= contributions <= self.cohort:
            raise ValueError(f"1 to {self.cohort} contributions are added up, not {contributions}")
        radix = np.uint64(self.radix)
        digits = np.empty((slots.size, self.fields), dtype=np.uint64)
        left = slots.copy()
        for field in range(self.fields):
            np.divmod(left, radix, out=(left, digits[:, field]))
        flat = digits.reshape(-1)
        sums = flat[:length]
        if left.any() or flat[length:].any() or (length and int(sums.max()) > contributions * self.span):
            raise ValueOutOfRange(
                f"The opened slots are not the sum of {contributions} vectors of {length} values in 0..{self.span}: "
                "a member packed otherwise, a mask was not removed, or the list of survivors is another. "
                "Abort the round."
            )
        return sums
