from pathlib import Path

import numpy as np
import pytest
import torch

from partbook.coordinator.checkpoints import Checkpoints, FederationState, RoundRecord
from partbook.errors import AlteredFile, ConfigError
from partbook.model.adapter import load_adapter, state_hash, unflatten
from partbook.plan.step import Motion

COST = {"colluders": "[]"}
LIKE = {"x.b": torch.zeros(2, 2), "norm.weight": torch.zeros(3)}


def state(rounds: int, *, known: bool = True) -> FederationState:
    """A state after so many rounds; in sealed ones the coordinator does not know the newest adapter."""
    adapter = np.arange(7, dtype=np.float32) + rounds
    newest = state_hash(unflatten(adapter, LIKE)) if known else "e" * 64
    records = [
        RoundRecord(n, "f" * 64, ("A", "B"), 1.5, 0.1, {"A": 2.0}, {"C": "query.share"}, {"train": 2.5}, COST)
        for n in range(rounds)
    ]
    motion = Motion(np.ones(7, np.float32), np.full(7, 2.0, np.float32), rounds)
    return FederationState(adapter, motion, (*records, RoundRecord(rounds, newest, ("A", "B"))))


def test_the_newest_state_comes_back(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "trio", "base")
    assert checkpoints.load() is None
    checkpoints.save(state(0), LIKE)
    checkpoints.save(state(1), LIKE)
    found = Checkpoints(tmp_path, "trio", "base").load()
    assert found is not None
    assert found.history == state(1).history
    assert np.array_equal(found.adapter, state(1).adapter)
    assert (found.motion.velocity[0], found.motion.second[0], found.motion.steps) == (1.0, 2.0, 1)
    assert load_adapter(tmp_path / "adapter.safetensors")["norm.weight"].tolist() == [1, 2, 3]


def test_an_adapter_that_the_coordinator_does_not_know_is_not_written_out(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "trio", "base")
    checkpoints.save(state(1, known=False), LIKE)
    assert not (tmp_path / "adapter.safetensors").exists()
    assert not (tmp_path / "manifest.json").exists()
    found = checkpoints.load()
    assert found is not None
    assert found.history == state(1, known=False).history


def test_a_round_that_was_given_up_is_remembered(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "trio", "base")
    assert checkpoints.given_up == 0
    checkpoints.give_up(2, {"outsiders": "[]"})
    checkpoints.give_up(4, {"colluders": "[]"})
    assert Checkpoints(tmp_path, "trio", "base").given_up == 4
    assert checkpoints.lost() == ((2, {"outsiders": "[]"}), (4, {"colluders": "[]"}))
    for text in ("", "{", "[]", "{}", '{"rounds": [{"round": "x"}]}'):
        (tmp_path / "given-up.json").write_text(text)
        with pytest.raises(AlteredFile, match="given-up"):
            _ = checkpoints.given_up


def test_a_crash_between_files_leaves_the_round_before(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "trio", "base")
    checkpoints.save(state(0), LIKE)
    head = (tmp_path / "state.json").read_bytes()
    checkpoints.save(state(1), LIKE)
    (tmp_path / "state.json").write_bytes(head)  # as if killed before the last rename
    found = checkpoints.load()
    assert found is not None
    assert found.round == 0


def test_another_federations_folder_is_refused(tmp_path: Path) -> None:
    Checkpoints(tmp_path, "trio", "base").save(state(0), LIKE)
    with pytest.raises(ConfigError, match="belongs to federation 'trio'"):
        Checkpoints(tmp_path, "quartet", "base").load()
    with pytest.raises(ConfigError, match="another base"):
        Checkpoints(tmp_path, "trio", "other").load()


@pytest.mark.parametrize("name", ["state.json", "round-0000.safetensors"])
def test_a_broken_checkpoint_is_named(tmp_path: Path, name: str) -> None:
    checkpoints = Checkpoints(tmp_path, "trio", "base")
    checkpoints.save(state(0), LIKE)
    (tmp_path / name).write_bytes(b"{")
    with pytest.raises(AlteredFile, match="broken checkpoint"):
        checkpoints.load()
