from pathlib import Path

import numpy as np
import pytest
import torch

from partbook.errors import AlteredFile, ConfigError
from partbook.model.adapter import (
    AdaptedLinear,
    adapter_state,
    apply_adapter,
    attach,
    flatten,
    load_adapter,
    save_adapter,
    state_hash,
    trained_parameters,
    unflatten,
)
from partbook.model.checkpoint import load_model
from partbook.model.transformer import PartbookModel, parameter_count
from partbook.music.mel import BANDS, MEMORY_FRAMES

KNOWN_A = [0.04752636328339577, -0.013774960301816463, 0.04119357839226723]  # the query of block 0


@pytest.fixture
def model(tiny_base: Path) -> PartbookModel:
    return load_model(tiny_base)


def logits(model: PartbookModel) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.arange(20)[None], torch.zeros(1, MEMORY_FRAMES, BANDS), torch.ones(1, dtype=torch.bool))


def test_a_fresh_adapter_changes_nothing(model: PartbookModel) -> None:
    before = logits(model)
    assert torch.equal(logits(attach(model)), before)


def test_only_b_and_the_decoders_norms_are_trained(model: PartbookModel) -> None:
    attach(model)
    names = set(trained_parameters(model))
    assert all(name.endswith(".b") or "norm" in name for name in names)
    assert not any(name.startswith("encoder") for name in names)
    per_block = {"self_attention": 4, "cross_attention": 4, "up": 1, "down": 1}
    assert sum(name.endswith(".b") for name in names) == model.config.layers * sum(per_block.values())


def test_a_federation_trains_exactly_b_and_the_norms_of_the_shipped_model() -> None:
    model = attach(load_model())
    c = model.config
    attention, feed = 4 * c.width * c.adapter_rank, (c.hidden + c.width) * c.adapter_rank
    listening = c.layers // c.listen_every
    norms = 2 * c.width * (2 * c.layers + listening + 1)
    trained = sum(p.numel() for p in trained_parameters(model).values())
    assert trained == (c.layers + listening) * attention + c.layers * feed + norms
    assert trained < parameter_count(model) / 30


def test_frozen_a_is_the_same_everywhere_and_another_for_every_layer(tiny_base: Path) -> None:
    def all_a() -> list[torch.Tensor]:
        adapted = attach(load_model(tiny_base))
        return [m.a for m in adapted.modules() if isinstance(m, AdaptedLinear)]

    first, second = all_a(), all_a()
    assert all(torch.equal(x, y) for x, y in zip(first, second, strict=True))
    assert len({x.numpy().tobytes() for x in first}) == len(first)


def test_frozen_a_has_not_moved_between_versions(tiny_base: Path) -> None:
    """Known answer: federations in progress depend on these numbers."""
    adapted = attach(load_model(tiny_base))
    a = next(m.a for m in adapted.modules() if isinstance(m, AdaptedLinear))
    assert a[0, :3].tolist() == KNOWN_A
    assert float(a.abs().max()) <= float(np.sqrt(3.0 / a.shape[1]))


def test_flat_vectors_and_states_are_one_to_one(model: PartbookModel) -> None:
    state = adapter_state(attach(model))
    vector = np.arange(sum(t.numel() for t in state.values()), dtype=np.float32)
    again = unflatten(vector, state)
    assert np.array_equal(flatten(again), vector)
    assert {k: v.shape for k, v in again.items()} == {k: v.shape for k, v in state.items()}
    with pytest.raises(ConfigError, match="numbers"):
        unflatten(vector[:-1], state)


def test_saving_and_loading_keeps_every_bit(model: PartbookModel, tmp_path: Path) -> None:
    state = {k: torch.randn_like(v) for k, v in adapter_state(attach(model)).items()}
    save_adapter(tmp_path / "a.safetensors", state, {"round": "3"})
    again = load_adapter(tmp_path / "a.safetensors")
    assert state_hash(again) == state_hash(state)
    apply_adapter(model, again)
    assert state_hash(adapter_state(model)) == state_hash(state)
    again[next(iter(again))].view(-1)[0] += 1e-6
    assert state_hash(again) != state_hash(state)


def test_equal_states_are_equal_bytes(model: PartbookModel, tmp_path: Path) -> None:
    state = adapter_state(attach(model))
    about = {"federation": "trio", "round": "3", "base": "b", "adapter": "a"}
    blobs = set()
    for index in range(8):
        save_adapter(tmp_path / f"{index}.safetensors", state, about)
        blobs.add((tmp_path / f"{index}.safetensors").read_bytes())
    assert len(blobs) == 1


def test_an_adapter_of_another_model_is_refused_by_name(model: PartbookModel) -> None:
    state = adapter_state(attach(model))
    name = next(iter(state))
    with pytest.raises(ConfigError, match=name.replace(".", r"\.")):
        apply_adapter(model, {k: v for k, v in state.items() if k != name})
    with pytest.raises(ConfigError, match="expected"):
        apply_adapter(model, {**state, name: torch.zeros(1, 1)})


def test_a_broken_adapter_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"not tensors")
    with pytest.raises(AlteredFile, match=r"a\.safetensors"):
        load_adapter(path)


def test_a_model_without_adapters_has_nothing_to_train(model: PartbookModel) -> None:
    with pytest.raises(ConfigError, match="attach"):
        trained_parameters(model)
