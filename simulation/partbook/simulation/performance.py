"""Playing a score the way a person might: phrases swell, downbeats weigh more, no two notes are struck alike.

Public scores carry one velocity throughout; recordings do not. Timing is left as written.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from symusic.core import ScoreTick

INSTRUMENTS: Final = (0, 6, 11, 12, 24, 25, 46, 73, 74, 105)  # General MIDI; all have an attack that ears can find
MEAN_VELOCITY: Final = 72
SWELL: Final = 12  # velocity units, peak of a phrase over its mean
ACCENT: Final = 8  # on the beat
JITTER: Final = 5  # standard deviation per note
PHRASE_BEATS: Final = (8, 17)


def perform(score: ScoreTick, random: np.random.Generator) -> ScoreTick:
    """A copy with played velocities, 24–120; everything else is unchanged."""
    played = score.copy()
    beat = score.ticks_per_quarter
    phrase = beat * int(random.integers(*PHRASE_BEATS))
    offset = int(random.integers(phrase))
    for track in played.tracks:
        for note in track.notes:
            swell = SWELL * np.sin(np.pi * (((note.time + offset) % phrase) / phrase) * 2 - np.pi / 2)
            accent = ACCENT if note.time % beat == 0 else 0.0
            velocity = MEAN_VELOCITY + swell + accent + JITTER * random.standard_normal()
            note.velocity = int(np.clip(round(velocity), 24, 120))
    return played
