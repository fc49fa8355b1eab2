"""What a piece shares with works that exist: the longest run of melody, in any key and at any tempo."""

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
        self._symbols, self._owner = _joined([_symbols(work) for work in works])

    def longest_runs(self, pieces: Sequence[Reading]) -> NDArray[np.int64]:
        """Notes of the longest run of melody that each piece shares with a work not its own, (pieces,).

        Two runs are the same if their intervals in semitones and the ratios of successive waits are: transposed and
        played faster they stay what they are. Runs of under four notes count as none. A work called as the piece is
        (`Reading.work`) is not looked at.

        Rolling hashes of 64 bits: a run that grows by one note keeps only the places that matched before.
        """
        symbols, owner = _joined([_symbols(piece) for piece in pieces])
        names = {name: number for number, name in enumerate(dict.fromkeys(self._names))}
        known = np.array([names[name] for name in self._names], dtype=np.int64)
        own = np.array([names.get(piece.work, -1) for piece in pieces], dtype=np.int64)
        best = np.zeros(len(pieces), np.int64)
        places, others = np.arange(len(symbols)), np.arange(len(self._symbols))
        hashes, theirs = np.zeros(len(symbols), np.uint64), np.zeros(len(self._symbols), np.uint64)
        length = 0
        while len(places) and len(others):
            places, hashes = _grown(places, hashes, length, symbols, owner)
            others, theirs = _grown(others, theirs, length, self._symbols, self._owner)
            length += 1
            if length < _SHORTEST:
                continue
            matched, places, hashes, others, theirs = _matched(
                places, hashes, own[owner[places]], others, theirs, known[self._owner[others]]
            )
            best[np.unique(owner[matched])] = length + 1
        return best


def _grown(
    places: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    length: int,
    symbols: NDArray[np.uint64],
    owner: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """The places at which a run one symbol longer fits into its piece, and its hash."""
    inside = places + length < len(symbols)
    places, hashes = places[inside], hashes[inside]
    same = owner[places] == owner[places + length]
    places, hashes = places[same], hashes[same]
    return places, hashes * _MULTIPLIER + symbols[places + length]


def _matched(
    places: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    own: NDArray[np.int64],
    others: NDArray[np.int64],
    theirs: NDArray[np.uint64],
    known: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64], NDArray[np.int64], NDArray[np.uint64]]:
    """Places whose run some other work has too; and, of both sides, the places worth growing."""
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
    return places[kept], places[kept], hashes[kept], others[keep_other], theirs[keep_other]


def _symbols(piece: Reading) -> NDArray[np.uint64]:
    line = melody(piece)
    if len(line) < 3:
        return np.zeros(0, np.uint64)
    ratio = np.round(24 * np.log2(line.waits[1:] / line.waits[:-1])).astype(np.int64)
    code = ((line.intervals[1:] + 128) * 4096 + ratio + 2048).astype(np.uint64)
    return _mixed(code)


def _mixed(code: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele, Lea & Flood 2014): neighbouring codes become unrelated."""
    x = code + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _joined(sequences: Sequence[NDArray[np.uint64]]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    owner = np.repeat(np.arange(len(sequences)), [len(s) for s in sequences])
    return (np.concatenate(sequences) if sequences else np.zeros(0, np.uint64)), owner
