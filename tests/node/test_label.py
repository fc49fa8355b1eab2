from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, RecordDict

from partbook.errors import (
    ClearSumsRefused,
    ConfigError,
    CorruptMessage,
    InputError,
    NotInCohort,
    StalePlan,
    UnknownModel,
    WrongVaultKey,
)
from partbook.model.adapter import adapter_state, attach, flatten, state_hash
from partbook.model.checkpoint import base_manifest, load_model
from partbook.music.recording import Recording
from partbook.node.app import node_config
from partbook.node.label import LabelNode, NodeConfig
from partbook.plan.rounds import LocalTraining, Locks, RoundPlan
from partbook.vault.store import Vault

TRAINING = LocalTraining(steps=2, batch=2, clip=0.5)


@pytest.fixture
def config(tmp_path: Path, tiny_base: Path, recordings: list[Recording]) -> NodeConfig:
    with Vault.create(tmp_path / "vault") as vault:
        for index, recording in enumerate(recordings):
            vault.add(recording, f"{index:064x}")
    return NodeConfig("Alto", tmp_path / "vault", base=tiny_base, seed=1, allow_clear_sums=True)


@pytest.fixture
def adapter(tiny_base: Path) -> np.ndarray:
    return flatten(adapter_state(attach(load_model(tiny_base))))


@pytest.fixture
def plan(tiny_base: Path) -> RoundPlan:
    return RoundPlan(
        federation="trio",
        round=1,
        base_hash=base_manifest(tiny_base)["files"]["model.safetensors"],
        model_hash=state_hash(adapter_state(attach(load_model(tiny_base)))),
        cohort=("Alto", "Bass", "Tenor"),
        threshold=3,
        training=TRAINING,
        locks=Locks(),
    )


def test_a_contribution_asked_for_twice_is_the_same_bytes(config, plan, adapter) -> None:
    node = LabelNode(config)
    plan_hash = node.train(plan, adapter)
    assert plan_hash == plan.hash()
    first = node.contribute(plan_hash)
    assert node.train(plan, adapter) == plan_hash  # a repeated train message changes nothing
    assert node.contribute(plan_hash).tobytes() == first.tobytes()
    assert 0 < np.linalg.norm(first.astype(np.float64)) <= TRAINING.clip


def test_without_a_seed_two_nodes_visit_their_recordings_in_other_orders(config, plan, adapter) -> None:
    updates = []
    for _ in range(2):
        node = LabelNode(replace(config, seed=None))
        updates.append(node.contribute(node.train(plan, adapter)))
    assert not np.array_equal(*updates)


def changed(plan: RoundPlan, **fields: object) -> RoundPlan:
    return RoundPlan.model_validate(plan.model_dump() | fields)


@pytest.mark.parametrize(
    ("fields", "error", "reason"),
    [
        ({"cohort": ("Bass", "Cantus", "Tenor")}, NotInCohort, "Alto"),
        ({"base_hash": "0" * 64}, UnknownModel, "same Partbook release"),
        ({"model_hash": "0" * 64}, CorruptMessage, "not the one the plan names"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_by_name(config, plan, adapter, fields, error, reason) -> None:
    with pytest.raises(error, match=reason):
        LabelNode(config).train(changed(plan, **fields), adapter)


def test_a_round_that_is_over_is_stale(config, plan, adapter) -> None:
    node = LabelNode(config)
    second = changed(plan, round=2)
    node.train(second, adapter)
    with pytest.raises(StalePlan, match="already trained for round 2"):
        node.train(plan, adapter)
    with pytest.raises(StalePlan, match="no update"):
        node.contribute(plan.hash())


def test_clear_sums_are_refused_unless_a_simulation_allows_them(config, plan, adapter) -> None:
    node = LabelNode(replace(config, allow_clear_sums=False))
    with pytest.raises(ClearSumsRefused, match="without masks"):
        node.train(plan, adapter)


def test_an_adapter_of_another_length_is_refused(config, plan, adapter) -> None:
    with pytest.raises(UnknownModel, match="numbers"):
        LabelNode(config).train(plan, adapter[:-1])


def test_a_vault_that_cannot_be_used_is_named(config, tmp_path: Path) -> None:
    with Vault.create(tmp_path / "empty"):
        pass
    with pytest.raises(InputError, match="node ingest"):
        LabelNode(replace(config, vault=tmp_path / "empty"))
    with pytest.raises(WrongVaultKey):
        LabelNode(replace(config, key=tmp_path / "empty" / "vault.key"))


def test_the_nodes_configuration_never_comes_from_the_coordinator() -> None:
    hostile = {"member": "Bass", "vault": "/elsewhere", "allow-clear-sums": True}
    context = Context(1, 2, {"member": "Alto", "vault": "/v"}, RecordDict(), hostile)
    config = node_config(context)
    assert (config.member, config.vault, config.allow_clear_sums) == ("Alto", Path("/v"), False)
    with pytest.raises(ConfigError, match="vault"):
        node_config(Context(1, 2, {"member": "Alto"}, RecordDict(), hostile))
