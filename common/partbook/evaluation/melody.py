"""The melody of a piece: its skyline, as steps that neither transposition nor tempo changes.

Skyline: of the notes that begin together the highest, left out where a higher note still sounds (after Uitdenbogerd &
Zobel 1998, "Manipulation of music for melody matching", ACM Multimedia, their "all-mono").
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
    first = np.flatnonzero(np.r_[True, np.diff(reading.onset) > 0])
    last = np.r_[first[1:], len(reading)] - 1  # notes are ordered by onset, then pitch: the last is the highest
    kept: list[int] = []
    sounding_until, sounding_pitch = -1, -1
    for index in last:
        onset, pitch = int(reading.onset[index]), int(reading.pitch[index])
        if onset < sounding_until and pitch < sounding_pitch:
            continue
        kept.append(int(index))
        sounding_until, sounding_pitch = onset + int(reading.duration[index]), pitch
    chosen = np.array(kept, dtype=np.int64)
    return Melody(reading.onset[chosen], reading.duration[chosen], reading.pitch[chosen])


def attacks(reading: Reading) -> NDArray[np.int64]:
    """The steps at which something begins, each once."""
    return np.unique(reading.onset)


def runs(values: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Every run of `length` successive rows of `values` (N,) or (N, k) as one row, (N - length + 1, length · k)."""
    rows = values.reshape(len(values), -1)
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
