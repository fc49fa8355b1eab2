"""All public works that may be used here, with the pool of each.

Four collections of music21's corpus (`partbook.simulation.collections`) are always there, and so are two of its bodies
of music that the base never sees. Folders of MIDI files join them: a folder of files is one collection, a folder of
folders is one collection a folder, and a tree whose folders are called by one or two characters, such as Lakh's
(`a/b/hash.mid`), is one. Files that are damaged, without notes, or copies of others are left out and counted.

**Joined collections** have no `label` pool: nobody plays them in the demo. Their families are dealt by a hash, one in
ten to `heldout` and the rest to `base`, except that

- a family with a member in a label's or the held-out pool of the four stays out altogether,
- a family with a member in the four's `base` goes to `base`,
- a family with a member in another collection's held-out pool stays out of `base`.

**Withheld styles** (`partbook.corpus.withheld`) have no `base` pool: a federation's labels play them, so that they have
something to teach. One work in five (24 at least) is `heldout`, by families and by the same hash, and the others are
`label`. A work whose tune any other collection uses, be it in `base`, is in no pool of its style: what a base has
learnt from stays where it is.

So no tune that anybody plays or measures by is in any `base` pool. What a family is, see `partbook.corpus.families`.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from symusic.core import ScoreTick

from partbook.corpus import withheld
from partbook.corpus.dealing import POOLS, dealt, only
from partbook.corpus.dealing import withheld as withheld_pools
from partbook.corpus.joining import joined
from partbook.corpus.midi import score_of_midi
from partbook.corpus.parallel import over
from partbook.corpus.parsed import ParsedScores
from partbook.corpus.watching import NoWatcher, Watcher
from partbook.corpus.withheld import AIRS, TRECENTO
from partbook.errors import InputError
from partbook.simulation.collections import COLLECTIONS, Pool, score_at, split, works

__all__ = ["AIRS", "POOLS", "Library", "PublicWork", "default_cache"]

# General MIDI: flute, harp, violin; the others are on the piano.
PROGRAMS: Final = {AIRS: 73, TRECENTO: 46, "openscore-quartets": 40}
RIGHTS: Final = {
    **dict.fromkeys((c.name for c in COLLECTIONS), "public domain, as encoded in music21's corpus"),
    AIRS: "public domain (Glasgow, 1778–1801), as encoded in music21's corpus",
    TRECENTO: "public domain (14th century, mostly after PMFC's edition), as encoded in music21's corpus",
}
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
    """Public works by collection and pool. Immutable once opened.

    Attributes:
        left_out: by folder, how many of its files are no works, by reason (`partbook.corpus.joining`).
        parsed: where the works' scores are kept.
    """

    def __init__(
        self,
        pools: Mapping[str, Mapping[Pool, tuple[PublicWork, ...]]],
        cache: Path,
        left_out: Mapping[str, Mapping[str, int]] | None = None,
        rights: Mapping[str, str] | None = None,
    ) -> None:
        """Of works that are dealt out already; `open` deals."""
        self._pools = pools
        self._rights = rights or {}
        self.left_out = left_out or {}
        self.parsed = ParsedScores(cache / "scores")

    @classmethod
    def open(cls, data: Sequence[Path] = (), cache: Path | None = None, watch: Watcher | None = None) -> Library:
        """The four collections, the withheld styles, and folders.

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
            if name in (*withheld.STYLES, *(c.name for c in COLLECTIONS)):
                raise InputError(f"{folder} has the name of a collection that is there already; give it another name.")
        files = {
            name: {f"{name}/{_readable(str(path.relative_to(folder)))}": path for path in _midi_files(folder)}
            for name, folder in folders.items()
        }
        found = joined(files, cache, watch or NoWatcher())

        def work(collection: str, key: str, title: str, program: int, source: Path | None = None) -> PublicWork:
            return PublicWork(collection, key, title, found.families.get(key, key), program, source)

        own: dict[str, dict[Pool, tuple[PublicWork, ...]]] = {}
        for collection in COLLECTIONS:
            pools = split(collection.name)
            own[collection.name] = {
                pool: tuple(work(w.collection, w.key, w.title, collection.program) for w in pools[pool])
                for pool in POOLS
            }
        by_folder: dict[str, list[PublicWork]] = {}
        for name in (AIRS, TRECENTO):
            by_folder[name] = [work(name, w.key, w.title, PROGRAMS[name]) for w in works(name)]
        for name, by_key in files.items():
            by_folder[name] = [
                work(withheld.collection_of(name, path.stem), key, _readable(path.stem), PROGRAMS.get(name, 0), path)
                for key, path in by_key.items()
                if key not in found.left_out.get(name, {})
            ]
        rights = RIGHTS | {name: stated_rights(folder) for name, folder in folders.items()}
        rights |= {style: rights[name] for name in folders for style in withheld.taken_out_of(name)}
        left_out = {name: dict(Counter(reasons.values())) for name, reasons in found.left_out.items()}
        return cls({**own, **_in_pools(by_folder, own)}, cache, left_out, rights)

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

    def rights(self, collection: str) -> str:
        """What is known of a collection's rights, in a line."""
        return self._rights.get(collection, "not stated")

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
        for work, score in zip(works, over(works, self.parsed.score), strict=True):
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
        by_hash = bool(inner) and all(re.fullmatch("[0-9A-Za-z]{1,2}", child.name) for child in inner)
        inner = [child for child in ([folder] if by_hash else inner) if _midi_files(child)]
        chosen = [folder] if own else inner
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


def _readable(name: str) -> str:
    """A name without bytes that are no UTF-8, which files' names may have."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def stated_rights(folder: Path) -> str:
    """The first two lines of a folder's licence file; says so where there is none."""
    for path in sorted(folder.iterdir()):
        if re.match(r"(licen[cs]e|copying)(\.|$)", path.name, re.IGNORECASE) and path.is_file():
            with path.open(encoding="utf-8", errors="replace") as file:
                lines = [line.strip() for line in file.read(2000).splitlines()]
            return "; ".join([line for line in lines if line][:2]) or f"{path.name} is empty"
    return "not stated in the folder"


def _in_pools(
    by_folder: Mapping[str, Sequence[PublicWork]], four: Mapping[str, Mapping[Pool, tuple[PublicWork, ...]]]
) -> dict[str, dict[Pool, tuple[PublicWork, ...]]]:
    """Pools of all collections but the four, each style behind what it is taken out of.

    Aird's airs and the songs and mélodies are dealt with the joined collections first, as they were when they were
    among them, so that their being withheld moves no other work; then they are dealt anew among themselves.
    """
    before = dealt({name: own for name, own in by_folder.items() if name != TRECENTO}, four)
    others = {
        name: only(pools, lambda work, name=name: work.collection == name)  # type: ignore[misc]
        for name, pools in before.items()
        if name not in withheld.STYLES
    }
    styles: dict[str, list[PublicWork]] = {}
    for style in withheld.STYLES:
        if own := [work for works_there in by_folder.values() for work in works_there if work.collection == style]:
            styles[style] = own
    apart = withheld_pools(styles, {**four, **others})
    result: dict[str, dict[Pool, tuple[PublicWork, ...]]] = {}
    result.update({name: apart[name] for name in (AIRS, TRECENTO) if name in apart})
    for name in others:
        result[name] = others[name]
        result |= {style: apart[style] for style in withheld.taken_out_of(name) if style in apart}
    return result
