"""Identity keys: ECDSA on P-256 with SHA-256, every signature bound to the purpose it was made for.

A signature covers `length of the domain (2 bytes, big-endian) || domain || message`, so one made for a
release can never pass as one made for a round, whatever the two messages contain. Domains read
`partbook/v1/<purpose>`; each is used for one kind of message only, and a change to that message's meaning is
a new version.

ECDSA: FIPS 186-5, section 6. Signatures are DER (RFC 3279, section 2.2.3), so `openssl dgst -verify` reads
them. Several public keys can be made to fit one ECDSA signature (Pornin and Stern 2005, "Digital signatures
do not guarantee exclusive ownership"): what is signed must therefore name its signer, as releases do.
"""

from __future__ import annotations

import functools
import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from partbook.errors import BadSignature, UnusableKey
from partbook.identity.keyfiles import in_groups, read_private, write_private

_DOMAIN: Final = re.compile(r"partbook/v\d+/[a-z][a-z0-9-]*")
_WHAT: Final = "identity key"
_ALGORITHM: Final = ec.ECDSA(hashes.SHA256())


@dataclass(frozen=True, slots=True)
class PublicIdentity:
    """The half of an identity key that others hold. Equal when the keys are; safe to print.

    Attributes:
        pem: SubjectPublicKeyInfo in PEM, in the one spelling that `cryptography` writes.
    """

    pem: bytes

    def __post_init__(self) -> None:
        if _pem(self._key()) != self.pem:
            raise UnusableKey(
                "This public key is not spelt as Partbook writes one; it was edited or re-encoded. "
                "Ask its owner for the original file."
            )

    def _key(self) -> ec.EllipticCurvePublicKey:
        return _read_public(self.pem)

    @classmethod
    def load(cls, path: Path) -> PublicIdentity:
        """The public key in a PEM file.

        Raises:
            UnusableKey: the file cannot be read, or holds no P-256 public key.
        """
        try:
            return cls(path.read_bytes())
        except OSError as error:
            raise UnusableKey(f"The public key {path} cannot be read: {error.strerror}.") from error
        except UnusableKey as error:
            raise UnusableKey(f"{path}: {error}") from error

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the key's DER encoding in groups of four hex digits, to be read aloud and compared."""
        der = self._key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        return in_groups(hashlib.sha256(der).digest())

    def verify(self, message: bytes, signature: bytes, domain: str) -> None:
        """Return if `signature` was made by this key over `message` for `domain`.

        Raises:
            BadSignature: it was not, or is not a signature at all.
        """
        bound = _bound(message, domain)
        try:
            self._key().verify(signature, bound, _ALGORITHM)
        except (InvalidSignature, ValueError) as error:
            raise BadSignature(
                f"The signature for {domain} does not verify under the key {self.fingerprint}; "
                "the message or the signature was altered, or another key made it."
            ) from error


@dataclass(frozen=True, slots=True)
class IdentityKey:
    """A party's private key. Its repr shows the public fingerprint only."""

    _private: ec.EllipticCurvePrivateKey = field(repr=False)

    def __repr__(self) -> str:
        return f"IdentityKey({self.public.fingerprint})"

    def __reduce__(self) -> str:
        raise TypeError("An identity key is not pickled; save it with a passphrase and load it where it is needed.")

    @classmethod
    def generate(cls) -> IdentityKey:
        """A new key from the operating system's random numbers."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    def certify(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        """A TLS certificate issued by this key (see `partbook.identity.tls`).

        What is signed is a DER sequence, which begins with 0x30; what `sign` covers begins with the length of a domain,
        whose first byte is 0. Neither can pass for the other.
        """
        return builder.sign(self._private, hashes.SHA256())

    @classmethod
    def load(cls, path: Path, passphrase: bytes | None = None) -> IdentityKey:
        """The key that `save` wrote.

        Raises:
            InsecureKeyFile: others than its owner may read or write the file.
            UnusableKey: it cannot be read, is no P-256 private key, or the passphrase is missing or wrong.
        """
        key = read_private(path, passphrase, _WHAT)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise UnusableKey(f"{path} is not an ECDSA key on P-256, the only kind Partbook uses; generate a new one.")
        return cls(key)

    def save(self, path: Path, passphrase: bytes | None = None) -> None:
        """Write the key as PKCS #8 PEM, readable by its owner only, encrypted if there is a passphrase.

        Raises:
            UnusableKey: something is already at `path` (a key is never overwritten), or it cannot be written.
        """
        write_private(path, self._private, passphrase, _WHAT)

    @property
    def public(self) -> PublicIdentity:
        """The half to hand out."""
        return PublicIdentity(_pem(self._private.public_key()))

    def sign(self, message: bytes, domain: str) -> bytes:
        """A DER signature over `message` that verifies for `domain` and no other."""
        return self._private.sign(_bound(message, domain), _ALGORITHM)


def _bound(message: bytes, domain: str) -> bytes:
    """What is really signed: the message behind its length-prefixed domain."""
    if not _DOMAIN.fullmatch(domain):
        raise ValueError(f"{domain!r} is not a signing domain; write one like 'partbook/v1/release'.")
    label = domain.encode("ascii")
    return len(label).to_bytes(2, "big") + label + message


@functools.lru_cache(maxsize=4096)  # a round checks several signatures of each member, and parsing costs as much as one
def _read_public(pem: bytes) -> ec.EllipticCurvePublicKey:
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UnusableKey(
            "This is not a public key in PEM; ask its owner for the file that begins with '-----BEGIN PUBLIC KEY-----'."
        ) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise UnusableKey("This public key is not an ECDSA key on P-256, the only kind Partbook uses.")
    return key


def _pem(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
