"""Opening agreed sums (PROTOCOL §2): against enough signatures of one list of survivors, once a round.

The custodian never learns whose contributions it opens more than the list says, and never hands the coordinator what
it finds: a sum goes to the labels, under a key wrapped to each of them. One contribution alone would still be masked.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from partbook.errors import (
    AlteredCiphertext,
    BadSignature,
    CohortTooSmall,
    ConfigError,
    CorruptMessage,
    DuplicateMember,
    ForeignSealKey,
    ForgedMember,
    TwoSurvivorLists,
    VaultError,
)
from partbook.identity.keys import IdentityKey
from partbook.identity.message import COORDINATOR, Message
from partbook.identity.passphrase import given_passphrase, passphrase_of
from partbook.identity.roster import Roster
from partbook.node.keeping import write_whole
from partbook.plan import exchanges as e
from partbook.plan.greeting import here
from partbook.plan.rounds import RoundPlan
from partbook.sealing.blocks import ChunkHead, open_chunk
from partbook.sealing.parameters import SealSecret
from partbook.secagg.messages import CONFIRMED, Confirmed
from partbook.secagg.rings import CHUNK, RESIDUES

_KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class CustodianConfig:
    """Where a custodian finds its things.

    Attributes:
        name: its name in the roster.
        roster: the pinned roster.
        identity: its identity key.
        secret: the secret key that sums open with.
        record: file that remembers what was opened.
    """

    name: str
    roster: Path
    identity: Path
    secret: Path
    record: Path


@dataclass(slots=True)
class _Opened:
    """What was opened in a round: for which plan and list, and the SHA-256 of each chunk."""

    plan: str
    survivors: str
    chunks: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, values: dict[str, Any]) -> _Opened:
        """What `asdict` gave; ValueError where it is something else."""
        found = cls(**values)
        if not isinstance(found.chunks, dict) or not all(
            isinstance(text, str) for text in (found.plan, found.survivors, *found.chunks.values())
        ):
            raise ValueError("an entry is not of the right kind")
        return found


class Custodian:
    """Holds one secret key and the memory of what it opened."""

    def __init__(self, config: CustodianConfig) -> None:
        """Load keys, roster and record.

        Raises:
            ConfigError: the roster names another custodian, or the record is broken.
            ForeignSealKey: the secret key is not the one in the roster.
            UnusableKey, UnsignedRoster: a key or the roster cannot be used.
        """
        self._config = config
        self._roster = Roster.read(config.roster)
        self._identity = IdentityKey.load(config.identity, passphrase_of(config.identity))
        self._secret = SealSecret.read(config.secret, given_passphrase())
        listed = self._roster.custodian
        if listed is None or (listed.name, listed.identity) != (config.name, self._identity.public):
            raise ConfigError(f"The roster {config.roster} does not name {config.name} with this key as its custodian.")
        if listed.seal_key != self._secret.key_id:
            raise ForeignSealKey(
                f"{config.secret} is not the key in the roster ({listed.seal_key[:12]}…); use the one it lists."
            )
        self._opened = self._read_record()
        self._busy = threading.Lock()

    @property
    def name(self) -> str:
        """Its name in the roster."""
        return self._config.name

    def greet(self, question: bytes) -> bytes:
        """Prove to the coordinator who this is; see `partbook.plan.greeting.here`."""
        return here(question, self._identity, self._roster, self.name, int(time.time()))

    def open(self, plan_message: bytes, request_data: bytes, blob: bytes) -> tuple[bytes, bytes]:
        """Open one chunk of a sum, for the labels.

        Args:
            plan_message: the coordinator's signed plan.
            request_data: its signed `open`.
            blob: the sealed chunk that `open` vouches for.

        Returns:
            The signed `opened` message, and the encrypted chunk that it vouches for.

        Raises:
            AlteredCiphertext: the chunk is not the one the coordinator signed, or not of these survivors.
            ForeignSealKey: the plan, or the chunk, is sealed to another key.
            CohortTooSmall: fewer survivors, or fewer signatures of theirs, than the threshold.
            ForgedMember, DuplicateMember: a survivor or a signer has no place in the cohort, or two.
            TwoSurvivorLists: a signature is for another list, or the round was opened for another.
        """
        with self._busy:
            plan = e.read_plan(plan_message, self._roster)
            session = plan.session(self._roster)
            if plan.seal_key != self._secret.key_id:
                raise ForeignSealKey(f"Round {plan.round} is not sealed to {self.name}'s key; nothing was opened.")
            message = Message.decode(request_data)
            message.check(self._roster.coordinator, e.OPEN, plan.context(), COORDINATOR)
            body = e.Open.of(message)
            if hashlib.sha256(blob).hexdigest() != body.sha256:
                raise AlteredCiphertext(f"Chunk {body.chunk} of the sum was altered on its way; send it again.")
            if not body.chunk < plan.chunks:
                raise CorruptMessage(f"Chunk {body.chunk} was handed over; round {plan.round} has {plan.chunks}.")
            self._fits(plan, body, blob)
            self._agreed(plan, body)
            digest = session.survivors_digest(body.survivors)
            self._remember(plan, digest, body)
            slots = open_chunk(self._secret, blob)
            key = os.urandom(_KEY_BYTES)
            encrypted = e.encrypt_sum(key, plan.context(), body.chunk, RESIDUES.to_bytes(slots))
            wrapped = {
                member.name: e.text(
                    member.receiving.seal_to(key, e.opened_info(plan.context(), body.chunk, member.name))
                )
                for member in self._roster.members
            }
            opened = e.Opened(
                contributions=len(body.survivors),
                chunk=body.chunk,
                sha256=hashlib.sha256(encrypted).hexdigest(),
                keys=wrapped,
            )
            return e.write(self._identity, e.OPENED, plan.context(), self.name, opened), encrypted

    def _fits(self, plan: RoundPlan, body: e.Open, blob: bytes) -> None:
        """Before anything is remembered: what cannot be opened must not use up the round."""
        head = ChunkHead.decode(blob)
        if head.key_id != self._secret.key_id:
            raise ForeignSealKey(
                f"Chunk {body.chunk} of the sum is not sealed to {self.name}'s key; nothing was opened."
            )
        due = (len(body.survivors), min(CHUNK, plan.elements - body.chunk * CHUNK))
        if (head.contributions, head.slots) != due:
            raise AlteredCiphertext(
                f"Chunk {body.chunk} holds {head.contributions} contributions of {head.slots} slots, where {due[0]} "
                f"survivors sent {due[1]}; nothing was opened."
            )

    def _agreed(self, plan: RoundPlan, body: e.Open) -> None:
        session, survivors = plan.session(self._roster), set(body.survivors)
        if len(survivors) != len(body.survivors):
            raise DuplicateMember("The list of survivors names a member twice; nothing was opened.")
        if not survivors <= set(plan.cohort):
            raise ForgedMember(f"{sorted(survivors - set(plan.cohort))[0]!r} is not in the cohort; nothing was opened.")
        digest, signed = session.survivors_digest(body.survivors), set[str]()
        for text in body.confirmations:
            confirmed = Message.decode(text.encode())
            sender = confirmed.sender
            if sender not in survivors:
                raise ForgedMember(f"{sender[:64]!r} signed for the survivors but is none; nothing was opened.")
            try:
                confirmed.check(session.identities[sender], CONFIRMED, plan.context(), sender)
            except BadSignature as error:
                raise ForgedMember(f"The signature said to be {sender}'s is not; nothing was opened.") from error
            if Confirmed.of(confirmed).digest != digest:
                raise TwoSurvivorLists(f"{sender} signed another list of survivors; nothing was opened.")
            signed.add(sender)
        if min(len(survivors), len(signed)) < plan.threshold:
            raise CohortTooSmall(
                f"Round {plan.round}: {len(signed)} of {len(survivors)} survivors agreed to open the sum, "
                f"{plan.threshold} must; nothing was opened."
            )

    def _remember(self, plan: RoundPlan, digest: str, body: e.Open) -> None:
        """One list, one plan and one chunk of each number in a round; on the disk before anything is opened."""
        record = self._opened.setdefault(f"{plan.federation}/{plan.round}", _Opened(plan.hash(), digest))
        if (record.plan, record.survivors) != (plan.hash(), digest):
            raise TwoSurvivorLists(
                f"Round {plan.round} was opened for another plan or list of survivors; one round is opened once."
            )
        if record.chunks.setdefault(str(body.chunk), body.sha256) != body.sha256:
            raise TwoSurvivorLists(f"Chunk {body.chunk} of round {plan.round} was opened before, with other bytes.")
        self._write_record()

    def _read_record(self) -> dict[str, _Opened]:
        try:
            found = json.loads(self._config.record.read_text())
            return {name: _Opened.of(values) for name, values in found.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"{self._config.record} is broken ({error}); mend it by hand, or make a new seal: with an older "
                "copy, or with none, a round could be opened twice."
            ) from error

    def _write_record(self) -> None:
        path = self._config.record
        records = {name: asdict(record) for name, record in self._opened.items()}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, json.dumps(records, indent=1, sort_keys=True).encode())
        except OSError as error:
            raise VaultError(f"{path} cannot be written ({error.strerror}); nothing was opened.") from error
