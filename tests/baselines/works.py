"""A library of a few short tunes, with the interface of `partbook.corpus.library.Library`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from symusic.core import ScoreTick
from tunes import tune


@dataclass(frozen=True)
class TuneWork:
    collection: str
    key: str
    title: str
    number: int
    family: str = ""
    program: int = 0
    source: Path | None = None


class TuneLibrary:
    """Two collections out of three tunes in a few keys; one work cannot be read."""

    collections = ("bach", "monteverdi")

    def pool(self, collection: str, pool: str) -> tuple[TuneWork, ...]:
        first = {"base": 0, "label": 6, "heldout": 9}[pool]
        count = {"base": 6, "label": 3, "heldout": 3}[pool]
        return tuple(TuneWork(collection, f"{collection}/{n}", f"tune {n}", n) for n in range(first, first + count))

    def each_score(
        self, works: Sequence[TuneWork], on_work: Callable[[str], None] = lambda _: None
    ) -> list[ScoreTick | None]:
        found: list[ScoreTick | None] = []
        for work in works:
            score = tune(work.number)
            for note in (note for track in score.tracks for note in track.notes):
                note.pitch += work.number
            unreadable = work.collection == "bach" and work.number == 1
            found.append(None if unreadable else score)
            on_work(work.title)
        return found


class Silent:
    """A watcher that remembers its stages."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.steps: list[str] = []

    def stage(self, name: str, total: int) -> None:
        self.stages.append(name)

    def step(self, what: str) -> None:
        self.steps.append(what)

    def note(self, text: str) -> None:
        self.steps.append(text)
