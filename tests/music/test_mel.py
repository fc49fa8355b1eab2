"""The past of a window."""

from __future__ import annotations

import numpy as np

from partbook.music.mel import BANDS, FRAMES_PER_SECOND, MEMORY_FRAMES, memory_before


def test_the_past_ends_at_its_second_behind_silence_and_there_is_none_at_the_start() -> None:
    mel = np.zeros((1000, BANDS), np.float16)
    past = memory_before(mel, 2.0)
    assert past is not None
    assert past.shape == (MEMORY_FRAMES, BANDS)
    assert (past[:, 0] == 0).sum() == round(2 * FRAMES_PER_SECOND)
    assert (past[0] == -1).all()
    assert memory_before(mel, 0.5) is None
