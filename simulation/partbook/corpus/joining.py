"""Tune families across what is installed and folders of MIDI files: worked out once, and kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from partbook.corpus.families import VERSION, Link, Tune, families, installed_keys, links, tunes
from partbook.corpus.melody import Melody, melodies
from partbook.corpus.midi import score_of_midi
from partbook.corpus.parallel import over
from partbook.corpus.parsed import write_whole
from partbook.corpus.table import TABLE, shipped
from partbook.corpus.watching import Watcher
from partbook.errors import ScoreError

_RECIPE: Final = 1  # changes whenever the same file would give other melodies


def grouped(collections: Mapping[str, Mapping[str, Path]], cache: Path, watch: Watcher) -> Mapping[str, str]:
    """Key → family, for works that share theirs, of what is installed and of `collections`.

    Installed works are in one family where the shipped table has them in one, or where a work of `collections` is the
    tune of both.

    Args:
        collections: files by key, by name.
        cache: a folder. Where the same files come again, their families are read from it.
        watch: told how far it is.
    """
    if not collections:
        return shipped()
    prints = {name: _digest(files) for name, files in collections.items()}
    whole = _hash(["families", VERSION, _RECIPE, TABLE.read_text(encoding="utf-8"), sorted(prints.items())])
    path = cache / f"families-{whole[:32]}.json"
    try:
        kept: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
        return kept
    except (OSError, ValueError):
        pass
    keys = installed_keys()
    read = _installed(keys, cache, watch)
    count = len(keys)
    for name, files in collections.items():
        keys += list(files)
        read += _folder(name, files, cache / f"melodies-{prints[name][:32]}.safetensors", watch)
    watch.stage("Looking for tunes that two works share", 1)
    found = [link for link in links(read) if link.second >= count]
    place = {key: number for number, key in enumerate(dict.fromkeys([*keys, *shipped()]))}
    for key, family in shipped().items():
        first, second = sorted((place[family], place[key]))
        found.append(Link(first, second, 1.0, 1.0))
    result = families(list(place), found)
    write_whole(path, json.dumps(result).encode())
    watch.step("")
    return result


def _installed(keys: Sequence[str], cache: Path, watch: Watcher) -> list[Tune]:
    digest = _hash(["melodies", _RECIPE, VERSION, list(keys)])
    path = cache / f"melodies-{digest[:32]}.safetensors"
    if (kept := _kept(path, len(keys))) is None:
        watch.stage("Reading melodies of what is installed", len(keys))
        kept = tunes(keys, watch.step)
        write_whole(path, _bytes_of(kept))
    return kept


def _folder(name: str, files: Mapping[str, Path], path: Path, watch: Watcher) -> list[Tune]:
    if (kept := _kept(path, len(files))) is None:
        watch.stage(f"Reading melodies of {name}", len(files))
        kept = []
        paths = list(files.values())
        for path_read, tune in zip(paths, over(paths, _tune), strict=True):
            kept.append(tune)
            watch.step(path_read.stem)
        write_whole(path, _bytes_of(kept))
    return kept


def _tune(path: Path) -> Tune:
    try:
        return melodies(score_of_midi(path, 0))
    except ScoreError:
        return ()


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


def _bytes_of(found: Sequence[Tune]) -> bytes:
    each = [melody for tune in found for melody in tune]
    empty = [np.zeros(0)]
    return save(
        {
            "melodies": np.array([len(tune) for tune in found], dtype=np.int64),
            "notes": np.array([len(melody) for melody in each], dtype=np.int64),
            "onset": np.concatenate([melody.onset for melody in each] or empty).astype(np.float64),
            "pitch": np.concatenate([melody.pitch for melody in each] or empty).astype(np.uint8),
        }
    )
