"""What a piece shares with works that exist: the longest run of melody, in any key and at any tempo.

Intervals and ratios of waits for symbols, as Conklin & Anagnostopoulou 2001 ("Representation and discovery of multiple
viewpoint patterns", ICMC) look for patterns; the run is the longest common substring.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from partbook.evaluation.melody import melody
from partbook.evaluation.reading import Reading

_SHORTEST: Final = 3  # steps: shorter runs are everywhere
_MULTIPLIER: Final = np.uint64(0x9E3779B97F4A7C15)


class Catalogue:
    """The melodies of many works, to look runs up in."""

    def __init__(self, works: Sequence[Reading]) -> None:
        self._names = [work.work for work in works]
        self._first, self._later, self._owner = _steps(works)

    def longest_runs(self, pieces: Sequence[Reading]) -> NDArray[np.int64]:
        """Notes of the longest run of melody that each piece shares with a work not its own, (pieces,).

        Two runs are the same if their intervals in semitones and the ratios of successive waits are (to a 24th of an
        octave, 3 %): transposed and played faster they stay what they are. Runs of under four notes count as none. A
        work called as the piece is (`Reading.work`) is not looked at.

        Rolling hashes of 64 bits: a run that grows by one note keeps only the places that matched before.
        """
        first, later, owner = _steps(pieces)
        names = {name: number for number, name in enumerate(dict.fromkeys(self._names)) if name}
        known = np.array([names.get(name, -2) for name in self._names], dtype=np.int64)
        own = np.array([names.get(piece.work, -1) for piece in pieces], dtype=np.int64)
        best = np.zeros(len(pieces), np.int64)
        places, others, hashes, theirs = np.arange(len(first)), np.arange(len(self._first)), first, self._first
        steps = 1
        while len(places) and len(others):
            if steps >= _SHORTEST:
                places, hashes, others, theirs = _matched(
                    places, hashes, own[owner[places]], others, theirs, known[self._owner[others]]
                )
                best[owner[places]] = steps + 1
            places, hashes = _grown(places, hashes, steps, later, owner)
            others, theirs = _grown(others, theirs, steps, self._later, self._owner)
            steps += 1
        return best


def _grown(
    places: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    steps: int,
    later: NDArray[np.uint64],
    owner: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """The places at which a run one step longer fits into its piece, and its hash."""
    inside = places + steps < len(later)
    places, hashes = places[inside], hashes[inside]
    same = owner[places] == owner[places + steps]
    places, hashes = places[same], hashes[same]
    return places, hashes * _MULTIPLIER + later[places + steps]


def _matched(
    places: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    own: NDArray[np.int64],
    others: NDArray[np.int64],
    theirs: NDArray[np.uint64],
    known: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.int64], NDArray[np.uint64]]:
    """Of both sides the places, and hashes, whose run a piece and some other work have in common."""
    order = np.argsort(theirs, kind="stable")
    ranked, works = theirs[order], known[order]
    low, high = np.searchsorted(ranked, hashes, "left"), np.searchsorted(ranked, hashes, "right")
    found = high > low
    # A run is another's if not every place that has it belongs to the piece's own work.
    alike = np.zeros(len(hashes), np.bool_)
    for index in np.flatnonzero(found & (own >= 0)):
        alike[index] = bool((works[low[index] : high[index]] == own[index]).all())
    kept = found & ~alike
    keep_other = np.isin(theirs, hashes[kept])
    return places[kept], hashes[kept], others[keep_other], theirs[keep_other]


def _steps(
    pieces: Sequence[Reading],
) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.int64]]:
    """The melodic steps of all pieces one after the other, as symbols, and the piece of each.

    A step that begins a run is its interval alone; a later one is its interval, and its wait over the wait before.
    """
    first, later = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for piece in pieces:
        line = melody(piece)
        ratio = np.round(24 * np.log2(line.waits[1:] / line.waits[:-1])).astype(np.int64)
        first.append(line.intervals + 128)
        later.append((line.intervals + 128) * 4096 + np.r_[np.zeros(min(len(line.waits), 1), np.int64), ratio] + 2048)
    owner = np.repeat(np.arange(len(pieces)), np.array([len(part) for part in first[1:]], dtype=np.int64))
    return _mixed(np.concatenate(first)), _mixed(np.concatenate(later)), owner


def _mixed(code: NDArray[np.int64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele, Lea & Flood 2014): neighbouring codes become unrelated."""
    x = code.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
