"""Numbers with their uncertainty: percentile bootstrap over pieces, exact intervals for shares.

Bootstrap: Efron & Tibshirani 1993, "An introduction to the bootstrap", ch. 13. Shares: Clopper & Pearson 1934.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

LEVEL: Final = 0.95
RESAMPLES: Final = 1000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and its 95 % interval; NaN where there is nothing to estimate it from."""

    value: float
    low: float
    high: float

    @classmethod
    def nothing(cls) -> Estimate:
        """No number."""
        return cls(float("nan"), float("nan"), float("nan"))


def bootstrap(
    groups: Sequence[NDArray[np.float64]],
    statistic: Callable[..., float],
    *,
    seed: int = 1,
    resamples: int = RESAMPLES,
) -> Estimate:
    """`statistic(*groups)`, and its percentile interval when each group is drawn anew from itself.

    Args:
        groups: arrays whose first axis is pieces; drawn independently of one another.
        statistic: of as many arrays.
        seed: of the draws.
        resamples: how often they are drawn.
    """
    if any(not len(group) for group in groups):
        return Estimate.nothing()
    random = np.random.Generator(np.random.Philox(seed))
    found = np.empty(resamples)
    for turn in range(resamples):
        found[turn] = statistic(*(group[random.integers(len(group), size=len(group))] for group in groups))
    edge = (1 - LEVEL) / 2
    low, high = np.quantile(found, (edge, 1 - edge))
    return Estimate(float(statistic(*groups)), float(low), float(high))


def median(values: NDArray[np.float64], *, seed: int = 1, resamples: int = RESAMPLES) -> Estimate:
    """The median of (pieces,), as `bootstrap` of `np.median` has it, all draws at once."""
    if not len(values):
        return Estimate.nothing()
    random = np.random.Generator(np.random.Philox(seed))
    drawn = values[random.integers(len(values), size=(resamples, len(values)))]
    edge = (1 - LEVEL) / 2
    low, high = np.quantile(np.median(drawn, axis=1), (edge, 1 - edge))
    return Estimate(float(np.median(values)), float(low), float(high))


def share(count: int, total: int) -> Estimate:
    """`count` of `total` with its exact interval."""
    from scipy.stats import binomtest

    if not total:
        return Estimate.nothing()
    interval = binomtest(count, total).proportion_ci(LEVEL, method="exact")
    return Estimate(count / total, float(interval.low), float(interval.high))
