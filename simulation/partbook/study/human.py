"""Human works to hold pieces against: held-out works of the public collections, or a folder of somebody's own.

The four collections are mixed as the base model's training mixes them, by the square root of how many works each has,
so that what a model writes freely is held against what it was shown. No work here shares a tune with one that trained
the base: the pools are dealt by family.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from partbook.corpus.library import Library, PublicWork
from partbook.errors import ScoreError
from partbook.evaluation.reading import Reading, read
from partbook.simulation.collections import COLLECTIONS, Pool

_POOLS: Final[tuple[Pool, Pool]] = ("heldout", "label")
STYLES: Final = tuple(collection.name for collection in COLLECTIONS)


@dataclass(frozen=True, slots=True)
class Works:
    """Human works as readings, and the collection of each."""

    pieces: tuple[Reading, ...]
    styles: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pieces)


def mixed(library: Library, pool: Pool, count: int, *, seed: int, on_work: Callable[[str], None]) -> Works:
    """`count` works of a pool of the four collections, or as many as keep the mixture, no two of one family.

    The mixture is that of both pools: a collection of which either has too few families lends its places to the others
    in both, so that two sets differ in their works and not in their styles.

    Args:
        library: to draw from.
        pool: `heldout` or `label`; neither trained the base.
        count: at most.
        seed: of the draw.
        on_work: told each title.
    """
    fresh = {one: {name: _one_a_family(library.pool(name, one)) for name in STYLES} for one in _POOLS}
    there = {name: min(len(fresh[one][name]) for one in _POOLS) for name in STYLES}
    wanted = _quotas(count, {name: len(library.pool(name, "base")) for name in STYLES}, there)
    random = np.random.Generator(np.random.Philox(seed))
    chosen: list[PublicWork] = []
    for name in STYLES:
        works = fresh[pool][name]
        order = random.permutation(len(works))[: wanted[name]]
        chosen += [works[i] for i in sorted(order)]
    return readings(library, chosen, on_work)


def _one_a_family(works: Sequence[PublicWork]) -> list[PublicWork]:
    """The first work of each family."""
    first: dict[str, PublicWork] = {}
    for work in works:
        first.setdefault(work.family, work)
    return list(first.values())


def _quotas(count: int, sizes: Mapping[str, int], there: Mapping[str, int]) -> dict[str, int]:
    """How many works of each collection: by the square roots of their sizes, as far as there are so many."""
    wanted, left, open_names = dict.fromkeys(sizes, 0), count, [name for name in sizes if there[name]]
    while left > 0 and open_names:
        weight = sum(sizes[name] ** 0.5 for name in open_names)
        given = {name: max(1, round(left * sizes[name] ** 0.5 / weight)) for name in open_names}
        for name in open_names:
            take = min(given[name], there[name] - wanted[name], left)
            wanted[name] += take
            left -= take
        open_names = [name for name in open_names if wanted[name] < there[name]]
    return wanted


def readings(library: Library, works: Sequence[PublicWork], on_work: Callable[[str], None] = lambda _: None) -> Works:
    """Works as readings; those that cannot be read are passed over."""
    pieces, styles = [], []
    for work, score in zip(works, library.each_score(works, on_work), strict=True):
        if score is None:
            continue
        try:
            pieces.append(read(score, work.title, work.family))
        except ScoreError:
            continue  # drums alone
        styles.append(work.collection)
    return Works(tuple(pieces), tuple(styles))
