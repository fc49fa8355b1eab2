from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load as load_tensors
from tunes import recording_of, tokenizer_of, tune

from partbook.errors import (
    AlreadyRunning,
    AlteredFile,
    ConfigError,
    InputError,
    ValueOutOfRange,
    VaultError,
    WithdrawnRecording,
)
from partbook.generator.release import pack_release, unreleased
from partbook.identity.keys import IdentityKey
from partbook.model.adapter import adapter_state, apply_adapter, attach, flatten, save_adapter, unflatten
from partbook.model.checkpoint import load_model, save_base
from partbook.model.likelihood import evaluate
from partbook.music.tokens import Tokenizer
from partbook.node.adapting import Source, adapt
from partbook.node.holding import only_one
from partbook.node.own_adapter import OwnAdapter
from partbook.node.shared_model import SharedModel
from partbook.training.adaptation import Adaptation, Epoch, Fitting
from partbook.vault.store import Vault

FITTING = Fitting(epochs=2, rate=5e-2, batch=4)
COUNT = 6


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tiny_tokenizer: Tokenizer) -> Path:
    """A vault with a few recordings."""
    folder = tmp_path_factory.mktemp("label") / "vault"
    with Vault.create(folder) as vault:
        vault.bind_tokenizer(hashlib.sha256((tiny_base / "tokenizer.json").read_bytes()).hexdigest())
        for index in range(COUNT):
            vault.add(recording_of(tune(index), tiny_tokenizer, index), f"{index:064x}")
    return folder


@pytest.fixture
def source(filled: Path, tmp_path: Path, tiny_base: Path) -> Source:
    """A copy of the vault, which a test may change."""
    return Source(Path(shutil.copytree(filled, tmp_path / "vault")), base=tiny_base)


@pytest.fixture
def trained(tmp_path: Path, tiny_base: Path) -> Path:
    """An adapter that somebody's federation might have led to."""
    like = adapter_state(attach(load_model(tiny_base)))
    vector = flatten(like) + np.random.default_rng(0).normal(0, 0.01, sum(t.numel() for t in like.values()))
    save_adapter(tmp_path / "global.safetensors", unflatten(vector.astype(np.float32), like), {})
    return tmp_path / "global.safetensors"


def test_the_best_epochs_adapter_lies_sealed_in_the_vault_and_opens_as_it_was(
    source: Source, tiny_base: Path, tiny_tokenizer: Tokenizer
) -> None:
    epochs: list[Epoch] = []
    begun: list[Adaptation] = []
    adapted = adapt(source, FITTING, on_begin=begun.append, on_epoch=epochs.append)
    assert (adapted.epochs, adapted.trained, adapted.held_out, adapted.ended) == (2, 5, 1, "epochs")
    assert adapted.after < adapted.before == begun[0].start.held_out
    own = OwnAdapter(source.vault, None)
    assert adapted.kept == own.path == source.vault / "adapters" / "own.sealed"
    found = own.read()
    assert found is not None
    note, adapter = found
    assert (note.epoch, note.before, note.after, note.start) == (adapted.best, adapted.before, adapted.after, "base")
    with Vault.open(source.vault) as vault:
        assert list(note.recordings) == vault.ids()
    fitted = apply_adapter(load_model(tiny_base), load_tensors(adapter))
    assert evaluate(fitted, tiny_tokenizer, begun[0]._held, batch=4).per_token == adapted.after
    blob = own.path.read_bytes()
    assert not any(text in blob for text in (b"blocks", b"recordings", note.base.encode())), "it is encrypted"
    assert own.path.stat().st_mode & 0o077 == 0


def test_what_it_wrote_out_is_what_a_generator_is_made_of(source: Source, tmp_path: Path) -> None:
    adapt(source, FITTING)
    own = OwnAdapter(source.vault, None)
    note = own.export(tmp_path / "own.safetensors")
    found = own.read()
    assert found == (note, (tmp_path / "own.safetensors").read_bytes())
    assert (tmp_path / "own.safetensors").stat().st_mode & 0o077 == 0
    assert unreleased(source.base, tmp_path / "own.safetensors").release_id == "unreleased"
    assert not any(each.encode() in found[1] for each in note.recordings), "whoever gets it is not told of what"


@pytest.mark.parametrize("kind", ["file", "release", "shared"])
def test_it_begins_from_an_adapter_in_whatever_a_label_has_it(
    source: Source, trained: Path, tmp_path: Path, kind: str
) -> None:
    like = adapter_state(attach(load_model(source.base)))
    places = {"file": trained, "release": tmp_path / "release", "shared": tmp_path / "model.safetensors"}
    if kind == "release":
        pack_release(source.base, trained, places[kind], IdentityKey.generate(), {})
    if kind == "shared":
        state = load_tensors(trained.read_bytes())
        replace(SharedModel.fresh(like), round=3, adapter=flatten(state)).save(places[kind])
    begun: list[Adaptation] = []
    adapt(replace(source, start=places[kind]), replace(FITTING, epochs=1), on_begin=begun.append)
    assert np.array_equal(flatten(begun[0].start.adapter), flatten(load_tensors(trained.read_bytes())))


def test_ctrl_c_keeps_the_best_epoch_so_far(source: Source) -> None:
    def interrupt(epoch: Epoch) -> None:
        if epoch.number == 2:
            raise KeyboardInterrupt

    adapted = adapt(source, replace(FITTING, epochs=50), on_epoch=interrupt)
    assert (adapted.ended, adapted.epochs) == ("interrupted", 2)
    found = OwnAdapter(source.vault, None).read()
    assert found is not None
    assert found[0].epoch == adapted.best > 0
    assert [path.name for path in sorted((source.vault / "adapters").iterdir())] == ["lock", "own.sealed"]
    assert adapt(source, replace(FITTING, epochs=1)).epochs == 1, "nothing is left locked"


def test_ctrl_c_before_any_epoch_leaves_what_was_there(source: Source) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    adapted = adapt(source, FITTING, on_step=interrupt)
    assert (adapted.ended, adapted.epochs, adapted.best, adapted.kept) == ("interrupted", 0, 0, None)
    assert adapted.after == adapted.before
    assert OwnAdapter(source.vault, None).read() is None


def test_a_training_that_makes_nothing_better_leaves_what_was_there(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapt(source, FITTING)
    before = OwnAdapter(source.vault, None).path.read_bytes()
    measured = Adaptation._measured

    def worse(self: Adaptation, number: int, loss: float) -> Epoch:
        return replace(measured(self, number, loss), held_out=5.0 + number)

    monkeypatch.setattr(Adaptation, "_measured", worse)
    adapted = adapt(source, replace(FITTING, patience=1))
    assert (adapted.best, adapted.kept, adapted.ended) == (0, None, "patience")
    assert OwnAdapter(source.vault, None).path.read_bytes() == before


def test_training_that_comes_to_no_number_names_a_lower_rate(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = Adaptation._measured

    def broken(self: Adaptation, number: int, loss: float) -> Epoch:
        return replace(measured(self, number, loss), **({"held_out": float("nan")} if number else {}))

    monkeypatch.setattr(Adaptation, "_measured", broken)
    with pytest.raises(ValueOutOfRange, match=r"0\.005 instead of 0\.05"):
        adapt(source, FITTING)


def test_a_vault_with_nothing_or_too_little_in_it_says_so(tmp_path: Path, source: Source) -> None:
    with Vault.create(tmp_path / "empty"):
        pass
    with pytest.raises(InputError, match="holds no recording; run `partbook node ingest`"):
        adapt(replace(source, vault=tmp_path / "empty"), FITTING)
    with Vault.open(source.vault, writable=True) as vault:
        for identifier in vault.ids()[:2]:
            vault.remove(identifier)
    with pytest.raises(InputError, match=f"{COUNT - 2} recordings with notes.*`partbook node ingest`"):
        adapt(source, FITTING)
    with pytest.raises(VaultError, match="no vault"):
        adapt(replace(source, vault=tmp_path / "nowhere"), FITTING)


def test_a_base_model_or_an_adapter_that_does_not_fit_is_named(source: Source, tmp_path: Path, trained: Path) -> None:
    other = tmp_path / "other base"
    small = load_model(source.base)
    save_base(other, small, tokenizer_of([tune(0)], 590), {})
    with pytest.raises(ConfigError, match=r"has 590 tokens|was written with tokeniser"):
        adapt(replace(source, base=other), FITTING)
    with pytest.raises(AlteredFile, match="manifest"):
        adapt(replace(source, base=tmp_path / "nowhere"), FITTING)
    wrong = tmp_path / "wrong.safetensors"
    state = load_tensors(trained.read_bytes())
    save_adapter(wrong, {name: tensor for name, tensor in state.items() if "norm" not in name}, {})
    with pytest.raises(ConfigError, match=r"wrong\.safetensors cannot be begun from.*does not fit this base model"):
        adapt(replace(source, start=wrong), FITTING)
    (tmp_path / "text").write_text("no adapter")
    for path in (tmp_path / "text", tmp_path / "nowhere"):
        with pytest.raises(AlteredFile, match="is not an adapter"):
            adapt(replace(source, start=path), FITTING)


def test_a_release_of_another_base_model_is_not_begun_from(
    source: Source, tmp_path: Path, tiny_tokenizer: Tokenizer, trained: Path
) -> None:
    other = load_model(source.base)
    other.embedding.weight.data += 0.5
    save_base(tmp_path / "base", other, tiny_tokenizer, {})
    pack_release(tmp_path / "base", trained, tmp_path / "release", IdentityKey.generate(), {})
    with pytest.raises(ConfigError, match="is of the base model"):
        adapt(replace(source, start=tmp_path / "release"), FITTING)


def test_a_full_disk_is_said_before_anything_is_trained(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(source.vault)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(VaultError, match=r"free some space\. Nothing was trained"):
        adapt(source, FITTING, on_begin=lambda _: pytest.fail("it was"))


def test_a_disk_that_fills_meanwhile_keeps_what_was_there(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    adapt(source, FITTING)
    own = OwnAdapter(source.vault, None)
    before = own.path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("partbook.node.keeping.write_parts", full)
    with pytest.raises(VaultError, match=r"No space left on device.*run `partbook node adapt` again"):
        adapt(source, FITTING)
    assert own.path.read_bytes() == before


def test_one_process_a_vault_fits_an_adapter(source: Source) -> None:
    with only_one(source.vault / "adapters"), pytest.raises(AlreadyRunning):
        adapt(source, FITTING)


def test_a_recording_withdrawn_meanwhile_is_in_nothing_that_is_kept(source: Source) -> None:
    withdraw = _withdrawing(source)
    with pytest.raises(WithdrawnRecording, match="nothing is kept of this training"):
        adapt(source, FITTING, on_begin=withdraw)
    assert OwnAdapter(source.vault, None).read() is None


def _withdrawing(source: Source) -> Callable[[Adaptation], None]:
    def withdraw(_: Adaptation) -> None:
        with Vault.open(source.vault, writable=True) as vault:
            vault.withdraw(vault.ids()[0])

    return withdraw


def test_an_adapter_goes_with_a_recording_that_it_learnt_from(source: Source) -> None:
    adapt(source, FITTING)
    own = OwnAdapter(source.vault, None)
    with Vault.open(source.vault) as vault:
        first = vault.ids()[0]
    assert not own.forget("0" * 64)
    assert own.path.exists()
    assert own.forget(first)
    assert not own.path.exists()
    assert not own.forget(first)


def test_what_was_never_trained_is_not_written_out_and_nothing_is_overwritten(source: Source, tmp_path: Path) -> None:
    own = OwnAdapter(source.vault, None)
    with pytest.raises(InputError, match="train one first"):
        own.export(tmp_path / "out")
    assert not (source.vault / "adapters").exists(), "asking leaves no trace"
    adapt(source, FITTING)
    (tmp_path / "out").touch()
    with pytest.raises(InputError, match="not overwritten"):
        own.export(tmp_path / "out")
    with pytest.raises(InputError, match="cannot be written"):
        own.export(tmp_path / "no" / "out")
