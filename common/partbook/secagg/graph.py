"""Who masks with whom, and who holds whose shares.

Up to `COMPLETE` members everybody masks with everybody and holds a share of everybody, and the plan's threshold
is the shares' threshold: Bonawitz et al. 2017, the case that is secure against a coordinator that lies.

Above, members stand on a circle in an order drawn from a public seed, and each masks with the k/2 nearest on
either side (a Harary graph): Bell et al. 2020, "Secure single-server aggregation with (poly)logarithmic
overhead" (CCS; eprint 2020/704), section 3. Its three conditions for a good graph are bounded here exactly
and each fails with probability below 2^-40, over the order, if a third of the cohort is corrupt and as many
drop out as the plan's threshold lets (at least a third):

1. No member has `share_threshold` corrupt neighbours, who could restore its secrets. The corrupt among k
   neighbours are hypergeometric; a union bound over the n members.
2. Every member keeps `share_threshold` neighbours, so that its secrets can be restored. Likewise.
3. The honest members who stay are connected, so that nothing but their whole sum can be learnt. To cut a circle
   in two, two separate runs of k/2 neighbours must go; a union bound over the pairs of runs.

A member holds a share of its own secrets as well, which the bounds leave out: it can only help restore them.

What this does not promise: the seed comes with the plan, hence from the coordinator. One that tries G plans
until it likes an order weakens 1 and 3 by the factor G (2^20 plans: below 2^-20). So does corrupting or cutting off
members after the order is known: the bounds hold for sets chosen without looking at it. A federation that
expects either keeps its cohorts at 100 or fewer.
"""

from __future__ import annotations

import functools
import hashlib
import math
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

COMPLETE: Final = 100
"""The largest cohort in which everybody masks with everybody."""

FAILURE_BITS: Final = 40
"""Each of the three conditions fails with probability below 2^-FAILURE_BITS."""

_LABEL: Final = b"partbook/v1/graph"


@dataclass(frozen=True, slots=True)
class Graph:
    """The neighbours of every member of one round's cohort.

    Attributes:
        cohort: the members' names, sorted.
        degree: neighbours of each member.
        share_threshold: shares that restore a member's secret.
    """

    cohort: tuple[str, ...]
    degree: int
    share_threshold: int
    _circle: tuple[str, ...] = field(repr=False)
    _place: dict[str, int] = field(repr=False, hash=False, compare=False)

    def neighbours(self, member: str) -> tuple[str, ...]:
        """Those whom `member` shares a mask with: sorted, without itself. Being neighbours is mutual.

        Raises:
            ValueError: `member` is not in the cohort.
        """
        return tuple(other for other in self.holders(member) if other != member)

    def holders(self, member: str) -> tuple[str, ...]:
        """Those who hold a share of `member`'s secrets: its neighbours and itself, sorted.

        Raises:
            ValueError: `member` is not in the cohort.
        """
        if member not in self._place:
            raise ValueError(f"{member!r} is not in this cohort of {len(self.cohort)}.")
        if self.degree == len(self.cohort) - 1:
            return self.cohort
        place, half = self._place[member], self.degree // 2
        return tuple(sorted(self._circle[at % len(self._circle)] for at in range(place - half, place + half + 1)))


def graph_of(cohort: tuple[str, ...], threshold: int, seed: bytes) -> Graph:
    """The graph that every party works out for itself from the plan.

    Args:
        cohort: distinct names, in any order; at least 2.
        threshold: members without whom the round is aborted; more than half.
        seed: public, new for each round (the plan's hash). The complete graph does not depend on it.

    Raises:
        ValueError: names repeat, or the threshold is not more than half of the cohort and at most all of it.
    """
    members = tuple(sorted(cohort))
    n = len(members)
    if n < 2 or len(set(members)) != n:
        raise ValueError("A cohort is two or more distinct members.")
    if not n / 2 < threshold <= n:
        raise ValueError(f"A threshold is more than half of a cohort and at most all of it, not {threshold} of {n}.")
    degree, share_threshold = (n - 1, threshold) if n <= COMPLETE else _parameters(n, threshold)
    circle = tuple(sorted(members, key=lambda name: hashlib.sha256(_LABEL + seed + name.encode()).digest()))
    return Graph(members, degree, share_threshold, circle, {name: place for place, name in enumerate(circle)})


@functools.lru_cache(maxsize=64)
def _parameters(n: int, threshold: int) -> tuple[int, int]:
    """The smallest even degree that meets the three conditions, with the largest share threshold it allows.

    The largest, because both failures are below the bound and a secret restored by the wrong people is the worse.
    """
    corrupt = n // 3
    dropped = max(n // 3, n - threshold)
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])  # natural log of 0! … n!
    bound = -FAILURE_BITS * math.log(2) - math.log(n)
    for degree in range(2, n - 1, 2):
        if _log_cut(factorials, n, corrupt + dropped, degree) >= -FAILURE_BITS * math.log(2):
            continue
        reach = _log_tail(_log_marked(factorials, n - 1, corrupt, degree))
        # Fewer than s survivors among k neighbours are more than k - s dropped.
        loss = _log_tail(_log_marked(factorials, n - 1, dropped, degree))
        safe = np.flatnonzero(reach < bound)
        restorable = np.flatnonzero(loss < bound)
        least = int(safe[0]) if len(safe) else degree + 1
        most = degree + 1 - int(restorable[0]) if len(restorable) else 0
        if least <= most:
            return degree, most
    return n - 1, threshold


def _log_marked(factorials: NDArray[np.float64], population: int, marked: int, drawn: int) -> NDArray[np.float64]:
    """Log-probability of 0 … `drawn` marked ones among `drawn` without replacement: the hypergeometric law."""
    counts = np.arange(drawn + 1)
    possible = (counts <= marked) & (drawn - counts <= population - marked)
    i = counts[possible]

    def choose(n: int, k: NDArray[np.int64]) -> NDArray[np.float64]:
        ways: NDArray[np.float64] = factorials[n] - factorials[k] - factorials[n - k]
        return ways

    result = np.full(drawn + 1, -np.inf)
    result[possible] = choose(marked, i) + choose(population - marked, drawn - i)
    result -= factorials[population] - factorials[drawn] - factorials[population - drawn]
    return result


def _log_tail(log_probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log-probability of at least 0, 1, … of them; summed from the small end, so that tails keep their digits."""
    tail: NDArray[np.float64] = np.logaddexp.accumulate(log_probabilities[::-1])[::-1]
    return tail


def _log_cut(factorials: NDArray[np.float64], n: int, gone: int, degree: int) -> float:
    """Log of the union bound that two of the circle's runs of k/2 members hold none but `gone` ones."""
    if degree > gone:
        return -math.inf
    both = factorials[n - degree] - factorials[gone - degree] - factorials[n] + factorials[gone]
    return math.log(math.comb(n, 2)) + float(both)
