"""What contributions are added up in: integers in masked rounds, ciphertexts in sealed ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from partbook.plan.rounds import RoundPlan
from partbook.sealing.blocks import SealedSum
from partbook.secagg.coordinator import CoordinatorRound
from partbook.secagg.rings import CHUNK


class Total(Protocol):
    """A sum in the making, by chunk."""

    def check(self, chunk: int, blob: bytes) -> None:
        """Return if `blob` is a chunk that `add` takes; raises what `add` would."""
        ...

    def add(self, chunk: int, blob: bytes) -> None:
        """Add one contribution's chunk, which was checked against its signature.

        Raises:
            ValueOutOfRange, AlteredCiphertext, ForeignSealKey: it is none.
        """
        ...

    def unmask(self, machine: CoordinatorRound) -> None:
        """Take off what is left of the masks."""
        ...

    def dump(self) -> list[bytes]:
        """The chunks, for `load`."""
        ...


def chunk_sizes(plan: RoundPlan) -> list[int]:
    """Ring elements in each chunk of a contribution."""
    return [min(CHUNK, plan.elements - index * CHUNK) for index in range(plan.chunks)]


class MaskedTotal:
    """Sums in Z_2^32, one array a chunk."""

    def __init__(self, plan: RoundPlan) -> None:
        """Zero."""
        self._ring = plan.ring
        self.chunks = [np.zeros(size, dtype=np.uint32) for size in chunk_sizes(plan)]

    def check(self, chunk: int, blob: bytes) -> None:
        """See `Total`."""
        self._ring.from_bytes(blob, len(self.chunks[chunk]))

    def add(self, chunk: int, blob: bytes) -> None:
        """See `Total`."""
        # uint32 arithmetic is the ring's: it wraps at 2^32.
        total = self.chunks[chunk]
        np.add(total, self._ring.from_bytes(blob, len(total)), out=total)

    def unmask(self, machine: CoordinatorRound) -> None:
        """See `Total`."""
        for index, total in enumerate(self.chunks):
            machine.unmask(total, index)

    def numbers(self) -> NDArray[np.uint32]:
        """The sums, (d,); exact once the masks are off."""
        return np.concatenate(self.chunks)

    def dump(self) -> list[bytes]:
        """See `Total`."""
        return [self._ring.to_bytes(total) for total in self.chunks]

    def load(self, chunks: Sequence[bytes]) -> None:
        """Go on where `dump` was called."""
        self.chunks = [
            self._ring.from_bytes(data, len(total)).copy() for data, total in zip(chunks, self.chunks, strict=True)
        ]


class SealedTotal:
    """Sums under the custodian's key, which this side never had."""

    def __init__(self, plan: RoundPlan) -> None:
        """Nothing yet."""
        self._sizes, self._seal_key = chunk_sizes(plan), plan.seal_key
        self.chunks = [SealedSum(size, plan.seal_key) for size in self._sizes]

    def check(self, chunk: int, blob: bytes) -> None:
        """See `Total`."""
        SealedSum(self._sizes[chunk], self._seal_key).add(blob)

    def add(self, chunk: int, blob: bytes) -> None:
        """See `Total`."""
        self.chunks[chunk].add(blob)

    def unmask(self, machine: CoordinatorRound) -> None:
        """See `Total`."""
        for index, size in enumerate(self._sizes):
            left = np.zeros(size, dtype=np.uint64)
            machine.unmask(left, index)
            self.chunks[index].add_plain(left)

    def dump(self) -> list[bytes]:
        """See `Total`."""
        return [total.serialise() if total.contributions else b"" for total in self.chunks]

    def load(self, chunks: Sequence[bytes]) -> None:
        """Go on where `dump` was called."""
        self.chunks = [
            SealedSum.parse(data) if data else fresh for data, fresh in zip(chunks, self.chunks, strict=True)
        ]
