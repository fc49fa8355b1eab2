"""How a set sounds to the embedder, beside how human works sound: Fréchet audio distance and inception-style score.

Every piece is played on one piano, so it is the music that differs and not the instrument.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from partbook.evaluation.clips import Heard, hear
from partbook.evaluation.estimates import Estimate
from partbook.evaluation.frechet import frechet
from partbook.evaluation.inception import inception
from partbook.evaluation.reading import Reading
from partbook.evaluation.results import Listening

CLIPS: Final = 50  # of a set
SECONDS: Final = 20.0  # of a clip
_FEWEST: Final = 4  # clips a distance is taken of


class Ears:
    """The embedder, and what it made of the reference."""

    def __init__(self, reference: Sequence[Reading], *, seed: int, on_clip: Callable[[str], None]) -> None:
        """Listen to at most `CLIPS` of the reference, drawn by the seed."""
        self._seed = seed
        self._reference = self._heard(reference, on_clip)

    def clips_of(self, count: int) -> int:
        """How many clips of a set of so many pieces are heard."""
        return min(count, CLIPS)

    def hear(self, pieces: Sequence[Reading], *, on_clip: Callable[[str], None]) -> Listening:
        """Listen to at most `CLIPS` of the pieces, drawn by the seed, and compare."""
        heard = self._heard(pieces, on_clip)
        if min(len(heard.clips), len(self._reference.clips)) < _FEWEST:
            return Listening(Estimate.nothing(), Estimate.nothing(), len(heard.clips))
        # Shrunk, because a set of short clips has few patches for two hundred dimensions.
        distance = frechet(heard.features, self._reference.features, covariance="ledoit-wolf", seed=self._seed)
        return Listening(distance, inception(heard.tags, seed=self._seed), len(heard.clips))

    def _heard(self, pieces: Sequence[Reading], on_clip: Callable[[str], None]) -> Heard:
        random = np.random.Generator(np.random.Philox(self._seed))
        chosen = sorted(random.permutation(len(pieces))[:CLIPS])
        scores = [pieces[index].score() for index in chosen]
        return hear(scores, seconds=SECONDS, on_clip=lambda count: on_clip(f"clip {count}"))
