"""A tiny generator, trained for seconds on a handful of tunes: enough to write bars with notes in them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tunes import tokenizer_of
from walks import serving, tune

from partbook.generator.composing import Generator
from partbook.generator.release import Release, load_generator, pack_release
from partbook.identity.keys import IdentityKey
from partbook.model.adapter import adapter_state, attach, save_adapter
from partbook.model.checkpoint import model_from_bytes, save_base
from partbook.model.config import ModelConfig
from partbook.model.transformer import PartbookModel


@pytest.fixture(scope="session")
def key() -> IdentityKey:
    return IdentityKey.generate()


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tokenizer = tokenizer_of([tune(seed) for seed in range(6)], 620)
    torch.manual_seed(0)
    model = PartbookModel(ModelConfig(len(tokenizer), width=32, layers=2, heads=2, hidden=64, context=128))
    model.clock.set(tokenizer)
    rows = [[tokenizer.bos, *(int(i) for i in tokenizer.encode(tune(seed)))][:97] for seed in range(4)]
    length = min(map(len, rows))
    ids = torch.tensor([row[:length] for row in rows])
    # Two tunes in silence, two others after sound, so that sound changes what is written.
    sound, heard = torch.rand(4, 688, 128) * 2 - 1, torch.tensor([False, False, True, True])
    optimiser = torch.optim.Adam(model.parameters(), 2e-2)
    model.train()
    for _ in range(70):
        logits = model(ids[:, :-1], sound, heard)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    save_base(folder / "model", model.eval(), tokenizer, {"made": "for a test"})
    return folder / "model"


@pytest.fixture(scope="session")
def adapter_file(base_folder: Path) -> Path:
    config, weights = (
        (base_folder / "config.json").read_text(),
        (base_folder / "model.safetensors").read_bytes(),
    )
    model = attach(model_from_bytes(config, weights))
    path = base_folder.parent / "adapter.safetensors"
    save_adapter(path, adapter_state(model), {"round": "0"})
    return path


@pytest.fixture(scope="session")
def release(
    base_folder: Path, adapter_file: Path, key: IdentityKey, tmp_path_factory: pytest.TempPathFactory
) -> Release:
    about = {
        "name": "tiny",
        "locks": {"masks": False, "seal": False, "noise": False},
        "training": {"loss": 0.5},
    }
    return pack_release(base_folder, adapter_file, tmp_path_factory.mktemp("releases") / "tiny", key, about)


@pytest.fixture(scope="session")
def generator(release: Release) -> Generator:
    return load_generator(release)


@pytest.fixture(scope="session")
def server(release: Release) -> Iterator[dict[str, str]]:
    with serving(release.path) as (_, where):
        yield where
