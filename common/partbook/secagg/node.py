"""A member's side of one round's secure aggregation: message in, message out, no input or output of its own.

Bonawitz et al. 2017 (CCS), figure 4 with its consistency check, in the order of PROTOCOL §1:

    advertise()           2  two fresh public keys, signed
    share(keys)           3  everyone's signed keys → encrypted shares of this member's two secrets
    accept_inbox(inbox)   4  the shares others hold out to this member
    contribute(values)    4  the vector, masked in place, chunk by chunk
    confirm(survivors)    5  a signature over one list of survivors
    reveal(request)       6  shares: of the self mask for survivors, of the mask key for the dropped

An exchange that is asked for again in the same words gets the same bytes again; in other words it is refused. So a
lost answer costs nothing, and a second question never gets a second answer. `dump` and `load` carry a round over a
restart; what `dump` gives holds every secret of the round and must be encrypted before it touches a disk. It must be
on that disk before an answer leaves: a member that falls back to an older state answers a second question.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable
from typing import Final

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray

from partbook.errors import (
    AlteredShare,
    BadSignature,
    CohortChanged,
    CohortTooSmall,
    CorruptMessage,
    DuplicateMember,
    ForgedMember,
    OutOfTurn,
    PartbookError,
    SecondReveal,
    SurvivorAlsoDropped,
    SwappedKey,
    TwoSurvivorLists,
)
from partbook.identity.keys import IdentityKey
from partbook.identity.message import COORDINATOR, Message
from partbook.secagg import messages as m
from partbook.secagg.rings import add_masks
from partbook.secagg.session import Session, agree
from partbook.secagg.shares import split

_NONCE: Final = 12


class NodeRound:
    """One attempt at a round, from the keys to the reveal. Its repr shows no secret and it is never pickled."""

    def __init__(self, session: Session, member: str, identity: IdentityKey) -> None:
        """Draw the attempt's secrets.

        Raises:
            ForgedMember: the key is not the one under which the roster lists this member.
        """
        if session.identities.get(member) != identity.public:
            raise ForgedMember(f"The roster does not list {member} with this identity key; use the key it lists.")
        self._session, self._member, self._identity = session, member, identity
        self._mask_key = X25519PrivateKey.generate()
        self._share_key = X25519PrivateKey.generate()
        self._self_secret = os.urandom(32)
        self._peers: dict[str, m.Advertise] = {}
        self._agreed: dict[str, tuple[bytes, bytes]] = {}
        self._own_shares: tuple[bytes, bytes] | None = None
        self._shares: dict[str, tuple[bytes, bytes]] = {}
        self._seeds: list[tuple[bytes, int]] = []
        self._masked: dict[int, str] = {}
        self._survivors: tuple[str, ...] = ()
        # What was asked and answered in each exchange, so that a repetition is one and a variation is caught.
        self._answered: dict[str, tuple[str, bytes]] = {}

    def __repr__(self) -> str:
        return f"NodeRound({self._member}, round {self._session.context.round})"

    def __reduce__(self) -> str:
        raise TypeError("A round's secrets are not pickled; use dump, and encrypt what it gives.")

    @property
    def confirmed(self) -> tuple[str, ...]:
        """The survivors this member has signed for; empty before it has."""
        return self._survivors

    @property
    def revealed(self) -> bool:
        """Whether this member has handed over the shares that open the sum."""
        return m.REVEALED in self._answered

    def advertise(self) -> bytes:
        """The public keys of this attempt, as a signed message."""

        def answer() -> m.Body:
            return m.Advertise(mask_key=_public(self._mask_key), share_key=_public(self._share_key))

        return self._once(m.ADVERTISE, b"", answer, OutOfTurn)

    def share(self, keys: bytes) -> bytes:
        """Check everyone's keys, and give each peer its shares of this member's two secrets.

        Raises:
            SwappedKey: a key was not signed by the member it is said to belong to.
            ForgedMember: a sender is not in the cohort.
            DuplicateMember: one member, or one key, twice.
            ReplayedMessage: keys of another round or attempt.
            CohortTooSmall: fewer members than the threshold.
            CorruptMessage: a key is of low order, so that what it agrees on is known to everybody.
            CohortChanged: this exchange was answered already, for other keys.
            OutOfTurn: this member has not advertised keys.
        """
        if m.ADVERTISE not in self._answered:
            raise OutOfTurn(f"{self._member} was shown keys before it advertised its own; start the round again.")
        request = self._from_coordinator(keys, m.KEYS)

        def answer() -> m.Body:
            peers = self._checked_keys(m.Keys.of(request))
            agreed = {name: self._agree(name, keys) for name, keys in peers.items()}
            self._peers, self._agreed = peers, agreed
            return self._encrypted_shares()

        return self._once(m.SHARES, keys, answer, CohortChanged)

    def accept_inbox(self, inbox: bytes) -> None:
        """Take the shares that peers encrypted to this member.

        Each is opened here, before anything is contributed, so that a share that was altered on its way is found
        while this member can still stay out of the sum.

        Raises:
            CohortChanged: it names others than those whose keys were shown, or was different before.
            CohortTooSmall: fewer shares than the threshold.
            AlteredShare: a share fails its authentication.
        """
        if m.SHARES not in self._answered:
            raise OutOfTurn(f"{self._member} was handed shares before it gave its own; start the round again.")
        request = self._from_coordinator(inbox, m.INBOX)

        def take() -> bytes:
            shares = m.Inbox.of(request).shares
            strangers = sorted(set(shares) - set(self._peers))
            if strangers:
                raise CohortChanged(f"The inbox holds shares from {strangers[0]!r}, whose keys were not shown before.")
            self._enough(len(shares) + 1, "sent their shares", self._session.graph.share_threshold)
            self._shares = {sender: self._opened(sender, ciphertext) for sender, ciphertext in shares.items()}
            return b""

        self._remember(m.INBOX, inbox, take, CohortChanged)

    def contribute(
        self,
        values: NDArray[np.uint32] | NDArray[np.uint64],
        chunk: int,
        chunks: int,
        wrap: Callable[[NDArray[np.uint32] | NDArray[np.uint64]], bytes] | None = None,
        seal_key: str = "",
    ) -> tuple[bytes, bytes]:
        """Mask one chunk in place and wrap it up.

        Args:
            values: (at most `rings.CHUNK`,) elements of the session's ring; overwritten with the masked ones, or with
                zeros where they are refused.
            chunk, chunks: which of how many.
            wrap: turns masked elements into the bytes that travel, such as a seal; the ring's own where None.
            seal_key: id of the key that `wrap` seals to.

        Returns:
            The signed message, and the bytes it vouches for.

        Raises:
            ValueOutOfRange: a value lies outside the ring.
            OutOfTurn: there are no shares yet, or the round's end is near: survivors are confirmed already.
            ValueError: this chunk was contributed before with other values, which would give their difference away,
                or there is no such chunk.
        """
        if not 0 <= chunk < chunks:
            raise ValueError(f"There is no chunk {chunk} of {chunks}.")
        if m.INBOX not in self._answered:
            raise OutOfTurn(f"{self._member} was asked to contribute before it had its peers' shares.")
        if self._survivors:
            raise OutOfTurn(f"{self._member} was asked to contribute after it had confirmed the survivors.")
        ring = self._session.ring
        ring.check(values)
        add_masks(values, self._masks(), ring, chunk)
        plain = ring.to_bytes(values)
        digest = hashlib.sha256(plain).hexdigest()
        if self._masked.setdefault(chunk, digest) != digest:
            values[:] = 0  # masked like the first, they are as good as clear to whoever has that
            raise ValueError(
                f"Chunk {chunk} was masked before with other values; the two would differ by a clear vector."
            )
        blob = plain if wrap is None else wrap(values)
        body = m.Contribution(
            chunk=chunk,
            chunks=chunks,
            elements=len(values),
            sha256=digest if wrap is None else hashlib.sha256(blob).hexdigest(),
            seal_key=seal_key,
        )
        return self._write(m.CONTRIBUTION, body), blob

    def confirm(self, survivors: bytes) -> bytes:
        """Sign the list of survivors, once.

        Raises:
            OutOfTurn: this member has not contributed.
            TwoSurvivorLists: it has signed another list in this round.
            CohortTooSmall: the list is shorter than the threshold.
            ForgedMember: this member is not in it, or somebody is who has no place in it.
        """
        if not self._masked:
            raise OutOfTurn(f"{self._member} was asked who survived before it contributed.")
        request = self._from_coordinator(survivors, m.SURVIVORS)

        def answer() -> m.Body:
            listed = self._checked_survivors(m.Survivors.of(request).survivors)
            self._survivors = listed
            return m.Confirmed(digest=self._session.survivors_digest(listed), count=len(listed))

        return self._once(m.CONFIRMED, survivors, answer, TwoSurvivorLists)

    def reveal(self, request_data: bytes) -> bytes:
        """Hand over shares, against enough signatures over the list this member signed; never both of one peer.

        Raises:
            OutOfTurn: this member has not confirmed a list.
            SecondReveal: shares were handed over already, for another request.
            TwoSurvivorLists: the list, or a confirmation, is not for the list this member signed.
            SurvivorAlsoDropped: a peer is in both.
            CohortChanged: the dropped are not those who gave shares and did not survive.
            DuplicateMember: one member twice among the dropped.
            CohortTooSmall: fewer valid confirmations than the threshold.
            ForgedMember: a confirmation is from somebody else than a survivor, or not signed by its sender.
        """
        if not self._survivors:
            raise OutOfTurn(f"{self._member} was asked for shares before it confirmed the survivors.")
        request = self._from_coordinator(request_data, m.REVEAL)

        def answer() -> m.Body:
            body = m.Reveal.of(request)
            self._checked_reveal(body)
            dropped = set(body.dropped)
            self_secrets, mask_keys = {}, {}
            for peer, (of_key, of_secret) in self._shares.items():
                if peer in dropped:
                    mask_keys[peer] = of_key
                else:
                    self_secrets[peer] = of_secret
            assert self._own_shares is not None, "shares were given before anything was contributed"
            self_secrets[self._member] = self._own_shares[1]
            return m.Revealed(self_secrets=self_secrets, mask_keys=mask_keys)

        return self._once(m.REVEALED, request_data, answer, SecondReveal)

    # The rest is how.

    def _checked_keys(self, body: m.Keys) -> dict[str, m.Advertise]:
        session, found, seen = self._session, dict[str, m.Advertise](), set[bytes]()
        expected = {*session.graph.neighbours(self._member), self._member}
        for text in body.messages:
            message = Message.decode(text.encode())
            sender = message.sender
            if sender not in session.identities or sender not in expected:
                raise ForgedMember(
                    f"Keys were shown for {sender[:64]!r}, who is not a peer of {self._member} in this round's roster."
                )
            if sender in found:
                raise DuplicateMember(f"Keys of {sender} were shown twice; the coordinator must name each member once.")
            try:
                message.check(session.identities[sender], m.ADVERTISE, session.context, sender)
            except BadSignature as error:
                raise SwappedKey(
                    f"The keys shown for {sender} are not signed by {sender}: somebody between you two may want to "
                    "read your shares. Nothing was sent; tell the other members."
                ) from error
            found[sender] = m.Advertise.of(message)
            for key in (found[sender].mask_key, found[sender].share_key):
                if key in seen:
                    raise DuplicateMember(f"{sender} advertised a key that another key in the round equals.")
                seen.add(key)
        own = found.pop(self._member, None)
        if own is None or (own.mask_key, own.share_key) != (_public(self._mask_key), _public(self._share_key)):
            raise SwappedKey(f"The keys shown for {self._member} are not those it advertised in this attempt.")
        self._enough(len(found) + 1, "advertised keys", session.graph.share_threshold)
        return found

    def _encrypted_shares(self) -> m.Shares:
        session, me = self._session, self._member
        holders = sorted({*self._peers, me})
        points = [session.points[holder] for holder in holders]
        needed = session.graph.share_threshold
        of_key = dict(zip(holders, split(_private(self._mask_key), needed, points), strict=True))
        of_secret = dict(zip(holders, split(self._self_secret, needed, points), strict=True))
        self._own_shares = (of_key[me], of_secret[me])
        encrypted = {}
        for peer, (_, agreed) in self._agreed.items():
            key = session.share_key(agreed, me, peer)
            nonce = os.urandom(_NONCE)
            sealed = AESGCM(key).encrypt(nonce, of_key[peer] + of_secret[peer], session.share_binding(me, peer))
            encrypted[peer] = nonce + sealed
        return m.Shares(commitment=session.commitment(self._self_secret, me), shares=encrypted)

    def _opened(self, sender: str, ciphertext: bytes) -> tuple[bytes, bytes]:
        """A peer's shares: (of its mask key, of its self-mask secret)."""
        session, me = self._session, self._member
        key = session.share_key(self._agreed[sender][1], sender, me)
        try:
            both = AESGCM(key).decrypt(ciphertext[:_NONCE], ciphertext[_NONCE:], session.share_binding(sender, me))
        except InvalidTag:
            raise AlteredShare(
                f"The share from {sender} to {me} was altered on its way, or made for another round; "
                "nothing was contributed. Start the round again."
            ) from None
        return both[: m.SHARE_BYTES], both[m.SHARE_BYTES :]

    def _agree(self, peer: str, keys: m.Advertise) -> tuple[bytes, bytes]:
        """What this member and a peer agree on, each with its own two keys: for masks, for shares."""
        return agree(self._mask_key, keys.mask_key, peer), agree(self._share_key, keys.share_key, peer)

    def _masks(self) -> list[tuple[bytes, int]]:
        if not self._seeds:
            session, me = self._session, self._member
            self._seeds.append((session.self_seed(self._self_secret, me), 1))
            for peer in sorted(self._shares):
                seed = session.pair_seed(self._agreed[peer][0], me, peer)
                self._seeds.append((seed, 1 if me < peer else -1))
        return self._seeds

    def _checked_survivors(self, listed: tuple[str, ...]) -> tuple[str, ...]:
        session = self._session
        if len(set(listed)) != len(listed):
            raise DuplicateMember("The list of survivors names a member twice.")
        if list(listed) != sorted(listed):
            raise CorruptMessage("The list of survivors is not sorted; the coordinator must send it again.")
        strangers = sorted(set(listed) - set(session.cohort))
        peers = set(session.graph.neighbours(self._member))
        strangers += sorted((set(listed) & peers) - set(self._shares))
        if strangers:
            raise ForgedMember(f"The list of survivors names {strangers[0]!r}, who gave no shares in this round.")
        if self._member not in listed:
            raise ForgedMember(
                f"The list of survivors leaves out {self._member}, who contributed; it will not sign it."
            )
        if len(listed) < session.threshold:
            raise CohortTooSmall(
                f"Round {session.context.round}: {len(listed)} survivors, {session.threshold} are needed; "
                f"{self._member} keeps its shares. Start the round again."
            )
        return listed

    def _checked_reveal(self, body: m.Reveal) -> None:
        session = self._session
        both = sorted(set(body.survivors) & set(body.dropped))
        if both:
            raise SurvivorAlsoDropped(
                f"{both[0]} is named as a survivor and as dropped: both of its shares together would unmask it. "
                "Nothing was revealed; tell the other members."
            )
        if body.survivors != self._survivors:
            raise TwoSurvivorLists(
                f"The list of survivors differs from the one {self._member} signed; nothing was revealed."
            )
        dropped, peers = set(body.dropped), set(session.graph.neighbours(self._member))
        if len(dropped) != len(body.dropped):
            raise DuplicateMember("The list of the dropped names a member twice.")
        expected = set(self._shares) - set(self._survivors)
        if dropped & peers != expected or not dropped <= set(session.cohort):
            raise CohortChanged(
                f"Of the peers of {self._member}, {', '.join(sorted(expected)) or 'none'} dropped; "
                "the coordinator names others. Nothing was revealed."
            )
        # Signatures of the whole cohort count, not of peers alone: two lists can each find enough signers around
        # two members, never in one cohort.
        digest, signed, survivors = session.survivors_digest(self._survivors), set[str](), set(self._survivors)
        for text in body.confirmations:
            message = Message.decode(text.encode())
            if message.sender not in survivors:
                raise ForgedMember(f"{message.sender[:64]!r} confirmed the survivors, but is none of them.")
            try:
                message.check(session.identities[message.sender], m.CONFIRMED, session.context, message.sender)
            except BadSignature as error:
                raise ForgedMember(f"The confirmation said to be {message.sender}'s is not signed by it.") from error
            if m.Confirmed.of(message).digest != digest:
                raise TwoSurvivorLists(
                    f"{message.sender} signed another list of survivors than {self._member}: the coordinator showed "
                    "two. Nothing was revealed; tell the other members."
                )
            signed.add(message.sender)
        self._enough(len(signed), "confirmed the survivors", session.threshold)

    def _enough(self, count: int, did: str, needed: int) -> None:
        if count < needed:
            raise CohortTooSmall(
                f"Round {self._session.context.round}: {count} members {did}, {needed} are needed; "
                f"{self._member} stops here and nothing was revealed. Start the round again."
            )

    def _from_coordinator(self, data: bytes, kind: str) -> Message:
        message = Message.decode(data)
        message.check(self._session.coordinator, kind, self._session.context, COORDINATOR)
        return message

    def _write(self, kind: str, body: m.Body) -> bytes:
        return Message.write(self._identity, kind, self._session.context, self._member, body.json_body()).encode()

    def _once(self, kind: str, asked: bytes, answer: Callable[[], m.Body], otherwise: type[PartbookError]) -> bytes:
        return self._remember(kind, asked, lambda: self._write(kind, answer()), otherwise)

    def _remember(self, kind: str, asked: bytes, act: Callable[[], bytes], otherwise: type[PartbookError]) -> bytes:
        digest = hashlib.sha256(_question(asked)).hexdigest()
        if kind in self._answered:
            before, answer = self._answered[kind]
            if before != digest:
                raise otherwise(
                    f"{self._member} has answered this exchange of round {self._session.context.round} before, "
                    "to other words; it answers one question once. Start the round again with a new plan."
                )
            return answer
        answer = act()
        self._answered[kind] = (digest, answer)
        return answer

    def dump(self) -> bytes:
        """The whole state, secrets included, for `load`. Encrypt it before it is stored."""
        state = {
            "member": self._member,
            "plan": self._session.context.plan,
            "mask_key": _private(self._mask_key).hex(),
            "share_key": _private(self._share_key).hex(),
            "self_secret": self._self_secret.hex(),
            "peers": {name: keys.model_dump(mode="json") for name, keys in self._peers.items()},
            "own_shares": None if self._own_shares is None else [share.hex() for share in self._own_shares],
            "shares": {name: [share.hex() for share in both] for name, both in self._shares.items()},
            "masked": {str(chunk): digest for chunk, digest in self._masked.items()},
            "survivors": list(self._survivors),
            "answered": {k: [q, base64.b64encode(a).decode()] for k, (q, a) in self._answered.items()},
        }
        return json.dumps(state, sort_keys=True).encode()

    @classmethod
    def load(cls, session: Session, identity: IdentityKey, state: bytes) -> NodeRound:
        """Go on where `dump` was called.

        Raises:
            CorruptMessage: the state is broken.
            OutOfTurn: it is of another plan.
        """
        try:
            values = json.loads(state)
            node = cls(session, values["member"], identity)
            if values["plan"] != session.context.plan:
                raise OutOfTurn("The saved state is of another attempt at this round; start the round again.")
            node._mask_key = X25519PrivateKey.from_private_bytes(_from_hex(values["mask_key"], 32))
            node._share_key = X25519PrivateKey.from_private_bytes(_from_hex(values["share_key"], 32))
            node._self_secret = _from_hex(values["self_secret"], 32)
            node._peers = {name: m.Advertise.model_validate(keys) for name, keys in values["peers"].items()}
            node._own_shares = None if values["own_shares"] is None else _two_shares(values["own_shares"])
            node._agreed = {name: node._agree(name, keys) for name, keys in node._peers.items()}
            node._shares = {name: _two_shares(both) for name, both in values["shares"].items()}
            node._masked = {int(chunk): digest for chunk, digest in values["masked"].items()}
            node._survivors = tuple(values["survivors"])
            node._answered = {k: (q, base64.b64decode(a)) for k, (q, a) in values["answered"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            # No cause: an error about a secret may print it.
            raise CorruptMessage("The saved state of the round is broken; start the round again.") from None
        return node


def _question(asked: bytes) -> bytes:
    """What a request asks, without its signature: ECDSA signs the same words differently each time."""
    if not asked:
        return b""
    message = Message.decode(asked)
    return Message(message.kind, message.context, message.sender, message.body, b"").encode()


def _public(key: X25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def _private(key: X25519PrivateKey) -> bytes:
    return key.private_bytes_raw()


def _from_hex(text: str, size: int) -> bytes:
    blob = bytes.fromhex(text)
    if len(blob) != size:
        raise ValueError("cut or padded")
    return blob


def _two_shares(texts: list[str]) -> tuple[bytes, bytes]:
    of_key, of_secret = texts
    return _from_hex(of_key, m.SHARE_BYTES), _from_hex(of_secret, m.SHARE_BYTES)
