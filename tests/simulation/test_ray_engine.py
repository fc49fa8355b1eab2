"""The same apps on Flower's simulation engine: Ray's processes, the same adapter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from flwr.app import Context, Message, RecordDict
from tunes import recording_of, tune

from partbook.coordinator.checkpoints import Checkpoints
from partbook.custodian.opening import CustodianConfig
from partbook.errors import ConfigError, UnusableKey
from partbook.model.checkpoint import base_manifest
from partbook.music.tokens import Tokenizer
from partbook.node.label import NodeConfig
from partbook.plan.federation import FederationConfig
from partbook.plan.training import PlainTraining
from partbook.simulation.federation import simulate, written
from partbook.simulation.parties import Parties, enrol
from partbook.simulation.ray_engine import PARTIES, PARTITION, EveryParty, simulate_on_ray
from partbook.simulation.trial import Trial, TrialOptions
from partbook.vault.store import Vault

pytestmark = pytest.mark.timeout(600)  # a Ray cluster starts

MEMBERS = ("Alto", "Bass", "Tenor")


@pytest.fixture(scope="module")
def vaults(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Tokenizer) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("vaults")
    for index, member in enumerate(MEMBERS):
        with Vault.create(home / member) as vault:
            vault.add(recording_of(tune(index), tiny_tokenizer, index), f"{index:064x}")
    return {member: home / member for member in MEMBERS}


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Parties:
    home = tmp_path_factory.mktemp("parties")
    return enrol(home, "trio", {member: home / member for member in MEMBERS})


@pytest.fixture(scope="module")
def one_cluster() -> Iterator[None]:
    """Ray is started once, by the first run that needs it, and stays for the next; it starts in half a minute."""
    import ray

    begin, end = ray.init, ray.shutdown

    def init(**given: object) -> None:
        if not ray.is_initialized():
            begin(**given)

    def shutdown() -> None:
        if not ray.is_initialized():  # what is left of a start that failed
            end()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray, "init", init)
        patch.setattr(ray, "shutdown", shutdown)
        yield
    end()


def federation(
    folder: Path, base: Path, vaults: dict[str, Path], parties: Parties, mode: str
) -> tuple[FederationConfig, dict[str, NodeConfig], CustodianConfig | None]:
    config = FederationConfig(
        roster=parties.roster,
        key=parties.coordinator,
        seal_key=parties.seal_key,
        mode=mode,
        rounds=2,
        base=base,
        state=folder / "state",
        training=PlainTraining(steps=2, batch=2, learning_rate=1e-2, clip=2.0),
        timeout=120,
    )
    kept = {member: folder / member for member in MEMBERS}
    nodes = {
        member: parties.node(
            NodeConfig(
                member, vault, Path(), Path(), state=kept[member], ledger=kept[member] / "l.sqlite", base=base, seed=5
            )
        )
        for member, vault in vaults.items()
    }
    office = replace(parties.custodian, record=folder / "opened.json") if mode == "sealed" else None
    return config, nodes, office


def last_hash(config: FederationConfig) -> str:
    assert config.base is not None
    state = Checkpoints(config.state, "trio", base_manifest(config.base)["files"]["model.safetensors"]).load()
    assert state is not None
    assert [record.round for record in state.history] == [0, 1, 2]
    return state.history[-1].adapter_hash


@pytest.mark.usefixtures("one_cluster")
def test_sealed_rounds_on_ray_lead_to_the_adapter_of_the_in_process_engine(
    tmp_path: Path, tiny_base: Path, vaults: dict[str, Path], parties: Parties
) -> None:
    here = federation(tmp_path / "here", tiny_base, vaults, parties, "sealed")
    simulate(*here)
    there = federation(tmp_path / "there", tiny_base, vaults, parties, "sealed")
    stages = []
    simulate_on_ray(*there, on_progress=lambda now: stages.append(now.round))
    assert last_hash(there[0]) == last_hash(here[0])
    assert sorted(set(stages)) == [0, 1, 2]


@pytest.mark.usefixtures("one_cluster")
def test_what_ends_the_run_comes_through_the_engine_by_its_name(
    tmp_path: Path, tiny_base: Path, vaults: dict[str, Path], parties: Parties
) -> None:
    config, nodes, _ = federation(tmp_path, tiny_base, vaults, parties, "masked")
    with pytest.raises(UnusableKey, match=r"nowhere\.pem"):
        simulate_on_ray(config.model_copy(update={"key": tmp_path / "nowhere.pem"}), nodes, workers=1)


def test_a_federations_file_means_the_same_wherever_it_is_read_from(
    tmp_path: Path, tiny_base: Path, vaults: dict[str, Path], parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = federation(tmp_path, tiny_base, vaults, parties, "masked")[0]
    monkeypatch.chdir(tmp_path)
    path = written(config.model_copy(update={"state": Path("run/state"), "roster": Path("roster.toml")}))
    found = FederationConfig.read(path)
    assert (found.state, found.roster) == (tmp_path / "run" / "state", tmp_path / "roster.toml")
    assert path == tmp_path / "run" / "federation.toml"


def test_the_app_plays_nobody_outside_a_simulation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can name it in a label's stead: it needs the engine's word and the simulation's list."""
    message = Message(RecordDict(), 2, "query.hello")
    for told, listed in (({}, "parties.toml"), ({PARTITION: 0}, None)):
        monkeypatch.delenv(PARTIES, raising=False)
        if listed is not None:
            monkeypatch.setenv(PARTIES, listed)
        with pytest.raises(ConfigError, match="partbook node start"):
            EveryParty()(message, Context(1, 2, told, RecordDict(), {}))


def test_drops_are_the_other_engines(tiny_base: Path, vaults: dict[str, Path], tmp_path: Path) -> None:
    options = TrialOptions(tuple(vaults.values()), tmp_path, base=tiny_base, drops=("Bass@share",), engine="ray")
    with pytest.raises(ConfigError, match="--engine ray"):
        Trial(options)
