"""The bodies of the six exchanges (PROTOCOL §1), strict: a field too many or of the wrong shape is refused.

| kind           | from        | body                                                             |
|----------------|-------------|------------------------------------------------------------------|
| `advertise`    | node        | two X25519 public keys, fresh for this attempt                   |
| `keys`         | coordinator | signed `advertise` messages of the members one masks with        |
| `shares`       | node        | per peer, its encrypted shares; a commitment to the self mask    |
| `inbox`        | coordinator | the encrypted shares others sent to this node                    |
| `contribution` | node        | which chunk this is, and the SHA-256 of its bytes                |
| `survivors`    | coordinator | whose contributions are complete                                 |
| `confirmed`    | node        | the digest of that list                                          |
| `reveal`       | coordinator | the list again, the dropped, and the signed confirmations        |
| `revealed`     | node        | self-mask shares of survivors, mask-key shares of the dropped    |
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator, StringConstraints, ValidationError

from partbook.errors import CorruptMessage
from partbook.identity.canonical import Json
from partbook.identity.message import Message

ADVERTISE: Final = "advertise"
KEYS: Final = "keys"
SHARES: Final = "shares"
INBOX: Final = "inbox"
CONTRIBUTION: Final = "contribution"
SURVIVORS: Final = "survivors"
CONFIRMED: Final = "confirmed"
REVEAL: Final = "reveal"
REVEALED: Final = "revealed"

LARGEST_COHORT: Final = 10_000
SHARE_BYTES: Final = 33  # an element of the sharing field
ENCRYPTED_SHARES_BYTES: Final = 12 + 2 * SHARE_BYTES + 16  # nonce, two shares, tag (AES-256-GCM)


def _sized(size: int) -> PlainValidator:
    def read(value: object) -> bytes:
        if not isinstance(value, bytes | str):
            raise ValueError("not base64 text")
        try:
            blob = value if isinstance(value, bytes) else base64.b64decode(value, validate=True)
        except binascii.Error as error:
            raise ValueError("not base64") from error
        if len(blob) != size:
            raise ValueError(f"{len(blob)} bytes where {size} belong")
        return blob

    return PlainValidator(read)


def _spell(blob: bytes) -> str:
    return base64.b64encode(blob).decode()


Key = Annotated[bytes, _sized(32), PlainSerializer(_spell)]
Share = Annotated[bytes, _sized(SHARE_BYTES), PlainSerializer(_spell)]
EncryptedShares = Annotated[bytes, _sized(ENCRYPTED_SHARES_BYTES), PlainSerializer(_spell)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Names = Annotated[tuple[Name, ...], Field(max_length=LARGEST_COHORT)]
Signed = Annotated[tuple[Annotated[str, StringConstraints(max_length=10_000)], ...], Field(max_length=LARGEST_COHORT)]
Count = Annotated[int, Field(ge=0, le=2**40, strict=True)]


class Body(BaseModel):
    """A message's body; `of` reads one, `json` writes it."""

    # Some bodies hold shares in clear, and pydantic's errors would print what they were given.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    def json_body(self) -> Json:
        """For `Message.write`."""
        body: Json = self.model_dump(mode="json")
        return body

    @classmethod
    def of(cls, message: Message) -> Self:
        """The body of a message of this kind.

        Raises:
            CorruptMessage: it has other fields than it should; the message names the first.
        """
        try:
            return cls.model_validate(message.body)
        except ValidationError as error:
            first = error.errors(include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "the whole"
            raise CorruptMessage(
                f"{message.sender[:64]!r} sent a {message.kind!r} message that is broken at {where[:80]}: "
                f"{first['msg']}. It must be sent again."
            ) from None  # pydantic's error holds the value, which may be a secret


class Advertise(Body):
    """Public halves of the key for masks and the key for shares."""

    mask_key: Key
    share_key: Key


class Keys(Body):
    """Encoded `advertise` messages."""

    messages: Signed


class Shares(Body):
    """Encrypted shares by receiver."""

    commitment: Key
    shares: dict[Name, EncryptedShares]


class Inbox(Body):
    """Encrypted shares by sender."""

    shares: dict[Name, EncryptedShares]


class Contribution(Body):
    """One chunk of a contribution, whose bytes travel beside this message.

    Attributes:
        chunk, chunks: which of how many.
        elements: ring elements in this chunk.
        sha256: of the chunk's bytes as they travel.
        seal_key: id of the key they are sealed to, which binds the parameters; empty where they are not.
    """

    chunk: Count
    chunks: Count
    elements: Count
    sha256: Sha256
    seal_key: Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{64})?$")]


class Survivors(Body):
    """Members whose contribution is complete, sorted."""

    survivors: Names


class Confirmed(Body):
    """The digest of a list of survivors, and how many it names."""

    digest: Sha256
    count: Count


class Reveal(Body):
    """A request for shares, the same for everybody: the list, those who gave shares and are not in it, and signed
    confirmations of the list."""

    survivors: Names
    dropped: Names
    confirmations: Signed


class Revealed(Body):
    """Shares in clear, by the member whose secret they are of. Its repr does not show them."""

    self_secrets: dict[Name, Share] = Field(repr=False)
    mask_keys: dict[Name, Share] = Field(repr=False)
