"""Small real things that many tests share: a tokeniser, a model of a few thousand parameters, tunes, recordings."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import hypothesis
import long_runs
import pytest
import torch
from support.fork_server import Forked
from trio import Trio
from tunes import TUNES, recording_of, tokenizer_of, tune
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

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

# Who starts this in the background may be deaf to Ctrl-C, and what is started here would be too.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A clock on a shared machine says nothing of the code.
hypothesis.settings.register_profile("shared machine", deadline=None)
long_runs.register()
hypothesis.settings.load_profile("shared machine")

# What starts federations of processes, or other programs that want a core for minutes, in two rows that take about as
# long. A row is one worker's, so however many workers there are, two such federations run at a time and no more. The
# rows go first, and then the files that take longest, so that no worker is left alone with one of them at the end.
PROCESSES = (
    (
        "integration/test_faults.py",
        "simulation/test_demo.py",
        "coordinator/test_start.py",
        "node/test_fleet.py",
        "node/test_pinned.py",
        "node/test_node_process.py",
        "node/test_stock_supernode.py",
    ),
    (
        "integration/test_kills.py",
        "simulation/test_demo_processes.py",
        "integration/test_operate_pages.py",
        "simulation/test_ray_engine.py",
        "simulation/test_simulate_cli.py",
        "test_bench_large_update.py",
        "training/test_bench_dp.py",
    ),
)
LONG = (
    "node/test_round_kills.py",
    "simulation/test_federation.py",
    "vault/test_ingest.py",
    "training/test_spread.py",
    "node/test_ledger_kills.py",
    "generator/test_generator_cli.py",
    "generator/test_serving.py",
    "node/test_node_cli.py",
    "deploy/test_bundle.py",
)
_HERE = Path(__file__).parent
_ROWS = {name: f"row {row}" for row, names in enumerate(PROCESSES) for name in names}
_PLACES = {name: place for place, name in enumerate([*PROCESSES[0], *PROCESSES[1], *LONG])}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, each whole and in its own order; all of these are `slow`. More examples in a long run."""
    long_runs.lengthen([item.obj for item in items if hypothesis.is_hypothesis_test(getattr(item, "obj", None))])
    items.sort(key=lambda item: _PLACES.get(item.path.relative_to(_HERE).as_posix(), len(_PLACES)))
    for item in items:
        if item.path.relative_to(_HERE).as_posix() in _PLACES:
            item.add_marker("slow")


class Rows(LoadFileScheduling):
    """A file is one worker's, and so is a row of files."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return _ROWS.get(file.removeprefix("tests/"), file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Rows:
    """Of `pytest -n`."""
    return Rows(config, log)


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
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model small enough to train in a second, with its own tokeniser."""
    folder = tmp_path_factory.mktemp("base")
    tokenizer = tokenizer_of([tune(index) for index in range(len(TUNES))], 580)
    torch.manual_seed(0)
    config = ModelConfig(len(tokenizer), width=32, layers=2, heads=2, hidden=64, context=64, adapter_rank=4)
    model = PartbookModel(config)
    model.clock.set(tokenizer)
    save_base(folder, model, tokenizer, {"sources": ["tunes written for the tests"]})
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
