"""Small real things that many tests share: a tokeniser, a model of a few thousand parameters, tunes, recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from symusic import Score

from partbook.model.checkpoint import save_base
from partbook.model.config import ModelConfig
from partbook.model.transformer import PartbookModel
from partbook.music.mel import FRAMES_PER_SECOND
from partbook.music.recording import Recording
from partbook.music.tokens import Tokenizer, bar_seconds, notes_of

# Every subprocess and this process stay on one thread: tests run on small shared machines.
torch.set_num_threads(1)

TUNES = [
    "X:1\nT:Rising\nM:4/4\nL:1/8\nQ:1/4=112\nK:C\nCDEF GABc|dcBA GFED|CEGc ecGE|DFAd fdAF|C8|]\n",
    "X:2\nT:Jig\nM:6/8\nL:1/8\nQ:3/8=100\nK:G\nGBd gdB|AcA FAD|GBd gdB|cAF G3:|\n",
    "X:3\nT:Chords\nM:3/4\nL:1/4\nQ:1/4=90\nK:F\n[FAc]2 c|[GBd]2 d|[Ace]2 e|[FAc]3|[DFA]2 A|[CEG]2 G|[FAc]3|]\n",
]


def tune(index: int) -> Score:
    """One of a few short tunes, repeated until it lasts about half a minute."""
    return Score.from_abc(TUNES[index % len(TUNES)]).resample(480, min_dur=1)


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


def recording_of(score: Score, tokenizer: Tokenizer, seed: int = 0) -> Recording:
    """A score as a recording; its mel is seeded noise, since nobody listens."""
    ids = tokenizer.encode(score)
    starts = tokenizer.bar_starts(ids)
    notes = notes_of(score)
    seconds = float((notes.onset + notes.duration).max())
    random = np.random.default_rng(seed)
    mel = random.uniform(-1, 1, (int(seconds * FRAMES_PER_SECOND), 128)).astype(np.float16)
    return Recording(f"tune {seed}", seconds, notes, ids, starts, bar_seconds(score, len(starts)), mel)


@pytest.fixture(scope="session")
def recordings(tiny_tokenizer: Tokenizer) -> list[Recording]:
    """One recording of each tune."""
    return [recording_of(tune(i), tiny_tokenizer, i) for i in range(len(TUNES))]
