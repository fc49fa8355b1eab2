"""What both sides of a round's secure aggregation agree on before it begins, and the keys they derive.

All derivations are HKDF-SHA256 (RFC 5869) with the plan's hash as salt, so that two rounds, and two attempts at
one round, share no key and no mask even where a key pair were used again. Names go in behind their lengths, so no
two pairs of names give one `info`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from partbook.errors import CorruptMessage
from partbook.identity.canonical import Json, canonical
from partbook.identity.keys import PublicIdentity
from partbook.identity.message import COORDINATOR, Context
from partbook.secagg.graph import Graph, graph_of
from partbook.secagg.rings import Ring

PAIR: Final = b"partbook/v1/pair"
SELF: Final = b"partbook/v1/self"
SHARE: Final = b"partbook/v1/share"
COMMITMENT: Final = b"partbook/v1/self-commitment"
SURVIVORS: Final = b"partbook/v1/survivors"
GRAPH: Final = b"partbook/v1/graph"


@dataclass(frozen=True)
class Session:
    """One round's secure aggregation, as its plan and the pinned roster define it.

    Attributes:
        context: federation, round and plan hash; every message carries it.
        cohort: members asked, sorted.
        threshold: fewest survivors whose sum may be opened.
        ring: where sums are taken.
        identities: the cohort's public keys, from the pinned roster.
        coordinator: the coordinator's public key, from the same.

    Raises:
        ValueError: the cohort is not sorted, a name is there twice or is the coordinator's, or it is not exactly the
            cohort whose keys are given.
    """

    context: Context
    cohort: tuple[str, ...]
    threshold: int
    ring: Ring
    identities: Mapping[str, PublicIdentity]
    coordinator: PublicIdentity

    def __post_init__(self) -> None:
        if list(self.cohort) != sorted(set(self.cohort)) or COORDINATOR in self.cohort:
            raise ValueError("A cohort is sorted, names everybody once, and never the coordinator.")
        if set(self.identities) != set(self.cohort):
            raise ValueError("A session holds the identity keys of its cohort, all of them and no others.")

    @cached_property
    def graph(self) -> Graph:
        """Who masks with whom and who holds whose shares; drawn from the plan's hash."""
        return graph_of(self.cohort, self.threshold, hashlib.sha256(GRAPH + self.salt).digest())

    @cached_property
    def points(self) -> Mapping[str, int]:
        """Where on the sharing polynomials each member stands: its place in the cohort, from 1."""
        return {member: index + 1 for index, member in enumerate(self.cohort)}

    @cached_property
    def salt(self) -> bytes:
        """The plan's hash, 32 bytes."""
        return bytes.fromhex(self.context.plan)

    def pair_seed(self, agreed: bytes, one: str, other: str) -> bytes:
        """The 32-byte seed that two members mask with, from what their mask keys agree on; the same on either side."""
        low, high = sorted((one, other))
        return derive(agreed, self.salt, PAIR + _named(low) + _named(high))

    def self_seed(self, secret: bytes, member: str) -> bytes:
        """The 32-byte seed of a member's own mask."""
        return derive(secret, self.salt, SELF + _named(member))

    def share_key(self, agreed: bytes, sender: str, receiver: str) -> bytes:
        """The AES-256-GCM key for shares from `sender` to `receiver`, from what their share keys agree on.

        Each direction has its own.
        """
        return derive(agreed, self.salt, SHARE + _named(sender) + _named(receiver))

    def share_binding(self, sender: str, receiver: str) -> bytes:
        """What an encrypted share is bound to (its additional authenticated data)."""
        where = _named(self.context.federation) + self.context.round.to_bytes(8, "big") + self.salt
        return SHARE + where + _named(sender) + _named(receiver)

    def commitment(self, secret: bytes, member: str) -> bytes:
        """SHA-256 that shows later whether a self-mask secret was put together right; 32 bytes.

        The secret has 256 random bits, so the hash gives nothing away that could be guessed.
        """
        return hashlib.sha256(COMMITMENT + self.salt + _named(member) + secret).digest()

    def survivors_digest(self, survivors: tuple[str, ...]) -> str:
        """What a member signs when it confirms a list of survivors; hexadecimal."""
        names: list[Json] = list(survivors)
        return hashlib.sha256(SURVIVORS + canonical(names)).hexdigest()


def agree(private: X25519PrivateKey, public: bytes, peer: str) -> bytes:
    """X25519 (RFC 7748, section 6.1), refusing the all-zero outcome.

    Raises:
        CorruptMessage: the peer's key is malformed or of low order.
    """
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:
        raise CorruptMessage(
            f"{peer} advertised a key that is no X25519 key of full order; it must make new ones."
        ) from error


def derive(secret: bytes, salt: bytes, info: bytes) -> bytes:
    """HKDF-SHA256 to 32 bytes (RFC 5869)."""
    return HKDF(hashes.SHA256(), 32, salt, info).derive(secret)


def _named(name: str) -> bytes:
    text = name.encode()
    return len(text).to_bytes(2, "big") + text
