"""Mel in another key, and the past of a window."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from partbook.music.mel import BANDS, FRAMES_PER_SECOND, MEMORY_FRAMES, SAMPLE_RATE, log_mel, memory_before, transposed


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


def test_the_past_ends_at_its_second_behind_silence_and_there_is_none_at_the_start() -> None:
    mel = np.zeros((1000, BANDS), np.float16)
    past = memory_before(mel, 2.0)
    assert past is not None
    assert past.shape == (MEMORY_FRAMES, BANDS)
    assert (past[:, 0] == 0).sum() == round(2 * FRAMES_PER_SECOND)
    assert (past[0] == -1).all()
    assert memory_before(mel, 0.5) is None
