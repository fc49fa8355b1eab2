"""Where the music breathes: phrases, how they end, and whether the piece itself ends.

A phrase ends where the melody's local boundary detection peaks (LBDM: Cambouropoulos 2001, "The local boundary
detection model and its application in the study of expressive timing", ICMC; weights .25 pitch, .5 onset, .25 rest).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from partbook.evaluation.melody import Melody, melody
from partbook.evaluation.reading import GRID, Reading
from partbook.evaluation.tonality import Key, key

_WEIGHTS: Final = (0.25, 0.5, 0.25)
_SHORTEST: Final = 4  # notes between two boundaries
_TRIAD: Final = {False: (0, 4, 7), True: (0, 3, 7)}


def boundary_strengths(line: Melody) -> NDArray[np.float64]:
    """LBDM's strength of a boundary after each note but the last, 0 to 1, (M - 1,)."""
    if len(line) < 3:
        return np.zeros(max(len(line) - 1, 0))
    rest = np.maximum(line.waits - line.duration[:-1], 0)
    total = np.zeros(len(line) - 1)
    for weight, interval in zip(_WEIGHTS, (np.abs(line.intervals), line.waits, rest), strict=True):
        x = interval.astype(np.float64)
        sums = x[:-1] + x[1:]
        change = np.divide(np.abs(np.diff(x)), sums, out=np.zeros(len(sums)), where=sums > 0)
        strength = x * (np.r_[0.0, change] + np.r_[change, 0.0])
        total += weight * strength / max(float(strength.max()), 1e-9)
    return total


def boundaries(line: Melody) -> NDArray[np.int64]:
    """Indices of the notes that end a phrase, the last note always among them, increasing."""
    strength = boundary_strengths(line)
    if not len(strength):
        return np.array([len(line) - 1], dtype=np.int64)
    limit = float(strength.mean() + strength.std())
    chosen: list[int] = []
    for index in np.argsort(-strength, kind="stable"):
        if strength[index] <= limit + 1e-9:  # a rhythm without any boundary has one strength, but for rounding
            break
        if all(abs(int(index) - other) >= _SHORTEST for other in chosen) and len(line) - 1 - index >= _SHORTEST:
            chosen.append(int(index))
    return np.array([*sorted(chosen), len(line) - 1], dtype=np.int64)


def phrase_lengths(reading: Reading) -> NDArray[np.float64]:
    """Length of each phrase in quarters: from its first onset to the next phrase's, the last to its last note's end."""
    line = melody(reading)
    ends = boundaries(line)
    starts = np.r_[0, ends[:-1] + 1]
    edges = np.r_[line.onset[starts], line.onset[-1] + line.duration[-1]]
    return np.asarray(np.diff(edges) / GRID, dtype=np.float64)


def phrase_length(reading: Reading) -> float:
    """Median length of a phrase, in quarters; NaN under two phrases.

    Source: defined here, on the boundaries of Cambouropoulos 2001.
    """
    lengths = phrase_lengths(reading)
    return float(np.median(lengths)) if len(lengths) > 1 else float("nan")


def phrase_regularity(reading: Reading) -> float:
    """Share of phrases, the last left out, that last whole bars to within a sixteenth; NaN under three phrases.

    Source: defined here, on the boundaries of Cambouropoulos 2001.
    """
    lengths = phrase_lengths(reading)[:-1]
    if len(lengths) < 2:
        return float("nan")
    bar = float(np.median(np.diff(reading.bars))) / GRID
    off = np.abs(lengths / bar - np.round(lengths / bar)) * bar
    return float(((off <= 0.25) & (lengths >= 0.75 * bar)).mean())


def cadences(reading: Reading) -> float:
    """Share of phrases that close: from their last note to the next is longer than the median of the melody, and what
    sounds as it begins is part of the triad on the tonic or on the dominant of the piece's key. NaN under two phrases.

    Source: defined here, on the boundaries of Cambouropoulos 2001 and the key of Krumhansl & Kessler 1982.
    """
    line, home = melody(reading), key(reading)
    ends = boundaries(line)
    if len(ends) < 2:
        return float("nan")
    usual = float(np.median(line.waits)) if len(line) > 1 else 0.0
    closed = 0
    for index in ends:
        onset = int(line.onset[index])
        length = int(line.duration[index])
        if index + 1 < len(line):
            length = max(length, int(line.onset[index + 1]) - onset)
        closed += length > usual and _rests_on(_sounding_at(reading, onset), home)
    return closed / len(ends)


def ending(reading: Reading) -> float:
    """Whether the piece ends: half for the tonic as the lowest note that sounds at the last attack, half for a last
    attack that is held.

    Held: at least one and a half times the median length of a note. Of the whole piece, not of a window.

    Source: defined here, on the key of Krumhansl & Kessler 1982.
    """
    last = int(reading.onset[-1])
    lowest = int(_sounding_at(reading, last).min())
    held = int(reading.duration[reading.onset == last].max()) >= 1.5 * float(np.median(reading.duration))
    return 0.5 * (lowest % 12 == key(reading).tonic) + 0.5 * held


def _sounding_at(reading: Reading, step: int) -> NDArray[np.int64]:
    inside = (reading.onset <= step) & (reading.onset + reading.duration > step)
    return reading.pitch[inside]


def _rests_on(pitches: NDArray[np.int64], home: Key) -> bool:
    tonic = {(home.tonic + step) % 12 for step in _TRIAD[home.minor]}
    dominant = {(home.tonic + 7 + step) % 12 for step in _TRIAD[False]}
    sounding = {int(p) % 12 for p in pitches}
    return sounding <= tonic or sounding <= dominant
