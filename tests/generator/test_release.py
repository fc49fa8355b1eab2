from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from partbook.errors import AlteredFile, BadSignature, ConfigError, IntegrityError
from partbook.generator.composing import Piece, PieceRequest, compose
from partbook.generator.release import FILES, load_generator, open_release, pack_release
from partbook.identity.keys import IdentityKey
from partbook.model.adapter import apply_adapter, load_adapter, save_adapter
from partbook.model.checkpoint import model_from_bytes, save_base
from partbook.provenance.signing import BESIDE, sign_folder

ALL_FILES = (*FILES, "manifest.json", *BESIDE)


@pytest.fixture
def copy(release, tmp_path) -> Path:
    return Path(shutil.copytree(release.path, tmp_path / "copy"))


def test_a_release_holds_exactly_the_documented_files(release):
    assert sorted(path.name for path in release.path.iterdir()) == sorted(ALL_FILES)
    assert release.path.stat().st_mode & 0o777 == 0o755


def test_a_packed_release_opens_as_itself(release, key):
    for signer in (key.public, None):
        opened = open_release(release.path, signer=signer)
        assert (opened.id, opened.signer, opened.name) == (release.id, key.public, "tiny")
        assert opened.about["locks"] == {"masks": False, "seal": False, "noise": False}
        assert opened.about["base"]["about"] == {"made": "for a test"}
    assert release.id in load_generator(opened).release_id


@pytest.mark.parametrize("name", ALL_FILES)
@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_one_flipped_byte_in_any_file_is_refused_by_name(copy, key, name, place):
    blob = bytearray((copy / name).read_bytes())
    blob[int(place * (len(blob) - 1))] ^= 0x20
    (copy / name).write_bytes(blob)
    for signer in (None, key.public):
        with pytest.raises(IntegrityError) as refusal:
            open_release(copy, signer=signer)
        assert name in str(refusal.value)


@pytest.mark.parametrize("name", ALL_FILES)
def test_a_missing_file_is_refused_by_name(copy, name):
    (copy / name).unlink()
    with pytest.raises(AlteredFile, match=name.replace(".", r"\.")):
        open_release(copy, signer=None)


def test_another_signer_is_refused(copy):
    with pytest.raises(BadSignature, match="not the signer you expect"):
        open_release(copy, signer=IdentityKey.generate().public)


def test_folding_the_adapter_into_the_weights_changes_no_logit(base_folder, adapter_file, key, tmp_path):
    config, weights = (
        (base_folder / "config.json").read_text(),
        (base_folder / "model.safetensors").read_bytes(),
    )
    torch.manual_seed(1)
    state = {name: t + 0.05 * torch.randn_like(t) for name, t in load_adapter(adapter_file).items()}
    save_adapter(tmp_path / "adapter", state, {})
    folded = load_generator(pack_release(base_folder, tmp_path / "adapter", tmp_path / "out", key)).model.cpu()
    adapted = apply_adapter(model_from_bytes(config, weights), state)
    inputs = torch.randint(3, 600, (1, 40)), torch.full((1, 688, 128), -1.0), torch.zeros(1, dtype=torch.bool)
    with torch.inference_mode():
        torch.testing.assert_close(folded(*inputs), adapted(*inputs), atol=1e-4, rtol=1e-4)
        assert not torch.allclose(folded(*inputs), model_from_bytes(config, weights)(*inputs), atol=1e-2)


def test_a_file_swapped_after_the_check_is_not_what_gets_loaded(copy, generator):
    opened = open_release(copy, signer=None)
    for name in FILES:
        (copy / name).write_bytes(b"swapped")
    request = PieceRequest(seed=1, seconds=3.0, max_tokens=200)
    *_, piece = compose(load_generator(opened), request)
    *_, expected = compose(generator, request)
    assert isinstance(piece, Piece)
    assert isinstance(expected, Piece)
    assert piece.midi == expected.midi


def test_a_signed_folder_of_other_files_is_no_release(copy, key):
    (copy / "release.json").unlink()
    sign_folder(copy, [name for name in FILES if name != "release.json"], key)
    with pytest.raises(AlteredFile, match=r"release\.json"):
        open_release(copy, signer=None)


def test_a_path_out_of_the_folder_is_refused_even_when_signed(copy, key, tmp_path):
    (tmp_path / "outside").write_text("not yours")
    listed = json.loads((copy / "manifest.json").read_text())
    listed["files"]["../outside"] = {"bytes": 9, "sha256": "0" * 64}
    blob = json.dumps(listed, sort_keys=True, separators=(",", ":")).encode()
    (copy / "manifest.json").write_bytes(blob)
    (copy / "manifest.sig").write_bytes(key.sign(blob, "partbook/v1/release"))
    with pytest.raises(AlteredFile, match="not a path inside the folder"):
        open_release(copy, signer=key.public)


def test_a_release_is_never_overwritten_and_a_failed_one_leaves_nothing(
    base_folder, adapter_file, key, release, tmp_path
):
    with pytest.raises(ConfigError, match="never overwritten"):
        pack_release(base_folder, adapter_file, release.path, key)
    state = load_adapter(adapter_file)
    name = next(iter(state))
    save_adapter(tmp_path / "misfit", {k: v for k, v in state.items() if k != name}, {})
    (tmp_path / "broken").write_text("not safetensors")
    for adapter, error, reason in [
        ("misfit", ConfigError, "does not fit"),
        ("broken", AlteredFile, "not safetensors"),
        ("none", AlteredFile, "cannot be read"),
    ]:
        with pytest.raises(error, match=reason):
            pack_release(base_folder, tmp_path / adapter, tmp_path / "out", key)
    with pytest.raises(ConfigError, match="not JSON"):
        pack_release(base_folder, adapter_file, tmp_path / "out", key, {"when": object()})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "misfit"]


def test_an_altered_base_is_not_packed(base_folder, adapter_file, key, tmp_path):
    base = Path(shutil.copytree(base_folder, tmp_path / "base"))
    (base / "config.json").write_text((base / "config.json").read_text() + " ")
    with pytest.raises(AlteredFile, match=r"config\.json"):
        pack_release(base, adapter_file, tmp_path / "out", key)


def test_a_tokeniser_of_another_size_is_not_packed(generator, adapter_file, key, tmp_path):
    config = generator.model.config
    other = type(generator.model)(replace(config, vocabulary=config.vocabulary + 1))
    save_base(tmp_path / "base", other, generator.tokenizer, {})
    with pytest.raises(ConfigError, match=r"tokenizer\.json has"):
        pack_release(tmp_path / "base", adapter_file, tmp_path / "out", key)
