"""Who may use which work, family by family: how collections are dealt into pools (`partbook.corpus.library`)."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol, TypeVar

from partbook.simulation.collections import Pool

POOLS: Final[tuple[Pool, ...]] = ("base", "label", "heldout")
HELDOUT_SHARE: Final = 0.1
HELDOUT_LEAST: Final = 24
HELDOUT_MOST: Final = 150
WITHHELD_HELDOUT_SHARE: Final = 0.2
DEAL: Final = "partbook/v1/deal"


class _Work(Protocol):
    @property
    def collection(self) -> str: ...

    @property
    def family(self) -> str: ...


_W = TypeVar("_W", bound=_Work)
Pools = Mapping[Pool, Sequence[_W]]


def dealt(joined: Mapping[str, Sequence[_W]], four: Mapping[str, Pools[_W]]) -> dict[str, dict[Pool, tuple[_W, ...]]]:
    """Pools of joined collections, beside those of the four, which are dealt already; nothing goes to `label`.

    Args:
        joined: works by collection.
        four: pools by collection.
    """
    taken: dict[str, Pool] = {}
    for pool in POOLS:  # from the least to the most reserved
        taken.update({work.family: pool for pools in four.values() for work in pools[pool]})
    held = {name: _heldout_families(own, taken) for name, own in joined.items()}
    anywhere = {family for each in held.values() for family in each}
    result: dict[str, dict[Pool, tuple[_W, ...]]] = {}
    for name, own in joined.items():
        free = [work for work in own if taken.get(work.family, "base") == "base"]
        result[name] = {
            "heldout": tuple(work for work in free if work.family in held[name]),
            "label": (),
            "base": tuple(work for work in free if work.family not in anywhere),
        }
    return result


def withheld(
    styles: Mapping[str, Sequence[_W]], others: Mapping[str, Pools[_W]]
) -> dict[str, dict[Pool, tuple[_W, ...]]]:
    """Pools of styles that no base may know: one work in five is held out, the others are labels'.

    A work of a family that another collection uses for anything, or that a style before has, is in no pool.

    Args:
        styles: works by style.
        others: pools of all other collections.
    """
    used = {work.family for pools in others.values() for pool in POOLS for work in pools[pool]}
    result: dict[str, dict[Pool, tuple[_W, ...]]] = {}
    for name, own in styles.items():
        free = [work for work in own if work.family not in used]
        held = _first_families(free, max(round(WITHHELD_HELDOUT_SHARE * len(free)), HELDOUT_LEAST))
        result[name] = {
            "heldout": tuple(work for work in free if work.family in held),
            "label": tuple(work for work in free if work.family not in held),
            "base": (),
        }
        used |= {work.family for work in free}
    return result


def only(pools: Pools[_W], wanted: Callable[[_W], bool]) -> dict[Pool, tuple[_W, ...]]:
    """The works of pools that are wanted."""
    return {pool: tuple(work for work in pools[pool] if wanted(work)) for pool in POOLS}


def _heldout_families(own: Sequence[_Work], taken: Mapping[str, Pool]) -> set[str]:
    """The families of a joined collection that are held out."""
    wanted = min(max(round(HELDOUT_SHARE * len(own)), HELDOUT_LEAST), HELDOUT_MOST)
    return _first_families([work for work in own if work.family not in taken], wanted)


def _first_families(own: Sequence[_Work], wanted: int) -> set[str]:
    """The first families by their names' hashes, until they have as many works as are wanted."""
    members: dict[str, int] = defaultdict(int)
    for work in own:
        members[work.family] += 1
    found: set[str] = set()
    for family in sorted(members, key=lambda name: hashlib.sha256(f"{DEAL}/{name}".encode()).digest()):
        if wanted <= 0:
            break
        found.add(family)
        wanted -= members[family]
    return found
