"""Human works to hold pieces against: held-out works of the public collections, or a folder of somebody's own.

The four collections are mixed as the base model's training mixes them, by the square root of how many works each has,
so that what a model writes freely is held against what it was shown. No work here shares a tune with one that trained
the base: the pools are dealt by family.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from partbook.corpus.library import Library, PublicWork
from partbook.errors import ScoreError
from partbook.evaluation.reading import Reading, read
from partbook.simulation.collections import COLLECTIONS, Pool

STYLES: Final = tuple(collection.name for collection in COLLECTIONS)


@dataclass(frozen=True, slots=True)
class Works:
    """Human works as readings, and the collection of each."""

    pieces: tuple[Reading, ...]
    styles: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pieces)


def mixed(library: Library, pool: Pool, count: int, *, seed: int, on_work: Callable[[str], None]) -> Works:
    """`count` works of a pool of the four collections, or as many as keep the mixture.

    Args:
        library: to draw from.
        pool: `heldout` or `label`; neither trained the base.
        count: at most.
        seed: of the draw.
        on_work: told each title.
    """
    sizes = {name: len(library.pool(name, "base")) for name in STYLES}
    share = {name: sizes[name] ** 0.5 / sum(size**0.5 for size in sizes.values()) for name in STYLES}
    pools = {name: library.pool(name, pool) for name in STYLES}
    # A collection that is short of works lends its places to the others.
    wanted, left, open_names = dict.fromkeys(STYLES, 0), count, list(STYLES)
    while left > 0 and open_names:
        weight = sum(share[name] for name in open_names)
        given = {name: max(1, round(left * share[name] / weight)) for name in open_names}
        for name in open_names:
            take = min(given[name], len(pools[name]) - wanted[name], left)
            wanted[name] += take
            left -= take
        open_names = [name for name in open_names if wanted[name] < len(pools[name])]
    random = np.random.Generator(np.random.Philox(seed))
    chosen: list[PublicWork] = []
    for name in STYLES:
        order = random.permutation(len(pools[name]))[: wanted[name]]
        chosen += [pools[name][i] for i in sorted(order)]
    return readings(library, chosen, on_work)


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
