"""Public scores, parsed: in another key, and as recordings without sound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from symusic.core import ScoreTick

from partbook.music.notes import Notes
from partbook.music.recording import Recording
from partbook.music.tokens import HIGHEST_PITCH, LOWEST_PITCH, Tokenizer, bar_seconds, notes_of

KEYS: Final = range(-5, 7)  # semitones: every key once


@dataclass(frozen=True, slots=True)
class PublicScore:
    """A score of the base pool, parsed."""

    collection: str
    score: ScoreTick


def transposed(score: ScoreTick, semitones: int, program: int | None = None) -> ScoreTick:
    """A copy in another key, notes that leave the piano's range an octave back inside it."""
    moved = score.copy()
    for track in moved.tracks:
        for note in track.notes:
            pitch = note.pitch + semitones
            note.pitch = pitch - 12 if pitch > HIGHEST_PITCH else pitch + 12 if pitch < LOWEST_PITCH else pitch
        if program is not None:
            track.program = program
    return moved


def written(score: ScoreTick, tokenizer: Tokenizer) -> Recording:
    """A score as a recording without sound: its mel is empty."""
    ids = tokenizer.encode(score)
    starts = tokenizer.bar_starts(ids)
    notes: Notes = notes_of(score)
    end = float((notes.onset + notes.duration).max(initial=0.0))
    return Recording("", end, notes, ids, starts, bar_seconds(score, len(starts)), np.zeros((0, 128), np.float16))
