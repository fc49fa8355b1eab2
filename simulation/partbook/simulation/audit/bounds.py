"""Lower bounds on ε from guesses about many recordings at once.

Each of m recordings was in by a fair coin; the adversary names the coins of `guesses` of them, a number fixed before it
looks. What a mechanism promises bounds how often so many of them can be right:

    binomial   any (ε, δ)-private mechanism: Steinke, Nasr and Jagielski 2023 (arXiv 2305.08846 v1), Theorem 5.2
    Gaussian   one that is μ-Gaussian private: Mahloujifar, Melis and Chaudhuri 2024 (arXiv 2410.22235 v1),
               Algorithm 3, which uses the whole trade-off curve and so says more about noise like ours

Where several runs have canaries and coins of their own, all of them together are one mechanism that is as private for
each canary as each run is, so that the bounds hold for all guesses together too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

Method = Literal["binomial", "gaussian"]
METHODS: Final[tuple[Method, ...]] = ("binomial", "gaussian")
LEVEL: Final = 0.05  # one bound in twenty may lie above the truth
_UNLIKELY: Final = 0.01  # so many bounds above the claim that chance at LEVEL does not explain them
_LARGEST: Final = 50.0  # beyond which neither ε nor μ is looked for
_HALVINGS: Final = 50


def binomial_p(canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """How likely at least so many right guesses are, at most, if the mechanism is (ε, δ)-private.

    Theorem 5.2 of Steinke et al.: P[right ≥ v] ≤ P[B ≥ v] + 2 m δ max_i P[v > B ≥ v − i] / i, where B is binomial with
    `guesses` trials of probability e^ε / (1 + e^ε).
    """
    from scipy.stats import binom

    if not 0 <= right <= guesses <= canaries:
        raise ValueError(f"{right} right of {guesses} guesses about {canaries} canaries cannot be.")
    chance = 1 / (1 + math.exp(-epsilon))
    tail = float(binom.sf(right - 1, guesses, chance))
    if delta == 0 or right == 0:
        return min(tail, 1.0)
    below = np.cumsum(binom.pmf(np.arange(right - 1, -1, -1), guesses, chance)) / np.arange(1, right + 1)
    return min(tail + 2 * canaries * delta * float(below.max()), 1.0)


def binomial_epsilon(canaries: int, guesses: int, right: int, delta: float, level: float = LEVEL) -> float:
    """The largest ε that so many right guesses rule out at confidence 1 − level; 0 where they rule out none."""
    return _largest(lambda epsilon: binomial_p(canaries, guesses, right, epsilon, delta) < level)


def gaussian_refuted(canaries: int, guesses: int, right: int, mu: float, level: float = LEVEL) -> bool:
    """Whether so many right guesses have probability below `level` under any μ-Gaussian private mechanism.

    Mahloujifar et al., Algorithm 3, for two candidates a canary. Were the probability `level`, those right and those
    wrong would have to make up r[0] + h[0] of the `guesses` / `canaries` that there are; if that is more, it is less.
    """
    from scipy.special import ndtr, ndtri

    if not 0 <= right <= guesses <= canaries:
        raise ValueError(f"{right} right of {guesses} guesses about {canaries} canaries cannot be.")
    most = guesses / canaries
    correct, wrong = level * right / canaries, level * (guesses - right) / canaries
    for i in range(right - 1, -1, -1):
        # The least mass that the other coin's worlds must give to what has mass `correct` in these.
        needed = max(wrong, float(ndtr(ndtri(correct) - mu)))
        correct += i / (guesses - i) * (needed - wrong)
        wrong = needed
        if correct + wrong > most:
            return True
    return False


def gaussian_mu(canaries: int, guesses: int, right: int, level: float = LEVEL) -> float:
    """The largest μ that so many right guesses rule out at confidence 1 − level; 0 where they rule out none."""
    return _largest(lambda mu: gaussian_refuted(canaries, guesses, right, mu, level))


def epsilon_of_mu(mu: float, delta: float) -> float:
    """The ε for which μ-Gaussian privacy is (ε, δ)-privacy: δ = Φ(μ/2 − ε/μ) − e^ε Φ(−μ/2 − ε/μ)
    (Dong, Roth and Su 2022, arXiv 1905.02383, Corollary 2.13; Balle and Wang 2018, arXiv 1805.06530, Theorem 8)."""
    from scipy.special import log_ndtr, ndtr

    if mu <= 0:
        return 0.0

    def spent(epsilon: float) -> float:
        return float(ndtr(mu / 2 - epsilon / mu) - math.exp(epsilon + log_ndtr(-mu / 2 - epsilon / mu)))

    return _largest(lambda epsilon: spent(epsilon) > delta, 10 + mu * (mu / 2 + 10))


def _largest(ruled_out: Callable[[float], bool], most: float = _LARGEST) -> float:
    """The end of the interval from 0 on which `ruled_out` holds; rounded down."""
    low, high = 0.0, most
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if ruled_out(middle) else (low, middle)
    return low


@dataclass(frozen=True, slots=True)
class Guessed:
    """What came of some guesses.

    Attributes:
        canaries: m, each in by a coin.
        guesses: how many coins were named.
        right: how many of them rightly.
        binomial: lower bound on ε, at `delta` and 95 %.
        mu: lower bound on μ, at 95 %.
        gaussian: the ε of that μ, at `delta`.
    """

    canaries: int
    guesses: int
    right: int
    binomial: float
    mu: float
    gaussian: float

    @classmethod
    def of(cls, canaries: int, guesses: int, right: int, delta: float) -> Guessed:
        """With the bounds worked out."""
        mu = gaussian_mu(canaries, guesses, right)
        binomial = binomial_epsilon(canaries, guesses, right, delta)
        return cls(canaries, guesses, right, binomial, mu, epsilon_of_mu(mu, delta))

    def bound(self, method: Method) -> float:
        """One of the two bounds on ε."""
        return self.binomial if method == "binomial" else self.gaussian

    def to_json(self) -> dict[str, float]:
        """Rounded for people."""
        return {
            "canaries": self.canaries,
            "guesses": self.guesses,
            "right": self.right,
            "epsilon_at_least_binomial": round(self.binomial, 4),
            "epsilon_at_least_gaussian": round(self.gaussian, 4),
            "mu_at_least": round(self.mu, 4),
        }


def needed(canaries: int, claim: float, delta: float) -> int:
    """The fewest right guesses of as many as there are canaries that contradict a claim by either bound."""
    low, high = canaries // 2, canaries
    while low < high:
        middle = (low + high) // 2
        found = Guessed.of(canaries, canaries, middle, delta)
        if any(found.bound(method) > claim for method in METHODS):
            high = middle
        else:
            low = middle + 1
    return low


def explained(above: int, runs: int) -> bool:
    """Whether chance explains that so many of `runs` bounds, each wrong once in twenty, lie above the truth."""
    from scipy.stats import binom

    return float(binom.sf(above - 1, runs, LEVEL)) >= _UNLIKELY
