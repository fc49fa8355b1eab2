"""Parsed scores on disk: MusicXML takes music21 up to 13 s a work, and ABC a process of its own."""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save
from symusic.core import NoteTick, ScoreTick, TempoTick, TimeSignatureTick, TrackTick

from partbook.errors import ScoreError
from partbook.music.tokens import TICKS_PER_QUARTER

RECIPE: Final = 1  # changes whenever a work would be parsed otherwise


class Parsable(Protocol):
    """A work, as far as it matters here."""

    @property
    def key(self) -> str:
        """A stable identifier."""
        ...

    @property
    def program(self) -> int:
        """General MIDI program."""
        ...

    @property
    def source(self) -> Path | None:
        """Its MIDI file, which is quick to parse; None where it is of another kind."""
        ...

    def score(self) -> ScoreTick:
        """Parse it; raises ScoreError."""
        ...


@dataclass(frozen=True, slots=True)
class ParsedScores:
    """Scores in a folder, a file a work; remade where a file is missing or damaged. May be used by many processes."""

    folder: Path

    def score(self, work: Parsable) -> ScoreTick | None:
        """A work's score, from the folder where it is there; None where the work cannot be read."""
        if work.source is not None:
            return _parsed(work)
        name = hashlib.sha256(f"{RECIPE}/{_reader()}/{work.key}/{work.program}".encode()).hexdigest()
        path = self.folder / f"{name[:32]}.score"
        try:
            return _score_of(path.read_bytes())
        except (OSError, SafetensorError, KeyError, ValueError):
            pass
        score = _parsed(work)
        if score is not None:
            write_whole(path, _bytes_of(score))
        return score


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that appears whole or not at all, and its folder with it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@functools.cache
def _reader() -> str:
    try:
        return version("music21")
    except PackageNotFoundError:
        return "none"


def _parsed(work: Parsable) -> ScoreTick | None:
    try:
        return work.score()
    except ScoreError:
        return None


def _bytes_of(score: ScoreTick) -> bytes:
    notes = [
        (number, note.time, note.duration, note.pitch, note.velocity)
        for number, track in enumerate(score.tracks)
        for note in track.notes
    ]
    metres = [(m.time, m.numerator, m.denominator) for m in score.time_signatures]
    return save(
        {
            "notes": np.array(notes, dtype=np.int64).reshape(-1, 5),
            "programs": np.array([track.program for track in score.tracks], dtype=np.int64),
            "tempos": np.array([(tempo.time, tempo.mspq) for tempo in score.tempos], dtype=np.int64).reshape(-1, 2),
            "metres": np.array(metres, dtype=np.int64).reshape(-1, 3),
        }
    )


def _score_of(data: bytes) -> ScoreTick:
    arrays = load(data)
    score = ScoreTick(TICKS_PER_QUARTER)
    for program in arrays["programs"].tolist():
        track = TrackTick()
        track.program = program
        score.tracks.append(track)
    for number, time, duration, pitch, velocity in arrays["notes"].tolist():
        score.tracks[number].notes.append(NoteTick(time, duration, pitch, velocity))
    for time, mspq in arrays["tempos"].tolist():
        score.tempos.append(TempoTick(time, mspq=mspq))
    for time, numerator, denominator in arrays["metres"].tolist():
        score.time_signatures.append(TimeSignatureTick(time, numerator, denominator))
    return score
