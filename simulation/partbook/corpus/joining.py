"""Tune families across what is installed and folders of MIDI files: worked out once, and kept.

A folder may be tens of thousands of files that somebody collected (the Lakh MIDI Dataset: Raffel 2016), many of them
damaged, and many there twice. A file that cannot be used is left out, with the reason, and so is one that is byte for
byte another before it. Files of one melody stay: they are one family.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from partbook.corpus.families import VERSION, Link, Tune, families, installed_keys, is_later, links, tunes
from partbook.corpus.melody import Melody, melodies
from partbook.corpus.midi import read_midi, score_of_tracks
from partbook.corpus.parallel import over
from partbook.corpus.parsed import write_whole
from partbook.corpus.table import TABLE, shipped
from partbook.corpus.watching import Watcher
from partbook.errors import ScoreError

DAMAGED: Final = "damaged"
NO_NOTES: Final = "without pitched notes"
TOO_LONG: Final = "too long"
A_COPY: Final = "the same bytes as another"
MOST_NOTES: Final = 200_000  # of one work; the largest of `../shared/data` has 50,340
MOST_QUARTERS: Final = 40_000  # from the first note to the last (10,317 there); beyond is a clock gone wrong
_RECIPE: Final = 2  # changes whenever the same file would give other melodies


@dataclass(frozen=True, slots=True)
class Joined:
    """What comes of installed works and folders.

    Attributes:
        families: key → family, for works that share theirs.
        left_out: by collection, key → why a file is no work: `DAMAGED`, `NO_NOTES`, `TOO_LONG` or `A_COPY`.
    """

    families: Mapping[str, str]
    left_out: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class _Read:
    """What a file comes to: its melodies, and either why it is left out or the hash of its bytes."""

    tune: Tune
    wrong: str
    sha256: str


def joined(collections: Mapping[str, Mapping[str, Path]], cache: Path, watch: Watcher) -> Joined:
    """Families of what is installed and of `collections`, and the files in these that are no works.

    Installed works are in one family where the shipped table has them in one, or where a work of `collections` is the
    tune of both.

    Args:
        collections: files by key, by name.
        cache: a folder. Where the same files come again, their families are read from it.
        watch: told how far it is.
    """
    if not collections:
        return Joined(shipped(), {})
    prints = {name: _digest(files) for name, files in collections.items()}
    whole = _hash(["families", VERSION, _RECIPE, TABLE.read_text(encoding="utf-8"), sorted(prints.items())])
    path = cache / f"families-{whole[:32]}.json"
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return Joined(kept["families"], kept["left_out"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    installed = installed_keys()
    tunes_of = dict(zip(installed, _installed(installed, cache, watch), strict=True))
    left_out: dict[str, dict[str, str]] = {}
    there: dict[str, Tune] = {}
    hashes: set[str] = set()
    for name, files in collections.items():
        read = _folder(name, files, cache / f"melodies-{prints[name][:32]}.safetensors", watch)
        left_out[name] = {}
        for key, each in zip(files, read, strict=True):
            if wrong := each.wrong or (A_COPY if each.sha256 in hashes else ""):
                left_out[name][key] = wrong
            else:
                hashes.add(each.sha256)
                there[key] = each.tune
    watch.stage("Looking for tunes that two works share", 1)
    result = families(*_linked(tunes_of, there))
    write_whole(path, json.dumps({"families": result, "left_out": left_out}).encode())
    watch.step("")
    return Joined(result, left_out)


def _linked(installed: Mapping[str, Tune], there: Mapping[str, Tune]) -> tuple[list[str], list[Link]]:
    """All keys, and the links between them: those of the shipped table, and those that folders' works bring."""
    first = [key for key in installed if not is_later(key)]
    later = [key for key in installed if is_later(key)]
    before = [*first, *there]
    keys = [*before, *later]
    melodies_of = {**installed, **there}
    read = [melodies_of[key] for key in keys]
    found = links(read[: len(before)], len(first))
    # What comes later is held against folders alone: the table has it beside what is installed.
    found += [link for link in links(read, len(before)) if len(first) <= link.first < len(before)] if later else []
    place = {key: number for number, key in enumerate(dict.fromkeys([*keys, *shipped()]))}
    for key, family in shipped().items():
        one, other = sorted((place[family], place[key]))
        found.append(Link(one, other, 1.0, 1.0))
    return list(place), found


def _installed(keys: Sequence[str], cache: Path, watch: Watcher) -> list[Tune]:
    digest = _hash(["melodies", _RECIPE, VERSION, list(keys)])
    path = cache / f"melodies-{digest[:32]}.safetensors"
    if (kept := _kept(path, len(keys))) is None:
        watch.stage("Reading melodies of what is installed", len(keys))
        kept = tunes(keys, watch.step)
        write_whole(path, _bytes_of(kept))
    return kept


def _folder(name: str, files: Mapping[str, Path], path: Path, watch: Watcher) -> list[_Read]:
    tunes_kept = _kept(path, len(files))
    if tunes_kept is not None and (about := _about(path, len(files))) is not None:
        return [_Read(tune, *each) for tune, each in zip(tunes_kept, about, strict=True)]
    watch.stage(f"Reading melodies of {name}", len(files))
    found = []
    paths = list(files.values())
    for path_read, read in zip(paths, over(paths, _read), strict=True):
        found.append(read)
        watch.step(path_read.stem)
    about = [(read.wrong, read.sha256) for read in found]
    write_whole(path, _bytes_of([read.tune for read in found], {"about": json.dumps(about)}))
    return found


def _read(path: Path) -> _Read:
    try:
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        score = read_midi(path)
    except (OSError, ScoreError):
        return _Read((), DAMAGED, "")
    first, last = score.start(), score.end()
    if score.note_num() > MOST_NOTES or last - first > MOST_QUARTERS * score.ticks_per_quarter:
        return _Read((), TOO_LONG, "")
    try:
        return _Read(melodies(score_of_tracks(score, 0, str(path))), "", sha256)
    except ScoreError:
        return _Read((), NO_NOTES, "")


# ---------------------------------------------------------------------- what is kept


def _digest(files: Mapping[str, Path]) -> str:
    stats = {key: path.stat() for key, path in files.items()}
    return _hash(["folder", _RECIPE, [(key, stat.st_size, stat.st_mtime_ns) for key, stat in stats.items()]])


def _hash(fields: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps(fields).encode()).hexdigest()


def _kept(path: Path, count: int) -> list[Tune] | None:
    """Melodies that `_bytes_of` wrote; None where they are missing, damaged, or not of `count` works."""
    try:
        arrays = load(path.read_bytes())
        ends = np.cumsum(arrays["notes"])
        lines = zip(np.split(arrays["onset"], ends[:-1]), np.split(arrays["pitch"], ends[:-1]), strict=True)
        each = [Melody(onset, pitch.astype(np.int64)) for onset, pitch in lines]
        found, first = [], 0
        for melodies_of_work in arrays["melodies"].tolist():
            found.append(tuple(each[first : first + melodies_of_work]))
            first += melodies_of_work
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
    return found if len(found) == count else None


def _about(path: Path, count: int) -> list[tuple[str, str]] | None:
    """Of each file why it is left out, and its hash, as `_folder` keeps them; None where they are not there."""
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    about = json.loads(header.get("__metadata__", {}).get("about", "[]"))
    return [(wrong, sha256) for wrong, sha256 in about] if len(about) == count else None


def _bytes_of(found: Sequence[Tune], about: dict[str, str] | None = None) -> bytes:
    each = [melody for tune in found for melody in tune]
    empty = [np.zeros(0)]
    return save(
        {
            "melodies": np.array([len(tune) for tune in found], dtype=np.int64),
            "notes": np.array([len(melody) for melody in each], dtype=np.int64),
            "onset": np.concatenate([melody.onset for melody in each] or empty).astype(np.float64),
            "pitch": np.concatenate([melody.pitch for melody in each] or empty).astype(np.uint8),
        },
        metadata=about,
    )
