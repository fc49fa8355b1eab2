from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from trio import Trio
from tunes import tune
from typer.testing import CliRunner

from partbook.coordinator.checkpoints import Checkpoints, FederationState, RoundRecord
from partbook.coordinator.cli import app
from partbook.coordinator.home import Home, init
from partbook.coordinator.privacy import spent_by
from partbook.coordinator.releasing import release
from partbook.coordinator.validation import write_validation
from partbook.errors import AlteredFile, ConfigError, GenerationError
from partbook.evaluation.brief import HEADLINES
from partbook.evaluation.language_model import LanguageModel, Transformer
from partbook.generator.release import open_release
from partbook.model.adapter import adapter_state, attach, state_hash, unflatten
from partbook.model.checkpoint import load_model
from partbook.music.recording import Recording
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


# ---------------------------------------------------------------------- is it music?


def with_validation(trio: Trio, home: Home, recordings: list[Recording]) -> Home:
    """The home, with public recordings to hold the release's pieces against."""
    folder = home.folder / "validation"
    for label, some in (("Alto", recordings[:1]), ("Bass", recordings[1:])):
        write_validation(folder, label, some)
    finished(trio, home)
    return dataclasses.replace(home, federation=home.federation.model_copy(update={"validation": folder}))


def noted(model: LanguageModel, seeds: Sequence[int], *_: object, **__: object) -> list[NDArray[np.int16]]:
    """A trained model would write notes; the tests' writes silence."""
    return [model.tokenizer.encode(tune(seed)) for seed in seeds]


def test_a_release_says_how_its_pieces_compare_with_human_works(
    trio: Trio, home: Home, recordings: list[Recording], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Transformer, "sample_many", noted)
    steps: list[str] = []
    ready = with_validation(trio, home, recordings)
    release(ready, tmp_path / "out", delta=1e-5, pieces=2, on_step=steps.append)
    music = open_release(tmp_path / "out", signer=trio.roster.coordinator).about["music"]
    assert music["reference"] == "the public validation recordings, as a node hears them"
    assert music["works"] == len(recordings)
    assert set(music["sets"]) == {"The release", "Their bars shuffled", "Random notes"}
    ours = music["sets"]["The release"]
    assert ours["pieces"] == 2
    assert ours["auc_features"] == [None, None, None]  # too few to say
    assert set(ours["median"]) == set(music["human_10_50_90"]) == set(HEADLINES)
    assert ours["median"]["density"][0] > 0
    assert steps[-1] == "Random notes"


def test_no_pieces_or_no_validation_recordings_say_nothing_of_music(
    trio: Trio, home: Home, recordings: list[Recording], tmp_path: Path
) -> None:
    ready = with_validation(trio, home, recordings)
    assert "music" not in release(ready, tmp_path / "none", delta=1e-5, pieces=0).about
    assert "music" not in release(home, tmp_path / "nothing", delta=1e-5, pieces=2).about


def test_a_model_that_writes_silence_is_released_without_its_pieces_alone(
    trio: Trio, home: Home, recordings: list[Recording], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silence = np.zeros(0, dtype=np.int16)
    monkeypatch.setattr(Transformer, "sample_many", lambda model, seeds, *_, **__: [silence] * len(seeds))
    ready = with_validation(trio, home, recordings)
    with pytest.raises(GenerationError, match=r"2 of 2 seeds led to no note.*--pieces 0"):
        release(ready, tmp_path / "out", delta=1e-5, pieces=2)
    assert not (tmp_path / "out").exists()


def test_a_release_that_exists_is_refused_before_pieces_are_written(
    trio: Trio, home: Home, recordings: list[Recording], tmp_path: Path
) -> None:
    ready = with_validation(trio, home, recordings)
    (tmp_path / "out").mkdir()
    steps: list[str] = []
    with pytest.raises(ConfigError, match="exists already"):
        release(ready, tmp_path / "out", delta=1e-5, pieces=2, on_step=steps.append)
    assert steps == []


def test_the_command_says_it_in_a_line(
    trio: Trio, home: Home, recordings: list[Recording], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Transformer, "sample_many", noted)
    with_validation(trio, home, recordings)
    path = home.folder / "federation.toml"
    path.write_text(f"validation = {json.dumps(str(home.folder / 'validation'))}\n" + path.read_text())
    command = ["release", "--home", str(home.folder), "--out", str(tmp_path / "out"), "--pieces", "2"]
    found = CliRunner().invoke(app, command, catch_exceptions=False)
    assert found.exit_code == 0, found.output
    assert f"told from {len(recordings)} human works: too few pieces or works to say" in found.stdout
