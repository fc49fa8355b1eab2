"""A library of a few short tunes, takes that nobody has heard, and a model of a few thousand parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from symusic.core import ScoreTick
from tunes import tune

from partbook.corpus.heard import Heard, Hearing
from partbook.errors import InputError
from partbook.model.config import ModelConfig
from partbook.music.mel import FRAMES_PER_SECOND
from partbook.music.tokens import notes_of


@dataclass(frozen=True)
class FewWork:
    collection: str
    key: str
    title: str
    number: int
    family: str = ""
    program: int = 0
    source: Path | None = None


class FewWorks:
    """Two collections with base pools, one of them of no genre; one work cannot be read. A third is withheld."""

    collections = ("bach", "walks", "airdsAirs")
    parsed = None

    def __init__(self, count: int = 6) -> None:
        self.count = count
        self.asked = 0

    def pool(self, collection: str, pool: str) -> tuple[FewWork, ...]:
        if collection not in self.collections:
            raise InputError(f"There is no collection {collection!r}.")
        count = {"base": 0 if collection == "airdsAirs" else self.count, "label": 0, "heldout": 3}[pool]
        first = {"base": 0, "label": 6, "heldout": 20}[pool]
        return tuple(FewWork(collection, f"{collection}/{n}", f"tune {n}", n) for n in range(first, first + count))

    def each_score(
        self, works: Sequence[FewWork], on_work: Callable[[str], None] = lambda _: None
    ) -> list[ScoreTick | None]:
        self.asked += 1
        found: list[ScoreTick | None] = []
        for work in works:
            found.append(None if work.key == "bach/1" else tune(work.number))
            on_work(work.title)
        return found

    def rights(self, collection: str) -> str:
        return {"bach": "public domain", "walks": "CC0 1.0 Universal"}[collection]


def heard_falsely(hearings: Sequence[Hearing], cache: Path, **_: Any) -> list[Path]:
    """Files as of `partbook.corpus.heard.hear`, with the notes as written and noise for sound; one is refused."""
    cache.mkdir(parents=True, exist_ok=True)
    paths = []
    for hearing in hearings:
        work: Any = hearing.work
        path = cache / f"{work.key.replace('/', '-')}-{hearing.take}.heard"
        paths.append(path)
        if work.key == "walks/1":
            path.write_bytes(b"refused: walks/1 is too short")
            continue
        notes = notes_of(tune(work.number))
        seconds = float((notes.onset + notes.duration).max())
        random = np.random.default_rng(work.number)
        mel = random.uniform(-1, 1, (int(seconds * FRAMES_PER_SECOND), 128)).astype(np.float16)
        path.write_bytes(Heard(work.collection, work.key, work.title, 6, {}, seconds, notes, mel).to_bytes())
    return paths


class Onlooking:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.steps: list[str] = []
        self.notes: list[str] = []

    def stage(self, name: str, total: int) -> None:
        self.stages.append(name)

    def step(self, what: str) -> None:
        self.steps.append(what)

    def now(self, what: str) -> None:
        self.steps.append(what)

    def note(self, text: str) -> None:
        self.notes.append(text)


def tiny(vocabulary: int) -> ModelConfig:
    """In the place of `partbook.model.config.small`."""
    return ModelConfig(vocabulary, width=32, layers=2, heads=2, hidden=64, context=256, listen_every=2)
