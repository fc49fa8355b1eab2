"""What is kept is read back whole, or refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from partbook.errors import AlteredFile, ConfigError
from partbook.training.saved_state import PREVIOUS, STATE, load, save


def test_the_last_save_is_read_back_and_the_one_before_stays(tmp_path: Path) -> None:
    assert load(tmp_path) is None
    for number in range(3):
        save(tmp_path, {"step": number, "weights": {"a": torch.full((2, 3), float(number))}})
    found = load(tmp_path)
    assert found is not None
    assert found["step"] == 2
    assert torch.equal(found["weights"]["a"], torch.full((2, 3), 2.0))
    (tmp_path / STATE).unlink()
    before = load(tmp_path)
    assert before is not None
    assert before["step"] == 1


@pytest.mark.parametrize("fault", ["cut", "flipped", "empty", "foreign"])
def test_a_torn_or_altered_file_is_refused_by_name_and_the_one_before_offered(tmp_path: Path, fault: str) -> None:
    for number in range(2):
        save(tmp_path, {"step": number})
    path = tmp_path / STATE
    blob = bytearray(path.read_bytes())
    if fault == "flipped":
        blob[len(blob) // 2] ^= 1
    path.write_bytes({"cut": blob[:-7], "flipped": blob, "empty": b"", "foreign": b"PK\3\4" + blob}[fault])
    with pytest.raises(AlteredFile, match=rf"{STATE}.*{PREVIOUS}"):
        load(tmp_path)
    path.unlink()
    assert load(tmp_path) == {"step": 0}


def test_a_torn_file_with_none_before_it_offers_none(tmp_path: Path) -> None:
    (tmp_path / STATE).write_bytes(b"no")
    with pytest.raises(AlteredFile, match="start anew"):
        load(tmp_path)


def test_a_save_that_was_cut_short_leaves_the_one_before(tmp_path: Path) -> None:
    save(tmp_path, {"step": 1})
    (tmp_path / STATE).replace(tmp_path / PREVIOUS)  # killed here, while it wrote
    (tmp_path / "state.part").write_bytes(b"half")
    assert load(tmp_path) == {"step": 1}
    save(tmp_path, {"step": 2})
    assert load(tmp_path) == {"step": 2}
    assert sorted(path.name for path in tmp_path.iterdir()) == [PREVIOUS, STATE]


def test_a_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=STATE):
        save(tmp_path / "gone", {"step": 1})
