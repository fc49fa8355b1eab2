"""Public works as tokens, for a model that counts: heard music in every key, scores in as many keys as fit.

The base draws a key anew for every window. A model that counts needs its corpus at hand, so each piece is written down
once in each of its keys; in all twelve where the corpus then stays under `MOST_TOKENS`, in fewer keys of the largest
collections of scores where it does not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from partbook.errors import ConfigError
from partbook.music.tokens import Header, Tokenizer
from partbook.pretraining.mixture import KEYS, Piece

MOST_TOKENS: Final = 25_000_000
_TOKENS_A_NOTE: Final = 1.5  # about; more is needed only to say how many keys fit


def keys_of(notes: dict[str, int], most_tokens: int = MOST_TOKENS) -> dict[str, int]:
    """In how many keys each collection of so many notes is written: twelve, the largest in fewer, at least one."""
    keys = dict.fromkeys(notes, len(KEYS))
    while sum(_TOKENS_A_NOTE * notes[name] * keys[name] for name in notes) > most_tokens:
        shrinkable = [name for name in notes if keys[name] > 1]
        if not shrinkable:
            break
        keys[max(shrinkable, key=lambda name: (notes[name] * keys[name], name))] -= 1
    return keys


def in_keys(
    pieces: Sequence[Piece],
    tokenizer: Tokenizer,
    seed: int,
    *,
    most_tokens: int = MOST_TOKENS,
    on_piece: Callable[[str], None] = lambda _: None,
) -> list[NDArray[np.int16]]:
    """Each piece's ids, header first, in each of its keys; the same for a seed.

    Args:
        pieces: of both hands.
        tokenizer: that they are written with.
        seed: of which keys, where not all fit.
        most_tokens: about, in all.
        on_piece: told each one's collection.

    Raises:
        ConfigError: there is no piece.
    """
    if not pieces:
        raise ConfigError("None of the works can be written down as tokens; choose other collections.")
    notes: Counter[str] = Counter()
    heard = 0
    for piece in pieces:
        if piece.hand == "heard":
            heard += len(piece.music.onset)
        else:
            notes[piece.collection] += len(piece.music.onset)
    keys = keys_of(dict(notes), most_tokens - round(_TOKENS_A_NOTE * heard * len(KEYS)))
    result = []
    for number, piece in enumerate(pieces):
        random = np.random.Generator(np.random.Philox(key=[seed, number]))
        count = len(KEYS) if piece.hand == "heard" else keys[piece.collection]
        for place, key in enumerate(sorted(random.choice(list(KEYS), count, replace=False))):
            # In every other key the header says the genre, as often as the base is told it.
            genre = piece.genre if (place + number) % 2 else None
            result.append(tokenizer.write(piece.music.transposed(int(key)), Header(piece.hand, genre=genre)))
        on_piece(piece.collection)
    return result
