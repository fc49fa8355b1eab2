"""Scores → sound for a clip: on one instrument, and no more of them than is heard."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from partbook.errors import ScoreError

if TYPE_CHECKING:
    from symusic.core import ScoreTick

PIANO: Final = 0  # General MIDI
EVEN_VELOCITY: Final = 80
_MARGIN: Final = 1.0  # seconds played beyond the clip, whose end is then a cut and no ending


@dataclass(frozen=True, slots=True)
class Playing:
    """How scores are played.

    Attributes:
        program: General MIDI program of every track, drums left out; None as written.
        even: whether every note has one velocity, for where only one side's scores carry dynamics.
    """

    program: int | None = PIANO
    even: bool = False


def played(path: Path, playing: Playing, seconds: float, share: float) -> tuple[NDArray[np.float32], int, float]:
    """Sound of a MIDI file's clip: samples (frames, 2), their rate, and the seconds at which the clip begins.

    Raises:
        ScoreError: the file is not MIDI, or has nothing that sounds.
        ConfigError: the SoundFont cannot be used.
    """
    from symusic.core import ScoreTick

    from partbook.music.rendering import render

    try:
        score = ScoreTick.from_file(path)
    except (RuntimeError, ValueError, OSError) as error:
        raise ScoreError(f"{path} is not MIDI that can be read ({error}); export it again.") from error
    try:
        clip, begins = prepared(score, playing, seconds, share)
        sound = render(clip)
    except ScoreError as error:
        raise ScoreError(f"{path}: {error}") from error
    return sound.samples, sound.sample_rate, begins


def prepared(score: ScoreTick, playing: Playing, seconds: float, share: float = 0.0) -> tuple[ScoreTick, float]:
    """A copy of a score with what a clip of it needs, and the seconds after its first note at which the clip begins.

    A whole movement takes minutes to render; a clip begins with a note, so what lies before it need not be played.

    Args:
        score: as written.
        playing: see `Playing`.
        seconds: how long the clip is.
        share: where the clip begins: 0 at the first note, 1 at the last that leaves room for it.
    """
    copy = score.copy()
    if playing.program is not None:
        copy.tracks = type(copy.tracks)([track for track in copy.tracks if not track.is_drum])
        for track in copy.tracks:
            track.program = playing.program
    first, last, begins = _window(copy, seconds, share)
    for track in copy.tracks:
        notes = [note for note in track.notes if first <= note.time <= last]
        for note in notes:
            note.duration = min(note.duration, last + 1 - note.time)
            note.time -= first
            note.velocity = EVEN_VELOCITY if playing.even else note.velocity
        track.notes = type(track.notes)(notes)
        track.controls = _within(track.controls, first, last)
        track.pitch_bends = _within(track.pitch_bends, first, last)
        track.pedals = type(track.pedals)([])  # a second view of what is among the controls
        track.lyrics = type(track.lyrics)([])
    copy.tempos = _within(copy.tempos, first, last)
    copy.time_signatures = type(copy.time_signatures)([])
    copy.key_signatures = type(copy.key_signatures)([])
    copy.markers = type(copy.markers)([])
    return copy, begins


def _window(score: ScoreTick, seconds: float, share: float) -> tuple[int, int, float]:
    """First and last tick of a clip, and the seconds from the score's first note to the clip's."""
    notes = np.array([(note.time, note.end) for track in score.tracks for note in track.notes], dtype=np.int64)
    if not len(notes):
        return 0, 0, 0.0
    ticks, times = _clock(score, int(notes.max()))
    onsets, end = np.unique(notes[:, 0]), float(np.interp(notes.max(), ticks, times))
    starts = np.interp(onsets, ticks, times)
    roomy = np.flatnonzero(starts <= end - seconds)
    place = int(share * (len(roomy) - 1) + 0.5) if len(roomy) else 0
    stop = np.interp(starts[place] + seconds + _MARGIN, times, ticks)
    return int(onsets[place]), int(stop), float(starts[place] - starts[0])


def _clock(score: ScoreTick, last: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ticks and their seconds at each change of tempo, and at the last tick or later; straight lines lie between."""
    ticks, times, pace = [0.0], [0.0], 120.0  # until a tempo is given (Standard MIDI Files 1.0)
    changes = sorted(((tempo.time, tempo.qpm) for tempo in score.tempos), key=lambda change: change[0])
    for tick, qpm in [*changes, (max([last, *(tick for tick, _ in changes)]) + 1, 0.0)]:
        times.append(times[-1] + (tick - ticks[-1]) * 60.0 / (pace * score.ticks_per_quarter))
        ticks.append(float(tick))
        pace = qpm if 0.0 < qpm < np.inf else pace
    return np.array(ticks), np.array(times)


def _within(events: Any, first: int, last: int) -> Any:
    """Events of a clip, from its own beginning on; what was set before, of every controller, holds there."""
    before = {getattr(event, "number", None): event for event in events if event.time <= first}
    kept = [*before.values(), *(event for event in events if first < event.time <= last)]
    for event in kept:
        event.time = max(0, event.time - first)
    return type(events)(kept)
