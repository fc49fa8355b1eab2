"""A few short tunes, as scores and as recordings, for tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from symusic.core import ScoreTick

from partbook.music.mel import FRAMES_PER_SECOND
from partbook.music.quantised import quantised
from partbook.music.recording import Recording
from partbook.music.tokens import Header, Tokenizer, bar_seconds, notes_of, symbols_of
from partbook.music.vocabulary import Hand
from partbook.simulation.collections import own_temporary_folder

TUNES = [
    "X:1\nT:Rising\nM:4/4\nL:1/8\nQ:1/4=112\nK:C\nCDEF GABc|dcBA GFED|CEGc ecGE|DFAd fdAF|C8|]\n",
    "X:2\nT:Jig\nM:6/8\nL:1/8\nQ:3/8=100\nK:G\nGBd gdB|AcA FAD|GBd gdB|cAF G3:|\n",
    "X:3\nT:Chords\nM:3/4\nL:1/4\nQ:1/4=90\nK:F\n[FAc]2 c|[GBd]2 d|[Ace]2 e|[FAc]3|[DFA]2 A|[CEG]2 G|[FAc]3|]\n",
]


def tune(index: int) -> ScoreTick:
    """One of a few short tunes, repeated until it lasts about half a minute."""
    with own_temporary_folder():
        return ScoreTick.from_abc(TUNES[index % len(TUNES)]).resample(480, min_dur=1)


def tokenizer_of(scores: Sequence[ScoreTick], size: int) -> Tokenizer:
    """A tokeniser whose merges are learnt from scores, in three keys each."""
    music = [quantised(score).transposed(semitones) for score in scores for semitones in (-2, 0, 3)]
    return Tokenizer.train([symbols_of(piece, Header()) for piece in music], size)


def recording_of(score: ScoreTick, tokenizer: Tokenizer, seed: int = 0, hand: Hand = "score") -> Recording:
    """A score as a recording; its mel is seeded noise, since nobody listens."""
    ids = tokenizer.encode(score, hand=hand)
    starts = tokenizer.bar_starts(ids)
    notes = notes_of(score)
    seconds = float((notes.onset + notes.duration).max())
    random = np.random.default_rng(seed)
    mel = random.uniform(-1, 1, (int(seconds * FRAMES_PER_SECOND), 128)).astype(np.float16)
    return Recording(f"tune {seed}", seconds, notes, ids, starts, bar_seconds(score, len(starts)), mel)
