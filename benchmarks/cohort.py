"""Rounds of secure aggregation to be measured: a whole cohort, or one member among the peers it really has.

A member's cost depends on its neighbours, not on what these do with theirs. So one member of ten thousand can be
measured with no more than its neighbours' keys, its own share from each, and the signatures it must be shown.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray

from partbook.identity.keys import IdentityKey
from partbook.identity.message import COORDINATOR, Context, Message
from partbook.secagg import messages as m
from partbook.secagg.coordinator import CoordinatorRound
from partbook.secagg.node import NodeRound
from partbook.secagg.rings import CHUNK, WORDS
from partbook.secagg.session import Session, agree

EXCHANGES: Final = (m.ADVERTISE, m.SHARES, m.CONTRIBUTION, m.CONFIRMED, m.REVEALED)
LARGEST: Final = 2**16 - 2  # a 16-bit grid's


@dataclass(slots=True)
class Cost:
    """CPU seconds and bytes by exchange, named after the node's answer."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    received: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    sent: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    @contextmanager
    def timed(self, exchange: str) -> Iterator[None]:
        """Add the CPU time of what is inside."""
        began = time.process_time()
        yield
        self.seconds[exchange] += time.process_time() - began

    def crossed(self, exchange: str, received: int, sent: int) -> None:
        """Add bytes of messages to and from the node."""
        self.received[exchange] += received
        self.sent[exchange] += sent

    @property
    def total(self) -> float:
        """CPU seconds of the round."""
        return sum(self.seconds.values())

    def over(self, nodes: int) -> Cost:
        """The mean over so many nodes."""
        return Cost(
            {kind: seconds / nodes for kind, seconds in self.seconds.items()},
            {kind: size // nodes for kind, size in self.received.items()},
            {kind: size // nodes for kind, size in self.sent.items()},
        )


class Cohort:
    """`members` members with identity keys, a coordinator, and the session of one masked round."""

    def __init__(self, members: int) -> None:
        names = tuple(f"label-{index:05d}" for index in range(members))
        self.keys = {name: IdentityKey.generate() for name in names}
        self.coordinator = IdentityKey.generate()
        plan = hashlib.sha256(f"a plan for {members}".encode()).hexdigest()
        self.session = Session(
            Context("choir", 1, plan),
            names,
            2 * members // 3 + 1,
            WORDS,
            {name: key.public for name, key in self.keys.items()},
            self.coordinator.public,
        )

    def node(self, name: str) -> NodeRound:
        """A member's machine, fresh."""
        return NodeRound(self.session, name, self.keys[name])

    def ask(self, kind: str, body: m.Body) -> bytes:
        """A coordinator's message."""
        return Message.write(self.coordinator, kind, self.session.context, COORDINATOR, body.json_body()).encode()

    def say(self, name: str, kind: str, body: m.Body) -> str:
        """A member's message."""
        return Message.write(self.keys[name], kind, self.session.context, name, body.json_body()).encode().decode()

    def lost(self, dropped: int) -> frozenset[str]:
        """`dropped` members, spread evenly over the cohort and none of them the first."""
        names, share = self.session.cohort, len(self.session.cohort) / max(dropped, 1)
        return frozenset(names[int((index + 1) * share) - 1] for index in range(dropped))


def vector(name: str, length: int) -> NDArray[np.uint32]:
    """A member's values on a 16-bit grid, (length,): the same whenever they are asked for, so that none are kept."""
    rng = np.random.default_rng(int.from_bytes(name.encode(), "big"))
    return rng.integers(0, LARGEST, length, np.uint32, endpoint=True)


class OneNode:
    """The first member of a cohort, ready to contribute; the coordinator and its neighbours are played.

    Attributes:
        node: its machine.
        cost: what it took the node so far.
    """

    def __init__(self, cohort: Cohort) -> None:
        session, self._cohort = cohort.session, cohort
        self.name, self.cost = session.cohort[0], Cost()
        self.node = cohort.node(self.name)
        with self.cost.timed(m.ADVERTISE):
            advertised = self.node.advertise()
        self.cost.crossed(m.ADVERTISE, 0, len(advertised))
        own = m.Advertise.of(Message.decode(advertised))
        shown, inbox = {self.name: advertised.decode()}, {}
        for peer in session.graph.neighbours(self.name):
            mask_key, share_key = X25519PrivateKey.generate(), X25519PrivateKey.generate()
            keys = m.Advertise(mask_key=_public(mask_key), share_key=_public(share_key))
            shown[peer] = cohort.say(peer, m.ADVERTISE, keys)
            key = session.share_key(agree(share_key, own.share_key, self.name), peer, self.name)
            # Which shares they are makes no difference to who keeps them.
            shares, nonce = os.urandom(2 * m.SHARE_BYTES), os.urandom(12)
            inbox[peer] = nonce + AESGCM(key).encrypt(nonce, shares, session.share_binding(peer, self.name))
        self._answer(
            m.SHARES, self.node.share, cohort.ask(m.KEYS, m.Keys(messages=tuple(shown[peer] for peer in sorted(shown))))
        )
        request = cohort.ask(m.INBOX, m.Inbox(shares=inbox))
        with self.cost.timed(m.CONTRIBUTION):
            self.node.accept_inbox(request)
        self.cost.crossed(m.CONTRIBUTION, len(request), 0)

    def contribute(self, values: NDArray[np.uint32]) -> Iterator[tuple[bytes, bytes]]:
        """Mask `values`, in place, and give out message and bytes chunk by chunk."""
        chunks = max(1, -(-len(values) // CHUNK))
        for index in range(chunks):
            with self.cost.timed(m.CONTRIBUTION):
                message, blob = self.node.contribute(values[index * CHUNK : (index + 1) * CHUNK], index, chunks)
            self.cost.crossed(m.CONTRIBUTION, 0, len(message) + len(blob))
            yield message, blob

    def finish(self, dropped: frozenset[str]) -> None:
        """Confirm and reveal; whoever dropped had given its shares, but never contributed."""
        session, cohort = self._cohort.session, self._cohort
        survivors = tuple(name for name in session.cohort if name not in dropped)
        self._answer(m.CONFIRMED, self.node.confirm, cohort.ask(m.SURVIVORS, m.Survivors(survivors=survivors)))
        confirmed = m.Confirmed(digest=session.survivors_digest(survivors), count=len(survivors))
        signed = tuple(cohort.say(name, m.CONFIRMED, confirmed) for name in survivors[: session.threshold])
        body = m.Reveal(survivors=survivors, dropped=tuple(sorted(dropped)), confirmations=signed)
        self._answer(m.REVEALED, self.node.reveal, cohort.ask(m.REVEAL, body))

    def _answer(self, exchange: str, ask: Callable[[bytes], bytes], request: bytes) -> None:
        with self.cost.timed(exchange):
            answer = ask(request)
        self.cost.crossed(exchange, len(request), len(answer))


@dataclass(frozen=True, slots=True)
class WholeRound:
    """What a round cost when every member was really there.

    Attributes:
        members, dropped, degree: of the cohort, of those that never contributed, and of its graph.
        node: mean over the members that stayed.
        coordinator: CPU seconds; "adding" is that of the chunks, "opening" of taking the masks off.
        exact: whether the sum was the survivors' integer sum.
        wall_seconds: for all of it, one after another.
    """

    members: int
    dropped: int
    degree: int
    node: Cost
    coordinator: Cost
    exact: bool
    wall_seconds: float


def play(cohort: Cohort, length: int, dropped: int) -> WholeRound:
    """One round from the keys to the sum, every member's machine and the coordinator's, one after another.

    Args:
        cohort: with fresh keys or used ones.
        length: elements of the vectors, at most one chunk.
        dropped: members that give their shares and never contribute.
    """
    assert length <= CHUNK, "one chunk is enough to measure, and all that is kept"
    began, session, lost = time.perf_counter(), cohort.session, cohort.lost(dropped)
    stayed = [name for name in session.cohort if name not in lost]
    nodes = {name: cohort.node(name) for name in session.cohort}
    coordinator = CoordinatorRound(session, cohort.coordinator)
    staying, relaying = Cost(), Cost()

    def exchange(
        kind: str,
        answer: Callable[[NodeRound], Callable[[bytes], bytes]],
        accept: Callable[[str, bytes], None],
        asks: dict[str, bytes],
    ) -> None:
        for name, request in asks.items():
            cost = Cost() if name in lost else staying
            with cost.timed(kind):
                said = answer(nodes[name])(request)
            cost.crossed(kind, len(request), len(said))
            with relaying.timed(kind):
                accept(name, said)

    exchange(
        m.ADVERTISE,
        lambda node: lambda _: node.advertise(),
        coordinator.accept_keys,
        dict.fromkeys(session.cohort, b""),
    )
    with relaying.timed(m.SHARES):
        asks = coordinator.ask_share()
    exchange(m.SHARES, lambda node: node.share, coordinator.accept_shares, asks)
    with relaying.timed(m.CONTRIBUTION):
        asks = coordinator.ask_contribute()
    total, expected = np.zeros(length, np.uint32), np.zeros(length, np.uint64)
    for name in stayed:
        values = vector(name, length)
        expected += values
        with staying.timed(m.CONTRIBUTION):
            nodes[name].accept_inbox(asks[name])
            message, blob = nodes[name].contribute(values, 0, 1)
        staying.crossed(m.CONTRIBUTION, len(asks[name]), len(message) + len(blob))
        with relaying.timed(m.CONTRIBUTION):
            coordinator.accept_contribution(name, message, blob)
        with relaying.timed("adding"):
            session.ring.add(total, session.ring.from_bytes(blob, length))
    with relaying.timed(m.CONFIRMED):
        asks = coordinator.ask_confirm()
    exchange(m.CONFIRMED, lambda node: node.confirm, coordinator.accept_confirmation, asks)
    with relaying.timed(m.REVEALED):
        asks = coordinator.ask_reveal()
    exchange(m.REVEALED, lambda node: node.reveal, coordinator.accept_reveal, asks)
    with relaying.timed("opening"):
        coordinator.reconstruct()
        coordinator.unmask(total, 0)
    exact = bool(np.array_equal(total, (expected % session.ring.modulus).astype(np.uint32)))
    return WholeRound(
        len(session.cohort), dropped, session.graph.degree, staying.over(len(stayed)), relaying, exact,
        time.perf_counter() - began,
    )  # fmt: skip


def _public(key: X25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()
