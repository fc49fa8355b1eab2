"""Notes as they are performed: onsets and durations in seconds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from partbook.errors import ScoreError


@dataclass(frozen=True, slots=True)
class Notes:
    """N notes of one instrument, sorted by onset, then pitch.

    Attributes:
        onset: seconds from the start of the recording, float64 (N,).
        duration: seconds, > 0, float64 (N,).
        pitch: MIDI note numbers, uint8 (N,).
        velocity: MIDI velocities 1–127, uint8 (N,).
    """

    onset: NDArray[np.float64]
    duration: NDArray[np.float64]
    pitch: NDArray[np.uint8]
    velocity: NDArray[np.uint8]

    def __post_init__(self) -> None:
        if not len(self.onset) == len(self.duration) == len(self.pitch) == len(self.velocity):
            raise ScoreError("The four arrays of notes differ in length; give one entry per note in each.")

    def __len__(self) -> int:
        return len(self.onset)

    @classmethod
    def from_rows(cls, rows: list[tuple[float, float, int, int]]) -> Notes:
        """Notes from rows of (onset s, duration s, pitch, velocity), in any order."""
        rows = sorted(rows, key=lambda row: (row[0], row[2]))
        onset, duration, pitch, velocity = zip(*rows, strict=True) if rows else ((), (), (), ())
        return cls(
            np.array(onset, dtype=np.float64),
            np.array(duration, dtype=np.float64),
            np.array(pitch, dtype=np.uint8),
            np.array(velocity, dtype=np.uint8),
        )
