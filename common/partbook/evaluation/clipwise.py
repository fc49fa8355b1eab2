"""How far a number about a set of clips would move with other clips: bootstrap and jackknife, by clip.

Patches of one clip resemble each other, so whole clips are drawn. A distance between sets, and the diversity of a set,
depend on how many different clips there are, and a resample has fewer of them (63 %): the resamples' numbers lie off
the sample's. An interval is therefore their spread, moved to where the sample's number is, and says how much *that*
varies between sets of as many clips; it says nothing about the bias that a number has because clips are few
(`frechet.unbiased` does). Efron & Tibshirani 1993, "An introduction to the bootstrap", ch. 10 (bias), 11 (jackknife)
and 13 (percentiles).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from partbook.evaluation.estimates import LEVEL, Estimate

RESAMPLES: Final = 200
GROUPS: Final = 10  # of clips, for the jackknife

Indices = NDArray[np.int64]


def bootstrap(
    counts: Sequence[int],
    statistic: Callable[..., float],
    *,
    seed: int = 1,
    resamples: int = RESAMPLES,
    least: float = -np.inf,
) -> Estimate:
    """`statistic` of all clips, and the interval over which it spreads when each set's clips are drawn anew.

    Args:
        counts: how many clips each set has.
        statistic: of as many arrays of clips' indices, in which a clip may come more than once.
        seed: of the draws.
        resamples: how often they are drawn.
        least: what is possible at least; neither value nor interval falls below it.
    """
    value = statistic(*(np.arange(count) for count in counts))
    random = np.random.Generator(np.random.Philox(seed))
    found = np.array([statistic(*(random.integers(count, size=count) for count in counts)) for _ in range(resamples)])
    low, high = np.quantile(found, ((1 - LEVEL) / 2, (1 + LEVEL) / 2)) - found.mean() + value
    return Estimate(max(least, value), max(least, float(low)), max(least, float(high)))


def jackknife(
    counts: Sequence[int], statistic: Callable[..., float], *, seed: int = 1, least: float = -np.inf
) -> Estimate:
    """`statistic` of all clips, and the normal interval from leaving out a tenth of one set at a time.

    No clip comes twice, so it suits what a repeated clip would upset. The variance is the sets' delete-a-group
    variances added, (g - 1)/g times the sum of squares each. Arguments as in `bootstrap`.
    """
    everything = [np.arange(count) for count in counts]
    value = statistic(*everything)
    random = np.random.Generator(np.random.Philox(seed))
    variance = 0.0
    for index, count in enumerate(counts):
        groups = np.array_split(random.permutation(count), min(GROUPS, count))
        found = np.array(
            [
                statistic(*everything[:index], np.setdiff1d(everything[index], group), *everything[index + 1 :])
                for group in groups
            ]
        )
        variance += (len(groups) - 1) / len(groups) * float(((found - found.mean()) ** 2).sum())
    reach = NormalDist().inv_cdf((1 + LEVEL) / 2) * variance**0.5
    return Estimate(max(least, value), max(least, value - reach), max(least, value + reach))
