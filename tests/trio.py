"""A federation of three with real keys, vaults and nodes, whose coordinator is played by the test."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from trainers import opened
from tunes import recording_of, tune

from partbook.coordinator.totals import MaskedTotal, SealedTotal
from partbook.custodian.opening import Custodian
from partbook.identity.keys import IdentityKey
from partbook.identity.message import COORDINATOR
from partbook.identity.roster import DOMAIN, Roster
from partbook.model.adapter import adapter_state, attach, flatten, state_hash
from partbook.model.checkpoint import base_manifest, load_model
from partbook.music.tokens import Tokenizer
from partbook.node.label import LabelNode, NodeConfig
from partbook.plan import exchanges as e
from partbook.plan.rounds import RoundPlan
from partbook.plan.training import PlainTraining
from partbook.secagg import messages as m
from partbook.secagg.coordinator import CoordinatorRound
from partbook.simulation.parties import CUSTODIAN, Parties, enrol
from partbook.vault.store import Vault

MEMBERS = ("Alto", "Bass", "Tenor")
TRAINING = PlainTraining(steps=1, batch=1, clip=0.5)
STEPS = ("advertise", "share", "contribute", "confirm", "reveal")


@dataclass(frozen=True)
class Trio:
    """Keys, vaults and the coordinator's hand."""

    folder: Path
    base: Path
    parties: Parties

    @classmethod
    def build(cls, folder: Path, base: Path, tokenizer: Tokenizer) -> Trio:
        """Vaults with a recording each, and a roster that all have signed."""
        for index, member in enumerate(MEMBERS):
            with Vault.create(folder / member / "vault") as vault:
                vault.add(recording_of(tune(index), tokenizer, index), f"{index:064x}")
        keys = {member: folder / member / "keys" for member in MEMBERS}
        return cls(folder, base, enrol(folder / "office", "trio", keys))

    @cached_property
    def roster(self) -> Roster:
        return Roster.read(self.parties.roster)

    @cached_property
    def key(self) -> IdentityKey:
        """The coordinator's own."""
        return IdentityKey.load(self.parties.coordinator)

    def member_key(self, name: str) -> IdentityKey:
        """A member's identity key, or the custodian's."""
        if name == CUSTODIAN:
            return IdentityKey.load(self.parties.custodian.identity)
        return IdentityKey.load(self.parties.folders[name] / "identity.pem")

    def rewritten(self, path: Path, **fields: object) -> Path:
        """A roster with other fields, signed again by all who have keys here."""
        changed = replace(self.roster, **fields, signatures={})
        keys = {name: self.member_key(name) for name in changed.parties if name != COORDINATOR}
        keys[COORDINATOR] = self.key
        signatures = {name: key.sign(changed.canonical, DOMAIN) for name, key in keys.items()}
        replace(changed, signatures=signatures).write(path)
        return path

    def config(self, member: str, state: Path, seed: int | None = 1) -> NodeConfig:
        """A node that keeps what it keeps in a folder of its own."""
        vault = self.folder / member / "vault"
        # The vault is everybody's, so what was spent lies with the rest of one test's state.
        kept = state / member
        bare = NodeConfig(
            member, vault, Path(), Path(), state=kept, ledger=kept / "ledger.sqlite", base=self.base, seed=seed
        )
        return self.parties.node(replace(bare, journal=state / f"{member}.jsonl"))

    def nodes(self, state: Path, seed: int | None = 1, *, trained: bool = False) -> dict[str, LabelNode]:
        """The three, which may have trained for the first round already."""
        if trained:
            for member in MEMBERS:
                (state / member).mkdir(parents=True)
                for name in ("vector.sealed", *(path.name for path in (self._trained / member).glob("ledger.sqlite*"))):
                    shutil.copy(self._trained / member / name, state / member)
        return {member: self.node(member, state, seed) for member in MEMBERS}

    def node(self, member: str, state: Path, seed: int | None = 1) -> LabelNode:
        """One of them; its trainer is loaded once for all tests."""
        return opened(self.config(member, state, seed))

    @cached_property
    def _trained(self) -> Path:
        plan, folder = self.signed(self.plan()), self.folder / "trained"
        for node in self.nodes(folder).values():
            node.train(plan, self.start.tobytes())
            node.close()
        return folder

    def custodian(self, folder: Path) -> Custodian:
        """The custodian, with a memory of its own."""
        return Custodian(replace(self.parties.custodian, record=folder / "opened.json"))

    @cached_property
    def start(self) -> np.ndarray:
        """The fresh adapter."""
        return flatten(self._like)

    @cached_property
    def _like(self) -> dict:
        return adapter_state(attach(load_model(self.base)))

    def plan(self, mode: str = "masked", **fields: object) -> RoundPlan:
        """The first round's plan, or what `fields` makes of it."""
        custodian = self.roster.custodian
        assert custodian is not None
        values = {
            "federation": "trio",
            "roster": self.roster.hash,
            "round": 1,
            "nonce": "0" * 32,
            "deadline": 4_000_000_000,
            "base_hash": base_manifest(self.base)["files"]["model.safetensors"],
            "model_hash": state_hash(self._like),
            "parameters": len(self.start),
            "cohort": MEMBERS,
            "threshold": 3,
            "training": TRAINING,
            "mode": mode,
            "bits": 16,
            "seal_key": custodian.seal_key if mode == "sealed" else "",
        }
        return RoundPlan(**(values | fields))

    def signed(self, plan: RoundPlan) -> bytes:
        return e.write_plan(self.key, plan)

    def say(self, kind: str, plan: RoundPlan, body: m.Body | None = None) -> bytes:
        """Whatever a malicious coordinator wants to say, under its own good signature."""
        return e.write(self.key, kind, plan.context(), COORDINATOR, body)


class Play:
    """One attempt at a round, exchange after exchange, with an honest coordinator's arithmetic."""

    def __init__(self, trio: Trio, nodes: Mapping[str, LabelNode], plan: RoundPlan) -> None:
        self.trio, self.nodes, self.plan = trio, dict(nodes), plan
        self.machine = CoordinatorRound(plan.session(trio.roster), trio.key, chunks=plan.chunks, seal_key=plan.seal_key)
        self.total = MaskedTotal(plan) if plan.mode == "masked" else SealedTotal(plan)
        self.said: dict[str, dict[str, object]] = {}

    def train(self) -> Play:
        start = self.trio.start.tobytes() if self.plan.mode == "masked" else None
        for member in self.plan.cohort:
            self.nodes[member].train(self.trio.signed(self.plan), start)
        return self

    def asks(self, step: str) -> dict[str, bytes]:
        """What the coordinator asks in an exchange."""
        if step == "advertise":
            return dict.fromkeys(self.plan.cohort, self.trio.say(e.BEGIN, self.plan))
        ask = {
            "share": self.machine.ask_share,
            "contribute": self.machine.ask_contribute,
            "confirm": self.machine.ask_confirm,
            "reveal": self.machine.ask_reveal,
        }
        return ask[step]()

    def play(self, steps: Iterable[str] = STEPS, without: str = "") -> Play:
        """Go through exchanges; `without` is gone."""
        for step in steps:
            self.said[step] = {}
            for member, ask in self.asks(step).items():
                if member == without:
                    continue
                answer = getattr(self.nodes[member], step)(ask)
                self.said[step][member] = answer
                if step == "contribute":
                    self._add(member, *answer, 0)
                    for chunk in range(1, self.plan.chunks):
                        proceed = self.trio.say(e.PROCEED, self.plan, e.Proceed(chunk=chunk))
                        self._add(member, *self.nodes[member].proceed(proceed), chunk)
                    continue
                accept = {
                    "advertise": self.machine.accept_keys,
                    "share": self.machine.accept_shares,
                    "confirm": self.machine.accept_confirmation,
                    "reveal": self.machine.accept_reveal,
                }
                accept[step](member, answer)
        return self

    def sum(self) -> np.ndarray:
        """The opened sum of a masked round."""
        self.machine.reconstruct()
        self.total.unmask(self.machine)
        assert isinstance(self.total, MaskedTotal)
        return self.total.numbers()

    def sealed(self) -> list[bytes]:
        """The chunks that go to the custodian."""
        self.machine.reconstruct()
        self.total.unmask(self.machine)
        return self.total.dump()

    def _add(self, member: str, signed: bytes, blob: bytes, chunk: int) -> None:
        assert self.machine.accept_contribution(member, signed, blob) is not None
        self.total.add(chunk, blob)
