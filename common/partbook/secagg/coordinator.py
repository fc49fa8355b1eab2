"""The coordinator's side of one round's secure aggregation: message in, messages out, no input or output of its own.

It relays, and it learns what the masks hide only as a sum. In the order of PROTOCOL §1:

    accept_keys       2  …  ask_share       3  every member's signed keys, to its peers
    accept_shares     3  …  ask_contribute  4  to each member, the shares encrypted to it
    accept_contribution 4 … ask_confirm     5  the list of those whose contribution is complete
    accept_confirmation 5 … ask_reveal      6  the list again, with signatures over it
    accept_reveal     6  …  reconstruct        the secrets behind what is left of the masks
                            unmask             takes those masks off the sum, chunk by chunk

`accept_…` raises a named error for one bad answer, whose sender then counts as dropped; `ask_…` ends an exchange and
raises `CohortTooSmall` where fewer than the threshold are left. `dump` and `load` carry a round over a restart.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Final, TypeVar

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from partbook.errors import (
    AlteredCiphertext,
    BadSignature,
    CohortChanged,
    CohortTooSmall,
    CorruptMessage,
    DuplicateMember,
    ForeignSealKey,
    ForgedMember,
    OutOfTurn,
    SwappedKey,
    TwoSurvivorLists,
)
from partbook.identity.keys import IdentityKey
from partbook.identity.message import COORDINATOR, Message
from partbook.secagg import messages as m
from partbook.secagg.rings import add_masks
from partbook.secagg.session import Session, agree
from partbook.secagg.shares import combine

_B = TypeVar("_B", bound=m.Body)
_EXCHANGES: Final = (m.ADVERTISE, m.SHARES, m.CONTRIBUTION, m.CONFIRMED, m.REVEALED)
_BEFORE: Final = {later: earlier for earlier, later in pairwise(_EXCHANGES)}


class CoordinatorRound:
    """One attempt at a round. Holds what members sent; the sum itself is kept by whoever adds the chunks up."""

    def __init__(self, session: Session, identity: IdentityKey, *, chunks: int = 1, seal_key: str = "") -> None:
        """Begin.

        Args:
            session: what the plan and the roster define.
            identity: the coordinator's key.
            chunks: in how many chunks every member contributes.
            seal_key: id of the key that contributions are sealed to; empty where they are not.
        """
        self._session, self._identity = session, identity
        self._chunks, self._seal_key = chunks, seal_key
        self._received: dict[str, dict[str, bytes]] = {kind: {} for kind in _EXCHANGES}
        self._keys: set[bytes] = set()  # all that were advertised
        self._chunks_of: dict[str, set[int]] = defaultdict(set)
        self._closed: dict[str, tuple[str, ...]] = {}
        self._left: list[tuple[bytes, int]] | None = None

    def __repr__(self) -> str:
        return f"CoordinatorRound(round {self._session.context.round})"

    def __reduce__(self) -> str:
        raise TypeError("A round holds secrets that members revealed and is not pickled; use dump.")

    def members(self, kind: str) -> tuple[str, ...]:
        """Who has completed an exchange of this kind (a node's answer), sorted."""
        if kind == m.CONTRIBUTION:
            return tuple(sorted(name for name, done in self._chunks_of.items() if len(done) == self._chunks))
        return tuple(sorted(self._received[kind]))

    def closed(self, kind: str) -> bool:
        """Whether an exchange of this kind (a node's answer) is over."""
        return kind in self._closed

    @property
    def dropped(self) -> dict[str, str]:
        """By member of the cohort that is missing from a closed exchange, the first such exchange."""
        missing: dict[str, str] = {}
        for kind in _EXCHANGES:
            if kind in self._closed:
                for member in self._session.cohort:
                    if member not in self._closed[kind]:
                        missing.setdefault(member, kind)
        return missing

    @property
    def survivors(self) -> tuple[str, ...]:
        """Whose contributions are in the sum; known once confirmations are asked for."""
        return self._closed.get(m.CONTRIBUTION, ())

    def accept_keys(self, member: str, data: bytes) -> None:
        """A member's `advertise` message.

        Raises:
            SwappedKey, ForgedMember, ReplayedMessage: it is not this member's for this attempt.
            CorruptMessage: it does not parse, or a key is of low order.
            DuplicateMember: it shows a key that was shown before. Members would refuse either key, and the round.
            OutOfTurn: the exchange is over.
        """
        try:
            body = self._read(member, data, m.ADVERTISE, m.Advertise)
        except BadSignature as error:
            raise SwappedKey(
                f"The keys said to be {member}'s are not signed by {member}; they are left out of the round."
            ) from error
        if member in self._received[m.ADVERTISE]:
            return
        keys = {body.mask_key, body.share_key}
        if len(keys) < 2 or not self._keys.isdisjoint(keys):
            raise DuplicateMember(f"{member} advertised a key that another key in the round equals.")
        for key in keys:
            agree(X25519PrivateKey.generate(), key, member)
        self._keys |= keys
        self._received[m.ADVERTISE][member] = data

    def ask_share(self) -> dict[str, bytes]:
        """To each member that advertised keys, those of its peers and its own."""
        present = self._close(m.ADVERTISE, self._session.cohort)
        written: dict[tuple[str, ...], bytes] = {}
        asked = {}
        for member in present:
            peers = self._peers(member, present)
            if peers not in written:
                texts = tuple(self._received[m.ADVERTISE][peer].decode() for peer in peers)
                written[peers] = self._write(m.KEYS, m.Keys(messages=texts))
            asked[member] = written[peers]
        return asked

    def accept_shares(self, member: str, data: bytes) -> None:
        """A member's encrypted shares.

        Raises:
            CohortChanged: they are not for exactly the peers whose keys it was shown.
            OutOfTurn: the member advertised no keys, or the exchange is over.
        """
        body = self._read(member, data, m.SHARES, m.Shares)
        peers = set(self._peers(member, self._closed[m.ADVERTISE])) - {member}
        if set(body.shares) != peers:
            raise CohortChanged(f"{member} sent shares for other members than those whose keys it was shown.")
        self._received[m.SHARES].setdefault(member, data)

    def ask_contribute(self) -> dict[str, bytes]:
        """To each member that gave shares, those that its peers encrypted to it."""
        present = self._close(m.SHARES, self._closed[m.ADVERTISE])
        given = {member: self._body(member, m.SHARES, m.Shares).shares for member in present}
        asked = {}
        for member in present:
            peers = self._peers(member, present)
            shares = {peer: given[peer][member] for peer in peers if peer != member}
            asked[member] = self._write(m.INBOX, m.Inbox(shares=shares))
        return asked

    def accept_contribution(
        self, member: str, data: bytes, blob: bytes, parse: Callable[[int, bytes], object] = lambda _chunk, _blob: None
    ) -> m.Contribution | None:
        """One chunk of a contribution: checked against its signature before anyone parses it.

        Args:
            member: who sent it.
            data, blob: the signed message, and the bytes that it vouches for.
            parse: raises where the bytes of a chunk, signed as they are, cannot be added up; their sender then counts
                as one that sent nothing.

        Returns:
            Its description, for whoever adds it up; None if this chunk is in already.

        Raises:
            AlteredCiphertext: the bytes are not those that were signed.
            ForeignSealKey: it is sealed to another key.
            OutOfTurn: the member gave no shares, or the sum is closed.
        """
        body = self._read(member, data, m.CONTRIBUTION, m.Contribution)
        if body.chunks != self._chunks or not 0 <= body.chunk < self._chunks:
            raise CorruptMessage(f"{member} sent chunk {body.chunk} of {body.chunks}; there are {self._chunks}.")
        if body.seal_key != self._seal_key:
            raise ForeignSealKey(
                f"{member} sealed its contribution to the key {body.seal_key[:12] or 'of nobody'}…, the plan names "
                f"{self._seal_key[:12] or 'none'}…; give it the custodian's public key of this roster."
            )
        if hashlib.sha256(blob).hexdigest() != body.sha256:
            raise AlteredCiphertext(
                f"Chunk {body.chunk} from {member} is not what it signed: it was altered on its way, and is left out."
            )
        parse(body.chunk, blob)
        if body.chunk in self._chunks_of[member]:
            return None
        self._chunks_of[member].add(body.chunk)
        self._received[m.CONTRIBUTION][member] = data
        return body

    def ask_confirm(self) -> dict[str, bytes]:
        """To each survivor, the list of survivors."""
        present = self._close(m.CONTRIBUTION, self._closed[m.SHARES])
        request = self._write(m.SURVIVORS, m.Survivors(survivors=present))
        return dict.fromkeys(present, request)

    def accept_confirmation(self, member: str, data: bytes) -> None:
        """A survivor's signature over the list.

        Raises:
            TwoSurvivorLists: it signed another.
            OutOfTurn: it is no survivor, or the exchange is over.
        """
        body = self._read(member, data, m.CONFIRMED, m.Confirmed)
        if body.digest != self._session.survivors_digest(self.survivors):
            raise TwoSurvivorLists(f"{member} confirmed another list of survivors than the one it was sent.")
        self._received[m.CONFIRMED].setdefault(member, data)

    def ask_reveal(self) -> dict[str, bytes]:
        """To each survivor that confirmed, the list with as many signatures as are needed, and who dropped."""
        present = self._close(m.CONFIRMED, self.survivors)
        dropped = tuple(sorted(set(self._closed[m.SHARES]) - set(self.survivors)))
        signers = present[: self._session.threshold]
        texts = tuple(self._received[m.CONFIRMED][signer].decode() for signer in signers)
        request = self._write(m.REVEAL, m.Reveal(survivors=self.survivors, dropped=dropped, confirmations=texts))
        return dict.fromkeys(present, request)

    def accept_reveal(self, member: str, data: bytes) -> None:
        """A survivor's shares.

        Raises:
            CohortChanged: they are of other members than it was asked for.
            OutOfTurn: it was not asked, or the exchange is over.
        """
        body = self._read(member, data, m.REVEALED, m.Revealed)
        sharers = set(self._peers(member, self._closed[m.SHARES]))
        survivors = set(self.survivors)
        if set(body.mask_keys) != sharers - survivors or set(body.self_secrets) != (sharers & survivors) | {member}:
            raise CohortChanged(f"{member} revealed shares of other members than it was asked for.")
        self._received[m.REVEALED].setdefault(member, data)

    def reconstruct(self) -> None:
        """Put together the self-mask secret of every survivor and the mask key of every dropped member.

        Raises:
            CohortTooSmall: too few shares.
            CorruptMessage: shares do not fit together, or not what their owner advertised; it names the owner.
        """
        self._close(m.REVEALED, self.survivors)
        session = self._session
        revealed = {member: self._body(member, m.REVEALED, m.Revealed) for member in self._received[m.REVEALED]}
        secrets: dict[str, dict[int, bytes]] = defaultdict(dict)
        keys: dict[str, dict[int, bytes]] = defaultdict(dict)
        for holder, body in revealed.items():
            for owner, share in body.self_secrets.items():
                secrets[owner][session.points[holder]] = share
            for owner, share in body.mask_keys.items():
                keys[owner][session.points[holder]] = share
        left: list[tuple[bytes, int]] = []
        for owner in self.survivors:
            secret = self._combined(owner, secrets[owner])
            if session.commitment(secret, owner) != self._body(owner, m.SHARES, m.Shares).commitment:
                raise CorruptMessage(f"The shares of {owner}'s own mask do not give what it committed to; start again.")
            left.append((session.self_seed(secret, owner), -1))
        for owner in sorted(set(self._closed[m.SHARES]) - set(self.survivors)):
            left += self._pairs_of(owner, self._combined(owner, keys[owner]))
        self._left = left

    def unmask(self, total: NDArray[np.uint32] | NDArray[np.uint64], chunk: int) -> None:
        """Take off what is left of the masks from one chunk of the sum, in place.

        For a sealed sum, give zeros: what comes out is the plaintext to add to the ciphertexts.
        """
        if self._left is None:
            raise OutOfTurn("The masks cannot be taken off before their secrets are put together.")
        add_masks(total, self._left, self._session.ring, chunk)

    # The rest is how.

    def confirmations(self) -> tuple[bytes, ...]:
        """The signed confirmations, for whoever must be shown that the survivors agreed: the custodian."""
        return tuple(self._received[m.CONFIRMED][member] for member in sorted(self._received[m.CONFIRMED]))

    def _pairs_of(self, owner: str, private: bytes) -> Iterable[tuple[bytes, int]]:
        """The pair masks that survivors share with a dropped member, signed as they must be added to cancel."""
        session = self._session
        key, survivors = X25519PrivateKey.from_private_bytes(private), set(self.survivors)
        advertised = self._body(owner, m.ADVERTISE, m.Advertise)
        if key.public_key().public_bytes_raw() != advertised.mask_key:
            raise CorruptMessage(f"The shares of {owner}'s mask key do not give the key it advertised; start again.")
        for peer in self._peers(owner, self._closed[m.SHARES]):
            if peer in survivors:
                public = self._body(peer, m.ADVERTISE, m.Advertise).mask_key
                # The survivor added +mask if its name comes first: undo that.
                yield session.pair_seed(agree(key, public, peer), owner, peer), -1 if peer < owner else 1

    def _combined(self, owner: str, shares: Mapping[int, bytes]) -> bytes:
        needed = self._session.graph.share_threshold
        if len(shares) < needed:
            raise CohortTooSmall(
                f"Round {self._session.context.round}: {len(shares)} shares of {owner}'s masks came back, "
                f"{needed} are needed; the sum stays closed. Start the round again."
            )
        try:
            return combine(shares, needed)
        except CorruptMessage as error:
            raise CorruptMessage(
                f"The shares of {owner}'s masks do not fit together; start the round again."
            ) from error

    def _peers(self, member: str, among: Iterable[str]) -> tuple[str, ...]:
        """A member and its neighbours, as far as they are among these; sorted."""
        around = {*self._session.graph.neighbours(member), member}
        return tuple(name for name in among if name in around)

    def _read(self, member: str, data: bytes, kind: str, body: type[_B]) -> _B:
        if member not in self._session.identities:
            raise ForgedMember(f"{member[:64]!r} is not in the cohort of round {self._session.context.round}.")
        message = Message.decode(data)
        message.check(self._session.identities[member], kind, self._session.context, member)
        before = _BEFORE.get(kind)
        # Who was left out of a closed exchange stays out of it, and of all that follow; a repetition is welcome.
        if member not in self._closed.get(kind, (member,)) or (
            before is not None and member not in self._closed.get(before, ())
        ):
            raise OutOfTurn(
                f"{member} sent its {kind!r} message for round {self._session.context.round} unasked or too late; "
                "it is left out of the round."
            )
        return body.of(message)

    def _body(self, member: str, kind: str, body: type[_B]) -> _B:
        return body.of(Message.decode(self._received[kind][member]))

    def _close(self, kind: str, expected: tuple[str, ...]) -> tuple[str, ...]:
        if kind not in self._closed:
            present = self.members(kind)
            if len(present) < self._session.threshold:
                missing = sorted(set(expected) - set(present))
                raise CohortTooSmall(
                    f"Round {self._session.context.round}: {len(present)} of {len(self._session.cohort)} members are "
                    f"left after {kind!r}, {self._session.threshold} are needed. Missing: {', '.join(missing[:10])}."
                )
            self._closed[kind] = present
        return self._closed[kind]

    def _write(self, kind: str, body: m.Body) -> bytes:
        return Message.write(self._identity, kind, self._session.context, COORDINATOR, body.json_body()).encode()

    def dump(self) -> bytes:
        """The whole state for `load`. What members revealed is in it; keep it as private as the sum's chunks."""
        state = {
            "plan": self._session.context.plan,
            "chunks": self._chunks,
            "seal_key": self._seal_key,
            "received": {
                kind: {name: base64.b64encode(data).decode() for name, data in got.items()}
                for kind, got in self._received.items()
            },
            "chunks_of": {name: sorted(done) for name, done in self._chunks_of.items()},
            "closed": {kind: list(names) for kind, names in self._closed.items()},
        }
        return json.dumps(state, sort_keys=True).encode()

    @classmethod
    def load(cls, session: Session, identity: IdentityKey, state: bytes) -> CoordinatorRound:
        """Go on where `dump` was called.

        Raises:
            CorruptMessage: the state is broken.
            OutOfTurn: it is of another plan.
        """
        try:
            values = json.loads(state)
            if values["plan"] != session.context.plan:
                raise OutOfTurn("The saved state is of another attempt at this round; start the round again.")
            machine = cls(session, identity, chunks=values["chunks"], seal_key=values["seal_key"])
            for kind in _EXCHANGES:
                got = values["received"][kind]
                machine._received[kind] = {name: base64.b64decode(data) for name, data in got.items()}
            machine._chunks_of.update({name: set(done) for name, done in values["chunks_of"].items()})
            for member in machine._received[m.ADVERTISE]:
                body = machine._body(member, m.ADVERTISE, m.Advertise)
                machine._keys |= {body.mask_key, body.share_key}
            machine._closed = {kind: tuple(names) for kind, names in values["closed"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorruptMessage(f"The saved state of the round is broken ({error}); start the round again.") from error
        if m.REVEALED in machine._closed:
            machine.reconstruct()
        return machine
