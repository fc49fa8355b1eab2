"""Real ServerApp, real ClientApps, real vaults: rounds in one process, and every byte that crossed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord
from flwr.common.serde import message_from_proto
from flwr.proto.message_pb2 import Message as WireMessage
from tunes import recording_of, tune

from partbook.coordinator.checkpoints import Checkpoints
from partbook.coordinator.validation import write_validation
from partbook.errors import CohortTooSmall
from partbook.model.adapter import load_adapter, state_hash
from partbook.model.checkpoint import base_manifest
from partbook.music.recording import Recording
from partbook.music.tokens import Tokenizer
from partbook.node.label import NodeConfig
from partbook.plan.federation import FederationConfig, ServerStep
from partbook.plan.rounds import LocalTraining
from partbook.simulation.federation import simulate
from partbook.simulation.grid import Crossing
from partbook.vault.store import Vault

MEMBERS = ("Alto", "Bass", "Tenor")
TRAINING = LocalTraining(steps=6, batch=3, learning_rate=1e-2, clip=2.0)


@pytest.fixture(scope="module")
def label_recordings(tiny_tokenizer: Tokenizer) -> dict[str, list[Recording]]:
    return {m: [recording_of(tune(i), tiny_tokenizer, 10 * i + k) for k in range(2)] for i, m in enumerate(MEMBERS)}


@pytest.fixture
def config(tmp_path: Path, tiny_base: Path, recordings: list[Recording]) -> FederationConfig:
    for member, recording in zip(MEMBERS, recordings, strict=True):
        write_validation(tmp_path / "validation", member, [recording])
    return FederationConfig(
        name="trio",
        members=MEMBERS,
        rounds=3,
        base=tiny_base,
        state=tmp_path / "state",
        validation=tmp_path / "validation",
        training=TRAINING,
        step=ServerStep(momentum=0.5),
        timeout=60,
    )


@pytest.fixture
def nodes(tmp_path: Path, tiny_base: Path, label_recordings: dict[str, list[Recording]]) -> dict[str, NodeConfig]:
    found = {}
    for member, recordings in label_recordings.items():
        with Vault.create(tmp_path / member) as vault:
            for recording in recordings:
                vault.add(recording, f"{hash(recording.title) & 0xFFFF:064x}")
        journal = tmp_path / f"{member}.jsonl"
        found[member] = NodeConfig(member, tmp_path / member, journal, base=tiny_base, seed=5, allow_clear_sums=True)
    return found


def last_state(config: FederationConfig):
    assert config.base is not None
    base_hash = base_manifest(config.base)["files"]["model.safetensors"]
    state = Checkpoints(config.state, config.name, base_hash).load()
    assert state is not None
    return state


def test_rounds_lower_the_held_out_loss_of_every_label(config: FederationConfig, nodes: dict[str, NodeConfig]) -> None:
    simulate(config, nodes)
    history = last_state(config).history
    assert [record.round for record in history] == [0, 1, 2, 3]
    for member in MEMBERS:
        assert history[-1].validation[member] < history[0].validation[member]
    assert history[-1].members == MEMBERS


def test_a_run_is_repeatable_bit_for_bit(
    config: FederationConfig, nodes: dict[str, NodeConfig], tmp_path: Path
) -> None:
    simulate(config, nodes, workers=1)
    again = config.model_copy(update={"state": tmp_path / "again" / "state"})
    simulate(again, nodes, workers=3)
    assert last_state(again).history[-1].adapter_hash == last_state(config).history[-1].adapter_hash


def test_a_run_that_is_cut_off_goes_on_where_it_was(
    config: FederationConfig, nodes: dict[str, NodeConfig], tmp_path: Path
) -> None:
    simulate(config, nodes)
    resumed = config.model_copy(update={"state": tmp_path / "resumed" / "state"})
    simulate(resumed.model_copy(update={"rounds": 2}), nodes)
    simulate(resumed, nodes)
    assert last_state(resumed).history[-1].adapter_hash == last_state(config).history[-1].adapter_hash
    adapter = load_adapter(resumed.state / "adapter.safetensors")
    assert state_hash(adapter) == last_state(resumed).history[-1].adapter_hash


def parsed(crossing: Crossing):
    return message_from_proto(WireMessage.FromString(crossing.data))


ALLOWED = {
    # (kind, from the node): {record: {key: type or (dtype, is the adapter's size)}}
    ("query.hello", False): {},
    ("query.hello", True): {"member": {"name": str}},
    ("train", False): {"plan": {"json": bytes}, "model": {"adapter": np.float32}},
    ("train", True): {"ready": {"plan_hash": str}},
    ("query.contribute", False): {"ask": {"plan_hash": str}},
    ("query.contribute", True): {"receipt": {"plan_hash": str}, "contribution": {"update": np.float32}},
}


def test_only_plans_adapters_and_clipped_updates_cross(
    config: FederationConfig, nodes: dict[str, NodeConfig], label_recordings: dict[str, list[Recording]]
) -> None:
    crossings: list[Crossing] = []
    simulate(config, nodes, on_crossing=crossings.append)
    assert config.base is not None
    dimension = sum(t.numel() for t in load_adapter(config.state / "adapter.safetensors").values())

    assert len(crossings) == 2 * len(MEMBERS) * (1 + 2 * config.rounds)
    for crossing in crossings:
        message = parsed(crossing)
        assert not message.has_error()
        allowed = ALLOWED[crossing.kind, crossing.inbound]
        assert set(message.content) == set(allowed)
        payload = 0
        for name, record in message.content.items():
            assert set(record) == set(allowed[name])
            for key, kind in allowed[name].items():
                value = record[key]
                if isinstance(record, ArrayRecord):
                    array = value.numpy()
                    assert array.dtype == kind
                    assert array.shape == (dimension,)
                    payload += len(value.data)
                else:
                    assert isinstance(record, ConfigRecord)
                    assert isinstance(value, kind)
                    assert len(value) <= (2000 if kind is bytes else 64)
                    payload += len(value)
        # Nothing hides beside the records: what is left is Flower's envelope.
        assert len(crossing.data) - payload < 600
        if (crossing.kind, crossing.inbound) == ("query.contribute", True):
            update = message.content.array_records["contribution"]["update"].numpy()
            assert np.linalg.norm(update.astype(np.float64)) <= TRAINING.clip
            assert len(np.unique(update)) > dimension / 4  # a trained vector, not smuggled integers

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


def test_losses_stay_in_the_labels_own_journal(config: FederationConfig, nodes: dict[str, NodeConfig]) -> None:
    simulate(config, nodes)
    for member, node in nodes.items():
        assert node.journal is not None
        entries = [json.loads(line) for line in node.journal.read_text().splitlines()]
        assert [entry["round"] for entry in entries] == [1, 2, 3], member
    kept = (config.state / "state.json").read_text()
    assert "loss" not in kept


def test_a_node_outside_a_simulation_refuses_clear_sums_and_the_round_says_so(
    config: FederationConfig, nodes: dict[str, NodeConfig]
) -> None:
    careful = {**nodes, "Bass": replace(nodes["Bass"], allow_clear_sums=False)}
    with pytest.raises(CohortTooSmall, match=r"Round 1: 2 of 3.*Bass declined with ClearSumsRefused"):
        simulate(config, careful)
    assert last_state(config).round == 0


def test_a_node_with_another_base_model_refuses(config: FederationConfig, nodes: dict[str, NodeConfig]) -> None:
    from partbook.model.checkpoint import BASE

    other = {**nodes, "Alto": replace(nodes["Alto"], base=BASE)}
    with pytest.raises(CohortTooSmall, match="Alto declined with UnknownModel"):
        simulate(config, other)


def test_an_empty_vault_is_named(config: FederationConfig, nodes: dict[str, NodeConfig], tmp_path: Path) -> None:
    with Vault.create(tmp_path / "empty"):
        pass
    other = {**nodes, "Tenor": replace(nodes["Tenor"], vault=tmp_path / "empty")}
    with pytest.raises(CohortTooSmall, match=r"Tenor declined with InputError.*node ingest"):
        simulate(config, other)


def test_four_members_go_on_without_one(config: FederationConfig, nodes: dict[str, NodeConfig], tmp_path: Path) -> None:
    with Vault.create(tmp_path / "empty"):
        pass
    broken = replace(nodes["Tenor"], member="Cantus", vault=tmp_path / "empty")
    four = config.model_copy(update={"members": (*MEMBERS, "Cantus")})
    simulate(four, {**nodes, "Cantus": broken})
    assert last_state(four).history[-1].members == MEMBERS
