"""Mel in another key, beside the mel of the sound in that key."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from partbook.music.mel import BANDS, SAMPLE_RATE, log_mel
from partbook.pretraining.mel_key import transposed


def tone(pitch: int) -> NDArray[np.float32]:
    """Two seconds of a note with eight partials."""
    frequency = 440.0 * 2 ** ((pitch - 69) / 12)
    time = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    return sum(0.05 / k * np.sin(2 * np.pi * frequency * k * time) for k in range(1, 9)).astype(np.float32)  # type: ignore[union-attr]


@pytest.mark.parametrize("semitones", [-5, -1, 4, 6])
def test_a_mel_in_another_key_is_nearly_that_of_the_sound_in_that_key(semitones: int) -> None:
    own, wanted = log_mel(tone(60)), log_mel(tone(60 + semitones)).astype(np.float32)
    moved = transposed(own, semitones)
    assert moved.shape == own.shape
    assert moved.dtype == np.float16
    assert np.abs(moved - wanted).mean() < np.abs(own - wanted).mean() / 3


def test_a_mel_in_its_own_key_is_what_it_was_and_what_comes_from_above_is_silent() -> None:
    mel = log_mel(tone(72))
    assert np.array_equal(transposed(mel, 0), mel)
    assert (transposed(np.zeros((3, BANDS), np.float16), -12)[:, -8:] == -1).all()
    assert (transposed(np.zeros((3, BANDS), np.float16), 12) == 0).all()
