"""The melody of a piece: its skyline, as steps that neither transposition nor tempo changes.

Skyline: of the notes that begin together the highest, left out where the melody's last note still sounds above it
(after Uitdenbogerd & Zobel 1998, "Manipulation of music for melody matching", ACM Multimedia, their "all-mono", which
cuts the last note short instead). Notes under a higher one that is not the last do count: without them the skyline of
random notes would be their upper edge, and smoother than a melody.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from partbook.evaluation.reading import Reading


@dataclass(frozen=True, slots=True)
class Melody:
    """M notes of one voice.

    Attributes:
        onset: steps, increasing, int64 (M,).
        duration: steps, int64 (M,).
        pitch: MIDI note numbers, int64 (M,).
    """

    onset: NDArray[np.int64]
    duration: NDArray[np.int64]
    pitch: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.onset)

    @property
    def intervals(self) -> NDArray[np.int64]:
        """Semitones from each note to the next, (M - 1,)."""
        return np.diff(self.pitch)

    @property
    def waits(self) -> NDArray[np.int64]:
        """Steps from each onset to the next, (M - 1,)."""
        return np.diff(self.onset)


def melody(reading: Reading) -> Melody:
    """The skyline of a piece."""
    last = np.flatnonzero(np.r_[np.diff(reading.onset) > 0, True])  # ordered by onset, then pitch: the highest
    if len(last) == len(reading) and (reading.onset[1:] >= (reading.onset + reading.duration)[:-1]).all():
        return Melody(reading.onset, reading.duration, reading.pitch)  # one voice as it is
    onsets, ends, pitches = reading.onset.tolist(), (reading.onset + reading.duration).tolist(), reading.pitch.tolist()
    kept = [int(last[0])]
    for index in last[1:].tolist():
        if onsets[index] >= ends[kept[-1]] or pitches[index] >= pitches[kept[-1]]:
            kept.append(index)
    chosen = np.array(kept, dtype=np.int64)
    return Melody(reading.onset[chosen], reading.duration[chosen], reading.pitch[chosen])


def attacks(reading: Reading) -> NDArray[np.int64]:
    """The steps at which something begins, each once."""
    return np.unique(reading.onset)


def runs(values: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Every run of `length` successive rows of `values` (N,) or (N, k) as one row, (N - length + 1, length · k)."""
    rows = values[:, None] if values.ndim == 1 else values
    count = len(rows) - length + 1
    if count <= 0:
        return np.zeros((0, length * rows.shape[1]), np.int64)
    return np.concatenate([rows[i : i + count] for i in range(length)], axis=1)


def first_seen(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each row the index of the first row equal to it, (N,)."""
    if not len(rows):
        return np.zeros(0, np.int64)
    _, index, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    found: NDArray[np.int64] = index[inverse.ravel()]
    return found
