"""Who is at the other end: the coordinator asks, a party answers with its signature, before anything else is said.

Flower knows nodes by a number that anybody could claim a name for; a name counts only with the key that the roster
lists. Both messages belong to no round, so their context is round 0 and a plan of zeros.

| kind    | from        | says                                                                       |
|---------|-------------|----------------------------------------------------------------------------|
| `hello` | coordinator | a fresh nonce, the roster it works with, and the time on its clock         |
| `here`  | party       | the same nonce: this is me, with this version of Partbook; and its time    |

The time is compared here, once, since deadlines later rest on it: a machine whose clock is minutes off would take part
in rounds that are over, or in none.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated, Final

from pydantic import Field, StringConstraints

from partbook.errors import ForgedMember, ReplayedMessage, WrongClock
from partbook.identity.keys import IdentityKey
from partbook.identity.message import COORDINATOR, Context, Message
from partbook.identity.roster import Roster
from partbook.secagg.messages import Body, Sha256

HELLO: Final = "hello"
HERE: Final = "here"
CLOCKS_APART: Final = 300  # seconds between two clocks that both may still be called right

Nonce = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
Seconds = Annotated[int, Field(ge=0, le=2**40, strict=True)]


class Hello(Body):
    """The coordinator's question."""

    nonce: Nonce
    roster: Sha256
    time: Seconds


class Here(Body):
    """A party's answer."""

    nonce: Nonce
    version: Annotated[str, StringConstraints(max_length=64)]
    time: Seconds


@dataclass(frozen=True, slots=True)
class Greeted:
    """A party that proved who it is.

    Attributes:
        party: its name in the roster.
        version: its Partbook's.
        clock: seconds by which its clock is ahead of the coordinator's.
    """

    party: str
    version: str
    clock: int


@dataclass(frozen=True, slots=True)
class Greeter:
    """The coordinator's side: asks, and reads who answered.

    Attributes:
        key: the coordinator's identity.
        roster: the one it works with.
    """

    key: IdentityKey
    roster: Roster

    def question(self, nonce: str) -> bytes:
        """See `hello`."""
        return hello(self.key, self.roster, nonce, int(time.time()))

    def read(self, answer: bytes, nonce: str) -> Greeted:
        """See `greeted`."""
        return greeted(answer, self.roster, nonce, int(time.time()))


def hello(key: IdentityKey, roster: Roster, nonce: str, now: int) -> bytes:
    """The coordinator's question; `nonce` is 32 fresh hexadecimal digits, `now` Unix time in seconds."""
    body = Hello(nonce=nonce, roster=roster.hash, time=now)
    return Message.write(key, HELLO, _context(roster), COORDINATOR, body.json_body()).encode()


def here(question: bytes, identity: IdentityKey, roster: Roster, party: str, now: int) -> bytes:
    """A party's answer to `question`.

    Raises:
        BadSignature, CorruptMessage, ReplayedMessage: it is not this federation's coordinator's question.
        ForgedMember: the coordinator works with another version of the roster than the one pinned here.
        WrongClock: the two clocks are more than five minutes apart.
    """
    message = Message.decode(question)
    message.check(roster.coordinator, HELLO, _context(roster), COORDINATOR)
    asked = Hello.of(message)
    if asked.roster != roster.hash:
        raise ForgedMember(
            f"The coordinator works with roster {asked.roster[:12]}…; the one pinned at {party} is {roster.hash[:12]}… "
            f"(version {roster.version}). Compare fingerprints, sign and install the newer one, and start again."
        )
    if abs(now - asked.time) > CLOCKS_APART:
        way = "ahead of" if now > asked.time else "behind"
        raise WrongClock(
            f"The clock at {party} is {abs(now - asked.time)} s {way} the coordinator's; set it by NTP (on both "
            f"machines): deadlines mean nothing when clocks are over {CLOCKS_APART} s apart."
        )
    body = Here(nonce=asked.nonce, version=version("partbook"), time=now)
    return Message.write(identity, HERE, _context(roster), party, body.json_body()).encode()


def greeted(answer: bytes, roster: Roster, nonce: str, now: int) -> Greeted:
    """Who answered the question with this nonce.

    Raises:
        ForgedMember: the roster does not hold the name.
        BadSignature, CorruptMessage, ReplayedMessage: it is not that party's answer to this question.
    """
    message = Message.decode(answer)
    message.check(roster.identity_of(message.sender), HERE, _context(roster), message.sender)
    body = Here.of(message)
    if body.nonce != nonce:
        raise ReplayedMessage(f"{message.sender}'s answer is to another question; it was replayed.")
    return Greeted(message.sender, body.version, body.time - now)


def _context(roster: Roster) -> Context:
    return Context(roster.federation, 0, "0" * 64)
