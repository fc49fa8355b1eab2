"""Sealed chunks: BFV ciphertexts in a frame that names their key, sealed, added up and opened.

A *block* is one ciphertext of 4096 slots: two polynomials of 4096 coefficients modulo `Q`. A *sealed chunk* holds the
blocks of up to 2^20 slots (the last block's unused slots are zero):

    bytes 0..15    "partbook/v1/seal"
    bytes 16..47   key id
    bytes 48..51   contributions added up in it, big-endian; 1 as it leaves a label
    bytes 52..55   slots, big-endian
    then           65,536 bytes a block: c0, then c1, coefficients as little-endian 64-bit words

A chunk therefore has one length, and any word of it is either in range or refused. TenSEAL's own serialisation wraps
the same words in 131 bytes that never vary (a random block does not compress); they are written here, not read from
the wire, so that a parser of protocol buffers, Zstandard frames and SEAL objects only ever sees what this module made.

Two ciphertexts are added by adding their polynomials (Fan and Vercauteren 2012, section 4, SH.Add), which NumPy does
here. What this module cannot see is a chunk altered *within* the range: such a chunk opens to noise. The signature
over its SHA-256 (`partbook.secagg`) is what catches that, and must be checked before a chunk is added or opened.
"""

from __future__ import annotations

import contextlib
import functools
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from partbook.errors import AlteredCiphertext, ConfigError, ForeignSealKey, ValueOutOfRange
from partbook.sealing.parameters import MAX_CONTRIBUTIONS, POLY_DEGREE, Q, SealPublic, SealSecret, parameters_only
from partbook.secagg.rings import CHUNK, T

BLOCK_SLOTS: Final = POLY_DEGREE
BLOCK_BYTES: Final = 2 * POLY_DEGREE * 8

_MAGIC: Final = b"partbook/v1/seal"
_HEAD: Final = struct.Struct(">16s32sII")
_WORD: Final = np.dtype("<u8")


@dataclass(frozen=True, slots=True)
class ChunkHead:
    """What a sealed chunk says about itself.

    Attributes:
        key_id: of the key it is sealed to, in hex.
        contributions: how many sealed vectors were added up.
        slots: how many it holds.
    """

    key_id: str
    contributions: int
    slots: int

    @property
    def blocks(self) -> int:
        """Ciphertexts that follow."""
        return -(-self.slots // BLOCK_SLOTS)

    def encode(self) -> bytes:
        """The 56 bytes a chunk begins with."""
        return _HEAD.pack(_MAGIC, bytes.fromhex(self.key_id), self.contributions, self.slots)

    @classmethod
    def decode(cls, chunk: bytes) -> ChunkHead:
        """The head of `chunk`, whose length is checked against it.

        Raises:
            AlteredCiphertext: the chunk is not one, or is shorter or longer than its head says.
        """
        if len(chunk) < _HEAD.size:
            raise _altered(f"it has {len(chunk)} bytes, fewer than the {_HEAD.size} of its head")
        magic, key_id, contributions, slots = _HEAD.unpack_from(chunk)
        if magic != _MAGIC:
            raise _altered("it does not begin with the mark of a sealed chunk of this version")
        if not 1 <= contributions <= MAX_CONTRIBUTIONS:
            raise _altered(f"it claims {contributions} contributions, and 1 to {MAX_CONTRIBUTIONS} are possible")
        if not 1 <= slots <= CHUNK:
            raise _altered(f"it claims {slots} slots, and 1 to {CHUNK} are possible")
        head = cls(key_id.hex(), contributions, slots)
        if len(chunk) != (expected := sealed_bytes(slots)):
            raise _altered(f"it has {len(chunk)} bytes where {slots} slots take {expected}")
        return head


def sealed_bytes(slots: int) -> int:
    """Length of the sealed chunk of `slots` slots."""
    return _HEAD.size + -(-slots // BLOCK_SLOTS) * BLOCK_BYTES


def seal(public: SealPublic, slots: NDArray[np.uint64]) -> bytes:
    """A sealed chunk of `slots`, which only the holder of the secret key opens.

    Args:
        public: the custodian's key.
        slots: (n,), each in [0, t), n in 1..2^20.

    Returns:
        `sealed_bytes(n)` bytes, different ones each time.

    Raises:
        ValueOutOfRange: a value is t or more; TenSEAL would encode it as another one without a word.
        ConfigError: the installed TenSEAL writes blocks of another form than 0.3.18.
    """
    _check_slots(slots, "sealed")
    parts = [ChunkHead(public.key_id, 1, slots.size).encode()]
    for block in _blocks_of(slots):
        parts.append(_words(_native_vector(public.native, block)))
    return b"".join(parts)


def open_chunk(secret: SealSecret, chunk: bytes) -> NDArray[np.uint64]:
    """The slots of a sealed chunk.

    Returns:
        (n,), each in [0, t).

    Raises:
        ForeignSealKey: it was sealed to another key.
        AlteredCiphertext: it is not a sealed chunk, or was cut, extended or altered out of range.
    """
    head, words = _parse(chunk)
    if head.key_id != secret.key_id:
        raise _foreign(head.key_id, secret.key_id)
    slots = np.empty(head.blocks * BLOCK_SLOTS, dtype=np.int64)
    for index in range(head.blocks):
        with _refusals("opened"):
            opened = _native_block(secret.native, words[index]).decrypt()
        slots[index * BLOCK_SLOTS : (index + 1) * BLOCK_SLOTS] = opened
    slots[slots < 0] += T  # TenSEAL gives residues around zero
    return slots[: head.slots].view(np.uint64)


class SealedSum:
    """The sum of one chunk's contributions, which its holder, without any key, cannot read.

    Attributes:
        slots: of the chunk.
        key_id: of the key all contributions are sealed to; None before the first, unless given.
        contributions: how many were added.
    """

    __slots__ = ("_sum", "contributions", "key_id", "slots")

    def __init__(self, slots: int, key_id: str | None = None) -> None:
        """An empty sum of a chunk of `slots` slots (1..2^20), for the key `key_id` or that of the first addend."""
        if not 1 <= slots <= CHUNK:
            raise ValueError(f"a chunk has 1 to {CHUNK} slots, not {slots}")
        self.slots, self.key_id, self.contributions = slots, key_id, 0
        self._sum: NDArray[np.uint64] | None = None  # (blocks, 2 * degree), coefficients below Q

    def __repr__(self) -> str:
        return f"SealedSum({self.contributions} contributions of {self.slots} slots)"

    def add(self, chunk: bytes) -> None:
        """Add one label's sealed chunk; a refused one leaves the sum as it was.

        Raises:
            ForeignSealKey: it is sealed to another key than the others.
            AlteredCiphertext: it is not one label's sealed chunk of this many slots.
            ValueOutOfRange: the sum already has all the contributions that noise allows.
        """
        head, words = _parse(chunk)
        if self.key_id is not None and head.key_id != self.key_id:
            raise _foreign(head.key_id, self.key_id)
        if head.slots != self.slots or head.contributions != 1:
            raise _altered(
                f"it claims {head.slots} slots of {head.contributions} contributions, where one contribution of "
                f"{self.slots} slots is due"
            )
        if self.contributions >= MAX_CONTRIBUTIONS:
            raise ValueOutOfRange(
                f"A sealed sum has at most {MAX_CONTRIBUTIONS} contributions, or noise would reach the message; "
                "take a smaller cohort, or the masked mode."
            )
        if self._sum is None:
            self._sum = words.astype(np.uint64)
        else:
            self._sum += words
            # Below Q the difference wraps to something huge, so the smaller of the two is the residue.
            np.minimum(self._sum, self._sum - np.uint64(Q), out=self._sum)
        self.key_id = head.key_id
        self.contributions += 1

    def add_plain(self, values: NDArray[np.uint64]) -> None:
        """Add values anybody may know, such as what is left of the masks, to the encrypted ones.

        Args:
            values: (slots,), each in [0, t).

        Raises:
            ValueOutOfRange: a value is t or more.
            AlteredCiphertext: what was added up is not a ciphertext SEAL accepts.
        """
        if self._sum is None:
            raise ValueError("nothing was added up yet")
        if values.shape != (self.slots,):
            raise ValueError(f"this sum has {self.slots} slots, not {values.shape}")
        _check_slots(values, "added")
        for index, block in enumerate(_blocks_of(values)):
            with _refusals("added to"):
                vector = _native_block(parameters_only(), self._sum[index])
                vector.add_plain_(block)
            self._sum[index] = np.frombuffer(_words(vector), dtype=_WORD)

    def serialise(self) -> bytes:
        """The sum as a sealed chunk: for the custodian to open, or for `parse` to go on with."""
        if self._sum is None or self.key_id is None:
            raise ValueError("nothing was added up yet")
        head = ChunkHead(self.key_id, self.contributions, self.slots)
        return head.encode() + self._sum.astype(_WORD, copy=False).tobytes()

    @classmethod
    def parse(cls, data: bytes) -> SealedSum:
        """The sum that `serialise` wrote.

        Raises:
            AlteredCiphertext: it is not one, or was cut, extended or altered out of range.
        """
        head, words = _parse(data)
        restored = cls(head.slots, head.key_id)
        restored.contributions, restored._sum = head.contributions, words.astype(np.uint64)
        return restored


def _parse(chunk: bytes) -> tuple[ChunkHead, NDArray[np.uint64]]:
    """Head and words, (blocks, 2 * degree), of a chunk; the words are a view of it."""
    head = ChunkHead.decode(chunk)
    words = np.frombuffer(chunk, dtype=_WORD, offset=_HEAD.size).reshape(head.blocks, 2 * POLY_DEGREE)
    if int(words.max()) >= Q:
        block = int(np.argmax(words.max(axis=1) >= Q))
        raise _altered(f"block {block} has a coefficient outside the ring of ciphertexts")
    return head, words


def _check_slots(slots: NDArray[np.uint64], what: str) -> None:
    if slots.ndim != 1 or slots.dtype != np.uint64 or not 1 <= slots.size <= CHUNK:
        raise ValueError(f"1 to {CHUNK} uint64 slots are {what} at a time, not {slots.shape} of {slots.dtype}")
    if int(slots.max()) >= T:
        raise ValueOutOfRange(
            f"Slot {int(slots.argmax())} is not below t = {T} and would be {what} as another value; "
            "reduce it modulo t, or check the packing."
        )


def _blocks_of(slots: NDArray[np.uint64]) -> Iterator[list[int]]:
    """Lists of 4096 values, the last one filled up with zeros: all that TenSEAL takes."""
    for start in range(0, slots.size, BLOCK_SLOTS):
        block = slots[start : start + BLOCK_SLOTS].tolist()
        yield block + [0] * (BLOCK_SLOTS - len(block))


def _native_vector(context: Any, block: list[int]) -> Any:
    # `tenseal.bfv_vector` wraps this very class, after two more copies of every value.
    from tenseal import _ts_cpp

    return _ts_cpp.BFVVector(context, block)


def _native_block(context: Any, words: NDArray[np.uint64]) -> Any:
    from tenseal import _ts_cpp

    return _ts_cpp.BFVVector(context, _prefix() + words.astype(_WORD, copy=False).tobytes())


def _words(vector: Any) -> bytes:
    """The coefficients of a block's two polynomials, out of TenSEAL's serialisation."""
    data: bytes = vector.serialize()
    prefix = _prefix()
    if not data.startswith(prefix) or len(data) != len(prefix) + BLOCK_BYTES:
        raise ConfigError(
            "The installed TenSEAL writes sealed blocks in another form than version 0.3.18 does; "
            "install exactly that version on every machine of the federation."
        )
    return data[len(prefix) :]


@functools.lru_cache(maxsize=1)
def _prefix() -> bytes:
    """What stands before the words of a block of 4096 slots in TenSEAL 0.3.18's serialisation.

    From the outside in: BFVVectorProto (`tensors.proto`: sizes = [4096], ciphertexts = [...]), SEAL 4.3's header, one
    Zstandard frame (RFC 8878, section 3.1.1) of one raw block, the members of `seal::Ciphertext`, and its
    `seal::DynArray` of words behind a header of its own.
    """
    array = _seal_header(0, 8 + BLOCK_BYTES) + struct.pack("<Q", 2 * POLY_DEGREE)
    members = struct.pack(
        "<4Q?3QdQ",
        *parameters_only().seal_context().first_parms_id(),
        False,  # not in the number-theoretic transform's form
        2,  # polynomials
        POLY_DEGREE,
        1,  # primes
        1.0,  # scale and correction factor: not used by BFV
        1,
    )
    content = len(members) + len(array) + BLOCK_BYTES
    frame = bytes.fromhex("28b52ffd60") + struct.pack("<H", content - 256) + (content << 3 | 1).to_bytes(3, "little")
    ciphertext = _seal_header(2, len(frame) + content)
    length = len(ciphertext) + len(frame) + content
    return b"\x0a\x02" + _varint(BLOCK_SLOTS) + b"\x12" + _varint(length) + ciphertext + frame + members + array


def _seal_header(compression: int, content: int) -> bytes:
    return struct.pack("<HBBBBHQ", 0xA15E, 16, 4, 3, compression, 0, 16 + content)


def _varint(value: int) -> bytes:
    low = []
    while value >= 128:
        low.append(value & 127 | 128)
        value >>= 7
    return bytes([*low, value])


@contextlib.contextmanager
def _refusals(what: str) -> Iterator[None]:
    """What SEAL refuses becomes an error of ours."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise _altered(f"SEAL refuses the block that was to be {what} ({error})") from error


def _altered(why: str) -> AlteredCiphertext:
    return AlteredCiphertext(
        f"This sealed chunk was altered, or made by another version: {why}. Ask its sender for it again."
    )


def _foreign(found: str, expected: str) -> ForeignSealKey:
    return ForeignSealKey(
        f"This chunk is sealed to the key {found[:16]}… and not to {expected[:16]}…; "
        "its sender must take the custodian's public key of this roster."
    )
