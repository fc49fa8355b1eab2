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
_LONGEST: Final = 255  # the largest numerator that MIDI writes


@dataclass(frozen=True, slots=True)
class Reading:
    """N notes, ordered by onset, then pitch.

    Attributes:
        title: what a person calls the piece.
        onset: steps of a twelfth of a quarter from the score's beginning, int64 (N,).
        duration: in steps, at least 1, int64 (N,).
        pitch: MIDI note numbers, int64 (N,).
        bars: step of each bar line, the one that ends the last bar included, int64 (B + 1,).
        seconds: from the score's beginning to the last note's end; of a part of a piece at the whole's mean tempo.
        work: pieces that share this name are one work: never on both sides of a cross-validation, never held against
            each other. The title where not given; pieces without any name are each a work of their own.
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

        Where no note begins in them, as many from the bar of the first note.
        """
        first = 0
        last = self._bars_before(round(quarters * GRID))
        if self.bar[0] >= last:
            first = int(self.bar[0])
            last = self._bars_before(int(self.bars[first]) + round(quarters * GRID))
        return self.between(first, max(last, first + 1))

    def _bars_before(self, step: int) -> int:
        return max(int(np.searchsorted(self.bars, step, side="left")), 1)

    def between(self, first: int, last: int) -> Reading:
        """Bars `first` to `last` (exclusive) as a piece of their own.

        Raises:
            ScoreError: no note begins in them.
        """
        last = min(last, len(self.bars) - 1)
        first = min(first, last)
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

        Read again, it has the same notes and bar lines.

        Args:
            shift: semitones; notes that leave MIDI's range move by octaves.
            program: General MIDI program.
        """
        score, track = ScoreTick(TICKS_PER_QUARTER), TrackTick("", program)
        unit = TICKS_PER_QUARTER // GRID
        for onset, duration, pitch in zip(self.onset, self.duration, self.pitch, strict=True):
            moved = int(pitch) + shift
            if not 0 <= moved <= 127:
                moved = moved % 12 if moved < 0 else 116 + (moved - 116) % 12  # the octave next to the range's edge
            track.notes.append(NoteTick(int(onset) * unit, int(duration) * unit, moved, 72))
        score.tracks.append(track)
        score.tempos.append(TempoTick(0, 120.0))
        last = 0
        for start, length in zip(self.bars[:-1].tolist(), np.diff(self.bars).tolist(), strict=True):
            if length != last:
                numerator, denominator = _metre(length)
                score.time_signatures.append(TimeSignatureTick(start * unit, numerator, denominator))
                # What no metre expresses is written as a longer bar that the next one cuts short.
                last = length if 4 * GRID * numerator == length * denominator else 0
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
    for track in score.tracks:
        if track.is_drum:
            continue
        for note in track.notes:
            onset = _step(note.time, score)
            key = (onset, int(note.pitch))
            notes[key] = max(notes.get(key, 1), _step(note.time + note.duration, score) - onset)
    if not notes:
        raise ScoreError(f"{title or 'The score'} has no pitched notes; there is nothing to measure.")
    rows = np.array([(onset, notes[onset, pitch], pitch) for onset, pitch in sorted(notes)], dtype=np.int64)
    end = int((rows[:, 0] + rows[:, 1]).max())
    seconds = float(seconds_at(score, np.array([end * score.ticks_per_quarter / GRID]))[0])
    return Reading(title, rows[:, 0], rows[:, 1], rows[:, 2], _bar_lines(score, end), seconds, work or title)


def _step(tick: int, score: ScoreTick) -> int:
    """The step nearest to a tick, the later of two: so equal bars read alike, wherever they stand."""
    return (2 * GRID * tick + score.ticks_per_quarter) // (2 * score.ticks_per_quarter)


def _bar_lines(score: ScoreTick, end: int) -> NDArray[np.int64]:
    metres = {0: _COMMON}  # by the step from which they hold; the last that is written at a step counts
    for mark in sorted(score.time_signatures, key=lambda mark: mark.time):
        if mark.numerator > 0:
            metres[_step(mark.time, score)] = (mark.numerator, mark.denominator)
    starts = [start for start in sorted(metres) if start < end]
    lines = []
    for start, until in zip(starts, [*starts[1:], end], strict=True):  # a change of metre begins a bar
        numerator, denominator = metres[start]
        whole = 4 * GRID * numerator  # steps a bar, times the denominator: some metres do not fall on the grid
        count = -(-(until - start) * denominator // whole)
        lines.append(start + (2 * whole * np.arange(count + 1) + denominator) // (2 * denominator))
        if until < end:
            lines[-1] = lines[-1][:-1]
    return np.unique(np.concatenate(lines)).astype(np.int64)


def _metre(steps: int) -> tuple[int, int]:
    """Numerator and denominator of a bar, or of the next longer one that has any."""
    for denominator in (4, 8, 16, 32, 2, 1):
        numerator, rest = divmod(steps * denominator, 4 * GRID)
        if rest == 0 and numerator <= _LONGEST:
            return numerator, denominator
    return min(-(-steps // GRID), _LONGEST), 4
