"""Public scores as recordings without sound: what a model is scored on, and what stands in where none is played."""

from __future__ import annotations

import numpy as np
from symusic.core import ScoreTick

from partbook.music.mel import BANDS
from partbook.music.recording import Recording
from partbook.music.tokens import Tokenizer, bar_seconds, notes_of
from partbook.music.vocabulary import Hand


def written(score: ScoreTick, tokenizer: Tokenizer, *, hand: Hand = "score") -> Recording:
    """A score as a recording whose mel is empty.

    Raises:
        ScoreError: it has no note that can be written.
    """
    ids = tokenizer.encode(score, hand=hand)
    starts = tokenizer.bar_starts(ids)
    notes = notes_of(score)
    end = float((notes.onset + notes.duration).max(initial=0.0))
    return Recording("", end, notes, ids, starts, bar_seconds(score, len(starts)), np.zeros((0, BANDS), np.float16))
