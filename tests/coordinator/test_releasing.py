from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from trio import Trio
from typer.testing import CliRunner

from partbook.coordinator.checkpoints import Checkpoints, FederationState, RoundRecord
from partbook.coordinator.cli import app
from partbook.coordinator.home import Home, init
from partbook.coordinator.privacy import spent_by
from partbook.coordinator.releasing import release
from partbook.errors import AlteredFile, ConfigError
from partbook.generator.release import open_release
from partbook.model.adapter import adapter_state, attach, state_hash, unflatten
from partbook.model.checkpoint import load_model
from partbook.plan.step import Motion
from partbook.plan.training import DistributedDp

DP = DistributedDp(noise_multiplier=2.0, sampling=0.1, batch=8.0)


@pytest.fixture
def home(trio: Trio, tmp_path: Path) -> Home:
    folder = tmp_path / "home"
    parties = trio.parties
    init(folder, roster=parties.roster, key=parties.coordinator, seal_key=parties.seal_key)
    path = folder / "federation.toml"
    path.write_text(f"base = {json.dumps(str(trio.base))}\n" + path.read_text())
    return Home.open(folder)


def finished(trio: Trio, home: Home, *, known: bool = True) -> None:
    """Two rounds on the disk, whose model the coordinator knows or not."""
    like = adapter_state(attach(load_model(trio.base)))
    adapter = trio.start + np.float32(0.01)
    last = state_hash(unflatten(adapter, like))
    spent = spent_by(trio.plan(training=DP))
    history = (
        RoundRecord(0, state_hash(like), validation={"Alto": 2.0, "Bass": 3.0}),
        RoundRecord(1, "0" * 64, spent=spent),
        RoundRecord(2, last, validation={"Alto": 1.5, "Bass": 2.5}, spent=spent),
    )
    checkpoints = Checkpoints(home.state, "trio", trio.plan().base_hash)
    checkpoints.save(FederationState(trio.start, Motion.none(len(adapter)), history[:1]), like)
    vector = adapter if known else trio.start
    checkpoints.save(FederationState(vector, Motion.none(len(adapter)), history), like)


def test_a_release_says_what_it_was_trained_with_and_what_that_cost(trio: Trio, home: Home, tmp_path: Path) -> None:
    finished(trio, home)
    packed = release(home, tmp_path / "out", delta=1e-5, name="First", sources=["tunes"])
    opened = open_release(tmp_path / "out", signer=trio.roster.coordinator)
    assert opened.id == packed.id
    about = opened.about
    assert about["name"] == "First"
    assert about["training"] == {
        "labels": ["Alto", "Bass", "Tenor"],
        "rounds": 2,
        "heldout_nats_per_token": {"Alto": {"base": 2.0, "after": 1.5}, "Bass": {"base": 3.0, "after": 2.5}},
    }
    assert about["locks"] == {"masks": True, "seal": True, "noise": True}
    assert about["privacy"]["delta"] == 1e-5
    assert about["privacy"]["rounds"] == 2
    assert 0 < about["privacy"]["epsilon_outsiders"] <= about["privacy"]["epsilon_colluders"]
    assert about["federation"] == {"name": "trio", "roster": trio.roster.hash}
    assert about["sources"] == ["tunes"]


def test_rounds_that_were_given_up_are_paid_for_in_the_release_too(trio: Trio, home: Home, tmp_path: Path) -> None:
    finished(trio, home)
    before = release(home, tmp_path / "before", delta=1e-5).about["privacy"]
    Checkpoints(home.state, "trio", trio.plan().base_hash).give_up(3, spent_by(trio.plan(training=DP)))
    after = release(home, tmp_path / "after", delta=1e-5).about["privacy"]
    assert after["rounds"] == 3
    assert after["epsilon_colluders"] > before["epsilon_colluders"]


def test_a_model_that_the_labels_have_not_handed_over_is_not_released(trio: Trio, home: Home, tmp_path: Path) -> None:
    finished(trio, home, known=False)
    with pytest.raises(ConfigError, match=r"round 2.*not handed over"):
        release(home, tmp_path / "out", delta=1e-5)
    assert not (tmp_path / "out").exists()


def test_before_the_first_round_there_is_nothing_to_release(home: Home, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no finished round"):
        release(home, tmp_path / "out", delta=1e-5)


def test_an_adapter_that_was_lost_is_named(trio: Trio, home: Home, tmp_path: Path) -> None:
    finished(trio, home)
    (home.state / "adapter.safetensors").unlink()
    with pytest.raises(AlteredFile, match="adapter"):
        release(home, tmp_path / "out", delta=1e-5)


def test_another_key_than_the_rosters_signs_nothing(trio: Trio, home: Home, tmp_path: Path) -> None:
    finished(trio, home)
    other = dataclasses.replace(home, federation=home.federation.model_copy(update={"key": tmp_path / "other.pem"}))
    trio.member_key("Alto").save(tmp_path / "other.pem")
    with pytest.raises(ConfigError, match="not the coordinator's key"):
        release(other, tmp_path / "out", delta=1e-5)


def test_the_command_prints_one_json_object(trio: Trio, home: Home, tmp_path: Path) -> None:
    finished(trio, home)
    command = ["release", "--home", str(home.folder), "--out", str(tmp_path / "out"), "--delta", "1e-5", "--json"]
    found = CliRunner().invoke(app, command)
    assert found.exit_code == 0, found.output
    about = json.loads(found.stdout)
    assert about["release"] == open_release(tmp_path / "out", signer=None).id
    assert about["signer"] == trio.roster.coordinator.fingerprint
