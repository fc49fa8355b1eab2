"""What free pieces are asked for: the headers of public works, so that each is of some kind, in some key, so long.

A training window's header says some things and leaves out others, so a model that is asked for nothing draws a header
that no work has. Here p(piece) = p(header) · p(piece | header), and the headers are those of works that trained the
base, as often as the human works that pieces are held against are of their collections. No note of these works is
given.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from symusic.core import ScoreTick

from partbook.corpus.library import Library, PublicWork
from partbook.errors import ScoreError
from partbook.evaluation.brief import QUARTERS
from partbook.music.quantised import Quantised, quantised
from partbook.music.tokens import Header
from partbook.music.vocabulary import BARS_LEFT, NUMBER, POSITIONS_PER_BEAT
from partbook.pretraining.mixture import density, key_name, polyphony
from partbook.pretraining.pieces import GENRES

_MOST: Final = round(QUARTERS * POSITIONS_PER_BEAT)  # positions of a piece


def openings(library: Library, styles: Sequence[str], count: int, *, seed: int) -> list[NDArray[np.int16]]:
    """What `count` free pieces begin with: the header of a score like those that trained the base.

    Genre, key, metre, tempo, density, polyphony, bars and instrument are a random work's of the same collection; a work
    longer than 64 quarter notes says how many bars fill these. A collection without a base pool gives its genre alone.

    Args:
        library: where works are.
        styles: the collections of the human works that pieces are held against.
        count: pieces.
        seed: of the draw.
    """
    random = np.random.Generator(np.random.Philox(seed))
    drawn = [styles[place] for place in random.integers(len(styles), size=count)] if styles else [""] * count
    chosen: list[PublicWork | None] = []
    for style in drawn:
        works = library.pool(style, "base") if style in library.collections else ()
        chosen.append(works[int(random.integers(len(works)))] if works else None)
    scores = iter(library.each_score([work for work in chosen if work is not None]))
    found = []
    for style, work in zip(drawn, chosen, strict=True):
        score = None if work is None else next(scores)
        found.append(np.array(_asked(score, GENRES.get(style)), dtype=np.int16))
    return found


def header(music: Quantised, genre: str | None) -> list[int]:
    """The symbols of a header that asks for a piece like the first 64 quarter notes of this one."""
    fitting = max(int(np.searchsorted(music.bars, _MOST, side="right")) - 1, 1)
    bars = max(step for step in BARS_LEFT if step <= min(len(music), fitting))
    part = music.cut(0, bars)
    asked = Header(
        genre=genre,
        key=key_name(part) if len(part.pitch) else None,
        density=density(part),
        polyphony=polyphony(part) if len(part.pitch) else None,
        bars=bars,
    )
    return asked.symbols(part.metres[0], part.tempi[0], list(dict.fromkeys(part.program.tolist())) or [0])


def _asked(score: ScoreTick | None, genre: str | None) -> list[int]:
    if score is not None:
        with contextlib.suppress(ScoreError):  # drums alone
            return header(quantised(score), genre)
    return [NUMBER["Hand_score"], *(() if genre is None else (NUMBER[f"Genre_{genre}"],))]
