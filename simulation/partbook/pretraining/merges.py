"""The base's tokeniser: byte-pair merges learnt from excerpts of public music of both hands, in all keys.

Excerpts are drawn as training windows are (`mixture.Drawer`), so a collection's share of the merges is its share of the
training. The same pieces give the same tokeniser.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from partbook.music.tokens import Header, Tokenizer, symbols_of
from partbook.pretraining.mixture import KEYS, Drawer, Piece

WRITTEN: Final = 4_000  # excerpts
HEARD: Final = 1_000
BARS: Final = 32  # of a written excerpt; a take is as short as it is


def learnt(
    pieces: Sequence[Piece], vocabulary: int, *, written: int = WRITTEN, heard: int = HEARD, seed: int = 1
) -> Tokenizer:
    """A tokeniser of at most `vocabulary` tokens, merges included; fewer where the pieces have no more to merge.

    Args:
        pieces: of either hand, or of both.
        vocabulary: tokens.
        written: excerpts of written pieces.
        heard: excerpts of heard ones.
        seed: of which they are.
    """
    return Tokenizer.train(excerpts(pieces, written=written, heard=heard, seed=seed), vocabulary)


def excerpts(pieces: Sequence[Piece], *, written: int = WRITTEN, heard: int = HEARD, seed: int = 1) -> list[list[int]]:
    """Symbols of random excerpts, each in a random key."""
    random = np.random.Generator(np.random.Philox(seed))
    found: list[list[int]] = []
    scores = Drawer([piece for piece in pieces if piece.hand == "score"])
    for _ in range(written if len(scores) else 0):
        music = scores.draw(random).music
        first = int(random.integers(len(music)))
        part = music.cut(first, min(first + BARS, len(music))).transposed(int(random.choice(KEYS)))
        if len(part.onset):
            found.append(symbols_of(part, Header()))
    takes = Drawer([piece for piece in pieces if piece.hand == "heard"])
    for _ in range(heard if len(takes) else 0):
        music = takes.draw(random).music.transposed(int(random.choice(KEYS)))
        found.append(symbols_of(music, Header("heard")))
    return found
