"""Real ServerApp, real ClientApps, real vaults: rounds in one process, and every byte that crossed."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.common.serde import message_from_proto
from flwr.proto.message_pb2 import Message as WireMessage
from scipy.stats import chisquare
from tunes import recording_of, tune

from partbook.coordinator.checkpoints import Checkpoints
from partbook.coordinator.privacy import statement
from partbook.coordinator.validation import write_validation
from partbook.custodian.opening import CustodianConfig
from partbook.errors import CohortTooSmall
from partbook.identity.message import Message
from partbook.identity.roster import Roster
from partbook.model.adapter import adapter_state, attach, flatten, load_adapter, state_hash
from partbook.model.checkpoint import base_manifest, load_model
from partbook.music.recording import Recording
from partbook.music.tokens import Tokenizer
from partbook.node.label import NodeConfig
from partbook.plan import exchanges, greeting, wire
from partbook.plan.federation import FederationConfig
from partbook.plan.rounds import ServerStep
from partbook.plan.training import DistributedDp, LocalDp, PlainTraining, Training
from partbook.secagg import messages as sums
from partbook.secagg.node import NodeRound
from partbook.simulation.drops import Drop
from partbook.simulation.federation import simulate
from partbook.simulation.grid import Crossing
from partbook.simulation.noise import Asked, account, allowing
from partbook.simulation.parties import Parties, enrol
from partbook.vault.store import Vault

pytestmark = pytest.mark.timeout(300)  # whole federations, some of them several times

MEMBERS = ("Alto", "Bass", "Tenor")
BODIES = {
    "hello": greeting.Hello,
    "here": greeting.Here,
    "plan": exchanges.PlanText,
    "ready": exchanges.Nothing,
    "begin": exchanges.Nothing,
    "advertise": sums.Advertise,
    "keys": sums.Keys,
    "shares": sums.Shares,
    "inbox": sums.Inbox,
    "contribution": sums.Contribution,
    "survivors": sums.Survivors,
    "confirmed": sums.Confirmed,
    "reveal": sums.Reveal,
    "revealed": sums.Revealed,
    "open": exchanges.Open,
    "opened": exchanges.Opened,
    "applied": exchanges.ModelHash,
    "endorse": exchanges.ModelHash,
    "endorsed": exchanges.ModelHash,
    "publish": exchanges.Publish,
    "published": exchanges.ModelHash,
}
TRAINING = PlainTraining(steps=2, batch=2, learning_rate=1e-2, clip=2.0)
LEARNING = PlainTraining(steps=6, batch=3, learning_rate=1e-2, clip=2.0)  # enough for a model to get better
NOISY = DistributedDp(noise_multiplier=1.5, sampling=1.0, batch=6.0, colluders=1, clip=0.5)
ALONE = LocalDp(noise_multiplier=1.5, sampling=1.0, batch=2.0, steps=2, clip=0.5, bound=2.0)


@pytest.fixture(scope="module")
def label_recordings(tiny_tokenizer: Tokenizer) -> dict[str, list[Recording]]:
    return {m: [recording_of(tune(i), tiny_tokenizer, 10 * i + k) for k in range(2)] for i, m in enumerate(MEMBERS)}


@pytest.fixture
def parties(tmp_path: Path) -> Parties:
    return enrol(tmp_path / "parties", "trio", {member: tmp_path / member / "keys" for member in MEMBERS})


@pytest.fixture(params=["masked", "sealed"])
def mode(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def config(
    tmp_path: Path, tiny_base: Path, recordings: list[Recording], parties: Parties, mode: str
) -> FederationConfig:
    for member, recording in zip(MEMBERS, recordings, strict=True):
        write_validation(tmp_path / "validation", member, [recording])
    return FederationConfig(
        roster=parties.roster,
        key=parties.coordinator,
        seal_key=parties.seal_key,
        mode=mode,
        rounds=3,
        base=tiny_base,
        state=tmp_path / "state",
        validation=tmp_path / "validation",
        training=TRAINING,
        step=ServerStep(momentum=0.5),
        timeout=60,
    )


@pytest.fixture
def nodes(
    tmp_path: Path, tiny_base: Path, label_recordings: dict[str, list[Recording]], parties: Parties
) -> dict[str, NodeConfig]:
    return {
        member: node_of(member, recordings, tmp_path, tiny_base, parties)
        for member, recordings in label_recordings.items()
    }


def node_of(member: str, recordings: list[Recording], folder: Path, base: Path, parties: Parties) -> NodeConfig:
    with Vault.create(folder / member / "vault") as vault:
        for recording in recordings:
            vault.add(recording, f"{hash(recording.title) & 0xFFFF:064x}")
    journal = folder / f"{member}.jsonl"
    bare = NodeConfig(member, folder / member / "vault", Path(), Path(), journal=journal, base=base, seed=5)
    return parties.node(bare)


def last_state(config: FederationConfig):
    assert config.base is not None
    base_hash = base_manifest(config.base)["files"]["model.safetensors"]
    state = Checkpoints(config.state, "trio", base_hash).load()
    assert state is not None
    return state


def anew(
    folder: Path, config: FederationConfig, nodes: dict[str, NodeConfig], parties: Parties
) -> tuple[FederationConfig, dict[str, NodeConfig], CustodianConfig]:
    """The same parties as if none of them had taken part in anything yet."""
    return (
        config.model_copy(update={"state": folder / "state"}),
        {
            member: replace(node, state=folder / member, ledger=folder / f"{member}.ledger.sqlite")
            for member, node in nodes.items()
        },
        replace(parties.custodian, record=folder / "opened.json"),
    )


def test_rounds_lower_the_held_out_loss_of_every_label(
    config: FederationConfig, nodes: dict[str, NodeConfig], parties: Parties
) -> None:
    config = config.model_copy(update={"training": LEARNING})
    simulate(config, nodes, parties.custodian)
    history = last_state(config).history
    assert [record.round for record in history] == [0, 1, 2, 3]
    for member in MEMBERS:
        assert history[-1].validation[member] < history[0].validation[member]
    assert history[-1].members == MEMBERS
    adapter = load_adapter(config.state / "adapter.safetensors")
    assert state_hash(adapter) == history[-1].adapter_hash


@pytest.mark.parametrize("mode", ["sealed"])
def test_in_sealed_rounds_the_coordinator_learns_the_model_only_when_the_labels_release_it(
    config: FederationConfig, nodes: dict[str, NodeConfig], parties: Parties
) -> None:
    crossings: list[Crossing] = []
    simulate(config, nodes, parties.custodian, on_crossing=crossings.append)
    history = last_state(config).history
    assert [bool(record.validation) for record in history] == [True, False, False, True]
    assert all(record.update_norm is None for record in history)
    final = load_adapter(config.state / "adapter.safetensors")
    vector = flatten(final).tobytes()
    inbound = [crossing for crossing in crossings if crossing.inbound]
    assert [crossing.kind for crossing in inbound if vector in crossing.data] == ["query.publish"]
    assert not [crossing for crossing in crossings if not crossing.inbound and vector in crossing.data]


def test_masked_and_sealed_rounds_of_one_seed_learn_the_same_within_rounding(
    config: FederationConfig, nodes: dict[str, NodeConfig], parties: Parties, tmp_path: Path, mode: str
) -> None:
    config = config.model_copy(update={"training": LEARNING})
    simulate(config, nodes, parties.custodian)
    again, fresh, custodian = anew(tmp_path / "again", config, nodes, parties)
    other = "sealed" if mode == "masked" else "masked"
    simulate(again.model_copy(update={"mode": other, "bits": 16}), fresh, custodian)
    one, two = last_state(config).adapter, last_state(again).adapter
    assert np.linalg.norm(one - two) < 0.05 * np.linalg.norm(one - flatten_base(config))


def flatten_base(config: FederationConfig) -> np.ndarray:
    assert config.base is not None
    return flatten(adapter_state(attach(load_model(config.base))))


def test_a_run_is_repeatable_bit_for_bit(
    config: FederationConfig, nodes: dict[str, NodeConfig], parties: Parties, tmp_path: Path
) -> None:
    simulate(config, nodes, parties.custodian, workers=1)
    again, fresh, custodian = anew(tmp_path / "again", config, nodes, parties)
    simulate(again, fresh, custodian, workers=3)
    assert last_state(again).history[-1].adapter_hash == last_state(config).history[-1].adapter_hash


def test_a_run_that_is_cut_off_goes_on_where_it_was(
    config: FederationConfig, nodes: dict[str, NodeConfig], parties: Parties, tmp_path: Path
) -> None:
    simulate(config, nodes, parties.custodian)
    resumed, fresh, custodian = anew(tmp_path / "resumed", config, nodes, parties)
    simulate(resumed.model_copy(update={"rounds": 2}), fresh, custodian)
    simulate(resumed, fresh, custodian)
    assert last_state(resumed).history[-1].adapter_hash == last_state(config).history[-1].adapter_hash


KINDS = ("train", "query.advertise", "query.share", "query.contribute", "query.confirm", "query.reveal")
SEALED = ("query.open", "query.apply")


class Stopped(Exception):
    """The coordinator's process ends here."""


@pytest.mark.parametrize(
    ("mode", "kind"), [*(("masked", kind) for kind in KINDS), *(("sealed", kind) for kind in (*KINDS, *SEALED))]
)
def test_a_coordinator_killed_in_any_exchange_resumes_the_round(
    config: FederationConfig, nodes: dict[str, NodeConfig], parties: Parties, mode: str, kind: str
) -> None:
    config = config.model_copy(update={"rounds": 1})
    seen = 0

    def kill(crossing: Crossing) -> None:
        nonlocal seen
        seen += crossing.kind == kind and not crossing.inbound
        if crossing.kind == kind and (seen > 1 or kind == "query.open"):
            raise Stopped

    with pytest.raises(Stopped):
        simulate(config, nodes, parties.custodian, workers=1, on_crossing=kill)
    crossings: list[Crossing] = []
    simulate(config, nodes, parties.custodian, on_crossing=crossings.append)
    assert last_state(config).history[-1].adapter_hash == one_round(config, nodes, parties)
    # What was done before the kill was not done again.
    order = (*KINDS, *SEALED)
    asked = {crossing.kind for crossing in crossings if not crossing.inbound}
    assert not asked & set(order[: order.index(kind)])


_one_round: dict[str, str] = {}


def one_round(config: FederationConfig, nodes: dict[str, NodeConfig], parties: Parties) -> str:
    """The model after one round in which nothing happened; worked out once for each mode."""
    if config.mode not in _one_round:
        calm = anew(config.state.parent / "calm", config.model_copy(update={"validation": None}), nodes, parties)
        simulate(*calm)
        _one_round[config.mode] = last_state(calm[0]).history[-1].adapter_hash
    return _one_round[config.mode]


@pytest.mark.parametrize("mode", ["masked"])
def test_a_retry_of_a_round_sends_the_stored_vector_under_fresh_masks(
    config: FederationConfig, nodes: dict[str, NodeConfig], parties: Parties, tmp_path: Path
) -> None:
    config = config.model_copy(update={"rounds": 1})
    retried, fresh, _ = anew(tmp_path / "retried", config, nodes, parties)
    first: list[Crossing] = []
    with pytest.raises(CohortTooSmall, match=r"Bass.*unavailable"):
        simulate(retried, fresh, drops=[Drop("Bass", "query.confirm")], on_crossing=first.append)
    assert not (retried.state / "attempt").exists()
    journals = {member: node.journal.read_bytes() for member, node in fresh.items() if node.journal}
    second: list[Crossing] = []
    simulate(retried, fresh, on_crossing=second.append)
    assert last_state(retried).history[-1].adapter_hash == one_round(config, nodes, parties)
    assert journals == {member: node.journal.read_bytes() for member, node in fresh.items() if node.journal}
    masked = [
        {c.node_id: blobs_of(c)[0] for c in crossings if c.inbound and c.kind == "query.contribute"}
        for crossings in (first, second)
    ]
    assert set(masked[0]) == set(masked[1])
    for node_id, blob in masked[0].items():
        same = np.frombuffer(blob, np.uint32) == np.frombuffer(masked[1][node_id], np.uint32)
        assert same.mean() < 0.01


def parsed(crossing: Crossing):
    return message_from_proto(WireMessage.FromString(crossing.data))


def blobs_of(crossing: Crossing) -> list[bytes]:
    return wire.unpack(parsed(crossing).content, signed=None, blobs=None)[1]


ALLOWED = {
    # (kind, from the node): (kinds of the signed messages, number of blobs)
    ("query.hello", False): (("hello",), 0),
    ("query.hello", True): (("here",), 0),
    ("train", False): (("plan",), 1),
    ("train", True): (("ready",), 0),
    ("query.advertise", False): (("begin",), 0),
    ("query.advertise", True): (("advertise",), 0),
    ("query.share", False): (("keys",), 0),
    ("query.share", True): (("shares",), 0),
    ("query.contribute", False): (("inbox",), 0),
    ("query.contribute", True): (("contribution",), 1),
    ("query.confirm", False): (("survivors",), 0),
    ("query.confirm", True): (("confirmed",), 0),
    ("query.reveal", False): (("reveal",), 0),
    ("query.reveal", True): (("revealed",), 0),
}
ALLOWED_SEALED = {
    **ALLOWED,
    ("train", False): (("plan",), 0),
    ("query.open", False): (("plan", "open"), 1),
    ("query.open", True): (("opened",), 1),
    ("query.apply", False): (("plan", "opened"), 1),
    ("query.apply", True): (("applied",), 0),
    ("query.endorse", False): (("plan", "endorse"), 0),
    ("query.endorse", True): (("endorsed",), 0),
    ("query.publish", False): (("plan", "publish"), 0),
    ("query.publish", True): (("published",), 1),
}


@pytest.mark.parametrize("training", [TRAINING, NOISY, ALONE], ids=["plain", "distributed", "local"])
def test_only_the_protocols_messages_cross(
    config: FederationConfig,
    nodes: dict[str, NodeConfig],
    parties: Parties,
    label_recordings: dict[str, list[Recording]],
    mode: str,
    training: Training,
) -> None:
    rounds = 3 if training == TRAINING else 1
    config = config.model_copy(update={"training": training, "rounds": rounds})
    crossings: list[Crossing] = []
    simulate(config, nodes, parties.custodian, on_crossing=crossings.append)
    dimension = sum(t.numel() for t in load_adapter(config.state / "adapter.safetensors").values())
    allowed = ALLOWED if mode == "masked" else ALLOWED_SEALED
    roster = Roster.read(parties.roster)
    names = dict(enumerate([*MEMBERS, "Custodian"], start=2))

    assert {(c.kind, c.inbound) for c in crossings} == set(allowed)
    for crossing in crossings:
        message = parsed(crossing)
        assert not message.has_error()
        kinds, count = allowed[crossing.kind, crossing.inbound]
        signed, blobs = wire.unpack(message.content, signed=None, blobs=None)
        messages = [Message.decode(data) for data in signed]
        assert tuple(m.kind for m in messages) == kinds
        assert len(blobs) == count
        for inner in messages:
            # Every message is signed by the party it names, and carries just the fields of its kind.
            party = roster.identity_of(inner.sender)
            inner.check(party, inner.kind, inner.context, inner.sender)
            if crossing.inbound:
                assert inner.sender == names[crossing.node_id]
            assert BODIES[inner.kind].of(inner).json_body() == inner.body
        # Nothing hides beside the signed parts and the blobs: what is left is Flower's envelope.
        assert len(crossing.data) - sum(map(len, [*signed, *blobs])) < 900
        if (crossing.kind, crossing.inbound) == ("query.contribute", True) and mode == "masked":
            assert len(blobs[0]) == 4 * dimension
            assert chisquare(np.bincount(np.frombuffer(blobs[0], np.uint8), minlength=256)).pvalue > 1e-12

    # No stretch of any recording's tokens, notes or mel, in the forms they have in memory or on disk.
    outbound = b"".join(c.data for c in crossings if c.inbound)
    for recordings in label_recordings.values():
        for recording in recordings:
            for secret in (
                recording.ids[:8].tobytes(),
                recording.ids[:8].astype(np.int64).tobytes(),
                json.dumps(recording.ids[:8].tolist()).encode(),
                recording.mel[40, :8].tobytes(),
                recording.mel[40, :8].astype(np.float32).tobytes(),
                recording.notes.onset[1:3].tobytes(),
                recording.title.encode(),
            ):
                assert secret not in outbound
    # Nor what a node writes down for its label's own eyes.
    for node in nodes.values():
        assert node.journal is not None
        for line in node.journal.read_text().splitlines():
            entry = json.loads(line)
            for figure in (entry["loss"], entry["norm"]):
                # All its digits: chance writes "2.0", as the clip is, into megabytes of masked numbers.
                assert len(repr(figure)) > 12
                assert repr(figure).encode() not in outbound
                assert np.float64(figure).tobytes() not in outbound


@pytest.mark.parametrize("training", [NOISY, ALONE], ids=["distributed", "local"])
def test_what_the_coordinator_states_is_what_every_ledger_has_and_a_round_too_many_is_refused_by_name(
    config: FederationConfig, nodes: dict[str, NodeConfig], parties: Parties, training: DistributedDp | LocalDp
) -> None:
    config = config.model_copy(update={"training": training, "rounds": 2, "validation": None})
    simulate(config, nodes, parties.custodian)
    stated = statement(last_state(config).history, (), 1e-5)
    assert 0 < stated.outsiders <= stated.colluders
    assert (stated.outsiders < stated.colluders) == (training == NOISY)
    policy = allowing(Asked(training.kind, stated.colluders), training, 1e-5, config.mode)
    held = {member: parties.node(node, policy) for member, node in nodes.items()}
    assert {account(node).total.committed for node in held.values()} == {stated.colluders}
    with pytest.raises(CohortTooSmall) as caught:
        simulate(config.model_copy(update={"rounds": 3}), held, parties.custodian)
    for member in MEMBERS:
        assert f"{member} declined with BudgetExhausted" in str(caught.value)
    assert last_state(config).round == 2
    assert {account(node).total.spent for node in held.values()} == {stated.colluders}


def test_losses_stay_in_the_labels_own_journal(
    config: FederationConfig, nodes: dict[str, NodeConfig], parties: Parties
) -> None:
    simulate(config, nodes, parties.custodian)
    for member, node in nodes.items():
        assert node.journal is not None
        entries = [json.loads(line) for line in node.journal.read_text().splitlines()]
        assert [entry["round"] for entry in entries] == [1, 2, 3], member
    kept = (config.state / "state.json").read_text()
    assert "loss" not in kept


def test_a_node_with_another_base_model_refuses(
    config: FederationConfig, nodes: dict[str, NodeConfig], parties: Parties
) -> None:
    from partbook.model.checkpoint import BASE

    other = {**nodes, "Alto": replace(nodes["Alto"], base=BASE)}
    with pytest.raises(CohortTooSmall, match=r"Round 1: 2 of 3.*Alto declined with UnknownModel"):
        simulate(config, other, parties.custodian)


def test_an_empty_vault_is_named(
    config: FederationConfig, nodes: dict[str, NodeConfig], parties: Parties, tmp_path: Path
) -> None:
    with Vault.create(tmp_path / "empty"):
        pass
    other = {**nodes, "Tenor": replace(nodes["Tenor"], vault=tmp_path / "empty")}
    with pytest.raises(CohortTooSmall, match=r"Tenor has no node online.*InputError.*node ingest"):
        simulate(config, other, parties.custodian)


@pytest.fixture
def four(
    tmp_path: Path,
    tiny_base: Path,
    config: FederationConfig,
    nodes: dict[str, NodeConfig],
    tiny_tokenizer: Tokenizer,
) -> tuple[FederationConfig, dict[str, NodeConfig], Parties]:
    names = (*MEMBERS, "Cantus")
    parties = enrol(tmp_path / "quartet", "trio", {name: tmp_path / name / "keys" for name in names})
    music = [recording_of(tune(9), tiny_tokenizer, 90)]
    cantus = node_of("Cantus", music, tmp_path, tiny_base, parties)
    changed = {"roster": parties.roster, "key": parties.coordinator, "seal_key": parties.seal_key}
    everyone = {name: parties.node(node) for name, node in nodes.items()}
    return config.model_copy(update=changed), {**everyone, "Cantus": cantus}, parties


@pytest.mark.parametrize("exchange", KINDS)
def test_four_members_go_on_without_one_from_any_exchange(four, exchange: str, mode: str) -> None:
    config, nodes, parties = four
    simulate(config, nodes, parties.custodian, drops=[Drop("Cantus", exchange, 2)])
    history = last_state(config).history
    assert history[2].dropped == {"Cantus": exchange}
    added = KINDS.index(exchange) > KINDS.index("query.contribute")
    assert history[2].members == (tuple(sorted((*MEMBERS, "Cantus"))) if added else MEMBERS)
    # In the next round it is there again: in sealed rounds it took the step it had missed.
    assert history[3].dropped == {}
    assert history[3].members == tuple(sorted((*MEMBERS, "Cantus")))


def test_below_the_threshold_the_round_ends_by_name_and_the_state_stays(four) -> None:
    config, nodes, parties = four
    drops = [Drop("Cantus", "query.share", 2), Drop("Bass", "query.confirm", 2)]
    with pytest.raises(CohortTooSmall, match=r"Round 2.*Bass: .*Cantus: "):
        simulate(config, nodes, parties.custodian, drops=drops)
    assert last_state(config).round == 1
    simulate(config, nodes, parties.custodian)
    assert last_state(config).round == 3


def test_a_round_that_ends_while_shares_are_revealed_is_given_up_for_the_next_number(
    config: FederationConfig, nodes: dict[str, NodeConfig], parties: Parties
) -> None:
    config = config.model_copy(update={"rounds": 2})
    with pytest.raises(CohortTooSmall, match=r"Round 2.*Bass"):
        simulate(config, nodes, parties.custodian, drops=[Drop("Bass", "query.reveal", 2)])
    assert last_state(config).round == 1
    simulate(config, nodes, parties.custodian)
    history = last_state(config).history
    # Alto and Tenor had revealed: another sum of the same vectors is refused, so round 2 is never tried again.
    assert [record.round for record in history] == [0, 1, 3]
    assert history[-1].members == MEMBERS
    adapter = load_adapter(config.state / "adapter.safetensors")
    assert state_hash(adapter) == history[-1].adapter_hash


@pytest.mark.parametrize("mode", ["sealed"])
def test_what_a_node_and_the_coordinator_keep_holds_no_secret_in_clear(
    config: FederationConfig, nodes: dict[str, NodeConfig], parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets: list[bytes] = []
    draw = NodeRound.__init__

    def remembered(self: NodeRound, *arguments: object) -> None:
        draw(self, *arguments)  # type: ignore[arg-type]
        secrets.extend([self._self_secret, self._mask_key.private_bytes_raw(), self._share_key.private_bytes_raw()])

    monkeypatch.setattr(NodeRound, "__init__", remembered)
    simulate(config, nodes, parties.custodian)
    assert len(secrets) >= 3 * len(MEMBERS)
    kept = b"".join(
        path.read_bytes()
        for folder in (config.state, *(node.kept for node in nodes.values()))
        for path in folder.rglob("*")
        if path.is_file()
    )
    assert len(kept) > 10_000
    for secret in secrets:
        for spelling in (secret, secret.hex().encode(), base64.b64encode(secret)):
            assert spelling not in kept
