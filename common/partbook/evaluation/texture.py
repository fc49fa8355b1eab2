"""How much sounds, how high and how long: silence, density, polyphony, register, note lengths.

Polyphony and pitch range as in MusPy (Dong et al. 2020, arXiv 2008.01951, §3.5); note lengths and density as in
MGEval (Yang & Lerch 2020, "On the evaluation of generative models in music", Neural Computing and Applications 32).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from partbook.evaluation.reading import GRID, Reading

_CONSONANT: Final = np.isin(np.arange(12), (0, 3, 4, 5, 7, 8, 9))


def sounding(reading: Reading) -> NDArray[np.int64]:
    """How many notes sound in each step from 0 to the last note's end, (end,)."""
    change = np.zeros(reading.end + 1, np.int64)
    np.add.at(change, reading.onset, 1)
    np.add.at(change, reading.onset + reading.duration, -1)
    return np.cumsum(change)[:-1]


def silence(reading: Reading) -> float:
    """Share of the time, from the first bar line to the last note's end, in which nothing sounds."""
    return float((sounding(reading) == 0).mean())


def density(reading: Reading) -> float:
    """Notes per second."""
    return len(reading) / max(reading.seconds, 1e-9)


def density_per_quarter(reading: Reading) -> float:
    """Notes per quarter."""
    return len(reading) / reading.quarters


def polyphony(reading: Reading) -> float:
    """Mean number of notes that sound, over the time in which any does."""
    counts = sounding(reading)
    return float(counts[counts > 0].mean())


def mean_pitch(reading: Reading) -> float:
    """Mean MIDI note number."""
    return float(reading.pitch.mean())


def pitch_range(reading: Reading) -> float:
    """Semitones from the lowest to the highest note."""
    return float(np.ptp(reading.pitch))


def note_length(reading: Reading) -> float:
    """Median length of a note, in quarters."""
    return float(np.median(reading.duration)) / GRID


def note_length_entropy(reading: Reading) -> float:
    """Entropy of the lengths of notes, in bits."""
    return entropy(np.unique(reading.duration, return_counts=True)[1])


def consonance(reading: Reading) -> float:
    """Share of pairs of notes that sound together (time-weighted) at a unison, third, fourth, fifth, sixth or octave.

    NaN where no two notes sound together. The perfect fourth counts as consonant, as it is between upper voices.
    """
    end = reading.onset + reading.duration
    good = total = 0
    for i in range(len(reading)):
        j = slice(i + 1, int(np.searchsorted(reading.onset, end[i], side="left")))
        together = np.minimum(end[j], end[i]) - reading.onset[j]
        kind = _CONSONANT[np.abs(reading.pitch[j] - reading.pitch[i]) % 12]
        good += int(together[kind].sum())
        total += int(together.sum())
    return good / total if total else float("nan")


def entropy(counts: NDArray[np.int64] | NDArray[np.float64]) -> float:
    """Shannon entropy of counts, in bits."""
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log2(share)).sum()) + 0.0
