"""Performances put on a grid: MIDI whose notes are in time, but not on the file's beats, and whose bars are not said.

Recordings that people wrote down as MIDI (POP909) keep the recording's time: the tempo is right, every beat lies off
the file's by the same share of a quarter, and the metre says 1/4. Such a file is moved by that share. One whose notes
keep to no grid at all gets the beats that a node would hear in it. Bars then begin where basses and long notes do.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from symusic.core import ScoreTick, TempoTick, TimeSignatureTick, TrackTick

from partbook.music.notation import score_of
from partbook.music.notes import Notes
from partbook.music.tokens import TICKS_PER_QUARTER, notes_of
from partbook.vault.beats import find_beats

KEPT: Final = 0.5  # mean resultant length of onsets against sixteenths from which on a grid is kept to
NEAR: Final = 1 / 48  # quarters within which onsets are on the file's own grid
TRIPLE: Final = 0.15  # how much more of the bass one beat in three must have than one in four
_BLOCK: Final = 32  # quarters over which onsets are compared with a grid
_BASS: Final = 55  # MIDI number below which a note is bass
_DUPLE_ACCENTS: Final = np.array([5, 0, 1, 0, 2, 0, 1, 0, 3, 0, 1, 0, 2, 0, 1, 0], dtype=np.float64)  # sixteenths
_TRIPLE_ACCENTS: Final = np.array([5, 0, 1, 0, 2, 0, 1, 0, 2, 0, 1, 0], dtype=np.float64)


def on_grid(score: ScoreTick) -> ScoreTick:
    """The score with its notes on its beats; itself where they are, and its metre says more than 1/4.

    Args:
        score: at 480 ticks a quarter.

    Returns:
        At 480 ticks a quarter. Moved as a whole, or, where no grid was kept to, written down on the beats found, on one
        track. Unsaid bars are 4/4, or 3/4 where the bass says so; music that begins before a bar line gets rests in
        front.
    """
    onset = np.array([n.time for t in score.tracks for n in t.notes], dtype=np.float64) / TICKS_PER_QUARTER
    said = {(m.numerator, m.denominator) for m in score.time_signatures} - {(1, 4)}
    if len(onset) < 16:
        return score
    kept, offset = grid_of(onset)
    if kept >= KEPT and abs(offset) <= NEAR and said:
        return score
    if kept < KEPT:
        heard = _on_heard_beats(score)
        onset = np.array([n.time for t in heard.tracks for n in t.notes], dtype=np.float64) / TICKS_PER_QUARTER
        better, moved = grid_of(onset)
        if better <= kept:
            return score
        score, offset = heard, moved
    return _barred(score, offset, triple=(3, 4) in said if said else None)


def grid_of(onset: NDArray[np.float64]) -> tuple[float, float]:
    """How closely onsets, in quarters, keep to sixteenths, 0 to 1, and by how many quarters they come late.

    The mean resultant length (Mardia & Jupp 2000, "Directional Statistics", §2.3) over stretches of 32 quarters,
    weighed by their notes, and the mean direction.
    """
    turned = np.exp(2j * np.pi * 4 * onset)
    block = (onset // _BLOCK).astype(np.int64)
    sums = np.bincount(block, turned.real) + 1j * np.bincount(block, turned.imag)
    return float(np.abs(sums).sum() / len(onset)), float(np.angle(turned.sum()) / (2 * np.pi * 4))


def _on_heard_beats(score: ScoreTick) -> ScoreTick:
    notes: Notes = notes_of(score)
    beats = find_beats(notes, float((notes.onset + notes.duration).max()) + 1.0)
    program = next(t.program for t in score.tracks if len(t.notes))
    return score_of(notes, beats.seconds, program, beats_per_minute=beats.beats_per_minute, heard=False)


def _barred(score: ScoreTick, offset: float, *, triple: bool | None) -> ScoreTick:
    notes = [n for t in score.tracks for n in t.notes]
    place = np.round((np.array([n.time for n in notes]) / TICKS_PER_QUARTER - offset) * 4).astype(np.int64)
    weight = np.array([min(n.duration / TICKS_PER_QUARTER, 2.0) * (3.0 if n.pitch < _BASS else 1.0) for n in notes])
    if triple is None:
        bass = np.array([n.pitch < _BASS for n in notes])
        triple = bool(bass.any()) and _is_triple(place[bass], weight[bass])
    accents = _TRIPLE_ACCENTS if triple else _DUPLE_ACCENTS
    fits = [float((weight * accents[(place - first) % len(accents)]).sum()) for first in range(len(accents))]
    first = int(np.argmax(fits))
    bar = len(accents)
    earliest = int(place.min())
    rest = -(-max(first - earliest, 0) // bar) * bar  # sixteenths: whole bars, so that nothing begins before the first
    shift = round((-offset - first / 4 + rest / 4) * TICKS_PER_QUARTER)
    moved = ScoreTick(TICKS_PER_QUARTER)
    for track in score.tracks:
        line = TrackTick(track.name, track.program, track.is_drum)
        for note in track.notes:
            note = note.copy()
            note.time = max(note.time + shift, 0)
            line.notes.append(note)
        moved.tracks.append(line)
    for number, tempo in enumerate(score.tempos):
        moved.tempos.append(TempoTick(max(tempo.time + shift, 0) if number else 0, mspq=tempo.mspq))
    moved.time_signatures.append(TimeSignatureTick(0, 3 if triple else 4, 4))
    return moved.sort()


def _is_triple(place: NDArray[np.int64], weight: NDArray[np.float64]) -> bool:
    """Whether more of the bass is on one beat in three than on one in four."""
    beat = int(np.bincount(place % 4, weight, minlength=4).argmax())
    on = place % 4 == beat
    beats = (place[on] - beat) // 4
    return _fullest(beats, weight[on], 3) > TRIPLE + _fullest(beats, weight[on], 4)


def _fullest(beat: NDArray[np.int64], weight: NDArray[np.float64], period: int) -> float:
    """Share of the weight on the fullest beat of a period."""
    shares = np.bincount(beat % period, weight, minlength=period)
    return float(shares.max() / shares.sum())
