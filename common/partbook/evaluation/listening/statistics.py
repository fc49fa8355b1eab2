"""What answers between two choices prove: exact intervals and tests, power, and agreement. No I/O."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

CONFIDENCE: Final = 0.95
ALPHA: Final = 0.05
GUESSING: Final = 0.5
MISSING: Final = -1  # no answer, in tables of answers


@dataclass(frozen=True, slots=True)
class Proportion:
    """Hits of so many independent trials.

    Attributes:
        hits, of: counts.
        low, high: exact 95 % interval of the share (Clopper & Pearson 1934, Biometrika 26: 404–413).
        p: exact two-sided p-value against one half.
    """

    hits: int
    of: int
    low: float
    high: float
    p: float

    @property
    def share(self) -> float:
        """Hits of all; not a number where there are none."""
        return self.hits / self.of if self.of else math.nan


def proportion(hits: int, of: int) -> Proportion:
    """Interval and test of a count; of no trials, an interval of everything and a p of 1."""
    from scipy.stats import binomtest

    if not 0 <= hits <= of:
        raise ValueError(f"{hits} hits of {of} trials")
    if not of:
        return Proportion(0, 0, 0.0, 1.0, 1.0)
    test = binomtest(hits, of, GUESSING)
    interval = test.proportion_ci(CONFIDENCE, method="exact")
    return Proportion(hits, of, float(interval.low), float(interval.high), float(test.pvalue))


def by_guessing(hits: int, of: int) -> float:
    """Probability that who guesses gets so many of so many, or more."""
    from scipy.stats import binom

    return float(binom.sf(hits - 1, of, GUESSING))


def critical(of: int, alpha: float = ALPHA) -> int:
    """Fewest hits that the exact two-sided test at `alpha` tells from guessing; of + 1 where none does."""
    return int(_critical(np.array([of]), alpha)[0])


def power(of: int, share: float, alpha: float = ALPHA) -> float:
    """Probability that the exact two-sided test at `alpha` finds somebody out whose true share is this."""
    return float(_power(np.array([of]), share, alpha)[0])


def trials_needed(share: float, wanted: float = 0.8, alpha: float = ALPHA) -> int:
    """Fewest trials from which on *every* number of trials has the wanted power for a true share.

    The exact test's power rises in a saw-tooth, so a single smaller number may have it as well.
    """
    if not 0.0 <= share <= 1.0 or share == GUESSING or not 0.0 < wanted < 1.0:
        raise ValueError(f"share {share}, power {wanted}")
    from scipy.stats import norm

    spread = norm.isf(alpha / 2) * 0.5 + norm.isf(1 - wanted) * math.sqrt(share * (1 - share))
    last = int(4 * (spread / (share - GUESSING)) ** 2) + 100  # four times the normal approximation
    short = np.flatnonzero(_power(np.arange(1, last + 1), share, alpha) < wanted)
    return int(short[-1]) + 2 if len(short) else 1


def _critical(of: NDArray[np.int64], alpha: float) -> NDArray[np.int64]:
    from scipy.stats import binom

    found: NDArray[np.int64] = np.asarray(binom.isf(alpha / 2, of, GUESSING), dtype=np.int64) + 1
    return found


def _power(of: NDArray[np.int64], share: float, alpha: float) -> NDArray[np.float64]:
    from scipy.stats import binom

    least = _critical(of, alpha)
    found: NDArray[np.float64] = binom.sf(least - 1, of, share) + binom.cdf(of - least, of, share)
    return found


def margins_p(table: NDArray[np.int64]) -> float:
    """Exact two-sided p-value of a 2 × 2 table of kinds against answers (Fisher 1935, the lady tasting tea).

    It allows for a listener who counts: where half of the clips are of each kind, answers that are shared out to match
    are not independent, and the binomial test is then slightly too sure.
    """
    from scipy.stats import fisher_exact

    return float(fisher_exact(table)[1])


def raw_agreement(answers: NDArray[np.int64]) -> float:
    """Mean over trials of the share of pairs of listeners that agree; nan where no trial has two answers.

    Args:
        answers: (listeners, trials), category or `MISSING`.
    """
    counts = _counts(answers)
    each = counts.sum(axis=1)
    return float(_agreeing(counts[each >= 2]).mean()) if (each >= 2).any() else math.nan


def fleiss_kappa(answers: NDArray[np.int64]) -> float:
    """Agreement beyond chance of listeners who all answered all (Fleiss 1971, Psychological Bulletin 76: 378–382).

    Args:
        answers: (listeners, trials), category or `MISSING`; trials are left out that somebody did not answer.

    Returns:
        1 for full agreement, 0 for what chance gives; nan where fewer than two listeners share a trial, or where all
        answers are one category, of which chance explains everything.
    """
    whole = answers[:, (answers != MISSING).all(axis=0)]
    if len(whole) < 2 or not whole.shape[1]:
        return math.nan
    counts = _counts(whole)
    shares = counts.sum(axis=0) / counts.sum()
    by_chance = float(np.square(shares).sum())
    if by_chance >= 1.0:
        return math.nan
    return float((_agreeing(counts).mean() - by_chance) / (1.0 - by_chance))


def krippendorff_alpha(answers: NDArray[np.int64]) -> float:
    """Nominal alpha, which allows for missing answers (Krippendorff 2011, "Computing Krippendorff's
    alpha-reliability", section C).

    Args:
        answers: (listeners, trials), category or `MISSING`.

    Returns:
        1 for full agreement, 0 for what chance gives; nan where no trial has two answers, or where all answers are one
        category.
    """
    counts = _counts(answers).astype(float)
    counts = counts[counts.sum(axis=1) >= 2]
    if not len(counts):
        return math.nan
    each = counts.sum(axis=1, keepdims=True)
    coincidences = (counts.T @ (counts / (each - 1))) - np.diag((counts / (each - 1)).sum(axis=0))
    totals = coincidences.sum(axis=0)
    everything = totals.sum()
    expected = (np.square(totals.sum()) - np.square(totals).sum()) / (everything - 1)
    observed = everything - np.trace(coincidences)
    return float(1.0 - observed / expected) if expected else math.nan


def _counts(answers: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many listeners gave each category, (trials, categories)."""
    categories = np.unique(answers[answers != MISSING])
    return (
        np.stack([(answers == each).sum(axis=0) for each in categories], axis=1)
        if len(categories)
        else (np.zeros((answers.shape[1], 1), np.int64))
    )


def _agreeing(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    each = counts.sum(axis=1)
    found: NDArray[np.float64] = (counts * (counts - 1)).sum(axis=1) / (each * (each - 1))
    return found
