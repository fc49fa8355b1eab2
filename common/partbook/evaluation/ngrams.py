"""How much of a piece's melody is made of what held-out works are made of: BLEU's n-gram precision, on melodies.

Papineni et al. 2002 ("BLEU: a method for automatic evaluation of machine translation", ACL, §2.1), with melodic steps
(semitones, time to the next onset) for words and every reference work as a reference. Without the brevity penalty:
there is no right length.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np

from partbook.evaluation.melody import melody, runs
from partbook.evaluation.reading import Reading

LONGEST: Final = 4  # steps in a row
_Grams = Counter[bytes]


class References:
    """Works whose n-grams are held ready: how often each occurs in the work that has most of it, and in the next."""

    def __init__(self, works: Sequence[Reading]) -> None:
        self._most: list[dict[bytes, tuple[int, str, int]]] = [{} for _ in range(LONGEST)]
        for work in works:
            for most, grams in zip(self._most, _grams(work), strict=True):
                for gram, count in grams.items():
                    best, owner, second = most.get(gram, (0, "", 0))
                    if work.work and work.work == owner:
                        most[gram] = (max(best, count), owner, second)
                    elif count > best:
                        most[gram] = (count, work.work, best)
                    else:
                        most[gram] = (best, owner, max(second, count))

    def precision(self, piece: Reading) -> float:
        """Geometric mean over n = 1 … 4 of the clipped precision, 0 to 1; NaN under five notes of melody.

        A gram counts at most as often as it occurs in any one reference; works called as the piece is
        (`Reading.work`) do not count.
        """
        shares = []
        for most, grams in zip(self._most, _grams(piece), strict=True):
            total = sum(grams.values())
            if not total:
                return float("nan")
            kept = 0
            for gram, count in grams.items():
                best, owner, second = most.get(gram, (0, "", 0))
                kept += min(count, second if piece.work and piece.work == owner else best)
            shares.append(kept / total)
        return float(np.exp(np.mean(np.log(shares)))) if min(shares) > 0 else 0.0


def _grams(piece: Reading) -> list[_Grams]:
    line = melody(piece)
    steps = np.stack([line.intervals, line.waits], axis=1)
    return [Counter(row.tobytes() for row in runs(steps, n)) for n in range(1, LONGEST + 1)]
