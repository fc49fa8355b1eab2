"""Signed messages: every exchange of a round, bound to what it answers.

A message is a canonical JSON object with the fields below, signed by its sender over all of them but the signature,
for the domain `partbook/v1/<kind>` (PROTOCOL §0). It cannot pass for one of another federation, round, plan, kind
or sender: `check` compares each of them before it looks at the signature, and names the one that differs.

    {"body": …, "federation": …, "kind": …, "plan": <plan hash>, "round": …, "sender": …, "signature": <base64>}
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Final

from partbook.errors import CorruptMessage, ForgedMember, ReplayedMessage
from partbook.identity.canonical import Json, canonical, parse_canonical
from partbook.identity.keys import IdentityKey, PublicIdentity

COORDINATOR: Final = "coordinator"  # the name under which the coordinator signs; no member may have it
_FIELDS: Final = {"body", "federation", "kind", "plan", "round", "sender", "signature"}


@dataclass(frozen=True, slots=True)
class Context:
    """What a message belongs to.

    Attributes:
        federation: the federation's name.
        round: counted from 1.
        plan: hash of the round's plan, 64 hexadecimal digits.
    """

    federation: str
    round: int
    plan: str


@dataclass(frozen=True, slots=True)
class Message:
    """One signed message. `decode` says that it is well formed, `check` that it is what it claims to be.

    Its repr leaves the body out: some bodies hold shares in clear.
    """

    kind: str
    context: Context
    sender: str
    body: Json = field(repr=False)
    signature: bytes = field(repr=False)

    @classmethod
    def write(cls, key: IdentityKey, kind: str, context: Context, sender: str, body: Json) -> Message:
        """A message signed by `sender`'s key."""
        unsigned = cls(kind, context, sender, body, b"")
        return cls(kind, context, sender, body, key.sign(unsigned._covered(), _domain(kind)))

    def encode(self) -> bytes:
        """The message's one spelling."""
        return canonical({**self._fields(), "signature": base64.b64encode(self.signature).decode()})

    @classmethod
    def decode(cls, data: bytes) -> Message:
        """Read what `encode` wrote; the signature is not looked at yet.

        Raises:
            CorruptMessage: it is not a message in its one spelling.
        """
        try:
            value = parse_canonical(data)
            if not isinstance(value, dict) or set(value) != _FIELDS:
                raise ValueError("it lacks a field, or has one too many")
            texts = [value[name] for name in ("federation", "kind", "plan", "sender", "signature")]
            number = value["round"]
            if not all(isinstance(text, str) for text in texts) or type(number) is not int:
                raise ValueError("a field is of the wrong kind")
            federation, kind, plan, sender, signature = map(str, texts)
            blob = base64.b64decode(signature, validate=True)
            if base64.b64encode(blob).decode() != signature:
                raise ValueError("its signature is spelt in another way")  # the last digit may hold unused bits
        except (ValueError, UnicodeDecodeError, binascii.Error) as error:
            raise CorruptMessage(
                f"A protocol message does not parse ({error}); its sender must send it again."
            ) from error
        return cls(kind, Context(federation, number, plan), sender, value["body"], blob)

    def check(self, public: PublicIdentity, kind: str, context: Context, sender: str) -> None:
        """Return if this is `sender`'s message of this kind in this context.

        Raises:
            ReplayedMessage: it was signed for something else; the message names what.
            ForgedMember: it claims another sender.
            BadSignature: the sender's key did not sign it.
        """
        for what, found, expected in (
            ("kind", self.kind, kind),
            ("federation", self.context.federation, context.federation),
            ("round", self.context.round, context.round),
            ("plan", self.context.plan, context.plan),
        ):
            if found != expected:
                raise ReplayedMessage(
                    f"A message from {self.sender[:64]!r} is for {what} {found!r:.80} where {expected!r:.80} is due; "
                    "it was replayed or misdirected, and nothing was done with it."
                )
        if self.sender != sender:
            raise ForgedMember(f"A message said to be {sender}'s names {self.sender[:64]!r} as its sender.")
        public.verify(self._covered(), self.signature, _domain(kind))

    def _covered(self) -> bytes:
        return canonical(self._fields())

    def _fields(self) -> dict[str, Json]:
        return {
            "body": self.body,
            "federation": self.context.federation,
            "kind": self.kind,
            "plan": self.context.plan,
            "round": self.context.round,
            "sender": self.sender,
        }


def _domain(kind: str) -> str:
    return f"partbook/v1/{kind}"
