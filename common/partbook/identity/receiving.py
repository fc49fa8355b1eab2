"""Receiving keys: what a party is sent for its eyes alone is sealed to its X25519 key by HPKE.

HPKE (RFC 9180) in base mode, single shot, with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and AES-256-GCM; a sealed
message is `enc (32 bytes) || ciphertext || tag (16 bytes)`. Base mode authenticates no sender: whoever needs one
signs what is sealed with an identity key. The long-lived key gives no forward secrecy; shares of a round go
to that round's fresh keys (PROTOCOL §1) and not to these.

`info` binds a message to its purpose (round, receiver, kind): it opens under the same `info` and no other.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from partbook.errors import CorruptMessage, UnusableKey
from partbook.identity.keyfiles import in_groups, read_private, write_private

_WHAT: Final = "receiving key"
_SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_FIELD: Final = 2**255 - 19  # RFC 7748, section 4.1
OVERHEAD: Final = 32 + 16  # bytes that sealing adds: the encapsulated key and the tag


@dataclass(frozen=True, slots=True)
class PublicReceiving:
    """The half of a receiving key that others hold. Equal when the keys are; safe to print.

    Attributes:
        raw: the u-coordinate, 32 bytes, little-endian (RFC 7748, section 5), reduced, not of low order.
    """

    raw: bytes

    def __post_init__(self) -> None:
        # X25519 takes many spellings for one point; two members must not hold one key under two of them.
        if len(self.raw) != 32 or int.from_bytes(self.raw, "little") >= _FIELD:
            raise UnusableKey("A public receiving key is 32 bytes that spell a number below 2^255 - 19; this is not.")
        try:
            X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(self.raw))
        except ValueError as error:
            raise UnusableKey(
                "This public receiving key is a point of low order: anyone could open what is sealed to it. "
                "Whoever gave it is mistaken or means harm."
            ) from error

    @classmethod
    def parse(cls, text: str) -> PublicReceiving:
        """The key that `text` spells.

        Raises:
            UnusableKey: it is not 32 bytes in padded base64 (RFC 4648, section 4), or not a usable key.
        """
        try:
            raw = base64.b64decode(text, validate=True)
        except (ValueError, binascii.Error) as error:
            raise UnusableKey("This receiving key is not base64; ask its owner for the original.") from error
        key = cls(raw)
        if key.text != text:
            raise UnusableKey("This receiving key is not spelt as Partbook writes one; ask its owner for the original.")
        return key

    @property
    def text(self) -> str:
        """The key in padded base64, 44 characters."""
        return base64.b64encode(self.raw).decode("ascii")

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the raw key in groups of four hex digits, to be read aloud and compared."""
        return in_groups(hashlib.sha256(self.raw).digest())

    def seal_to(self, plaintext: bytes, info: bytes) -> bytes:
        """`plaintext` so that only this key's owner can open it, knowing `info`; `OVERHEAD` bytes longer."""
        return _SUITE.encrypt(plaintext, X25519PublicKey.from_public_bytes(self.raw), info)


@dataclass(frozen=True, slots=True)
class ReceivingKey:
    """The private half. Its repr shows the public fingerprint only."""

    _private: X25519PrivateKey = field(repr=False)

    def __repr__(self) -> str:
        return f"ReceivingKey({self.public.fingerprint})"

    def __reduce__(self) -> str:
        raise TypeError("A receiving key is not pickled; save it with a passphrase and load it where it is needed.")

    @classmethod
    def generate(cls) -> ReceivingKey:
        """A new key from the operating system's random numbers."""
        return cls(X25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path, passphrase: bytes | None = None) -> ReceivingKey:
        """The key that `save` wrote.

        Raises:
            InsecureKeyFile: others than its owner may read or write the file.
            UnusableKey: it cannot be read, is no X25519 private key, or the passphrase is missing or wrong.
        """
        key = read_private(path, passphrase, _WHAT)
        if not isinstance(key, X25519PrivateKey):
            raise UnusableKey(
                f"{path} is not an X25519 key, the only kind Partbook receives with; "
                "give the file NAME.receiving.pem that `partbook keys new` wrote."
            )
        return cls(key)

    def save(self, path: Path, passphrase: bytes | None = None) -> None:
        """Write the key as PKCS #8 PEM, readable by its owner only, encrypted if there is a passphrase.

        Raises:
            UnusableKey: something is already at `path` (a key is never overwritten), or it cannot be written.
        """
        write_private(path, self._private, passphrase, _WHAT)

    @property
    def public(self) -> PublicReceiving:
        """The half to hand out."""
        return PublicReceiving(self._private.public_key().public_bytes_raw())

    def open(self, ciphertext: bytes, info: bytes) -> bytes:
        """What was sealed to this key with this `info`.

        Raises:
            CorruptMessage: it was sealed for another key or another purpose, or was altered on the way.
        """
        try:
            return _SUITE.decrypt(ciphertext, self._private, info)
        except (InvalidTag, ValueError) as error:
            raise CorruptMessage(
                f"A sealed message does not open with the receiving key {self.public.fingerprint}: it was sealed "
                "for someone else or another purpose, or was altered. Ask its sender to send it again."
            ) from error
