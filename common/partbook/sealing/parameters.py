"""The one BFV parameter set of the protocol, and the keys made for it.

N = 4096: polynomial degree, and slots a block.
q: a 60-bit and a 40-bit prime. With ternary secrets log2 q = 100 leaves 128 bits of security, classical (at most 109)
   and quantum (at most 101): Albrecht et al. 2018, "Homomorphic Encryption Standard", tables 1 and 2.
t = `partbook.secagg.rings.T`: slots are the elements of Z_t, so masks cancel inside the ciphertext.

SEAL keeps the 40-bit prime for keys and drops it as it encrypts: a block has coefficients modulo the 60-bit prime
`Q` only. What that rounding leaves is nearly all of a fresh block's noise: a coefficient of variance
(1 + 2N/3 + 1)/12, about 15.1^2, and sums of n blocks have n times that. A slot opens correctly while the noise stays
under Q/2t = 2048. Rounding errors are sub-Gaussian with their own variance, so for n = 128 a coefficient fails with
probability below 2 exp(-12^2/2) < 2^-102, and a chunk of 2^20 slots below 2^-82; hence `MAX_CONTRIBUTIONS`.

BFV: Brakerski 2012 (eprint 2012/078), Fan and Vercauteren 2012 (eprint 2012/144); SEAL 4.3 inside TenSEAL 0.3.18,
which seeds a fresh generator from the operating system for every encryption. CKKS is not used: approximate
decryptions leak its key (Li and Micciancio 2020, eprint 2020/1533), and masks would not cancel in it.
"""

from __future__ import annotations

import functools
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from partbook.errors import ForeignSealKey, UnusableKey
from partbook.identity.canonical import canonical
from partbook.identity.keyfiles import read_secret, write_secret
from partbook.secagg.rings import T

POLY_DEGREE: Final = 4096
COEFF_BITS: Final = (60, 40)
COEFF_PRIMES: Final = (1152921504606830593, 1099511480321)
"""The primes SEAL finds for `COEFF_BITS`: the largest of their size that are 1 modulo 2N and not taken yet."""

Q: Final = COEFF_PRIMES[0]
"""Coefficient modulus of a block."""

MAX_CONTRIBUTIONS: Final = 128
"""Blocks that may be added up before noise could reach the message; see above."""

assert all(prime.bit_length() == bits for prime, bits in zip(COEFF_PRIMES, COEFF_BITS, strict=True))
assert all(prime % (2 * POLY_DEGREE) == 1 for prime in (*COEFF_PRIMES, T)), "no slots without these roots of unity"

PARAMETER_HASH: Final = hashlib.sha256(
    canonical(
        {
            "protocol": "partbook/v1/seal-parameters",
            "scheme": "BFV",
            "poly_degree": POLY_DEGREE,
            "coeff_primes": [str(prime) for prime in COEFF_PRIMES],
            "plain_modulus": T,
            "secret": "ternary",
            "error": "centred binomial, SEAL 4",
            "encryption": "asymmetric",
            "max_contributions": MAX_CONTRIBUTIONS,
        }
    )
).hexdigest()
"""SHA-256 over all of the above; every key id covers it."""

_KEY_LABEL: Final = b"partbook/v1/seal-key"
_LARGEST_BLOB: Final = 2**20  # bytes; a public key has 114 thousand, a secret one with its public half 173

# A secret key's file: magic, kind, key id, then the blob, or salt, nonce and the blob under AES-256-GCM, whose key
# scrypt (RFC 7914) derives from the passphrase and whose associated data is all that stands before the ciphertext.
_MAGIC: Final = b"partbook/v1/seal-secret\n"
_CLEAR, _PASSPHRASE = b"\x00", b"\x01"
_ID_BYTES, _SALT_BYTES, _NONCE_BYTES = 32, 16, 12
_SCRYPT_N: Final = 2**17  # 128 MiB and some tenths of a second a guess
_WHAT: Final = "custodian's secret key"


@dataclass(frozen=True)
class SealPublic:
    """What a label seals with. Equal when the keys are; safe to hand out.

    Attributes:
        blob: TenSEAL's context with the public key and nothing else, in the one spelling TenSEAL 0.3.18 writes.
        native: that context, loaded once.

    Raises:
        UnusableKey: the blob is something else, is for other parameters, or holds more than a public key.
    """

    blob: bytes = field(repr=False)
    native: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        native = _load(self.blob, "public")
        if native.has_secret_key():
            raise UnusableKey(
                "This file holds the SECRET key of a seal, not a public key; whoever has it can open every sum. "
                "The custodian must make a new key and hand out its public half."
            )
        if native.serialize(True, False, False, False) != self.blob:
            raise UnusableKey(
                "This public key of a seal is not spelt as TenSEAL 0.3.18 writes one; it was edited, or carries more "
                "than the key. Ask the custodian for the original file."
            )
        object.__setattr__(self, "native", native)

    def __repr__(self) -> str:
        return f"SealPublic({self.key_id[:16]}…)"

    def __reduce__(self) -> tuple[type[SealPublic], tuple[bytes]]:
        return SealPublic, (self.blob,)

    @property
    def key_id(self) -> str:
        """SHA-256, in hex, of a label, `PARAMETER_HASH` and the blob: what rosters, plans and chunks name."""
        return _key_id(self.blob)

    def write(self, path: Path) -> None:
        """Write the blob as it is.

        Raises:
            UnusableKey: it cannot be written.
        """
        try:
            path.write_bytes(self.blob)
        except OSError as error:
            raise UnusableKey(f"The public key of the seal cannot be written to {path}: {error.strerror}.") from error

    @classmethod
    def read(cls, path: Path, expected_key_id: str | None) -> SealPublic:
        """The key that `write` wrote; its id is compared before TenSEAL sees a byte.

        Raises:
            ForeignSealKey: the key is not the one with `expected_key_id`.
            UnusableKey: it cannot be read, or is not a public key for the protocol's parameters.
        """
        try:
            blob = path.read_bytes()
        except OSError as error:
            raise UnusableKey(f"The public key of the seal {path} cannot be read: {error.strerror}.") from error
        if expected_key_id is not None and (found := _key_id(blob)) != expected_key_id:
            raise ForeignSealKey(
                f"{path} holds the seal key {found[:16]}…, but the roster names {expected_key_id[:16]}…; "
                "ask the custodian for the public key of this roster."
            )
        try:
            return cls(blob)
        except UnusableKey as error:
            raise UnusableKey(f"{path}: {error}") from error


@dataclass(frozen=True, eq=False)
class SealSecret:
    """What the custodian opens with. Its repr shows the key id only; it is never pickled."""

    _blob: bytes = field(repr=False)

    def __repr__(self) -> str:
        return f"SealSecret({self.key_id[:16]}…)"

    def __reduce__(self) -> str:
        raise TypeError("The seal's secret key is not pickled; write it with a passphrase, read it where it is needed.")

    @functools.cached_property
    def native(self) -> Any:
        """TenSEAL's context, loaded once."""
        native = _load(self._blob, "secret")
        if not native.has_secret_key():
            raise UnusableKey("This file holds no secret key of a seal; give the one the custodian keeps.")
        return native

    @functools.cached_property
    def public(self) -> SealPublic:
        """The half to hand out."""
        return SealPublic(self.native.serialize(True, False, False, False))

    @property
    def key_id(self) -> str:
        """That of `public`."""
        return self.public.key_id

    def reveal(self) -> bytes:
        """The key itself, for a process of the custodian's own; never to be sent elsewhere, logged or stored."""
        return self._blob

    def write(self, path: Path, passphrase: bytes | None) -> None:
        """Write a new file that only its owner may read, encrypted if there is a passphrase.

        Raises:
            UnusableKey: something is already at `path` (a key is never overwritten), or it cannot be written.
        """
        head = _MAGIC + (_CLEAR if passphrase is None else _PASSPHRASE) + bytes.fromhex(self.key_id)
        if passphrase is None:
            write_secret(path, head + self._blob, _WHAT)
            return
        salt, nonce = os.urandom(_SALT_BYTES), os.urandom(_NONCE_BYTES)
        head += salt + nonce
        write_secret(path, head + AESGCM(_stretch(passphrase, salt)).encrypt(nonce, self._blob, head), _WHAT)

    @classmethod
    def read(cls, path: Path, passphrase: bytes | None) -> SealSecret:
        """The key that `write` wrote.

        Raises:
            InsecureKeyFile: others than its owner may read or write the file.
            UnusableKey: it cannot be read, is something else or damaged, or the passphrase is missing or wrong.
        """
        data = read_secret(path, _WHAT)
        body = len(_MAGIC) + 1 + _ID_BYTES
        kind, key_id = data[len(_MAGIC) : len(_MAGIC) + 1], data[body - _ID_BYTES : body].hex()
        if not data.startswith(_MAGIC) or len(data) < body or kind not in (_CLEAR, _PASSPHRASE):
            raise UnusableKey(f"{path} is not the {_WHAT}; give the file that was made with it.")
        if (kind == _CLEAR) != (passphrase is None):
            wanted = "is not encrypted: give no passphrase" if kind == _CLEAR else "is encrypted: give its passphrase"
            raise UnusableKey(f"The {_WHAT} {path} {wanted}.")
        blob = data[body:]
        if passphrase is not None:
            salt, nonce = blob[:_SALT_BYTES], blob[_SALT_BYTES : _SALT_BYTES + _NONCE_BYTES]
            start = body + _SALT_BYTES + _NONCE_BYTES
            try:
                blob = AESGCM(_stretch(passphrase, salt)).decrypt(nonce, data[start:], data[:start])
            except (InvalidTag, ValueError) as error:
                raise UnusableKey(
                    f"The {_WHAT} {path} does not open with this passphrase, or the file is damaged; "
                    "restore it from your backup."
                ) from error
        secret = cls(blob)
        try:
            found = secret.key_id
        except UnusableKey as error:
            raise UnusableKey(f"{path}: {error}") from error
        if found != key_id:
            raise UnusableKey(f"The {_WHAT} {path} is damaged: it is not the key its head names; restore a backup.")
        return secret


def generate() -> tuple[SealSecret, SealPublic]:
    """A new key pair from the operating system's random numbers."""
    native = _generate()
    secret = SealSecret(native.serialize(True, True, False, False))
    return secret, secret.public


@functools.lru_cache(maxsize=1)
def parameters_only() -> Any:
    """TenSEAL's context with the parameters and no key at all: all the coordinator gets.

    TenSEAL makes no context without making a key; the one made here is dropped unused.
    """
    return _load(_generate().serialize(False, False, False, False), "parameters")


def _generate() -> Any:
    import tenseal

    return tenseal.context(tenseal.SCHEME_TYPE.BFV, POLY_DEGREE, T, list(COEFF_BITS), n_threads=1).data


def _load(blob: bytes, kind: str) -> Any:
    """TenSEAL's context from `blob`, if its parameters are exactly the protocol's."""
    if len(blob) > _LARGEST_BLOB:
        raise UnusableKey(f"A {kind} key of a seal has at most {_LARGEST_BLOB} bytes and this file has {len(blob)}.")
    import tenseal
    import tenseal.sealapi  # without it a context's parameters cannot be looked at

    try:
        native = tenseal.context_from(blob, 1).data
        parameters = native.seal_context().key_context_data().parms()
        found = (
            parameters.poly_modulus_degree(),
            parameters.plain_modulus().value(),
            tuple(modulus.value() for modulus in parameters.coeff_modulus()),
        )
        # Raises where the context is for symmetric encryption.
        has_public = native.has_public_key()
    except (RuntimeError, ValueError, MemoryError, IndexError, AttributeError) as error:
        # The library's own words may quote what is in the file.
        raise UnusableKey(
            f"This is not a {kind} key of a seal that TenSEAL 0.3.18 can read; ask the custodian for the original."
        ) from error
    if found != (POLY_DEGREE, T, COEFF_PRIMES):
        raise UnusableKey(
            f"This {kind} key of a seal was made for other parameters than {PARAMETER_HASH[:16]}… "
            f"(degree {found[0]}, plain modulus {found[1]}); the custodian must make a new one with this version."
        )
    if kind != "parameters" and not has_public:
        raise UnusableKey(f"This {kind} key of a seal lacks its public half; ask the custodian for the original.")
    return native


def _key_id(blob: bytes) -> str:
    return hashlib.sha256(_KEY_LABEL + bytes.fromhex(PARAMETER_HASH) + blob).hexdigest()


def _stretch(passphrase: bytes, salt: bytes) -> bytes:
    return Scrypt(salt=salt, length=32, n=_SCRYPT_N, r=8, p=1).derive(passphrase)
