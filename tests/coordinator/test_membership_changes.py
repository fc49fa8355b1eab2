"""A federation whose roster changes between its rounds: real labels, a real custodian, a coordinator that starts again.

What is tested is that a new version of the roster, signed by all, is all that a federation needs to go on: the model,
the ledgers and the custodian's memory stay, and whoever is not in it any more, or comes with old keys, is refused by
name.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import RecordDict
from trainers import opened
from trio import TRAINING
from tunes import recording_of, tune

from partbook.coordinator.checkpoints import FederationState
from partbook.coordinator.rounds import Coordinator
from partbook.custodian.opening import Custodian, CustodianConfig
from partbook.errors import ConfigError, ForeignSealKey, ForgedMember, PartbookError, UnusableKey
from partbook.identity.keys import IdentityKey
from partbook.identity.membership import next_version
from partbook.identity.message import COORDINATOR
from partbook.identity.receiving import ReceivingKey
from partbook.identity.roster import DOMAIN, Member, Roster
from partbook.model.adapter import adapter_state, attach
from partbook.model.checkpoint import load_model
from partbook.music.tokens import Tokenizer
from partbook.node.handing import Offer, hand_over
from partbook.node.label import LabelNode, NodeConfig
from partbook.node.shared_model import SharedModel
from partbook.plan import greeting, wire
from partbook.plan.exchanges import write_plan
from partbook.plan.federation import FederationConfig
from partbook.sealing.parameters import generate
from partbook.simulation.parties import CUSTODIAN, Parties, enrol
from partbook.vault.store import Vault

MEMBERS = ("Alto", "Bass", "Discant", "Tenor")
NEWCOMER = "Quintus"


class Line:
    """Real nodes and a real custodian behind the coordinator's seam."""

    def __init__(self, nodes: Mapping[str, LabelNode], custodian: Custodian | None) -> None:
        self.nodes, self.custodian = dict(nodes), custodian
        self.refusals: list[tuple[str, str, str]] = []

    def members(self) -> list[str]:
        return sorted(self.nodes)

    def exchange(
        self, kind: str, requests: Mapping[str, RecordDict], *, timeout: float
    ) -> dict[str, RecordDict | Exception]:
        found: dict[str, RecordDict | Exception] = {}
        for member, content in requests.items():
            try:
                found[member] = self._answer(kind, member, content)
            except PartbookError as error:
                self.refusals.append((kind, member, type(error).__name__))
                found[member] = wire.pack_refusal(error)
        return found

    def _answer(self, kind: str, member: str, content: RecordDict) -> RecordDict:
        (data, *rest), blobs = wire.unpack(content, signed=None, blobs=None)
        if member == CUSTODIAN:
            assert self.custodian is not None
            opened, blob = self.custodian.open(data, rest[0], blobs[0])
            return wire.pack([opened], [blob])
        node = self.nodes[member]
        if kind == wire.TRAIN:
            return wire.pack([node.train(data, blobs[0] if blobs else None)])
        if kind == wire.APPLY:
            return wire.pack([node.apply(data, rest, blobs)])
        answer = getattr(node, kind.removeprefix("query."))(data, *rest)
        return wire.pack([answer]) if isinstance(answer, bytes) else wire.pack([answer[0]], [answer[1]])


class Federation:
    """Machines that keep their disks: vaults, keys and state stay while processes and rosters come and go."""

    def __init__(self, folder: Path, vaults: Path, base: Path, mode: str) -> None:
        self.folder, self.vaults, self.base, self.mode = folder, vaults, base, mode
        keys = {member: folder / member / "keys" for member in MEMBERS}
        self.parties: Parties = enrol(folder / "office", "quartet", keys)
        self.line: Line | None = None

    @property
    def roster(self) -> Roster:
        return Roster.read(self.parties.roster)

    def keys(self) -> dict[str, IdentityKey]:
        found = {name: IdentityKey.load(folder / "identity.pem") for name, folder in self.parties.folders.items()}
        found[COORDINATOR] = IdentityKey.load(self.parties.coordinator)
        found[CUSTODIAN] = IdentityKey.load(self.parties.custodian.identity)
        return found

    def node_config(self, member: str, **fields: object) -> NodeConfig:
        kept = self.folder / member / "state"
        vault = self.vaults / member
        bare = NodeConfig(
            member, vault, Path(), Path(), state=kept, ledger=kept / "ledger.sqlite", base=self.base, seed=1
        )
        return replace(self.parties.node(bare), **fields)

    def start(self, *members: str) -> Line:
        """Everybody's process starts again, with the roster and the keys that lie there now."""
        self.stop()
        names = members or [member.name for member in self.roster.members]
        nodes = {member: opened(self.node_config(member)) for member in names}
        self.line = Line(nodes, Custodian(self.parties.custodian) if self.mode == "sealed" else None)
        return self.line

    def stop(self) -> None:
        for node in self.line.nodes.values() if self.line else ():
            node.close()
        self.line = None

    def config(self, rounds: int) -> FederationConfig:
        return FederationConfig(
            roster=self.parties.roster,
            key=self.parties.coordinator,
            seal_key=self.parties.seal_key,
            mode=self.mode,
            rounds=rounds,
            base=self.base,
            state=self.folder / "state",
            training=TRAINING,
            timeout=5.0,
        )

    def run(self, rounds: int) -> FederationState:
        """The coordinator's process, from its start to its end."""
        assert self.line is not None
        return Coordinator(self.config(rounds)).run(self.line)

    def install(self, roster: Roster) -> None:
        """Signed by all who are in it, and on everybody's disk."""
        keys = self.keys()
        signatures = {name: keys[name].sign(roster.canonical, DOMAIN) for name in roster.parties}
        signed = replace(roster, signatures=signatures)
        signed.verify()
        signed.succeeds(self.roster)
        signed.write(self.parties.roster)

    def new_seal(self) -> str:
        """The custodian makes another seal, and everybody has its public half; returns its id."""
        secret, public = generate()
        office = self.parties.custodian
        made = office.secret.with_name(f"{public.key_id[:8]}.seal.secret")
        secret.write(made, None)
        public.write(self.parties.seal_key)
        moved = CustodianConfig(office.name, office.roster, office.identity, made, office.record)
        self.parties = replace(self.parties, custodian=moved)
        return public.key_id

    def new_keys(self, member: str) -> Member:
        """A label makes new keys, in another folder; returns its entry."""
        folder = self.folder / member / "new keys"
        folder.mkdir(parents=True)
        identity, receiving = IdentityKey.generate(), ReceivingKey.generate()
        identity.save(folder / "identity.pem")
        receiving.save(folder / "receiving.pem")
        self.parties = replace(self.parties, folders={**self.parties.folders, member: folder})
        return Member(member, identity.public, receiving.public)

    def hashes(self) -> dict[str, str]:
        """The model that each label holds in sealed rounds."""
        assert self.line is not None
        return {name: node._held.shared.hash for name, node in self.line.nodes.items()}


@pytest.fixture(scope="module")
def vaults(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Tokenizer) -> Path:
    folder = tmp_path_factory.mktemp("vaults")
    for index, member in enumerate((*MEMBERS, NEWCOMER)):
        with Vault.create(folder / member) as vault:
            vault.add(recording_of(tune(index % 3), tiny_tokenizer, index), f"{index:064x}")
    return folder


@pytest.fixture(params=["sealed", "masked"])
def mode(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def federation(tmp_path: Path, vaults: Path, tiny_base: Path, mode: str) -> Iterator[Federation]:
    made = Federation(tmp_path, vaults, tiny_base, mode)
    yield made
    made.stop()


@pytest.fixture
def sealed(tmp_path: Path, vaults: Path, tiny_base: Path) -> Iterator[Federation]:
    made = Federation(tmp_path, vaults, tiny_base, "sealed")
    yield made
    made.stop()


def test_a_federation_goes_on_without_a_member_that_left(federation: Federation) -> None:
    federation.start()
    first = federation.run(1)
    federation.install(next_version(federation.roster, remove=["Tenor"], seal_key=federation.new_seal()))
    line = federation.start()
    second = federation.run(2)
    assert [record.members for record in second.history[1:]] == [MEMBERS, MEMBERS[:3]]
    assert second.history[:2] == first.history, "the first round is what it was"
    assert second.history[2].adapter_hash != second.history[1].adapter_hash
    assert line.refusals == []
    if federation.mode == "sealed":
        assert set(federation.hashes().values()) == {second.history[2].adapter_hash}


def test_who_left_is_refused_by_name_with_whatever_it_has(sealed: Federation) -> None:
    old = sealed.roster
    sealed.start()
    sealed.run(1)
    keys = sealed.keys()
    left = LabelNode(sealed.node_config("Tenor", state=sealed.folder / "left", ledger=sealed.folder / "l"))
    sealed.install(next_version(old, remove=["Tenor"], seal_key=sealed.new_seal()))
    nonce = "0" * 32
    question = greeting.hello(keys[COORDINATOR], sealed.roster, nonce, 1000)
    # Its own process still has the old roster, and sees that the federation has gone on.
    with pytest.raises(ForgedMember, match="newer one"):
        left.greet(question)
    left.close()
    answer = greeting.here(question, keys["Tenor"], sealed.roster, "Tenor", 1000)
    with pytest.raises(ForgedMember, match="no party 'Tenor'"):
        greeting.greeted(answer, sealed.roster, nonce, 1000)


def test_a_label_goes_on_with_new_keys_and_the_model_that_it_holds(federation: Federation) -> None:
    federation.start()
    federation.run(1)
    entry = federation.new_keys("Bass")
    federation.install(next_version(federation.roster, replace=[entry]))
    line = federation.start()
    second = federation.run(2)
    assert second.history[2].members == MEMBERS
    assert second.history[2].dropped == {}
    assert line.refusals == []
    if federation.mode == "sealed":
        assert set(federation.hashes().values()) == {second.history[2].adapter_hash}


def test_whoever_found_the_old_keys_of_a_label_has_no_part_in_anything(
    sealed: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed.start()
    sealed.run(1)
    thief = sealed.keys()["Bass"]
    stolen = sealed.parties.folders["Bass"]
    sealed.install(next_version(sealed.roster, replace=[sealed.new_keys("Bass")]))
    nonce = "0" * 32
    question = greeting.hello(sealed.keys()[COORDINATOR], sealed.roster, nonce, 1000)
    answer = greeting.here(question, thief, sealed.roster, "Bass", 1000)
    with pytest.raises(PartbookError, match="does not verify"):
        greeting.greeted(answer, sealed.roster, nonce, 1000)
    sealed.parties = replace(sealed.parties, folders={**sealed.parties.folders, "Bass": stolen})
    with pytest.raises(ConfigError, match="not the key that the roster lists for Bass"):
        sealed.start("Bass")
    monkeypatch.setattr(LabelNode, "_must_be_listed", lambda _: None)  # the thief's own program
    line = sealed.start()
    state = sealed.run(2)
    assert state.history[2].members == ("Alto", "Discant", "Tenor")
    assert "Bass" in state.history[2].dropped
    assert ("train", "Bass", "ForgedMember") in line.refusals


def test_sums_are_sealed_to_the_new_key_from_the_next_round_on(sealed: Federation) -> None:
    before = sealed.parties.custodian
    sealed.start()
    sealed.run(1)
    old_seal = sealed.roster.custodian.seal_key
    opened = before.record.read_text()
    key_id = sealed.new_seal()
    sealed.install(next_version(sealed.roster, seal_key=key_id))
    with pytest.raises(ForeignSealKey, match="not the key in the roster"):
        Custodian(before)
    sealed.start()
    state = sealed.run(2)
    assert state.history[2].members == MEMBERS
    assert set(sealed.hashes().values()) == {state.history[2].adapter_hash}
    assert old_seal != key_id
    assert before.record.read_text().startswith(opened.rstrip().removesuffix("}").rstrip()), "nothing is forgotten"


def test_a_label_whose_file_of_the_seal_is_the_old_one_does_not_start(sealed: Federation) -> None:
    old = sealed.parties.seal_key.read_bytes()
    sealed.install(next_version(sealed.roster, seal_key=sealed.new_seal()))
    sealed.parties.seal_key.write_bytes(old)
    with pytest.raises(ForeignSealKey, match="ask the custodian"):
        sealed.start("Alto")
    with pytest.raises(ForeignSealKey, match="seal_key: "):
        Coordinator(sealed.config(1))


def test_a_label_that_installed_the_new_roster_takes_part_in_no_round_of_the_old_one(sealed: Federation) -> None:
    old = sealed.roster
    coordinator = Coordinator(sealed.config(1))
    attempt = coordinator._attempt(coordinator._begin())
    sealed.install(next_version(old, seal_key=sealed.new_seal()))
    line = sealed.start("Alto")
    with pytest.raises(ForgedMember, match="Compare fingerprints"):
        line.nodes["Alto"].train(attempt.plan_message, None)
    invented = {
        "roster": sealed.roster.hash,
        "seal_key": sealed.roster.custodian.seal_key,
        "cohort": tuple(sorted((*MEMBERS, NEWCOMER))),
    }
    forged = attempt.plan.model_copy(update=invented)
    with pytest.raises(ForgedMember, match=NEWCOMER):
        line.nodes["Alto"].train(write_plan(sealed.keys()[COORDINATOR], forged), None)


def test_a_new_label_trains_in_the_next_masked_round(tmp_path: Path, vaults: Path, tiny_base: Path) -> None:
    federation = Federation(tmp_path, vaults, tiny_base, "masked")
    federation.start()
    federation.run(1)
    seal = federation.new_seal()
    federation.install(next_version(federation.roster, add=[federation.new_keys(NEWCOMER)], seal_key=seal))
    federation.start()
    state = federation.run(2)
    federation.stop()
    assert state.history[2].members == tuple(sorted((*MEMBERS, NEWCOMER)))


def on_a_stick(federation: Federation, giver: str, taker: str) -> bytes:
    """What `partbook node hand-over` writes."""
    like = adapter_state(attach(load_model(federation.base)))
    held = SharedModel.load(federation.node_config(giver).model, like)
    return b"".join(hand_over(held, "b" * 64, federation.roster, giver, federation.keys()[giver], taker)[1])


def handed_the_model(federation: Federation, giver: str, taker: str, stick: bytes | None = None) -> None:
    """`partbook node take-over` of what another label handed over, now or before."""
    like = adapter_state(attach(load_model(federation.base)))
    file, arrays = io.BytesIO(stick or on_a_stick(federation, giver, taker)), io.BytesIO()
    offer = Offer.read(file, federation.roster, taker)
    path = federation.node_config(taker).model
    offer.must_lead_on(SharedModel.load(path, like), "b" * 64)
    offer.take(file, ReceivingKey.load(federation.parties.folders[taker] / "receiving.pem"), arrays)
    offer.model(np.frombuffer(arrays.getvalue(), "<f4").reshape(3, -1), like).save(path)


def test_a_new_label_trains_in_sealed_rounds_from_the_model_that_another_one_hands_it(sealed: Federation) -> None:
    sealed.start()
    sealed.run(1)
    seal = sealed.new_seal()
    sealed.install(next_version(sealed.roster, add=[sealed.new_keys(NEWCOMER)], seal_key=seal))
    handed_the_model(sealed, "Alto", NEWCOMER)
    sealed.start()
    state = sealed.run(3)
    everybody = tuple(sorted((*MEMBERS, NEWCOMER)))
    assert [record.members for record in state.history[2:]] == [everybody, everybody]
    assert set(sealed.hashes().values()) == {state.history[3].adapter_hash}


def test_a_label_that_lost_its_machine_goes_on_from_the_model_that_another_one_hands_it(sealed: Federation) -> None:
    sealed.start()
    sealed.run(1)
    sealed.stop()
    sealed.node_config("Bass").model.unlink()
    sealed.install(next_version(sealed.roster, replace=[sealed.new_keys("Bass")]))
    handed_the_model(sealed, "Tenor", "Bass")
    sealed.start()
    state = sealed.run(2)
    assert state.history[2].members == MEMBERS
    assert set(sealed.hashes().values()) == {state.history[2].adapter_hash}


def test_a_new_label_without_the_model_holds_no_sealed_round_up(sealed: Federation) -> None:
    sealed.start()
    sealed.run(1)
    seal = sealed.new_seal()
    sealed.install(next_version(sealed.roster, add=[sealed.new_keys(NEWCOMER)], seal_key=seal))
    sealed.start()
    state = sealed.run(2)
    assert set(MEMBERS) <= set(state.history[2].members)
    assert {sealed.hashes()[member] for member in MEMBERS} == {state.history[2].adapter_hash}


def test_a_ledger_goes_on_counting_over_a_change_of_the_roster(sealed: Federation) -> None:
    sealed.start()
    sealed.run(1)
    sealed.install(next_version(sealed.roster, replace=[sealed.new_keys("Bass")]))
    line = sealed.start()
    sealed.run(2)
    debits = line.nodes["Bass"]._ledger.debits()
    assert [(debit.federation, debit.round, debit.state) for debit in debits] == [
        ("quartet", 1, "committed"),
        ("quartet", 2, "committed"),
    ]


def test_a_coordinator_with_a_new_key_finds_its_checkpoint(tmp_path: Path, vaults: Path, tiny_base: Path) -> None:
    federation = Federation(tmp_path, vaults, tiny_base, "masked")
    federation.start()
    first = federation.run(1)
    made = IdentityKey.generate()
    made.save(tmp_path / "coordinator 2.pem")
    entry = Member(COORDINATOR, made.public, ReceivingKey.generate().public)
    following = next_version(federation.roster, replace=[entry])
    old = federation.config(2)
    federation.parties = replace(federation.parties, coordinator=tmp_path / "coordinator 2.pem")
    federation.install(following)
    with pytest.raises(ConfigError, match="key: "):
        Coordinator(old)
    federation.start()
    assert federation.run(2).history[:2] == first.history
    federation.stop()


def test_keys_of_another_party_open_no_node(sealed: Federation) -> None:
    """A mistake in node.toml is found by the first plan at the latest; it is never the sum that is wrong."""
    config = sealed.node_config("Alto", identity=sealed.parties.folders["Bass"] / "receiving.pem")
    with pytest.raises(UnusableKey):
        LabelNode(config)
