"""All public works that may be used here, with the pool of each.

Four collections of music21's corpus (`partbook.simulation.collections`) are always there, and so are its copies of
Aird's airs (1778 to 1801). Folders of MIDI files join them: a folder of files is one collection, a folder of folders
is one collection a folder. A joined collection has no `label` pool: nobody plays it in the demo. Its families are dealt
by a hash, one in ten to `heldout` and the rest to `base`, except that

- a family with a member in a label's or the held-out pool of the four stays out altogether,
- a family with a member in the four's `base` goes to `base`,
- a family with a member in another collection's held-out pool stays out of `base`.

So no tune that anybody plays or measures by is in any `base` pool. What a family is, see `partbook.corpus.families`.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from symusic.core import ScoreTick

from partbook.corpus.joining import grouped
from partbook.corpus.midi import score_of_midi
from partbook.corpus.parallel import over
from partbook.corpus.parsed import ParsedScores
from partbook.corpus.watching import NoWatcher, Watcher
from partbook.errors import InputError
from partbook.simulation.collections import COLLECTIONS, Pool, score_at, split, works

AIRS: Final = "airdsAirs"
POOLS: Final[tuple[Pool, ...]] = ("base", "label", "heldout")
HELDOUT_SHARE: Final = 0.1
HELDOUT_LEAST: Final = 24
HELDOUT_MOST: Final = 150
DEAL: Final = "partbook/v1/deal"
PROGRAMS: Final = {AIRS: 73, "openscore-quartets": 40}  # General MIDI: flute, violin; the others are on the piano
_TEMPO: Final = 120.0


@dataclass(frozen=True, slots=True)
class PublicWork:
    """One public work.

    Attributes:
        collection: its collection's name.
        key: stable identifier, such as `oneills1850/0001-0050.abc#12` or `pop909/001.mid`.
        title: as printed, or the file's name.
        family: name of its tune family; works of one family are one tune.
        program: General MIDI program that it is written and played on.
        source: the MIDI file; None where the work is in music21's corpus.
    """

    collection: str
    key: str
    title: str
    family: str
    program: int = 0
    source: Path | None = None

    def score(self) -> ScoreTick:
        """The work at 480 ticks a quarter, all tracks on one instrument.

        Raises:
            ScoreError: it cannot be read, is empty, or has a metre outside the tokeniser's.
        """
        if self.source is not None:
            return score_of_midi(self.source, self.program)
        known = {c.name: c.tempo for c in COLLECTIONS}
        return score_at(self.key, self.program, known.get(self.collection, _TEMPO))


class Library:
    """Public works by collection and pool. Immutable once opened."""

    def __init__(self, pools: Mapping[str, Mapping[Pool, tuple[PublicWork, ...]]], cache: Path) -> None:
        """Of works that are dealt out already; `open` deals."""
        self._pools = pools
        self._parsed = ParsedScores(cache / "scores")

    @classmethod
    def open(cls, data: Sequence[Path] = (), cache: Path | None = None, watch: Watcher | None = None) -> Library:
        """The four collections, Aird's airs, and folders.

        The first time that folders are opened, their melodies are read and compared, which takes a minute or two for a
        few thousand works; what comes of it is kept.

        Args:
            data: folders of MIDI files, or of such folders. A collection's pools depend on what else is opened with it,
                since two collections may share tunes.
            cache: where families and parsed scores are kept; `$XDG_CACHE_HOME/partbook/corpus` by default.
            watch: told how far it is.

        Raises:
            InputError: a folder is missing or has no MIDI files, or two have one name.
        """
        cache = cache or default_cache()
        folders = _folders(data)
        for name, folder in folders.items():
            if name in (AIRS, *(c.name for c in COLLECTIONS)):
                raise InputError(f"{folder} has the name of a collection that is there already; give it another name.")
        files = {
            name: {f"{name}/{path.relative_to(folder)}": path for path in _midi_files(folder)}
            for name, folder in folders.items()
        }
        families = grouped(files, cache, watch or NoWatcher())

        def work(collection: str, key: str, title: str, program: int, source: Path | None = None) -> PublicWork:
            return PublicWork(collection, key, title, families.get(key, key), program, source)

        own: dict[str, dict[Pool, tuple[PublicWork, ...]]] = {}
        for collection in COLLECTIONS:
            pools = split(collection.name)
            own[collection.name] = {
                pool: tuple(work(w.collection, w.key, w.title, collection.program) for w in pools[pool])
                for pool in POOLS
            }
        joined = {AIRS: [work(AIRS, w.key, w.title, PROGRAMS[AIRS]) for w in works(AIRS)]}
        for name, by_key in files.items():
            program = PROGRAMS.get(name, 0)
            joined[name] = [work(name, key, path.stem, program, path) for key, path in by_key.items()]
        return cls({**own, **_dealt(joined, own)}, cache)

    @property
    def collections(self) -> tuple[str, ...]:
        """Names, the four first."""
        return tuple(self._pools)

    def pool(self, collection: str, pool: Pool) -> tuple[PublicWork, ...]:
        """The works of a pool, in a fixed order.

        Raises:
            InputError: there is no such collection.
        """
        if collection not in self._pools:
            raise InputError(f"There is no collection {collection!r}; there are {', '.join(self._pools)}.")
        return self._pools[collection][pool]

    def scores(self, works: Sequence[PublicWork], on_work: Callable[[str], None] = lambda _: None) -> list[ScoreTick]:
        """The works' scores, in the works' order; unreadable ones are passed over.

        Args:
            works: any of this library's.
            on_work: told each work's title when it is done.
        """
        return [score for score in self.each_score(works, on_work) if score is not None]

    def each_score(
        self, works: Sequence[PublicWork], on_work: Callable[[str], None] = lambda _: None
    ) -> list[ScoreTick | None]:
        """The same, one entry a work, None where it cannot be read: parsed in parallel, and kept where that is slow."""
        found: list[ScoreTick | None] = []
        for work, score in zip(works, over(works, self._parsed.score), strict=True):
            found.append(score)
            on_work(work.title)
        return found


def default_cache() -> Path:
    """`$XDG_CACHE_HOME/partbook/corpus`, under `~/.cache` where the variable is not set."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "partbook" / "corpus"


def _folders(data: Sequence[Path]) -> dict[str, Path]:
    """Collections in `data` by name."""
    found: dict[str, Path] = {}
    for folder in data:
        if not folder.is_dir():
            raise InputError(f"There is no folder {folder}; check its name.")
        inner = [child for child in sorted(folder.iterdir()) if child.is_dir() and not child.name.startswith(".")]
        own = any(path.suffix.lower() in _MIDI for path in folder.iterdir())
        chosen = [folder] if own else [child for child in inner if _midi_files(child)]
        if not chosen:
            raise InputError(f"{folder} has no MIDI files (.mid, .midi), nor have the folders in it; name another.")
        for each in chosen:
            name = each.resolve().name
            if name in found:
                raise InputError(f"{each} and {found[name]} have one name; give one of them another.")
            found[name] = each
    return found


_MIDI: Final = frozenset({".mid", ".midi"})


def _midi_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in _MIDI and path.is_file())


# ---------------------------------------------------------------------- dealing


def _dealt(
    joined: Mapping[str, Sequence[PublicWork]], four: Mapping[str, Mapping[Pool, Sequence[PublicWork]]]
) -> dict[str, dict[Pool, tuple[PublicWork, ...]]]:
    """Pools of the joined collections, beside those of the four, which are dealt already."""
    taken: dict[str, Pool] = {}
    for pool in POOLS:  # from the least to the most reserved
        taken.update({work.family: pool for pools in four.values() for work in pools[pool]})
    held = {name: _heldout_families(own, taken) for name, own in joined.items()}
    anywhere = {family for each in held.values() for family in each}
    result: dict[str, dict[Pool, tuple[PublicWork, ...]]] = {}
    for name, own in joined.items():
        free = [work for work in own if taken.get(work.family, "base") == "base"]
        result[name] = {
            "heldout": tuple(work for work in free if work.family in held[name]),
            "label": (),
            "base": tuple(work for work in free if work.family not in anywhere),
        }
    return result


def _heldout_families(own: Sequence[PublicWork], taken: Mapping[str, Pool]) -> set[str]:
    """The families of a joined collection that are held out, by their names' hashes."""
    members: dict[str, int] = defaultdict(int)
    for work in own:
        if work.family not in taken:
            members[work.family] += 1
    wanted = min(max(round(HELDOUT_SHARE * len(own)), HELDOUT_LEAST), HELDOUT_MOST)
    found: set[str] = set()
    for family in sorted(members, key=lambda name: hashlib.sha256(f"{DEAL}/{name}".encode()).digest()):
        if wanted <= 0:
            break
        found.add(family)
        wanted -= members[family]
    return found
