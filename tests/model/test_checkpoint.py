import json
import shutil
from pathlib import Path

import pytest
import torch

from partbook.errors import AlteredFile
from partbook.model.checkpoint import BASE, FILES, base_manifest, load_model, load_tokenizer, model_from_bytes


def test_the_shipped_base_is_whole_small_and_says_where_it_came_from() -> None:
    about = base_manifest()["about"]
    assert sum((BASE / name).stat().st_size for name in FILES) <= 16 * 2**20
    assert about["command"].startswith("partbook base train")
    assert about["sources"]
    assert load_model().config.vocabulary == len(load_tokenizer())


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_byte_is_refused_by_name(tiny_base: Path, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(tiny_base, tmp_path / "base")
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(AlteredFile, match=name.replace(".", r"\.")):
        load_model(folder)


def test_a_missing_file_or_manifest_is_named(tiny_base: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_base, tmp_path / "base")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(AlteredFile, match="tokenizer"):
        load_model(folder)
    (folder / "manifest.json").write_text(json.dumps([]))
    with pytest.raises(AlteredFile, match="manifest"):
        load_model(folder)


def test_weights_of_another_shape_are_refused(tiny_base: Path) -> None:
    config = json.loads((tiny_base / "config.json").read_text())
    config["hidden"] += 1
    with pytest.raises(AlteredFile, match="fit"):
        model_from_bytes(json.dumps(config), (tiny_base / "model.safetensors").read_bytes())


def test_weights_come_back_as_float32(tiny_base: Path) -> None:
    assert {p.dtype for p in load_model(tiny_base).parameters()} == {torch.float32}
