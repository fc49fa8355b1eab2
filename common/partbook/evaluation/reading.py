"""A score read for measurement: its notes on a grid of beats, its bar lines, and its length in seconds.

Every measure of this package looks at a `Reading` and at nothing else, so a generated MIDI file, a human score and a
transcription are measured alike. Loudness and instruments are left out: they are the performer's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from symusic.core import NoteTick, ScoreTick, TempoTick, TimeSignatureTick, TrackTick

from partbook.errors import ScoreError
from partbook.music.tokens import POSITIONS_PER_BEAT, TICKS_PER_QUARTER, seconds_at

GRID: Final = POSITIONS_PER_BEAT  # steps a quarter: sixteenths and triplets both fall on it
_COMMON: Final = (4, 4)  # the metre of a score that names none


@dataclass(frozen=True, slots=True)
class Reading:
    """N notes, ordered by onset, then pitch.

    Attributes:
        title: what a person calls the piece.
        onset: steps of a twelfth of a quarter from the score's beginning, int64 (N,).
        duration: in steps, at least 1, int64 (N,).
        pitch: MIDI note numbers, int64 (N,).
        bars: step of each bar line, the one that ends the last bar included, int64 (B + 1,).
        seconds: from the score's beginning to the last note's end.
        work: works that share this name are never on both sides of a cross-validation; the title where not given.
    """

    title: str
    onset: NDArray[np.int64]
    duration: NDArray[np.int64]
    pitch: NDArray[np.int64]
    bars: NDArray[np.int64]
    seconds: float
    work: str = ""

    def __len__(self) -> int:
        return len(self.onset)

    @property
    def end(self) -> int:
        """Step at which the last note ends."""
        return int((self.onset + self.duration).max())

    @property
    def quarters(self) -> float:
        """Length in quarters, to the last note's end."""
        return self.end / GRID

    @property
    def bar(self) -> NDArray[np.int64]:
        """The bar in which each note begins, from 0, int64 (N,)."""
        return np.searchsorted(self.bars, self.onset, side="right") - 1

    def opening(self, quarters: float) -> Reading:
        """The first bars, as many as begin within `quarters`; notes that ring past them are cut.

        Raises:
            ScoreError: no note begins in them.
        """
        whole = int(np.searchsorted(self.bars, round(quarters * GRID), side="left"))
        return self.between(0, max(whole, 1))

    def between(self, first: int, last: int) -> Reading:
        """Bars `first` to `last` (exclusive) as a piece of their own.

        Raises:
            ScoreError: no note begins in them.
        """
        last = min(last, len(self.bars) - 1)
        if first == 0 and last == len(self.bars) - 1:
            return self
        begin, end = int(self.bars[first]), int(self.bars[last])
        inside = (self.onset >= begin) & (self.onset < end)
        if not inside.any():
            raise ScoreError(f"{self.title or 'The piece'} has no note in bars {first} to {last}; take more of it.")
        onset = self.onset[inside]
        duration = np.minimum(self.duration[inside], end - onset)
        pace = self.seconds / max(self.end, 1)
        cut = replace(
            self,
            onset=onset - begin,
            duration=duration,
            pitch=self.pitch[inside],
            bars=self.bars[first : last + 1] - begin,
        )
        return replace(cut, seconds=pace * cut.end)

    def score(self, *, shift: int = 0, program: int = 0) -> ScoreTick:
        """The notes as a plain score: one track, one loudness, 120 quarters a minute, the piece's bars.

        Args:
            shift: semitones; notes that leave MIDI's range move by octaves.
            program: General MIDI program.
        """
        score, track = ScoreTick(TICKS_PER_QUARTER), TrackTick("", program)
        unit = TICKS_PER_QUARTER // GRID
        for onset, duration, pitch in zip(self.onset, self.duration, self.pitch, strict=True):
            moved = int(pitch) + shift
            moved += 12 * ((moved < 0) - (moved > 127))
            track.notes.append(NoteTick(int(onset) * unit, int(duration) * unit, moved, 72))
        score.tracks.append(track)
        score.tempos.append(TempoTick(0, 120.0))
        last = 0
        for start, length in zip(self.bars[:-1], np.diff(self.bars), strict=True):
            if length != last:
                score.time_signatures.append(TimeSignatureTick(int(start) * unit, *_metre(int(length))))
                last = int(length)
        return score


def read(score: ScoreTick, title: str = "", work: str = "") -> Reading:
    """Read a score: all tracks but drums as one; a pitch struck twice at once counts once.

    Args:
        score: at any resolution.
        title: what a person calls it.
        work: see `Reading.work`.

    Raises:
        ScoreError: it has no pitched notes.
    """
    notes: dict[tuple[int, int], int] = {}
    per_step = score.ticks_per_quarter / GRID
    for track in score.tracks:
        if track.is_drum:
            continue
        for note in track.notes:
            key = (round(note.time / per_step), int(note.pitch))
            notes[key] = max(notes.get(key, 1), round(note.duration / per_step))
    if not notes:
        raise ScoreError(f"{title or 'The score'} has no pitched notes; there is nothing to measure.")
    rows = np.array([(onset, notes[onset, pitch], pitch) for onset, pitch in sorted(notes)], dtype=np.int64)
    end = int((rows[:, 0] + rows[:, 1]).max())
    seconds = float(seconds_at(score, np.array([end * per_step]))[0])
    return Reading(title, rows[:, 0], rows[:, 1], rows[:, 2], _bar_lines(score, end), seconds, work or title)


def _bar_lines(score: ScoreTick, end: int) -> NDArray[np.int64]:
    per_step = score.ticks_per_quarter / GRID
    metres = sorted((round(m.time / per_step), 4 * GRID * m.numerator // m.denominator) for m in score.time_signatures)
    if not metres or metres[0][0] > 0:
        metres.insert(0, (0, 4 * GRID * _COMMON[0] // _COMMON[1]))
    lines = [0]
    for (_, length), until in zip(metres, [*(min(time, end) for time, _ in metres[1:]), end], strict=True):
        while lines[-1] < until:
            lines.append(lines[-1] + max(length, 1))
        if until < end:
            lines[-1] = until  # a change of metre begins a bar
    while lines[-1] < end:
        lines.append(lines[-1] + max(metres[-1][1], 1))
    return np.array(sorted(set(lines)), dtype=np.int64)


def _metre(steps: int) -> tuple[int, int]:
    for denominator in (4, 8, 16):
        unit = 4 * GRID // denominator
        if steps % unit == 0:
            return steps // unit, denominator
    return max(1, round(steps / GRID)), 4
