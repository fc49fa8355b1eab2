"""Chords of music on the grid, one a beat: what a chord chart would say of it.

Every chord of the vocabulary scores by how much of what sounds in a beat is its own and how much is not, with a bonus
where its root is the lowest note; the best path through the beats pays for every change (Viterbi 1967). Templates of
binary pitch classes: Fujishima 1999, "Realtime chord recognition of musical sound", ICMC; change penalties as in
Sheh & Ellis 2003, ISMIR.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from partbook.music.quantised import Quantised
from partbook.music.vocabulary import CHORD_KINDS, CHORDS, NUMBER, POSITIONS_PER_BEAT

_INTERVALS: Final = {
    "": (0, 4, 7),
    "m": (0, 3, 7),
    "7": (0, 4, 7, 10),
    "maj7": (0, 4, 7, 11),
    "m7": (0, 3, 7, 10),
    "dim": (0, 3, 6),
}
CHANGE: Final = 0.6  # what a change of chord costs, in beats of sound
_FOREIGN: Final = 1.2  # what a note outside a chord costs, over what one inside gains
_SEVENTH: Final = 0.25  # what a fourth note costs, so that triads stay triads
_ROOT: Final = 0.3  # gain of a root in the bass
_NONE: Final = 0.15  # score of "none": what silence gets, and chords have to beat


def _templates() -> NDArray[np.float64]:
    rows = np.full((len(CHORDS) - 1, 12), -_FOREIGN)
    for kind, name in enumerate(CHORD_KINDS):
        for root in range(12):
            rows[12 * kind + root, [(root + i) % 12 for i in _INTERVALS[name]]] = 1.0
    return rows


_TEMPLATES: Final = _templates()
_ROOTS: Final = np.tile(np.arange(12), len(CHORD_KINDS))
_COSTS: Final = np.repeat([_SEVENTH * (len(_INTERVALS[name]) > 3) for name in CHORD_KINDS], 12)


def beats_of(music: Quantised) -> NDArray[np.int64]:
    """Positions at which beats begin, bar by bar: dotted quarters in 6/8, 9/8 and 12/8, else quarters."""
    found: list[int] = []
    for begin, end, (numerator, denominator) in zip(music.bars[:-1], music.bars[1:], music.metres, strict=True):
        compound = denominator == 8 and numerator in (6, 9, 12)
        found += range(int(begin), int(end), POSITIONS_PER_BEAT * 3 // 2 if compound else POSITIONS_PER_BEAT)
    return np.array(found, dtype=np.int64)


def chords_of(music: Quantised) -> dict[int, int]:
    """The symbol of each chord at the position where it begins: at beats, the first at 0, none twice in a row."""
    beats = beats_of(music)
    sounding, lowest = _sounding(music, beats)
    emission = np.zeros((len(beats), len(CHORDS)))
    emission[:, :-1] = sounding @ _TEMPLATES.T - _COSTS + _ROOT * (lowest[:, None] == _ROOTS)
    emission[:, -1] = _NONE
    best, back = emission[0], np.zeros((len(beats), len(CHORDS)), dtype=np.int64)
    for beat in range(1, len(beats)):
        leader = int(best.argmax())
        stays = best >= best[leader] - CHANGE
        back[beat] = np.where(stays, np.arange(len(CHORDS)), leader)
        best = np.where(stays, best, best[leader] - CHANGE) + emission[beat]
    path = [int(best.argmax())]
    for beat in range(len(beats) - 1, 0, -1):
        path.append(int(back[beat, path[-1]]))
    found: dict[int, int] = {}
    last = -1
    for position, chord in zip(beats.tolist(), reversed(path), strict=True):
        if chord != last:
            found[position] = NUMBER[f"Chord_{CHORDS[chord]}"]
            last = chord
    return found


def _sounding(music: Quantised, beats: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Share of each beat's sound on each pitch class, (beats, 12), and its lowest note's pitch class, -1 for none."""
    sounding, lowest = np.zeros((len(beats), 12)), np.full(len(beats), 999, dtype=np.int64)
    edges = np.append(beats, music.bars[-1])
    for onset, length, pitch in zip(music.onset.tolist(), music.length.tolist(), music.pitch.tolist(), strict=True):
        first = int(np.searchsorted(edges, onset, side="right")) - 1
        for beat in range(first, len(beats)):
            heard = min(onset + length, int(edges[beat + 1])) - max(onset, int(edges[beat]))
            if heard <= 0:
                break
            sounding[beat, pitch % 12] += heard
            lowest[beat] = min(lowest[beat], pitch)
    total = sounding.sum(axis=1, keepdims=True)
    return sounding / np.maximum(total, 1), np.where(lowest < 999, lowest % 12, -1)
