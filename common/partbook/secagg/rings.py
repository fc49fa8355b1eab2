"""The two rings that masked vectors live in, and masks that are added to them in place.

`2^32`: a `masked` round; one element a parameter, 4 bytes each.
`t`:    a `sealed` round; one element a BFV slot, 8 bytes each. t is the plaintext modulus, so masks cancel
        in the encrypted sum exactly.

A mask is the AES-256-CTR keystream (NIST SP 800-38A, section 6.5) of a 32-byte seed, read as little-endian
words. A vector travels in chunks of `CHUNK` elements and every chunk has a stream of its own, which begins at
the counter block `chunk index (8 bytes, big-endian) || 0 (8 bytes)`: a lost chunk is masked again without the
ones before it, and no two streams of one seed meet within 2^64 blocks.

Modulo 2^32 a mask element is the word itself. Modulo t it is the low 48 bits of an 8-byte word; words that
leave t or more are skipped and the next is taken (once in 2^34 words), so elements are exactly uniform.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from numpy.typing import NDArray

from partbook.errors import CorruptMessage, ValueOutOfRange

CHUNK: Final = 2**20
"""Ring elements in one message."""

T: Final = 281474976694273
"""The BFV plaintext modulus: the largest 48-bit prime that is 1 modulo 8192."""

SEED_BYTES: Final = 32

# Keystream, sums and values of one block stay in a core's second-level cache (256 KiB each at 8 bytes).
_BLOCK: Final = 2**15

# So many masks are added before a sum is reduced: each adds less than 2^48 to an int64, and the ciphers of more would
# push each other out of the cache.
_GROUP: Final = 128


@dataclass(frozen=True, slots=True)
class Ring:
    """The integers modulo `modulus`, one array element each.

    Attributes:
        name: as the round plan spells it.
        modulus: at most 2^48, or 2^32 if elements have 4 bytes.
        dtype: unsigned and little-endian, of values in memory and on the wire.
        accumulator: what signed sums of elements are taken in; equal to `dtype` where that wraps at `modulus`.
    """

    name: str
    modulus: int
    dtype: np.dtype[Any]
    accumulator: np.dtype[Any]

    def __post_init__(self) -> None:
        assert self.wraps or self.modulus <= 2**48, "int64 sums of this ring's masks could overflow"

    @property
    def wraps(self) -> bool:
        """Whether the machine's own arithmetic on `dtype` is this ring's."""
        return self.modulus == 1 << (8 * self.dtype.itemsize)

    def check(self, values: NDArray[Any]) -> None:
        """Return if `values` is a vector (length,) of this ring's elements, each reduced.

        Raises:
            ValueOutOfRange: it has another type or shape, or an element is not below the modulus. The message
                gives the first such index and never the value.
        """
        if values.dtype != self.dtype or values.ndim != 1:
            raise ValueOutOfRange(
                f"A vector modulo {self.name} holds {self.dtype.name} in one dimension; this one holds "
                f"{values.dtype.name} in {values.ndim}. Whoever built it packed it for another ring."
            )
        if self.wraps:
            return
        for start in range(0, len(values), _BLOCK):
            block = values[start : start + _BLOCK]
            if block.max() >= self.modulus:
                index = start + int(np.argmax(block >= self.modulus))
                raise ValueOutOfRange(
                    f"Element {index} of {len(values)} is not reduced modulo {self.name}. Its sender must reduce "
                    "it; it is refused here, because it would come out as another number."
                )

    def to_bytes(self, values: NDArray[Any]) -> bytes:
        """`values` (length,) as little-endian words, one after another.

        Raises:
            ValueOutOfRange: see `check`.
        """
        self.check(values)
        return values.tobytes()

    def from_bytes(self, data: bytes, length: int) -> NDArray[Any]:
        """The `length` elements that `to_bytes` wrote, in an array of their own.

        Raises:
            CorruptMessage: `data` is longer or shorter than that.
            ValueOutOfRange: an element is not reduced.
        """
        expected = length * self.dtype.itemsize
        if len(data) != expected:
            raise CorruptMessage(
                f"{length} elements modulo {self.name} are {expected} bytes, but {len(data)} came; the message "
                "was cut or padded on its way. Ask its sender for it again."
            )
        values = np.frombuffer(data, self.dtype).copy()
        self.check(values)
        return values

    def add(self, total: NDArray[Any], values: NDArray[Any]) -> None:
        """Add `values` to `total` in place; both are reduced vectors (length,) of this ring.

        Raises:
            ValueOutOfRange: see `check`; `total` is then unchanged.
        """
        if total.shape != values.shape:
            raise ValueError(f"Vectors of {total.shape} and {values.shape} elements cannot be added.")
        self.check(total)
        self.check(values)
        if self.wraps:
            np.add(total, values, out=total)
            return
        modulus = self.dtype.type(self.modulus)
        for start in range(0, len(total), _BLOCK):
            block = total[start : start + _BLOCK]
            block += values[start : start + _BLOCK]
            np.subtract(block, modulus, out=block, where=block >= modulus)


WORDS: Final = Ring("2^32", 2**32, np.dtype("<u4"), np.dtype("<u4"))
RESIDUES: Final = Ring("t", T, np.dtype("<u8"), np.dtype("<i8"))


def ring_named(name: str) -> Ring:
    """The ring that a plan calls `name`.

    Raises:
        ValueError: there is none.
    """
    for ring in (WORDS, RESIDUES):
        if ring.name == name:
            return ring
    raise ValueError(f"{name!r} is not a ring; a plan names '{WORDS.name}' (masked) or '{RESIDUES.name}' (sealed).")


def add_masks(values: NDArray[Any], masks: Sequence[tuple[bytes, int]], ring: Ring, chunk: int) -> None:
    """Add masks to one chunk of a vector, or take them off, in place.

    No mask is ever held: keystream is made and added a block at a time, in under 1 MiB and a cipher's state a mask.

    Args:
        values: (length,) elements of `ring`, reduced, at most `CHUNK` of them. They are reduced after, too.
        masks: 32-byte seed, and +1 to add its mask or -1 to take it off; any number of them.
        ring: of `values`.
        chunk: index of the chunk in its vector; it selects the stream.

    Raises:
        ValueOutOfRange: `values` is not a reduced vector of `ring`; it is then unchanged.
        ValueError: the chunk is too long, or a mask is not a seed and a sign.
    """
    ring.check(values)
    if len(values) > CHUNK:
        raise ValueError(f"A chunk has at most {CHUNK} elements, not {len(values)}; give one chunk at a time.")
    if any(len(seed) != SEED_BYTES for seed, _ in masks):
        raise ValueError(f"A mask has a seed of {SEED_BYTES} bytes.")
    if any(sign not in (1, -1) for _, sign in masks):
        raise ValueError("A mask is added (+1) or taken off (-1); another factor is a mistake of the caller.")
    for start in range(0, len(masks), _GROUP):
        _add_group(values, masks[start : start + _GROUP], ring, chunk)


def _add_group(values: NDArray[Any], masks: Sequence[tuple[bytes, int]], ring: Ring, chunk: int) -> None:
    streams = [(_Stream(seed, ring, chunk), sign) for seed, sign in masks]
    keystream = np.empty(min(_BLOCK, len(values)), ring.dtype)
    sums = values if ring.wraps else np.empty(len(keystream), ring.accumulator)
    quotients = sums if ring.wraps else np.empty_like(sums)
    for start in range(0, len(values), _BLOCK):
        block = values[start : start + _BLOCK]
        mask = keystream[: len(block)]
        # An element below 2^48 reads the same signed and unsigned, so no copy is needed to subtract it.
        signed = mask.view(ring.accumulator)
        if ring.wraps:
            total = block
        else:
            total = sums[: len(block)]
            total[:] = block
        for stream, sign in streams:
            stream.fill(mask)
            if sign > 0:
                np.add(total, signed, out=total)
            else:
                np.subtract(total, signed, out=total)
        if not ring.wraps:
            # NumPy's `%` takes 17 times as long as its division by a constant, which is vectorised.
            quotient = quotients[: len(block)]
            np.floor_divide(total, ring.modulus, out=quotient)
            np.multiply(quotient, ring.modulus, out=quotient)
            np.subtract(total, quotient, out=total)
            block[:] = total


class _Stream:
    """The elements of one mask for one chunk, in order."""

    __slots__ = ("_keystream", "_ring")

    # Encrypting zeros gives the keystream itself; one buffer serves every stream.
    _ZEROS: Final = memoryview(bytes(8 * _BLOCK))

    def __init__(self, seed: bytes, ring: Ring, chunk: int) -> None:
        if len(seed) != SEED_BYTES:
            raise ValueError(f"A mask's seed has {SEED_BYTES} bytes, not {len(seed)}.")
        counter = chunk.to_bytes(8, "big") + bytes(8)
        self._keystream: CipherContext = Cipher(algorithms.AES(seed), modes.CTR(counter)).encryptor()
        self._ring = ring

    def __reduce__(self) -> str:
        raise TypeError("A mask's keystream is not pickled; derive the mask where it is needed.")

    def fill(self, elements: NDArray[Any]) -> None:
        """Overwrite `elements` (at most `_BLOCK`, contiguous) with the stream's next."""
        octets = elements.view(np.uint8).data
        self._keystream.update_into(self._ZEROS[: len(octets)], octets)
        if self._ring.wraps:
            return
        low = elements.dtype.type(2 ** (self._ring.modulus - 1).bit_length() - 1)
        np.bitwise_and(elements, low, out=elements)
        if elements.max() < self._ring.modulus:
            return
        # The accepted words close ranks and the stream's next ones follow: as if each had been drawn until it fits.
        accepted = elements[elements < self._ring.modulus]
        elements[: len(accepted)] = accepted
        self.fill(elements[len(accepted) :])
