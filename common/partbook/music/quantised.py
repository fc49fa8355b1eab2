"""Scores on a grid: notes in positions, bars with their metres and tempi. What tokens are written from and read into.

A position is a twelfth of a quarter note. Onsets and lengths go to the nearest position; notes off the piano's range
and drums are left out; of notes that double another (one onset, pitch and program) the longest is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from symusic.core import NoteTick, ScoreTick, TempoTick, TimeSignatureTick, TrackTick

from partbook.errors import ScoreError
from partbook.music.vocabulary import HIGHEST_PITCH, LOWEST_PITCH, METRES, POSITIONS_PER_BEAT, bar_positions

TICKS_PER_QUARTER: Final = 480
TICKS_PER_POSITION: Final = TICKS_PER_QUARTER // POSITIONS_PER_BEAT
assert TICKS_PER_POSITION * POSITIONS_PER_BEAT == TICKS_PER_QUARTER
_TEMPO: Final = 120.0  # quarters a minute where a score gives none (Standard MIDI Files 1.0)
_METRE: Final = (4, 4)
_LOUDNESS: Final = 72  # MIDI velocity where none is said


@dataclass(frozen=True, slots=True)
class Quantised:
    """A score on the grid.

    Attributes:
        onset: positions from the first bar's beginning, int64 (N,), ascending.
        length: positions, at least 1, int64 (N,).
        pitch: MIDI note numbers of the piano's range, int64 (N,).
        program: General MIDI programs, int64 (N,).
        velocity: MIDI velocities 1–127, int64 (N,).
        bars: where each bar begins and the last one ends, in positions, int64 (bars + 1,).
        metres: of each bar.
        tempi: quarter notes a minute at the beginning of each bar.
    """

    onset: NDArray[np.int64]
    length: NDArray[np.int64]
    pitch: NDArray[np.int64]
    program: NDArray[np.int64]
    velocity: NDArray[np.int64]
    bars: NDArray[np.int64]
    metres: tuple[tuple[int, int], ...]
    tempi: tuple[float, ...]

    def __len__(self) -> int:
        """Bars."""
        return len(self.metres)

    def transposed(self, semitones: int) -> Quantised:
        """In another key; notes that leave the piano's range come back an octave inside it."""
        pitch = self.pitch + semitones
        pitch = np.where(pitch > HIGHEST_PITCH, pitch - 12, np.where(pitch < LOWEST_PITCH, pitch + 12, pitch))
        return _sorted(replace(self, pitch=pitch))

    def on(self, program: int) -> Quantised:
        """All on one instrument."""
        return _sorted(replace(self, program=np.full_like(self.program, program)))

    def cut(self, first: int, last: int) -> Quantised:
        """Bars `first` up to, not including, `last`; notes ring on past the end."""
        begin, end = self.bars[first], self.bars[last]
        inside = slice(*np.searchsorted(self.onset, [begin, end]))
        return Quantised(
            self.onset[inside] - begin,
            self.length[inside],
            self.pitch[inside],
            self.program[inside],
            self.velocity[inside],
            self.bars[first : last + 1] - begin,
            self.metres[first:last],
            self.tempi[first:last],
        )


def quantised(score: ScoreTick) -> Quantised:
    """A score on the grid.

    A bar that a change of metre breaks off, such as a pick-up, becomes a bar of a metre as short; where there is none
    it is filled up with rests. A metre that cannot be said is the one before it.

    Raises:
        ScoreError: no note of it can be written.
    """
    unit = score.ticks_per_quarter / POSITIONS_PER_BEAT
    rows = [
        (round(n.time / unit), max(round(n.end / unit) - round(n.time / unit), 1), n.pitch, track.program, n.velocity)
        for track in score.tracks
        if not track.is_drum
        for n in track.notes
        if LOWEST_PITCH <= n.pitch <= HIGHEST_PITCH
    ]
    if not rows:
        raise ScoreError("The score has no pitched notes between A0 and C8; there is nothing to write down.")
    onset, length, pitch, program, velocity = np.array(rows, dtype=np.int64).T
    onset = np.maximum(onset, 0)
    marks = sorted((max(round(m.time / unit), 0), (m.numerator, m.denominator)) for m in score.time_signatures)
    # `written` bars as the score has them, `bars` as they are said: a broken-off bar may be longer when said.
    written, bars, metres = [0], [0], []
    metre, coming = _METRE, list(marks)
    while written[-1] <= onset.max():
        while coming and coming[0][0] <= written[-1]:
            metre = coming[0][1] if coming[0][1] in METRES else metre
            coming.pop(0)
        full = bar_positions(*metre)
        to_change = coming[0][0] - written[-1] if coming else full
        if to_change < full and coming[0][1] != metre:
            said = _metre_of(to_change, metre)
            metres.append(said)
            written.append(written[-1] + to_change)
            bars.append(bars[-1] + bar_positions(*said))
        else:
            metres.append(metre)
            written.append(written[-1] + full)
            bars.append(bars[-1] + full)
    starts, said_starts = np.array(written), np.array(bars, dtype=np.int64)
    bar = np.searchsorted(starts, onset, side="right") - 1
    onset = onset + (said_starts - starts)[bar]
    tempi = sorted((round(t.time / unit), float(t.qpm)) for t in score.tempos) or [(0, _TEMPO)]
    times = np.array([t[0] for t in tempi])
    which = np.maximum(np.searchsorted(times, starts[:-1], side="right") - 1, 0)
    found = Quantised(
        onset, length, pitch, program, np.maximum(velocity, 1), said_starts, tuple(metres),
        tuple(tempi[i][1] for i in which),
    )  # fmt: skip
    return _sorted(found)


def _metre_of(positions: int, near: tuple[int, int]) -> tuple[int, int]:
    """The metre of a bar so long, with the same unit if there is one; else the shortest that holds it."""
    known = [(bar_positions(*m), m[1] != near[1], m) for m in METRES if bar_positions(*m) >= positions]
    return min(known)[2] if known else near


def _sorted(q: Quantised) -> Quantised:
    """In order of onset, program, pitch, and without doubles."""
    order = np.lexsort((-q.length, q.pitch, q.program, q.onset))
    onset, pitch, program = q.onset[order], q.pitch[order], q.program[order]
    doubles = np.zeros(len(order), dtype=np.bool_)
    doubles[1:] = (np.diff(onset) == 0) & (np.diff(pitch) == 0) & (np.diff(program) == 0)
    kept = order[~doubles]
    return replace(
        q,
        onset=q.onset[kept],
        length=q.length[kept],
        pitch=q.pitch[kept],
        program=q.program[kept],
        velocity=q.velocity[kept],
    )


def scored(q: Quantised) -> ScoreTick:
    """The grid as a score at 480 ticks a quarter: one track a program, metre and tempo marks where they change."""
    score = ScoreTick(TICKS_PER_QUARTER)
    for program in dict.fromkeys(q.program.tolist()):
        track = TrackTick(program=program, is_drum=False, name="")
        for i in np.flatnonzero(q.program == program):
            time, length = int(q.onset[i]) * TICKS_PER_POSITION, int(q.length[i]) * TICKS_PER_POSITION
            track.notes.append(NoteTick(time, length, int(q.pitch[i]), int(q.velocity[i])))
        score.tracks.append(track)
    for index, begin in enumerate(q.bars[:-1]):
        tick = int(begin) * TICKS_PER_POSITION
        if not index or q.metres[index] != q.metres[index - 1]:
            score.time_signatures.append(TimeSignatureTick(tick, *q.metres[index]))
        if not index or q.tempi[index] != q.tempi[index - 1]:
            score.tempos.append(TempoTick(tick, q.tempi[index]))
    return score
