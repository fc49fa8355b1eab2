"""Small real things that many tests share: a tokeniser, a model of a few thousand parameters, tunes, recordings."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import long_runs
import pytest
import torch
from support.fork_server import Forked
from trio import Trio
from tunes import TUNES, recording_of, tune

from partbook.model.checkpoint import save_base
from partbook.model.config import ModelConfig
from partbook.model.transformer import PartbookModel
from partbook.music.recording import Recording
from partbook.music.tokens import Tokenizer
from partbook.simulation.processes import ProcessFederation

# Every subprocess and this process stay on one thread: tests run on small shared machines.
torch.set_num_threads(1)

# Processes of a federation begin with their imports done.
ProcessFederation.popen = Forked

# A clock on a shared machine says nothing of the code.
hypothesis.settings.register_profile("shared machine", deadline=None)
long_runs.register()
hypothesis.settings.load_profile("shared machine")

# Files that take minutes go first: the last worker of `make test` is then not left alone with one of them.
LONG = (
    "test_faults.py",
    "test_demo_processes.py",
    "test_kills.py",
    "test_demo.py",
    "test_operate_pages.py",
    "test_federation.py",
    "test_simulate_cli.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, each whole and in its own order; the others as they were. More examples in a long run."""
    long_runs.lengthen([item.obj for item in items if hypothesis.is_hypothesis_test(getattr(item, "obj", None))])
    place = {name: index for index, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONG)))


@pytest.fixture(scope="session")
def tunes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """MIDI files of the short tunes."""
    folder = tmp_path_factory.mktemp("tunes")
    paths = []
    for index in range(len(TUNES)):
        path = folder / f"{index}.mid"
        tune(index).dump_midi(path)
        paths.append(path)
    return paths


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory, tunes: list[Path]) -> Path:
    """A base model small enough to train in a second, with its own tokeniser."""
    folder = tmp_path_factory.mktemp("base")
    tokenizer = Tokenizer.train(tunes, 600)
    torch.manual_seed(0)
    config = ModelConfig(len(tokenizer), width=32, layers=2, heads=2, hidden=64, context=64, adapter_rank=4)
    save_base(folder, PartbookModel(config), tokenizer, {"sources": ["tunes written for the tests"]})
    return folder


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_base: Path) -> Tokenizer:
    """The tiny base's tokeniser."""
    return Tokenizer.load(tiny_base / "tokenizer.json")


@pytest.fixture(scope="session")
def recordings(tiny_tokenizer: Tokenizer) -> list[Recording]:
    """One recording of each tune."""
    return [recording_of(tune(i), tiny_tokenizer, i) for i in range(len(TUNES))]


@pytest.fixture(scope="session")
def trio(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tiny_tokenizer: Tokenizer) -> Trio:
    """Three labels with a recording each, a coordinator and a custodian, all in one signed roster."""
    return Trio.build(tmp_path_factory.mktemp("trio"), tiny_base, tiny_tokenizer)
