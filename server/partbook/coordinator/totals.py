"""What contributions are added up in: integers in masked rounds, ciphertexts in sealed ones.

A sum lies in its chunks on a `Shelf`, and one chunk at a time is in memory. It stays masked there: masks are taken
off a chunk whenever it is asked for, which gives the same bytes each time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from partbook.coordinator.shelf import Shelf
from partbook.plan.rounds import RoundPlan
from partbook.sealing.blocks import SealedSum
from partbook.secagg.coordinator import CoordinatorRound
from partbook.secagg.rings import CHUNK


def chunk_sizes(plan: RoundPlan) -> list[int]:
    """Ring elements in each chunk of a contribution."""
    return [min(CHUNK, plan.elements - index * CHUNK) for index in range(plan.chunks)]


class Total(ABC):
    """A sum in the making, by chunk."""

    def __init__(self, plan: RoundPlan, shelf: Shelf | None = None) -> None:
        """Nothing yet, or what is on the shelf; in memory where there is none."""
        self._sizes, self._ring, self._seal_key = chunk_sizes(plan), plan.ring, plan.seal_key
        self._shelf = shelf or Shelf()
        self._machine: CoordinatorRound | None = None

    @abstractmethod
    def check(self, chunk: int, blob: bytes) -> None:
        """Return if `blob` is a chunk that `add` takes; raises what `add` would."""

    @abstractmethod
    def add_all(self, chunk: int, blobs: Iterable[bytes]) -> None:
        """Add the same chunk of some contributions, each checked against its signature, one in memory at a time.

        Raises:
            ValueOutOfRange, AlteredCiphertext, ForeignSealKey: one is none; the sum is then as it was.
        """

    @abstractmethod
    def chunk(self, index: int) -> bytes:
        """The bytes of a chunk's sum; empty under the seal where nothing was added up."""

    def add(self, chunk: int, blob: bytes) -> None:
        """`add_all` of one."""
        self.add_all(chunk, (blob,))

    def unmask(self, machine: CoordinatorRound) -> None:
        """Take off what is left of the masks, from now on.

        Raises:
            OutOfTurn: their secrets are not known.
        """
        machine.unmask(np.zeros(1, self._ring.dtype), 0)
        self._machine = machine

    def dump(self) -> list[bytes]:
        """All chunks."""
        return [self.chunk(index) for index in range(len(self._sizes))]

    @staticmethod
    def _name(chunk: int) -> str:
        return f"sum-{chunk:05d}"


class MaskedTotal(Total):
    """Sums in Z_2^32."""

    def check(self, chunk: int, blob: bytes) -> None:
        """See `Total`."""
        self._ring.from_bytes(blob, self._sizes[chunk])

    def add_all(self, chunk: int, blobs: Iterable[bytes]) -> None:
        """See `Total`."""
        total = self._sum(chunk)
        for blob in blobs:
            # uint32 arithmetic is the ring's: it wraps at 2^32.
            np.add(total, self._ring.from_bytes(blob, len(total)), out=total)
        self._shelf.put(self._name(chunk), self._ring.to_bytes(total))

    def chunk(self, index: int) -> bytes:
        """See `Total`."""
        total = self._sum(index)
        if self._machine is not None:
            self._machine.unmask(total, index)
        return self._ring.to_bytes(total)

    def numbers(self) -> NDArray[np.uint32]:
        """The sums, (d,); exact once the masks are off."""
        found, start = np.empty(sum(self._sizes), np.uint32), 0
        for index, size in enumerate(self._sizes):
            found[start : start + size] = self._ring.from_bytes(self.chunk(index), size)
            start += size
        return found

    def _sum(self, chunk: int) -> NDArray[np.uint32]:
        name, size = self._name(chunk), self._sizes[chunk]
        if name not in self._shelf:
            return np.zeros(size, dtype=np.uint32)
        total: NDArray[np.uint32] = self._ring.from_bytes(self._shelf.get(name), size)
        return total


class SealedTotal(Total):
    """Sums under the custodian's key, which this side never had."""

    def check(self, chunk: int, blob: bytes) -> None:
        """See `Total`."""
        SealedSum(self._sizes[chunk], self._seal_key).add(blob)

    def add_all(self, chunk: int, blobs: Iterable[bytes]) -> None:
        """See `Total`."""
        total = self._sum(chunk)
        for blob in blobs:
            total.add(blob)
        if total.contributions:
            self._shelf.put(self._name(chunk), total.serialise())

    def chunk(self, index: int) -> bytes:
        """See `Total`."""
        if self._name(index) not in self._shelf:
            return b""
        if self._machine is None:
            return self._shelf.get(self._name(index))
        left, total = np.zeros(self._sizes[index], dtype=np.uint64), self._sum(index)
        self._machine.unmask(left, index)
        total.add_plain(left)
        return total.serialise()

    def _sum(self, chunk: int) -> SealedSum:
        name = self._name(chunk)
        if name not in self._shelf:
            return SealedSum(self._sizes[chunk], self._seal_key)
        return SealedSum.parse(self._shelf.get(name))
