"""Public works as a base model reads them: on the grid, as written and as a node's ears hear them.

Reading a few thousand scores takes minutes and hearing one 4 s of a core, so what comes of either is kept:

    CACHE/pieces/<inputs>.pieces     notes and bars of one set of works; its name holds all it depends on
    CACHE/heard/<hearing>.heard      one take each, made by `partbook.corpus.heard`; its sound is mapped, not read

A file of pieces holds the same bytes whenever it is made from the same works, so its hash says what was learnt from.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from partbook.corpus.heard import SECONDS, Heard, Hearing, hear, kept, mapped_mel
from partbook.corpus.library import Library, PublicWork
from partbook.corpus.parsed import write_whole
from partbook.corpus.watching import Watcher
from partbook.errors import CorruptMessage, ScoreError
from partbook.music.quantised import Quantised, quantised
from partbook.pretraining.mixture import Piece
from partbook.simulation.collections import Pool
from partbook.vault.analysis import BEATS_PER_BAR
from partbook.vault.beats import find_beats

GENRES: Final = {
    "bach": "chorale",
    "oneills1850": "dance",
    "ryansMammoth": "dance",
    "monteverdi": "madrigal",
    "pop909": "pop",
    "openscore-lieder": "song",
    "openscore-quartets": "quartet",
}
"""Of collections, as in `vocabulary.GENRES`; of others it is not known."""

RECIPE: Final = 1  # changes whenever the same works would come out otherwise, and nothing below says so
FEWEST: Final = 8  # notes of a take that is worth learning from
SUFFIX: Final = ".pieces"
_READERS: Final = (
    "partbook.music.quantised",
    "partbook.corpus.midi",
    "partbook.corpus.parsed",
    "partbook.simulation.collections",
)
_EARS: Final = ("partbook.vault.beats", "partbook.music.notation", "partbook.music.quantised")


@dataclass(frozen=True, slots=True)
class Pieces:
    """Pieces in the works' order.

    Attributes:
        pieces: those that can be read.
        sha256: of notes, bars and sources, hexadecimal.
    """

    pieces: tuple[Piece, ...]
    sha256: str

    @property
    def counted(self) -> dict[str, int]:
        """Pieces of each collection."""
        return dict(Counter(piece.collection for piece in self.pieces))

    @property
    def notes(self) -> dict[str, int]:
        """Notes of each collection."""
        found: Counter[str] = Counter()
        for piece in self.pieces:
            found[piece.collection] += len(piece.music.onset)
        return dict(found)


def pooled(library: Library, collections: Sequence[str], pool: Pool, most: int | None = None) -> list[PublicWork]:
    """The works of collections' pool, at most so many of each: the same ones every time, by their keys' hashes."""
    found: list[PublicWork] = []
    for name in collections:
        works = library.pool(name, pool)
        if most is not None and len(works) > most:
            order = sorted(works, key=lambda work: hashlib.sha256(work.key.encode()).digest())
            chosen = {work.key for work in order[:most]}
            works = tuple(work for work in works if work.key in chosen)
        found += works
    return found


def written(library: Library, works: Sequence[PublicWork], cache: Path, watch: Watcher) -> Pieces:
    """Works as they are written; those that cannot be read are passed over.

    Args:
        library: that the works are of.
        works: which.
        cache: the folder that `pieces/` is in.
        watch: told each work.
    """
    described = [[work.key, work.program, _hash_of(work.source)] for work in works]
    path = cache / "pieces" / (_name(["written", _music21(), described], _READERS) + SUFFIX)
    watch.stage("Reading scores", len(works))
    found = _kept(path, cache)
    if found is not None:
        for work in works:
            watch.step(work.title)
        return found
    pieces: list[Piece] = []
    scores = library.each_score(works, watch.step)
    watch.stage("Writing them on the grid", len(works))
    for work, score in zip(works, scores, strict=True):
        watch.step(work.title)
        if score is None:
            continue
        try:
            pieces.append(Piece(work.collection, quantised(score), genre=GENRES.get(work.collection)))
        except ScoreError:
            continue  # nothing on the piano's range
    return _keep(path, pieces, [""] * len(pieces), cache)


def heard(
    library: Library,
    works: Sequence[PublicWork],
    takes: Sequence[int | None],
    cache: Path,
    watch: Watcher,
    *,
    soundfonts: Sequence[Path] = (),
    seconds: float = SECONDS,
    workers: int | None = None,
) -> Pieces:
    """Works as a node's ears hear them, once a take each; what is there already is not heard again.

    May be broken off at any time: what is heard by then is kept.

    Args:
        library: that the works are of.
        works: which.
        takes: of each, by number; None is the plain rendition (`partbook.corpus.rendition`).
        cache: the folder that `heard/` and `pieces/` are in.
        watch: told each take.
        soundfonts: what takes are played with; the default alone where there are none.
        seconds: how much of a work a take is.
        workers: processes at a time; one a processor where None.

    Raises:
        ConfigError: a SoundFont cannot be used.
    """
    hearings = [Hearing(work, take, seconds, tuple(soundfonts)) for work in works for take in takes]
    watch.stage("Hearing works", len(hearings))
    folder = cache / "heard"
    paths = hear(hearings, folder, on_work=watch.step, workers=workers, scores=library.parsed) if hearings else []
    path = cache / "pieces" / (_name(["heard", [each.name for each in paths]], _EARS) + SUFFIX)
    watch.stage("Finding their beats", len(paths))
    found = _kept(path, cache)
    if found is not None:
        for hearing in hearings:
            watch.step(hearing.work.title)
        return found
    pieces, sources = [], []
    for hearing, take in zip(hearings, paths, strict=True):
        watch.step(hearing.work.title)
        one = kept(take)
        if isinstance(one, Heard) and len(one.notes) >= FEWEST:
            try:
                pieces.append(heard_piece(one))
            except ScoreError:
                continue  # nothing on the piano's range
            sources.append(take.name)
    return _keep(path, pieces, sources, cache)


def heard_piece(take: Heard) -> Piece:
    """A take on the grid of beats that are found in it, as a node would write it down.

    Raises:
        ScoreError: no note of it can be written.
    """
    from partbook.music.notation import score_of

    beats = find_beats(take.notes, take.seconds)
    score = score_of(take.notes, beats.seconds, take.program, beats_per_minute=beats.beats_per_minute)
    music = quantised(score)
    at = beats.second_of(np.arange(len(music), dtype=np.float64) * BEATS_PER_BAR).astype(np.float32)
    return Piece(take.collection, music, "heard", GENRES.get(take.collection), at, take.mel)


# ---------------------------------------------------------------------- on disk


def to_bytes(pieces: Sequence[Piece], sources: Sequence[str]) -> bytes:
    """A safetensors blob of all but sound; `sources` name the takes that this is in, "" where there is none."""
    about = [
        {"collection": p.collection, "genre": p.genre, "hand": p.hand, "source": source}
        for p, source in zip(pieces, sources, strict=True)
    ]
    music = [p.music for p in pieces]
    no_seconds = np.zeros(0, np.float32)
    rows = [np.stack([m.onset, m.length, m.pitch, m.program, m.velocity], 1) for m in music]
    arrays: dict[str, NDArray[Any]] = {
        "notes": _joined(rows, np.int32, (5,)),
        "note_counts": np.array([len(m.onset) for m in music], np.int64),
        "bars": _joined([m.bars for m in music], np.int32),
        "bar_counts": np.array([len(m) for m in music], np.int64),
        "metres": _joined([np.array(m.metres) for m in music], np.int16, (2,)),
        "tempi": _joined([np.array(m.tempi) for m in music], np.float64),
        "bar_seconds": _joined([no_seconds if p.bar_seconds is None else p.bar_seconds for p in pieces], np.float32),
    }
    return save(arrays, metadata={"partbook": json.dumps(about, sort_keys=True)})


def from_bytes(blob: bytes, sounds: Path) -> list[Piece]:
    """The pieces that `to_bytes` wrote; their sound is mapped from the takes in `sounds`.

    Raises:
        CorruptMessage: these are no pieces, or a take is missing or damaged.
    """
    try:
        arrays = load(blob)
        about = json.loads(_metadata(blob)["partbook"])
        note_ends = np.cumsum(arrays["note_counts"])
        bar_counts = arrays["bar_counts"].tolist()
        notes, bars, metres = arrays["notes"].astype(np.int64), arrays["bars"].astype(np.int64), arrays["metres"]
        result: list[Piece] = []
        first = at = second = 0
        for index, said in enumerate(about):
            count, last = bar_counts[index], int(note_ends[index])
            onset, length, pitch, program, velocity = np.ascontiguousarray(notes[first:last].T)
            music = Quantised(
                onset, length, pitch, program, velocity,
                bars=bars[at + index : at + index + count + 1],
                metres=tuple((int(n), int(d)) for n, d in metres[at : at + count]),
                tempi=tuple(arrays["tempi"][at : at + count].tolist()),
            )  # fmt: skip
            seconds = mel = None
            if said["hand"] == "heard":
                seconds, mel = arrays["bar_seconds"][second : second + count], mapped_mel(sounds / said["source"])
                second += count
            result.append(Piece(said["collection"], music, said["hand"], said["genre"], seconds, mel))
            first, at = last, at + count
    except (SafetensorError, KeyError, IndexError, ValueError, TypeError, OSError) as error:
        raise CorruptMessage(f"These bytes are no pieces ({error}); have them made again.") from error
    return result


def _keep(path: Path, pieces: Sequence[Piece], sources: Sequence[str], cache: Path) -> Pieces:
    write_whole(path, to_bytes(pieces, sources))
    found = _kept(path, cache)
    assert found is not None, "it has just been written"
    return found


def _kept(path: Path, cache: Path) -> Pieces | None:
    try:
        blob = path.read_bytes()
        return Pieces(tuple(from_bytes(blob, cache / "heard")), hashlib.sha256(blob).hexdigest())
    except (OSError, CorruptMessage):
        return None


def _metadata(blob: bytes) -> dict[str, str]:
    """What `safetensors.numpy.load` leaves out."""
    size = int.from_bytes(blob[:8], "little")
    found: dict[str, str] = json.loads(blob[8 : 8 + size])["__metadata__"]
    return found


def _joined(arrays: Sequence[NDArray[Any]], dtype: Any, shape: tuple[int, ...] = ()) -> NDArray[Any]:
    whole = [a.reshape(-1, *shape).astype(dtype) for a in arrays]
    return np.concatenate(whole) if whole else np.zeros((0, *shape), dtype)


def _name(inputs: Any, modules: Sequence[str]) -> str:
    """A hash of what a file is made from, and of the code that makes it."""
    digest = hashlib.sha256(json.dumps([RECIPE, FEWEST, GENRES, inputs]).encode())
    for module in (*modules, __name__):
        spec = find_spec(module)
        assert spec is not None
        assert spec.origin is not None
        digest.update(Path(spec.origin).read_bytes())
    return digest.hexdigest()[:40]


def _hash_of(path: Path | None) -> str:
    return "" if path is None else hashlib.sha256(path.read_bytes()).hexdigest()


def _music21() -> str:
    try:
        return version("music21")
    except PackageNotFoundError:
        return "none"
