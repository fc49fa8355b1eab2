"""A whole round of secure aggregation in one process, which tests may interrupt, restart and lie in."""

from __future__ import annotations

import base64
import json
import traceback
from collections.abc import Callable, Collection, Mapping

import numpy as np
import pytest

from partbook.errors import PartbookError
from partbook.identity.keys import IdentityKey
from partbook.identity.message import COORDINATOR, Context, Message
from partbook.secagg import messages as m
from partbook.secagg.coordinator import CoordinatorRound
from partbook.secagg.node import NodeRound
from partbook.secagg.rings import WORDS, Ring
from partbook.secagg.session import Session

EXCHANGES = (m.ADVERTISE, m.SHARES, m.CONTRIBUTION, m.CONFIRMED, m.REVEALED)
PLAN = "ab" * 32
OTHER_PLAN = "cd" * 32


def names(n: int) -> tuple[str, ...]:
    return tuple(f"label-{index:03d}" for index in range(n))


class Round:
    """Honest nodes and an honest coordinator, one exchange after another.

    `asks` holds what the coordinator asked in the last exchange, `said` every message and blob that anybody sent.
    """

    def __init__(
        self,
        n: int,
        threshold: int | None = None,
        ring: Ring = WORDS,
        *,
        vectors: Mapping[str, np.ndarray] | None = None,
        length: int = 8,
        chunk: int = 2**20,
        plan: str = PLAN,
        identities: Mapping[str, IdentityKey] | None = None,
    ) -> None:
        cohort = names(n)
        self.keys = dict(identities or {name: IdentityKey.generate() for name in cohort})
        self.key = IdentityKey.generate()
        self.ring, self.chunk = ring, chunk
        self.session = Session(
            Context("choir", 3, plan),
            cohort,
            2 * n // 3 + 1 if threshold is None else threshold,
            ring,
            {name: self.keys[name].public for name in cohort},
            self.key.public,
        )
        rng = np.random.default_rng(n)
        self.vectors = dict(
            vectors or {name: rng.integers(0, ring.modulus, length, np.uint64).astype(ring.dtype) for name in cohort}
        )
        self.length = len(self.vectors[cohort[0]])
        self.chunks = max(1, -(-self.length // chunk))
        self.nodes = {name: NodeRound(self.session, name, self.keys[name]) for name in cohort}
        self.coordinator = CoordinatorRound(self.session, self.key, chunks=self.chunks)
        self.alive = set(cohort)
        self.asks: dict[str, bytes] = {}
        self.said: list[bytes] = []
        self.blobs: dict[str, dict[int, bytes]] = {}

    def play(
        self,
        drops: Mapping[str, Collection[str]] | None = None,
        *,
        after: str | None = None,
        before: str | None = None,
        half: Collection[str] = (),
        restart: bool = False,
    ) -> Round:
        """Go through the exchanges, up to the questions of `before`.

        Args:
            drops: who is gone from an exchange on.
            after: the exchange that was played last.
            before: the node's answer at which to stop, with its questions in `asks`.
            half: who sends all chunks but the last, and is gone then.
            restart: kill everybody after every exchange, and go on from what they dumped.
        """
        for kind in EXCHANGES[0 if after is None else EXCHANGES.index(after) + 1 :]:
            self.asks = self._ask(kind)
            if kind == before:
                break
            self.alive -= set((drops or {}).get(kind, ()))
            for name in sorted(self.alive & set(self.asks)):
                self._answer(kind, name, half)
            if kind == m.CONTRIBUTION:
                self.alive -= set(half)
            if restart:
                self.restart()
        return self

    def restart(self) -> None:
        """Everybody is killed and goes on from what it had stored."""
        session = self.session
        self.nodes = {name: NodeRound.load(session, self.keys[name], n.dump()) for name, n in self.nodes.items()}
        self.coordinator = CoordinatorRound.load(session, self.key, self.coordinator.dump())

    def _ask(self, kind: str) -> dict[str, bytes]:
        c = self.coordinator
        ask = {
            m.ADVERTISE: lambda: dict.fromkeys(self.session.cohort, b""),
            m.SHARES: c.ask_share,
            m.CONTRIBUTION: c.ask_contribute,
            m.CONFIRMED: c.ask_confirm,
            m.REVEALED: c.ask_reveal,
        }[kind]
        asks = ask()
        self.said += asks.values()
        return asks

    def _answer(self, kind: str, name: str, half: Collection[str]) -> None:
        node, c, ask = self.nodes[name], self.coordinator, self.asks[name]
        if kind == m.CONTRIBUTION:
            node.accept_inbox(ask)
            for index in range(self.chunks - (name in half)):
                message, blob = self.contribute(name, index)
                assert c.accept_contribution(name, message, blob) is not None
            return
        if kind == m.ADVERTISE:
            answer = node.advertise()
            c.accept_keys(name, answer)
        elif kind == m.SHARES:
            answer = node.share(ask)
            c.accept_shares(name, answer)
        elif kind == m.CONFIRMED:
            answer = node.confirm(ask)
            c.accept_confirmation(name, answer)
        else:
            answer = node.reveal(ask)
            c.accept_reveal(name, answer)
        self.said.append(answer)

    def contribute(self, name: str, index: int = 0) -> tuple[bytes, bytes]:
        """One chunk of a member's vector, masked and signed."""
        values = self.vectors[name][index * self.chunk : (index + 1) * self.chunk].copy()
        message, blob = self.nodes[name].contribute(values, index, self.chunks)
        self.said += [message, blob]
        self.blobs.setdefault(name, {})[index] = blob
        return message, blob

    def opened(self) -> np.ndarray:
        """The sum, once everything is revealed."""
        self.coordinator.reconstruct()
        parts = []
        for index in range(self.chunks):
            length = len(range(self.length)[index * self.chunk : (index + 1) * self.chunk])
            total = np.zeros(length, self.ring.dtype)
            for name in self.coordinator.survivors:
                self.ring.add(total, self.ring.from_bytes(self.blobs[name][index], length))
            self.coordinator.unmask(total, index)
            parts.append(total)
        return np.concatenate(parts)

    def expected(self, survivors: Collection[str]) -> np.ndarray:
        """The sum in plain integers, element by element, which no ring's arithmetic has touched."""
        columns = zip(*(self.vectors[name].tolist() for name in sorted(survivors)), strict=True)
        return np.array([sum(column) % self.ring.modulus for column in columns], self.ring.dtype)

    def lie(self, kind: str, body: m.Body, context: Context | None = None) -> bytes:
        """Whatever a malicious coordinator wants to say, under its own good signature."""
        return Message.write(self.key, kind, context or self.session.context, COORDINATOR, body.json_body()).encode()

    def say(self, name: str, kind: str, body: m.Body, context: Context | None = None) -> bytes:
        """Whatever a malicious member wants to say, under its own good signature."""
        written = Message.write(self.keys[name], kind, context or self.session.context, name, body.json_body())
        return written.encode()

    def secrets(self) -> list[bytes]:
        """Every secret of every node: keys, self-mask secrets, its own shares and those that it holds."""
        found = []
        for node in self.nodes.values():
            state = json.loads(node.dump())
            spelt = [state["mask_key"], state["share_key"], state["self_secret"], *(state["own_shares"] or ())]
            spelt += [share for both in state["shares"].values() for share in both]
            found += [bytes.fromhex(text) for text in spelt]
        return found

    def refused(self, name: str, error: type[PartbookError], act: Callable[[NodeRound], object]) -> PartbookError:
        """The error with which a node refuses; that it gave nothing away by it, and is as if it had not been asked."""
        node = self.nodes[name]
        before = node.dump()
        with pytest.raises(PartbookError) as caught:
            act(node)
        assert type(caught.value) is error, f"{caught.value!r} instead of {error.__name__}"
        assert node.dump() == before
        text = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + repr(node)
        assert_hidden(text, self.secrets())
        return caught.value


def bodies(data: bytes, body: type[m.Body]) -> m.Body:
    """A message's body."""
    return body.of(Message.decode(data))


def assert_hidden(text: str, secrets: Collection[bytes]) -> None:
    """That none of the secrets can be read in a text, in any spelling that somebody might print."""
    for secret in secrets:
        spellings = (
            secret.hex(),
            base64.b64encode(secret).decode().rstrip("="),
            base64.urlsafe_b64encode(secret).decode().rstrip("="),
            repr(secret)[2:-1],
            repr(list(secret))[1:-1],
            str(int.from_bytes(secret, "big")),
            str(int.from_bytes(secret, "little")),
        )
        assert not any(spelling in text for spelling in spellings), "a secret is written out"
