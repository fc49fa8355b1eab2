"""How much sounds, how high and how long: silence, density, polyphony, register, note lengths, consonance.

Dong et al. 2020, "MusPy: a toolkit for symbolic music generation" (ISMIR, arXiv 2008.01951); Yang & Lerch 2020, "On
the evaluation of generative models in music" (Neural Computing and Applications 32), MGEval.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from partbook.evaluation.reading import GRID, Reading

_CONSONANT: Final = np.array([[(a - b) % 12 in {0, 3, 4, 5, 7, 8, 9} for a in range(12)] for b in range(12)], np.int64)
"""Whether two pitch classes are, (12, 12): each with its inversion, so which is higher is the same."""


def sounding(reading: Reading) -> NDArray[np.int64]:
    """How many notes sound in each step from 0 to the last note's end, (end,)."""
    change = np.zeros(reading.end + 1, np.int64)
    np.add.at(change, reading.onset, 1)
    np.add.at(change, reading.onset + reading.duration, -1)
    return np.cumsum(change)[:-1]


def silence(reading: Reading) -> float:
    """Share of the time, from the first bar line to the last note's end, in which nothing sounds.

    Source: MusPy's empty-beat rate (Dong et al. 2020), in steps instead of beats.
    """
    return float((sounding(reading) == 0).mean())


def density(reading: Reading) -> float:
    """Notes per second.

    Source: MGEval's note count (Yang & Lerch 2020), over the piece's length.
    """
    return len(reading) / max(reading.seconds, 1e-9)


def density_per_quarter(reading: Reading) -> float:
    """Notes per quarter.

    Source: MGEval's note count (Yang & Lerch 2020), over the piece's length.
    """
    return len(reading) / reading.quarters


def polyphony(reading: Reading) -> float:
    """Mean number of notes that sound, over the time in which any does.

    Source: MusPy's polyphony (Dong et al. 2020).
    """
    counts = sounding(reading)
    return float(counts[counts > 0].mean())


def mean_pitch(reading: Reading) -> float:
    """Mean MIDI note number.

    Source: defined here.
    """
    return float(reading.pitch.mean())


def pitch_range(reading: Reading) -> float:
    """Semitones from the lowest to the highest note.

    Source: MusPy's and MGEval's pitch range (Dong et al. 2020; Yang & Lerch 2020).
    """
    return float(np.ptp(reading.pitch))


def note_length(reading: Reading) -> float:
    """Median length of a note, in quarters.

    Source: defined here.
    """
    return float(np.median(reading.duration)) / GRID


def note_length_entropy(reading: Reading) -> float:
    """Entropy of the lengths of notes, in bits.

    Source: of MGEval's note-length histogram (Yang & Lerch 2020), with a class for every twelfth of a quarter.
    """
    return entropy(np.unique(reading.duration, return_counts=True)[1])


def consonance(reading: Reading) -> float:
    """Share of pairs of notes that sound together (time-weighted) at a unison, third, fourth, fifth, sixth or octave.

    NaN where no two notes sound together. The perfect fourth counts as consonant, as it is between upper voices.

    Source: defined here, with the consonances of strict counterpoint and the fourth.
    """
    beginning = reading.pitch % 12 * (reading.end + 1) + reading.onset
    change = np.zeros(12 * (reading.end + 1), np.int64)
    np.add.at(change, beginning, 1)
    np.add.at(change, beginning + reading.duration, -1)
    count = change.reshape(12, -1).cumsum(axis=1)  # notes on each pitch class in each step
    every = int((count.sum(axis=0) * (count.sum(axis=0) - 1)).sum())  # each pair twice
    good = int((count * (_CONSONANT @ count)).sum()) - int(count.sum())
    return good / every if every else float("nan")


def entropy(counts: NDArray[np.int64] | NDArray[np.float64]) -> float:
    """Shannon entropy of counts, in bits."""
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log2(share)).sum()) + 0.0
