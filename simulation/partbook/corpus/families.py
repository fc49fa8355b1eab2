"""Works → tune families: which works are one tune, by how they go and not by what they are called.

1. Each melody of a work gives two lines: its notes, and what sounds on each beat, both as sets of interval n-grams
   (`partbook.corpus.melody`).
2. Two lines are as alike as the share of the smaller one's n-grams that the other has, each weighted by its inverse
   document frequency (Spärck Jones 1972). Stock phrases, which too many works have, weigh nothing.
3. Lines that are alike are laid over one another wherever they share an n-gram, at its transposition and speed (seed
   and extend: Altschul et al. 1990, "Basic local alignment search tool"), and must agree through a `STRETCH`. Lines
   that share most of what they have need not: a tune may be set in another metre.
4. Works that are linked, be it through others, are one family.

Measured on 4,703 installed works (all but `LATER`): 676 families of 1,782 works, the largest of 13 (O Haupt voll Blut
und Wunden). Of 16 pairs just over the bar, drawn by chance and read note by note, 15 share a strain. Of 1,363 pairs of
a chorale or madrigal with a dance tune or air that are alike enough for step 3, 4 pass it. Of pairs under one title,
81 % of chorales and 54 % of dance tunes are one family; of 24 of the others, read likewise, some 8 are free settings of
one air, which these steps miss, and 16 are other tunes under the same name. Within the four collections titles keep
such settings together besides (`partbook.simulation.collections`).

The table of what is installed ships with the package, and a test holds it to be what these steps give:

    python -m partbook.corpus.families
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from partbook.corpus.melody import LENGTH, NGRAMS, Melody, melodies, melodies_of_musicxml, ngrams
from partbook.corpus.parallel import over
from partbook.corpus.table import TABLE, table_of
from partbook.errors import ScoreError
from partbook.simulation.collections import COLLECTIONS, corpus, tune_at, works

INSTALLED: Final = (*(c.name for c in COLLECTIONS), "airdsAirs")  # grouped among themselves …
LATER: Final = ("trecento",)  # … and these beside them, so that what they add changes no family of the others
VERSION: Final = 1  # changes whenever the same works could come out otherwise

STOCK: Final = 0.0085  # an n-gram that a larger share of works has is a stock phrase …
STOCK_LEAST: Final = 40  # … where these are more works than this; one tune may be set that often
FEWEST: Final = 12  # n-grams of a line that is compared
ALIKE: Final = 0.12  # from here on lines are laid over one another
CERTAIN: Final = 0.6  # from here on they are one tune, if both have …
CERTAIN_FEWEST: Final = 20  # … so many n-grams, and neither has …
CERTAIN_RATIO: Final = 3.0  # … so many times the other's
STRETCH: Final = 32  # eighths of the line that is written in longer notes: four bars of a reel
AGREEMENT: Final = 0.8  # share of them with one pitch
MOVES: Final = 10  # changes of pitch in a stretch; a drone agrees with every drone
_EIGHTH: Final = 0.5
_BLOCK: Final = 2048  # lines that are compared with all others at a time, which bounds memory
_NEAR: Final = 8.0  # quarters; two places that lie so near one another see the same stretches

Tune = tuple[Melody, ...]  # all melodies of a work; none where it cannot be read


@dataclass(frozen=True, slots=True)
class Link:
    """Two works that are one tune.

    Attributes:
        first: index of a work.
        second: index of a later one.
        alike: weighted share of n-grams, of the lines that led to the link, (0, 1].
        agreement: share of a stretch on which these agree where they are laid over one another, [0, 1].
    """

    first: int
    second: int
    alike: float
    agreement: float


# ---------------------------------------------------------------------- reading


def installed_keys() -> list[str]:
    """Keys of all works of the installed corpus that are used here, those of `LATER` last."""
    return [work.key for name in (*INSTALLED, *LATER) for work in works(name)]


def is_later(key: str) -> bool:
    """Whether an installed work's collection is one of `LATER`."""
    return key.partition("/")[0] in LATER


def tune(key: str) -> Tune:
    """The melodies of a work of the installed corpus; none where it cannot be read."""
    try:
        return melodies(tune_at(key)) if "#" in key else melodies_of_musicxml(corpus() / key)
    except ScoreError:
        return ()


def tunes(keys: Sequence[str], on_work: Callable[[str], None] = lambda _: None) -> list[Tune]:
    """The melodies of works of the installed corpus, read in parallel."""
    found = []
    for key, read in zip(keys, over(keys, tune), strict=True):
        found.append(read)
        on_work(key)
    return found


# ---------------------------------------------------------------------- grouping


def families(keys: Sequence[str], found: Iterable[Link]) -> dict[str, str]:
    """Key → family, for works that share theirs; a family is called like the first of its members by name."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pairs = np.array([(link.first, link.second) for link in found], dtype=np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(keys), len(keys)))
    _, label = connected_components(graph, directed=False)
    members: dict[int, list[str]] = {}
    for key, number in zip(keys, label.tolist(), strict=True):
        members.setdefault(number, []).append(key)
    return {key: min(group) for group in members.values() if len(group) > 1 for key in group}


def installed_links(keys: Sequence[str], found: Sequence[Tune]) -> list[Link]:
    """All pairs of installed works that are one tune: `INSTALLED` by their own n-grams' frequencies, then `LATER`.

    Args:
        keys: `installed_keys()`.
        found: the melodies of each.
    """
    first = sum(not is_later(key) for key in keys)
    return links(found[:first]) + links(found, first)


def links(
    found: Sequence[Tune], since: int = 0, on_pair: Callable[[int, int], None] = lambda _done, _of: None
) -> list[Link]:
    """All pairs of works that are one tune.

    Args:
        found: each work's melodies.
        since: pairs of two works before this one are not looked for; they count for how frequent n-grams are.
        on_pair: told how many pairs of works have been looked at closely, and how many there are.
    """
    views = _Views(found)
    by_works: dict[tuple[int, int], list[tuple[float, int, int]]] = {}
    for first, second, alike in views.pairs(since):
        by_works.setdefault((int(views.work[first]), int(views.work[second])), []).append((alike, first, second))
    result = []
    for done, (pair, candidates) in enumerate(sorted(by_works.items()), start=1):
        for alike, first, second in sorted(candidates, reverse=True):
            agreement = views.agreement(first, second)
            if agreement >= AGREEMENT or views.certain(first, second, alike):
                result.append(Link(*pair, alike, agreement))
                break
        on_pair(done, len(by_works))
    return result


@dataclass(frozen=True, slots=True)
class _Line:
    """A melody as written, or by the beat, with its n-grams and where they begin."""

    notes: Melody
    whole: Melody
    ngrams: NDArray[np.int64]
    place: NDArray[np.int64]

    @classmethod
    def of(cls, notes: Melody, whole: Melody) -> _Line:
        return cls(notes, whole, *ngrams(notes))


class _Views:
    """Every melody of every work twice: as written, and by the beat, on either half of it."""

    def __init__(self, found: Sequence[Tune]) -> None:
        self._lines: list[tuple[_Line, ...]] = []
        work, kind = [], []
        for number, tune in enumerate(found):
            for melody in tune:
                self._lines.append((_Line.of(melody, melody),))
                self._lines.append(tuple(_Line.of(melody.by_the_beat(phase), melody) for phase in (0.0, _EIGHTH)))
                work += [number, number]
                kind += [0, 1]
        self.work = np.array(work, dtype=np.int64)
        grams = [
            kind[view] * NGRAMS + np.unique(np.concatenate([line.ngrams for line in lines]))
            for view, lines in enumerate(self._lines)
        ]
        self._row = np.repeat(np.arange(len(grams)), [len(each) for each in grams])
        names, self._column = np.unique(np.concatenate(grams or [np.zeros(0, np.int64)]), return_inverse=True)
        seen = np.unique(self.work[self._row] * len(names) + self._column) % max(len(names), 1)
        frequency = np.bincount(seen, minlength=len(names))  # by work: two voices of one work count once
        stock = frequency > max(STOCK_LEAST, STOCK * len(found))
        self._weight = np.where(stock, 0.0, np.log1p(len(found) / np.maximum(frequency, 1)))
        self._shared = (frequency > 1) & ~stock
        rows, count = self._row, len(grams)
        self._total = np.bincount(rows, weights=self._weight[self._column], minlength=count)
        self._count = np.bincount(rows, weights=(~stock)[self._column], minlength=count)

    def pairs(self, since: int = 0) -> list[tuple[int, int, float]]:
        """Views of two works, the second at `since` or after it, that are alike enough to be laid over one another."""
        from scipy.sparse import csr_array

        kept = self._shared[self._column] & (self._count[self._row] >= FEWEST)
        row, column = self._row[kept], self._column[kept]
        values = np.sqrt(self._weight[column])
        table = csr_array((values, (row, column)), shape=(len(self._total), len(self._weight)))
        turned = table.T.tocsr()
        found: list[tuple[int, int, float]] = []
        for begin in range(int(np.searchsorted(self.work, since)), len(self.work), _BLOCK):
            product = (table[begin : begin + _BLOCK] @ turned).tocoo()
            second, first = product.coords[0] + begin, product.coords[1]
            alike = product.data / np.maximum(np.minimum(self._total[first], self._total[second]), 1e-9)
            chosen = (self.work[first] < self.work[second]) & (alike >= ALIKE)
            found += zip(first[chosen].tolist(), second[chosen].tolist(), alike[chosen].tolist(), strict=True)
        return sorted(found)

    def certain(self, first: int, second: int, alike: float) -> bool:
        """Whether so much is shared that the lines need not run alongside each other."""
        few, many = sorted((self._count[first], self._count[second]))
        return alike >= CERTAIN and few >= CERTAIN_FEWEST and many < CERTAIN_RATIO * few

    def agreement(self, first: int, second: int) -> float:
        """The largest share of a stretch on which two views have one pitch, up to transposition and speed."""
        return max(_agreement(a, b) for a in self._lines[first] for b in self._lines[second])


def _agreement(a: _Line, b: _Line) -> float:
    _, in_a, in_b = np.intersect1d(a.ngrams, b.ngrams, assume_unique=True, return_indices=True)
    best = 0.0
    tried: set[tuple[float, int, float, int]] = set()
    for at_a, at_b in zip(a.place[in_a].tolist(), b.place[in_b].tolist(), strict=True):
        start_a, start_b = float(a.notes.onset[at_a]), float(b.notes.onset[at_b])
        span_a = float(a.notes.onset[at_a + LENGTH]) - start_a
        span_b = float(b.notes.onset[at_b + LENGTH]) - start_b
        speed = 2.0 ** min(max(round(math.log2(span_a / span_b)), -2), 2)  # quarters of a in one of b
        higher = int(a.notes.pitch[at_a] - b.notes.pitch[at_b])
        where = (speed, higher, round(start_a - speed * start_b, 2), int(start_a / _NEAR))
        if where in tried:
            continue
        tried.add(where)
        best = max(best, _laid_over(a.whole, start_a, b.whole, start_b, speed, higher))
        if best >= AGREEMENT:
            break
    return best


def _laid_over(a: Melody, start_a: float, b: Melody, start_b: float, speed: float, higher: int) -> float:
    """The best share of eighths with one pitch, of stretches around where `a` at `start_a` is `b` at `start_b`."""
    step_a = float(_EIGHTH * min(speed, 1.0))
    step_b = step_a / speed
    before = min((start_a - a.onset[0]) / step_a, (start_b - b.onset[0]) / step_b, STRETCH)
    after = min((a.onset[-1] - start_a) / step_a, (b.onset[-1] - start_b) / step_b, STRETCH)
    time = np.arange(-int(before), int(after) + 1, dtype=np.float64)
    if len(time) < STRETCH:
        return 0.0
    high, low = a.sounding(start_a + time * step_a), b.sounding(start_b + time * step_b) + higher
    same = _sums(high == low)
    moves = np.minimum(_sums(np.diff(high, prepend=high[:1]) != 0), _sums(np.diff(low, prepend=low[:1]) != 0))
    return float(np.max(same, where=moves >= MOVES, initial=0.0)) / STRETCH


def _sums(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many flags are set in each stretch."""
    total = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(flags, dtype=np.int64)])
    sums: NDArray[np.int64] = total[STRETCH:] - total[:-STRETCH]
    return sums


# ---------------------------------------------------------------------- the shipped table


def main() -> None:
    """Work the table out and write it."""
    from rich.console import Console

    from partbook.simulation.watching import RichWatcher

    keys = installed_keys()
    with RichWatcher(Console(stderr=True)) as watch:
        watch.stage("Reading melodies", len(keys))
        read = tunes(keys, watch.step)
    grouped = families(keys, installed_links(keys, read))
    TABLE.write_text(table_of(grouped), encoding="utf-8")
    print(f"{TABLE}: {len(set(grouped.values()))} families of {len(grouped)} works; {len(keys)} works in all.")


if __name__ == "__main__":
    main()
