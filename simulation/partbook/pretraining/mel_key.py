"""Mel in another key, without hearing the sound again."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from partbook.music.mel import BANDS, SAMPLE_RATE


def transposed(mel: NDArray[np.float16], semitones: int) -> NDArray[np.float16]:
    """About the mel of the same sound played so many semitones higher: its bands moved, its formants with them.

    Args:
        mel: (frames, 128) in [-1, 1], as of `log_mel`.
        semitones: up, or down where negative. What comes in from beyond the highest band is silence.
    """
    place, share = _moved(semitones)
    padded = np.pad(mel.astype(np.float32), ((0, 0), (0, 2)), constant_values=-1.0)
    result: NDArray[np.float16] = (padded[:, place] * (1 - share) + padded[:, place + 1] * share).astype(np.float16)
    return result


@functools.cache
def _moved(semitones: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """For each band, the band below the frequency that is moved to its centre, and how far above that it lies."""
    import librosa

    centre = librosa.mel_frequencies(BANDS + 2, fmax=SAMPLE_RATE / 2)[1:-1]
    band = np.interp(centre / 2 ** (semitones / 12), centre, np.arange(BANDS), right=BANDS)
    place = np.floor(band).astype(np.int64)
    return place, (band - place).astype(np.float32)
