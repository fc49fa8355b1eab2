"""What released sums cost: ε of events, and the σ that an ε needs.

Rényi divergences of integer orders are added up and turned into (ε, δ) by `dp_accounting`; what is ours is the theorem
that makes its figures for the *continuous* Gaussian ours too, and two terms that the real world adds:

    one sum     Sampled Gaussian (Mironov, Talwar and Zhang 2019, arXiv 1908.10530, §3.3), at integer orders alone:
                there the divergence of the Poisson-sampled discrete Gaussian in any dimension is the continuous
                one's, to the digit (docs/privacy.md has the proof, which does not reach between the integers)
    slack       noise pointwise within e^(±τ) of a discrete Gaussian: D_α grows by at most τ·(2α − 1)/(α − 1)
    sums        D_α adds up, also if each depends on the last (Mironov 2017, arXiv 1702.07476 v3, Proposition 1)
    (ε, δ)      Canonne, Kamath and Steinke 2020, arXiv 2004.00010 v4, Proposition 12
    tail        where noise is as described but for probability η, δ grows by (1 + e^ε)·η

A coordinator may choose later plans by what earlier sums said. Where σ and q are the same throughout, it had no choice
but to stop. Where they are not, each order's sum of divergences is a filter at δ (Feldman and Zrnic 2021, arXiv
2008.11193), and the best of k orders is one at k·δ by a union bound: ε is then taken at δ / k.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from decimal import ROUND_CEILING, Context
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from partbook.errors import ConfigError, UnsupportedEvent
from partbook.privacy.events import NoisySum, Repeated, Unprotected

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Divergences = NDArray[np.float64]

# Dense where an ε above 0.5 has its best order; above that a fifth between two costs half a percent of ε at most.
ORDERS: Final = (*range(2, 65), 77, 92, 110, 132, 158, 190, 228, 274, 329, 395, 474, 569, 683, 820, 1024)
LEAST_NOISE: Final = 0.05  # what a plan can ask for: `partbook.plan.training.Multiplier`
MOST_NOISE: Final = 1000.0
_HOPELESS: Final = 1e-3  # a σ below which nobody is protected and the terms overflow
_ROUNDING: Final = 1e-12  # floating point loses less than that of one sum's divergence, of any order above
_FOUR_DIGITS: Final = Context(prec=4, rounding=ROUND_CEILING)


def epsilon(events: Iterable[Repeated], delta: float) -> float:
    """The ε for which the events together are (ε, δ)-differentially private for each recording.

    Args:
        events: all that was released, in any order; those of different σ or q may have been chosen by what the ones
            before them said.
        delta: δ, above 0 and below 1; it pays for the tails first.

    Returns:
        ε; 0 where there are no events, infinity where one is unprotected or where δ does not pay for the tails.

    Raises:
        ConfigError: δ is out of range.
        UnsupportedEvent: there is no theorem here for one of the events.
    """
    _check_delta(delta)
    sums, unprotected = _counted(events)
    if unprotected:
        return math.inf
    if not sums:
        return 0.0
    if len({(each.noise_multiplier, each.sampling) for each in sums}) > 1:
        delta /= len(ORDERS)
    divergences = sum(times * _divergences(each) for each, times in sums.items())
    tails = math.fsum(times * each.tail for each, times in sums.items())
    reserved = 0.0  # of δ, for the tails: they need it times a factor that grows with the ε sought
    while reserved < delta:
        found = _converted(divergences, delta - reserved)
        needed = (1 + math.exp(min(found, 700.0))) * tails
        if needed <= reserved:
            return found
        reserved = 2 * needed
    return math.inf


def epsilon_curve(one_round: Sequence[Repeated], delta: float, rounds: Iterable[int]) -> tuple[float, ...]:
    """ε after each of `rounds`, where every round releases `one_round`.

    Raises:
        ConfigError: δ is out of range.
        UnsupportedEvent: there is no theorem here for one of the events.
    """
    return tuple(
        epsilon([Repeated(each.event, each.times * done) for each in one_round] if done else [], delta)
        for done in rounds
    )


def calibrate(
    target_epsilon: float,
    delta: float,
    sampling: float,
    rounds: int,
    *,
    steps: int = 1,
    slack: float = 0.0,
    tail: float = 0.0,
) -> float:
    """The least noise for a target.

    Args:
        target_epsilon: ε after all rounds.
        delta: δ.
        sampling: q of each sum.
        rounds, steps: `rounds`·`steps` sums are released.
        slack, tail: of each sum, as in `NoisySum`.

    Returns:
        The smallest σ of four significant digits for which `epsilon` is at most the target; no less than 0.05, the
        least a plan can ask for.

    Raises:
        ConfigError: a figure is out of range, or no σ up to 1000 reaches the target.
    """
    from scipy.optimize import brentq

    _check_delta(delta)
    if not 0 < target_epsilon < math.inf:
        raise ConfigError(f"A target ε must be positive and finite, not {target_epsilon}.")
    if not 0 < sampling <= 1:
        raise ConfigError(f"The sampling probability must be above 0 and at most 1, not {sampling}.")
    if rounds < 1 or steps < 1:
        raise ConfigError(f"There must be at least one round and one step, not {rounds} and {steps}.")

    def cost(noise: float) -> float:
        return epsilon([Repeated(NoisySum(noise, sampling, slack, tail), rounds * steps)], delta)

    def excess(log_noise: float) -> float:
        return math.log(min(max(cost(math.exp(log_noise)), 1e-12), 1e12) / target_epsilon)

    if cost(LEAST_NOISE) <= target_epsilon:
        return LEAST_NOISE
    enough = 1.0
    while cost(enough) > target_epsilon:
        if enough == MOST_NOISE:
            raise ConfigError(
                f"No noise multiplier up to {MOST_NOISE:g} gives ε ≤ {target_epsilon:g} at δ = {delta:g} with q = "
                f"{sampling:g} and {rounds * steps} sums; ask for fewer rounds, a smaller batch or a larger ε."
            )
        enough = min(2 * enough, MOST_NOISE)
    little = enough / 2
    while cost(little) <= target_epsilon:
        little /= 2
    near = brentq(excess, math.log(little), math.log(2 * little if little < 0.5 else enough), xtol=2e-5)
    noise = _FOUR_DIGITS.create_decimal(math.exp(near))
    while cost(float(noise)) > target_epsilon:
        noise = _FOUR_DIGITS.next_plus(noise)
    while cost(float(below := _FOUR_DIGITS.next_minus(noise))) <= target_epsilon:
        noise = below
    return float(noise)


def cross_check(events: Iterable[Repeated], delta: float) -> dict[str, float]:
    """What other accountants say of the same sums, had their noise been continuous.

    None of them has a theorem for discrete noise, and slack and tail are left out: these figures show whether ours is
    plausible, and how much of ε its method gives away. They decide nothing.

    Returns:
        ε by name: `dp-accounting PLD` always; `Opacus PRV` and `Opacus RDP` where Opacus is installed.

    Raises:
        ConfigError: δ is out of range.
        UnsupportedEvent: there is no theorem here for one of the events.
    """
    _check_delta(delta)
    sums, unprotected = _counted(events)
    found = {"dp-accounting PLD": _pld(sums, delta)}
    history = [(each.noise_multiplier, each.sampling, times) for each, times in sums.items()]
    try:
        from opacus.accountants import PRVAccountant, RDPAccountant
    except ModuleNotFoundError:
        pass
    else:
        prv, rdp = PRVAccountant(), RDPAccountant()
        prv.history, rdp.history = list(history), list(history)
        found["Opacus PRV"] = float(prv.get_epsilon(delta)) if history else 0.0
        found["Opacus RDP"] = float(rdp.get_epsilon(delta)) if history else 0.0
    return dict.fromkeys(found, math.inf) if unprotected else found


def _counted(events: Iterable[Repeated]) -> tuple[Counter[NoisySum], bool]:
    sums: Counter[NoisySum] = Counter()
    unprotected = False
    for each in events:
        if isinstance(each.event, NoisySum):
            sums[each.event] += each.times
        elif isinstance(each.event, Unprotected):
            unprotected = True
        else:
            raise UnsupportedEvent(
                f"There is no theorem here for {type(each.event).__name__}; what it cost is unknown. "
                "Update Partbook to a version that knows it."
            )
    return sums, unprotected


def _divergences(event: NoisySum) -> Divergences:
    """D_α of one sum at `ORDERS`, an upper bound in both directions."""
    import numpy as np

    orders = np.array(ORDERS, dtype=np.float64)
    # P ≤ e^τ P′ and Q ≥ e^(−τ) Q′ pointwise give E_Q[(P/Q)^α] ≤ e^((2α−1)τ) E_Q′[(P′/Q′)^α].
    return _sampled_gaussian(event.noise_multiplier, event.sampling) + event.slack * (2 * orders - 1) / (orders - 1)


@lru_cache(maxsize=4096)
def _sampled_gaussian(noise_multiplier: float, sampling: float) -> Divergences:
    import numpy as np
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.rdp import RdpAccountant

    if noise_multiplier < _HOPELESS:
        return np.full(len(ORDERS), np.inf)
    # Integer orders take `_compute_log_a_int` there: the binomial sum of arXiv 1908.10530, §3.3, term for term.
    accountant = RdpAccountant(list(ORDERS))
    accountant.compose(PoissonSampledDpEvent(sampling, GaussianDpEvent(noise_multiplier)))
    found: Divergences = np.maximum(accountant.rdp, 0.0) + _ROUNDING
    found.flags.writeable = False
    return found


def _converted(divergences: Divergences | int, delta: float) -> float:
    from dp_accounting.rdp import compute_epsilon

    found, _ = compute_epsilon(ORDERS, divergences, delta)  # arXiv 2004.00010 v4, Proposition 12
    return float(found)


def _pld(sums: Counter[NoisySum], delta: float) -> float:
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.pld import PLDAccountant

    # Pessimistic at any interval; the wide one keeps losses of hundreds of nats in memory.
    large = any(times / each.noise_multiplier**2 > 100 for each, times in sums.items())
    accountant = PLDAccountant(value_discretization_interval=1e-2 if large else 1e-4)
    for each, times in sums.items():
        accountant.compose(PoissonSampledDpEvent(each.sampling, GaussianDpEvent(each.noise_multiplier)), times)
    return float(accountant.get_epsilon(delta))


def _check_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise ConfigError(f"δ must be above 0 and below 1, and should be below 1/recordings; it is {delta}.")
