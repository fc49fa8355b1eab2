"""What is signed around the sum: the plan, and in sealed rounds the opening, the step and the release.

The exchanges of the sum itself are `partbook.secagg.messages`.

| kind        | from        | says                                                                    |
|-------------|-------------|-------------------------------------------------------------------------|
| `plan`      | coordinator | the round's plan                                                        |
| `ready`     | node        | trained for it; nothing else                                            |
| `begin`     | coordinator | make keys for this attempt                                              |
| `proceed`   | coordinator | send the next chunk                                                     |
| `open`      | coordinator | to the custodian: open this chunk of the sum; these members agreed      |
| `opened`    | custodian   | to the labels: the sum, encrypted under a key wrapped to each of them   |
| `held`      | node        | kept that chunk of the opened sum; others are missing                   |
| `applied`   | node        | the hash of the model that the sum led to                               |
| `endorse`   | coordinator | may this model be released?                                             |
| `endorsed`  | node        | it may                                                                  |
| `publish`   | coordinator | enough labels say so: hand over this stretch of it                      |
| `published` | node        | the model's hash, beside that stretch                                   |
"""

from __future__ import annotations

import base64
from typing import Annotated, Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import Field, StringConstraints

from partbook.errors import CorruptMessage, ReplayedMessage
from partbook.identity.canonical import canonical
from partbook.identity.keys import IdentityKey
from partbook.identity.message import COORDINATOR, Context, Message
from partbook.identity.roster import Roster
from partbook.plan.rounds import RoundPlan
from partbook.secagg.messages import Body, Count, Name, Names, Sha256, Signed

PLAN: Final = "plan"
READY: Final = "ready"
BEGIN: Final = "begin"
PROCEED: Final = "proceed"
OPEN: Final = "open"
OPENED: Final = "opened"
HELD: Final = "held"
APPLIED: Final = "applied"
ENDORSE: Final = "endorse"
ENDORSED: Final = "endorsed"
PUBLISH: Final = "publish"
PUBLISHED: Final = "published"

PUBLISHED_NUMBERS: Final = 2**22
"""Of the model's numbers, so many in one message: as many bytes as a sealed chunk."""

_NONCE: Final = bytes(12)  # every key here encrypts one thing only


class PlanText(Body):
    """A plan in its canonical form."""

    text: Annotated[str, StringConstraints(max_length=2_000_000)]


class Nothing(Body):
    """A message whose kind and context say it all."""


class Proceed(Body):
    """Which chunk comes next."""

    chunk: Count


class Open(Body):
    """A chunk of a sealed sum, whose bytes travel beside this, and who agreed to open it."""

    survivors: Names
    confirmations: Signed
    chunk: Count
    sha256: Sha256


class Opened(Body):
    """A chunk of an opened sum, encrypted: SHA-256 of its bytes, and its key wrapped to each label (HPKE, base64)."""

    contributions: Annotated[int, Field(ge=1)]
    chunk: Count
    sha256: Sha256
    keys: dict[Name, Annotated[str, StringConstraints(max_length=200)]]


class ModelHash(Body):
    """`partbook.model.adapter.state_hash` of a model."""

    model: Sha256


class Publish(Body):
    """Signed `endorsed` messages, and which stretch of `PUBLISHED_NUMBERS` comes next."""

    endorsements: Signed
    chunk: Count = 0


def write_plan(key: IdentityKey, plan: RoundPlan) -> bytes:
    """The plan, signed by the coordinator."""
    body = PlanText(text=plan.encode().decode()).json_body()
    return Message.write(key, PLAN, plan.context(), COORDINATOR, body).encode()


def unverified_plan(data: bytes) -> RoundPlan:
    """The plan in a message, whoever signed it: to see which roster it is for, or to look into one's own files.

    Raises:
        CorruptMessage: it does not parse.
    """
    return RoundPlan.decode(PlanText.of(Message.decode(data)).text.encode())


def endorsements_needed(plan: RoundPlan, roster: Roster) -> int:
    """How many labels of the roster in force must endorse the model after a round that was planned for it, or before.

    Those of the plan's threshold; and where the roster is another since, more than half of it as well: labels that came
    have a say, and labels that left have none.
    """
    return plan.threshold if plan.roster == roster.hash else max(plan.threshold, len(roster.members) // 2 + 1)


def read_plan(data: bytes, roster: Roster) -> RoundPlan:
    """A plan that the roster's coordinator signed.

    Raises:
        CorruptMessage: it does not parse.
        BadSignature: somebody else signed it.
        ReplayedMessage: the message is around another plan.
    """
    message = Message.decode(data)
    plan = RoundPlan.decode(PlanText.of(message).text.encode())
    if message.context != plan.context():
        raise ReplayedMessage("The message around the plan is for another plan; the coordinator must send it again.")
    message.check(roster.coordinator, PLAN, plan.context(), COORDINATOR)
    return plan


def write(key: IdentityKey, kind: str, context: Context, sender: str, body: Body | None = None) -> bytes:
    """Any other of these messages, signed."""
    return Message.write(key, kind, context, sender, (body or Nothing()).json_body()).encode()


def opened_info(context: Context, chunk: int, member: str) -> bytes:
    """What a wrapped key is bound to (HPKE's `info`)."""
    return b"partbook/v1/opened" + canonical(
        {"chunk": chunk, "member": member, "plan": context.plan, "round": context.round}
    )


def encrypt_sum(key: bytes, context: Context, chunk: int, slots: bytes) -> bytes:
    """A chunk of an opened sum under its own one-time key (AES-256-GCM, RFC 5116)."""
    return AESGCM(key).encrypt(_NONCE, slots, opened_info(context, chunk, ""))


def decrypt_sum(key: bytes, context: Context, chunk: int, blob: bytes) -> bytes:
    """What `encrypt_sum` encrypted.

    Raises:
        CorruptMessage: it was altered, or made for another chunk or round.
    """
    from cryptography.exceptions import InvalidTag

    try:
        return AESGCM(key).decrypt(_NONCE, blob, opened_info(context, chunk, ""))
    except (InvalidTag, ValueError):
        raise CorruptMessage("The opened sum does not decrypt: it was altered on its way; ask for it again.") from None


def text(blob: bytes) -> str:
    """Base64."""
    return base64.b64encode(blob).decode()
