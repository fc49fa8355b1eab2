"""A label's node in a round: checks the plan, trains, and adds its update to a sum that nobody reads.

No network here: signed messages come in and go out as bytes. Whatever a later exchange rests on is on the disk,
encrypted, before the answer leaves, so a node that is killed goes on with the round it was in. A retry of a round
sends the *stored* vector under fresh masks, never a freshly trained one (PROTOCOL §1).

The label's policy decides what it takes part in. Its ledger is debited before training, and the debit is made final
before a contribution leaves; neither can be reached from outside.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from partbook.errors import (
    ConfigError,
    CorruptMessage,
    ForeignSealKey,
    LedgerBroken,
    NotInCohort,
    StalePlan,
    UnknownModel,
    VaultError,
)
from partbook.identity.keys import IdentityKey
from partbook.identity.message import COORDINATOR, Message
from partbook.identity.passphrase import passphrase_of
from partbook.identity.receiving import ReceivingKey
from partbook.identity.roster import Roster
from partbook.model.adapter import in_scope, state_hash, unflatten
from partbook.model.checkpoint import BASE, base_manifest
from partbook.node.held_model import MODEL_FILE, HeldModel
from partbook.node.keeping import Keeping
from partbook.node.learning import Learned, Learner, Trainer
from partbook.node.ledger import LEDGER_FILE, Ledger
from partbook.node.pausing import must_not_be_paused
from partbook.node.policy import Policy
from partbook.plan import exchanges as e
from partbook.plan.greeting import here
from partbook.plan.rounds import RoundPlan
from partbook.privacy.events import events_of
from partbook.sealing.blocks import seal
from partbook.sealing.parameters import SealPublic
from partbook.secagg.node import NodeRound
from partbook.secagg.rings import CHUNK
from partbook.vault.store import Vault

VECTOR: Final = "vector"
EXCHANGE: Final = "exchange"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """Where a node finds its things.

    Attributes:
        member: the label's name in the federation.
        vault: folder of the vault.
        roster: the pinned roster.
        identity: the label's identity key.
        receiving: its receiving key; needed in sealed rounds.
        seal_key: the custodian's public key file; needed in sealed rounds.
        policy: what the label allows; `policy.toml` in the vault where None, or the careful default.
        ledger: what its recordings have spent; inside the vault where None. One vault has one ledger, whatever
            federations it takes part in.
        state: folder for what is kept between exchanges; inside the vault where None.
        journal: JSON-lines file for the label's own eyes: losses and norms, never sent. None keeps none.
        key: the vault's key file; inside the vault where None.
        base: folder of the base model.
        seed: of the order in which recordings are visited and of rounding, for runs that can be repeated; drawn from
            the system where None.
        devices: what to train on, see `partbook.training.devices`; all GPUs there are where None.
        style: the style number that the label has agreed with the others to train under, 0 to 15; None where it
            has not. Only its own windows say it: it is in no message.
    """

    member: str
    vault: Path
    roster: Path
    identity: Path
    receiving: Path | None = None
    seal_key: Path | None = None
    policy: Path | None = None
    ledger: Path | None = None
    state: Path | None = None
    journal: Path | None = None
    key: Path | None = None
    base: Path = BASE
    seed: int | None = None
    devices: tuple[str, ...] | None = None
    style: int | None = None

    @property
    def accounts(self) -> Path:
        """The ledger in force."""
        return self.ledger or self.vault / LEDGER_FILE

    @property
    def kept(self) -> Path:
        """The folder in force for what is kept."""
        return self.state or self.vault / "rounds"

    @property
    def training_seed(self) -> str | None:
        """Two labels with one seed visit their recordings each in an order of its own."""
        return None if self.seed is None else f"{self.seed}/{self.member}"

    @property
    def model(self) -> Path:
        """Where the label keeps the model that sealed rounds lead to."""
        return self.kept / MODEL_FILE


class LabelNode:
    """One label's side of the rounds."""

    def __init__(self, config: NodeConfig, trainer: Trainer | None = None) -> None:
        """Load keys and base model, cut the vault's recordings into windows, take up what was left unfinished.

        Args:
            config: where things are.
            trainer: of this base model, vault and seed, where the process has one already; loaded where None.

        Raises:
            VaultError: the vault cannot be opened, or the ledger is broken.
            UnusableKey, ConfigError, UnsignedRoster: a key, the roster or the policy cannot be used.
            AlteredFile: the base model is not what its manifest names.
            InputError: the vault is empty.
        """
        self._config = config
        self._roster = Roster.read(config.roster)
        self._identity = IdentityKey.load(config.identity, passphrase_of(config.identity))
        self._receiving = (
            None if config.receiving is None else ReceivingKey.load(config.receiving, passphrase_of(config.receiving))
        )
        self._must_be_listed()
        self._seal_key = self._custodians_key()
        self._base_hash: str = base_manifest(config.base)["files"]["model.safetensors"]
        self._policy = Policy.in_force(config.vault, config.policy)
        self._trainer = trainer or Learner(
            config.base,
            config.vault,
            config.key,
            seed=config.training_seed,
            gpu_share=self._policy.gpu_share,
            devices=config.devices,
            style=config.style,
        )
        with Vault.open(config.vault, config.key) as vault:
            self._kept = Keeping(config.kept, vault.rounds_key)
            self._ledger = Ledger.open(config.accounts, vault.ledger_key)
        self._held = HeldModel(
            config.kept,
            config.member,
            self._roster,
            self._identity,
            self._receiving,
            self._policy,
            self._trainer.like,
        )
        self._plan: RoundPlan | None = None
        self._round: NodeRound | None = None
        self._vector: NDArray[np.uint32] | None = None
        self._question, self._answered_round = "", 0
        self._left: frozenset[str] = frozenset()  # hashes of earlier plans for the round in hand
        self._closed = 0  # a round that this label has contributed to under an earlier version of the roster
        self._take_up()
        # Reading the model and training it in place is one activity; a second message waits.
        self._busy = threading.Lock()

    def close(self) -> None:
        """Let go of the ledger. The node answers nothing afterwards."""
        with self._busy:
            self._trainer.close()
            self._ledger.close()

    @property
    def member(self) -> str:
        """The label's name in the federation."""
        return self._config.member

    def greet(self, question: bytes) -> bytes:
        """Prove to the coordinator who this is; see `partbook.plan.greeting.here`."""
        return here(question, self._identity, self._roster, self.member, int(time.time()))

    def train(self, plan_message: bytes, adapter: bytes | None) -> bytes:
        """Check a plan, train for it unless that was done for an earlier attempt, keep the quantised update.

        Args:
            plan_message: the coordinator's signed plan.
            adapter: float32 bytes of the adapter it starts from; None in sealed rounds, where the label holds it.

        Returns:
            The signed `ready`.

        Raises:
            PolicyRefusal: the plan is not one this label takes part in; the message says why.
            ProtocolViolation: it is for another roster, or sealed to another key.
            CorruptMessage: the adapter is not the one the plan names.
        """
        with self._busy:
            plan = e.read_plan(plan_message, self._roster)
            plan_hash = plan.hash()
            if self._plan is None or plan_hash != self._plan.hash():
                must_not_be_paused(self._config.kept, self.member)
                self._check(plan)
                state = self._start(plan, adapter)
                if plan.question() != self._question:
                    self._learn(plan, state)
                self._begin(plan)
            return e.write(self._identity, e.READY, plan.context(), self.member)

    def advertise(self, begin: bytes) -> bytes:
        """Fresh keys for this attempt, against the coordinator's signed `begin`."""
        with self._busy:
            plan, machine = self._current()
            Message.decode(begin).check(self._roster.coordinator, e.BEGIN, plan.context(), COORDINATOR)
            return self._kept_answer(machine.advertise)

    def share(self, keys: bytes) -> bytes:
        """See `NodeRound.share`."""
        with self._busy:
            machine = self._current()[1]
            return self._kept_answer(lambda: machine.share(keys))

    def contribute(self, inbox: bytes) -> tuple[bytes, bytes]:
        """Take the inbox, make the debit final, and only then: the first chunk, as (signed message, bytes).

        Raises:
            LedgerBroken: the ledger knows of no debit for this vector; nothing leaves.
        """
        with self._busy:
            self._current()[1].accept_inbox(inbox)
            assert self._vector is not None, "a plan is current only once there is a vector for it"
            self._ledger.commit(self._question, hashlib.sha256(self._vector.data).hexdigest())
            log.info("the debit for round %d is final, and its contribution leaves", self._answered_round)
            return self._chunk(0)

    def proceed(self, request: bytes) -> tuple[bytes, bytes]:
        """A further chunk of the contribution."""
        with self._busy:
            plan = self._current()[0]
            message = Message.decode(request)
            message.check(self._roster.coordinator, e.PROCEED, plan.context(), COORDINATOR)
            return self._chunk(e.Proceed.of(message).chunk)

    def confirm(self, survivors: bytes) -> bytes:
        """See `NodeRound.confirm`."""
        with self._busy:
            machine = self._current()[1]
            return self._kept_answer(lambda: machine.confirm(survivors))

    def reveal(self, request: bytes) -> bytes:
        """See `NodeRound.reveal`."""
        with self._busy:
            machine = self._current()[1]
            return self._kept_answer(lambda: machine.reveal(request))

    def apply(self, plan_message: bytes, opened: Sequence[bytes], blobs: Sequence[bytes]) -> bytes:
        """See `HeldModel.apply`."""
        with self._busy:
            return self._held.apply(plan_message, opened, blobs)

    def endorse(self, plan_message: bytes, request: bytes) -> bytes:
        """See `HeldModel.endorse`."""
        with self._busy:
            return self._held.endorse(plan_message, request)

    def publish(self, plan_message: bytes, request: bytes) -> tuple[bytes, bytes]:
        """See `HeldModel.publish`."""
        with self._busy:
            return self._held.publish(plan_message, request)

    def _must_be_listed(self) -> None:
        """A node that signs with another key than its roster lists would be dropped from every round, as a forger."""
        listed = self._roster.member(self.member)
        if listed.identity != self._identity.public:
            raise ConfigError(
                f"identity: {self._config.identity} is not the key that the roster lists for {self.member}; use that "
                "one, or have the roster changed."
            )
        if self._receiving is not None and listed.receiving != self._receiving.public:
            raise ConfigError(
                f"receiving: {self._config.receiving} is not the key that the roster lists for {self.member}: what is "
                "sealed to it could not be opened. Use that one, or have the roster changed."
            )

    def _check(self, plan: RoundPlan) -> None:
        if self.member not in plan.cohort:
            raise NotInCohort(f"{self.member} is not in the cohort of round {plan.round}.")
        plan.session(self._roster)
        if plan.base_hash != self._base_hash:
            raise UnknownModel(
                f"Round {plan.round} starts from base model {plan.base_hash[:12]}…, but {self.member} has installed "
                f"{self._base_hash[:12]}…; install the same Partbook release everywhere."
            )
        if time.time() > plan.deadline:
            raise StalePlan(f"The deadline of round {plan.round} is over; the coordinator must plan it anew.")
        if plan.round < self._answered_round or (
            plan.round == self._answered_round and plan.question() != self._question
        ):
            raise StalePlan(
                f"{self.member} has already trained for round {self._answered_round}; it answers one question a round, "
                f"and round {plan.round} asks another. Go on with the next round."
            )
        if plan.round == self._closed:
            raise StalePlan(
                f"{self.member} contributed to round {plan.round} under an earlier version of the roster. A second sum "
                "of the same updates, of other members, could differ from it by a single one; plan the next round."
            )
        if plan.hash() in self._left:
            raise StalePlan(
                f"Round {plan.round} was planned anew since; {self.member} does not go back to an attempt it has left."
            )
        before, machine = self._plan, self._round
        if before is not None and machine is not None and before.round == plan.round and machine.revealed:
            raise StalePlan(
                f"{self.member} has handed over the shares that open a sum of round {plan.round}. Another sum of the "
                "same updates could differ from it by a single one; finish that attempt, or plan another round."
            )
        rounds = self._ledger.rounds(plan.federation, besides=plan.question())
        self._policy.check(plan, self._roster, rounds_so_far=rounds, now=datetime.now().astimezone())
        if plan.mode == "sealed" and (self._receiving is None or self._seal_key is None):
            raise ConfigError(
                f"{self.member} has no receiving key or no custodian's key, which sealed rounds need; name them in its "
                "configuration."
            )

    def _begin(self, plan: RoundPlan) -> None:
        """Leave the attempt in hand, if any, for a new one; in memory only once it is on the disk."""
        left: frozenset[str] = frozenset()
        if self._plan is not None and self._plan.round == plan.round:
            left = self._left | {self._plan.hash()}
        machine = NodeRound(plan.session(self._roster), self.member, self._identity)
        self._store(plan, machine, left)
        self._plan, self._round, self._left = plan, machine, left

    def _start(self, plan: RoundPlan, adapter: bytes | None) -> dict[str, Tensor]:
        """The adapter that a plan starts from, checked against the plan."""
        if plan.mode == "sealed":
            self._held.must_be(plan.model_hash)
            state = self._held.shared.state
        else:
            if adapter is None or len(adapter) % 4:
                raise CorruptMessage("The plan came without the adapter it starts from; the coordinator must send it.")
            try:
                state = unflatten(np.frombuffer(adapter, dtype="<f4").astype(np.float32), self._trainer.like)
            except ConfigError as error:
                raise UnknownModel(f"{error} The coordinator must use the base model that the plan names.") from error
            if state_hash(state) != plan.model_hash:
                raise CorruptMessage(
                    "The adapter received is not the one the plan names; the coordinator must re-send it."
                )
        if sum(state[name].numel() for name in in_scope(state, plan.scope)) != plan.parameters:
            raise UnknownModel(f"Round {plan.round} is for {plan.parameters} numbers; the adapter has another count.")
        return state

    def _learn(self, plan: RoundPlan, state: dict[str, Tensor]) -> None:
        question = plan.question()
        self._drop_unsent(plan.federation, question)
        self._ledger.join(self._trainer.recordings)
        self._ledger.reserve(
            plan.federation,
            self._roster.coordinator.fingerprint,
            plan.round,
            question,
            plan.hash(),
            events_of(plan, "colluders"),
            policy=self._policy,
            note=f"{plan.mode}, {plan.training.kind}",
        )
        # Asked after the reservation: who is withdrawn from here on has paid for what is trained now.
        self._trainer.keep(self._ledger.join(self._trainer.recordings))
        learned = self._trainer.learn(plan, state)
        head = json.dumps({"question": question, "round": plan.round}).encode()
        self._kept.put(VECTOR, len(head).to_bytes(4, "big"), head, learned.vector.data)
        self._vector, self._question, self._answered_round = learned.vector, question, plan.round
        self._note(plan, learned)
        log.info("trained for round %d", plan.round)

    def _drop_unsent(self, federation: str, question: str) -> None:
        """Destroy a vector that never left, and only then give back what was reserved for it.

        A vector that is destroyed has answered nothing, so training anew for its round asks nothing twice.
        """
        # Another federation's reservations are its own node's to give back.
        debits = (debit for debit in self._ledger.debits() if debit.federation == federation)
        for reserved in [debit.question for debit in debits if debit.state == "reserved"]:
            if reserved == self._question:
                self._kept.remove(EXCHANGE)
                self._kept.remove(VECTOR)
                self._plan, self._round, self._vector = None, None, None
                self._question = ""
            if reserved != question:
                self._ledger.release(reserved)

    def _chunk(self, index: int) -> tuple[bytes, bytes]:
        plan, machine = self._current()
        assert self._vector is not None, "a plan is current only once there is a vector for it"
        if not 0 <= index < plan.chunks:
            raise CorruptMessage(f"Chunk {index} was asked for; there are {plan.chunks}.")
        part = slice(index * CHUNK, (index + 1) * CHUNK)
        if plan.mode == "masked":
            answer = machine.contribute(self._vector[part].copy(), index, plan.chunks)
        else:
            public = self._seal_key
            assert public is not None, "checked with the plan"
            # A slot's fields are neighbours, so a chunk's slots come from a stretch of the numbers.
            fields = plan.packing.fields
            slots = plan.packing.pack(self._vector[part.start * fields : part.stop * fields])
            answer = machine.contribute(
                slots, index, plan.chunks, lambda masked: seal(public, masked.astype(np.uint64)), public.key_id
            )
        self._keep_exchange()
        return answer

    def _current(self) -> tuple[RoundPlan, NodeRound]:
        if self._plan is None or self._round is None:
            raise StalePlan(f"{self.member} trained for no plan that is still open; start the round again.")
        return self._plan, self._round

    def _kept_answer(self, work: Callable[[], bytes]) -> bytes:
        answer = work()
        self._keep_exchange()
        return answer

    def _keep_exchange(self) -> None:
        plan, machine = self._current()
        self._store(plan, machine, self._left)

    def _store(self, plan: RoundPlan, machine: NodeRound, left: frozenset[str]) -> None:
        head = json.dumps({"plan": plan.encode().decode(), "left": sorted(left)}).encode()
        self._kept.put(EXCHANGE, len(head).to_bytes(4, "big"), head, machine.dump())

    def _take_up(self) -> None:
        """Go on where the last process ended."""
        kept = self._kept.get(VECTOR)
        if kept is not None:
            head, rest = split(kept)
            about = json.loads(head)
            self._question, self._answered_round = str(about["question"]), int(about["round"])
            self._vector = np.frombuffer(rest, dtype=np.uint32)
            if self._ledger.state(self._question) not in ("reserved", "committed"):
                raise LedgerBroken(
                    f"{self._config.accounts} knows of no debit for what {self.member} "
                    f"trained in round {self._answered_round}: it is older than the node's folder {self._config.kept}. "
                    "Restore the newer ledger."
                )
        kept = self._kept.get(EXCHANGE)
        if kept is not None:
            head, rest = split(kept)
            about = json.loads(head)
            plan = RoundPlan.decode(about["plan"].encode())
            if plan.question() == self._question and plan.roster != self._roster.hash:
                # What was masked for the earlier cohort may have been opened: only what never left is sent to another.
                self._closed = plan.round if self._ledger.state(self._question) == "committed" else 0
            elif plan.question() == self._question:
                self._plan, self._left = plan, frozenset(about["left"])
                self._round = NodeRound.load(plan.session(self._roster), self._identity, bytes(rest))

    def _custodians_key(self) -> SealPublic | None:
        if self._config.seal_key is None:
            return None
        if self._roster.custodian is None:
            raise ForeignSealKey(f"{self.member} has a custodian's key, but its roster names no custodian.")
        return SealPublic.read(self._config.seal_key, self._roster.custodian.seal_key)

    def _note(self, plan: RoundPlan, learned: Learned) -> None:
        if self._config.journal is None:
            return
        entry = {
            "round": plan.round,
            "loss": learned.loss if np.isfinite(learned.loss) else None,
            "norm": learned.norm if np.isfinite(learned.norm) else None,
            "drawn": learned.drawn,
            "clip": plan.training.clip,
        }
        try:
            with self._config.journal.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise VaultError(f"{self._config.journal} cannot be written ({error.strerror}).") from error


def split(kept: bytearray) -> tuple[bytes, memoryview]:
    """The head of what was kept, as JSON, and the rest."""
    size = int.from_bytes(kept[:4], "big")
    return bytes(kept[4 : 4 + size]), memoryview(kept)[4 + size :]
