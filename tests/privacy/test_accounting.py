"""ε against other accountants and, for the discrete mechanism itself, against sums over its lattice."""

import itertools
import math
from functools import lru_cache

import mpmath
import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant, compute_epsilon
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from partbook.errors import ConfigError, UnsupportedEvent
from partbook.privacy import accounting
from partbook.privacy.accounting import ORDERS, calibrate, cross_check, epsilon, epsilon_curve
from partbook.privacy.events import NoisySum, Repeated, Unprotected

DELTA = 1e-5
# Orders that dp-accounting takes by default, but for the few under 1.5, which seldom converge; fractional ones hold for
# continuous noise alone.
THEIR_ORDERS = (*(1 + x / 10 for x in range(5, 100)), *range(11, 64), 128, 256, 512, 1024)
Mass = NDArray[np.float64]


def spent(noise: float, sampling: float, times: int, delta: float = DELTA, **more: float) -> float:
    return epsilon([Repeated(NoisySum(noise, sampling, **more), times)], delta)


# --- against other accountants -----------------------------------------------------------------------------------


@lru_cache
def theirs(noise: float, sampling: float) -> Mass:
    accountant = RdpAccountant((*THEIR_ORDERS, *ORDERS))
    accountant.compose(PoissonSampledDpEvent(sampling, GaussianDpEvent(noise)))
    return accountant.rdp


@pytest.mark.parametrize("noise", [0.6, 0.8, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("sampling", [0.01, 0.1, 0.5, 1.0])
def test_epsilon_is_never_below_dp_accounting(noise: float, sampling: float) -> None:
    for times in (1, 10, 200):
        # Their figure from losses rounded up, so that it is an upper bound itself and a narrow grid is not needed.
        accountant = PLDAccountant(value_discretization_interval=1e-4 if noise > 2 else 2e-3)
        accountant.compose(PoissonSampledDpEvent(sampling, GaussianDpEvent(noise)), times)
        ours = spent(noise, sampling, times)
        assert ours >= accountant.get_epsilon(DELTA)
        rdp, _ = compute_epsilon((*THEIR_ORDERS, *ORDERS), times * theirs(noise, sampling), DELTA)
        assert ours >= rdp
        if rdp < 10:
            assert ours < 1.2 * rdp + 0.02, "nor wastefully above it, where anybody would train"


@pytest.mark.parametrize("noise", [0.3, 1.0, 30.0])
@pytest.mark.parametrize("sampling", [1e-7, 0.02, 0.7])
def test_divergences_are_never_below_the_exact_binomial_sum(noise: float, sampling: float) -> None:
    """In exact arithmetic: a divergence lost to rounding would be privacy lost."""
    ours = accounting._divergences(NoisySum(noise, sampling))
    with mpmath.workdps(50):
        q, v = mpmath.mpf(sampling), mpmath.mpf(noise) ** 2
        for place in (0, 1, 7, 40, len(ORDERS) - 5):
            order = ORDERS[place]
            terms = (
                mpmath.binomial(order, l) * (1 - q) ** (order - l) * q**l * mpmath.exp(l * (l - 1) / (2 * v))
                for l in range(order + 1)  # noqa: E741
            )
            exact = mpmath.log(mpmath.fsum(terms)) / (order - 1)
            assert ours[place] >= exact
            assert ours[place] <= exact * (1 + 1e-9) + 2e-12


def test_opacus_and_pld_confirm_the_order_of_magnitude() -> None:
    found = cross_check([Repeated(NoisySum(1.0, 0.05), 100)], DELTA)
    ours = spent(1.0, 0.05, 100)
    assert set(found) == {"dp-accounting PLD", "Opacus PRV", "Opacus RDP"}
    assert all(0.8 * ours < value <= 1.01 * ours for value in found.values())
    assert set(cross_check([Repeated(Unprotected())], DELTA).values()) == {math.inf}


# --- against the discrete mechanism itself -----------------------------------------------------------------------


def lattice(variance: float, shift: tuple[int, ...]) -> tuple[Mass, Mass]:
    """The discrete Gaussian on the integers to the power of len(shift), and the same shifted: probabilities."""
    reach = math.ceil(14 * math.sqrt(variance)) + max(map(abs, shift))
    points = np.arange(-reach, reach + 1)
    here, there = np.ones(1), np.ones(1)
    normal = math.fsum(math.exp(-(int(x) ** 2) / (2 * variance)) for x in points)
    for step in shift:
        here = np.outer(here, np.exp(-(points**2) / (2 * variance)) / normal).ravel()
        there = np.outer(there, np.exp(-((points - step) ** 2) / (2 * variance)) / normal).ravel()
    return here, there


def exact_epsilon(first: Mass, second: Mass, times: int, delta: float) -> float:
    """The smallest ε with hockey-stick divergence at most δ of `times` draws, first against second.

    Losses that agree to 1e-9 are taken together at the larger one; where there are too many combinations, losses are
    rounded up to a multiple of 1/500. Both make it an upper bound, and so a stricter judge.
    """
    keep = first > 1e-40
    losses, masses = np.log(first[keep]) - np.log(second[keep]), first[keep]

    def rounded_up(width: float) -> tuple[NDArray[np.int64], Mass]:
        steps, index = np.unique(np.ceil(losses / width).astype(np.int64), return_inverse=True)
        return steps, np.bincount(index, masses)

    steps, total = rounded_up(1e-9)
    if len(steps) ** times < 100_000:
        single, weights, values = steps * 1e-9, total, steps * 1e-9
        for _ in range(times - 1):
            values, total = np.add.outer(values, single).ravel(), np.outer(total, weights).ravel()
    else:
        steps, weights = rounded_up(1 / 500)
        dense = np.zeros(steps[-1] - steps[0] + 1)
        dense[steps - steps[0]] = weights
        size = 1 << (times * len(dense)).bit_length()
        total = np.fft.irfft(np.fft.rfft(dense, size) ** times, size)[: times * (len(dense) - 1) + 1].clip(0)
        values = (np.arange(len(total)) + times * steps[0]) / 500
    heavy = (total > 1e-25) & (values > 0)
    values, total = values[heavy], total[heavy]
    low, high = 0.0, float(values.max(initial=0.0))
    for _ in range(36):
        middle = (low + high) / 2
        over = values > middle
        if float(np.sum(total[over] * -np.expm1(middle - values[over]))) > delta:
            low = middle
        else:
            high = middle
    return high


@pytest.mark.parametrize(
    ("variance", "shift"),
    [(1, (1,)), (1, (2,)), (2.5, (3,)), (16, (3,)), (1, (1, 1)), (2, (2, 1)), (16, (2, 1)), (0.5, (1,))],
)
@pytest.mark.parametrize("sampling", [0.05, 1.0])
@pytest.mark.parametrize("times", [1, 2, 30])
def test_epsilon_is_never_below_the_discrete_mechanisms_own(
    variance: float, shift: tuple[int, ...], sampling: float, times: int
) -> None:
    without, shifted = lattice(variance, shift)
    with_it = (1 - sampling) * without + sampling * shifted
    noise = math.sqrt(variance) / math.hypot(*shift)
    for delta in (1e-3, 1e-6):
        ours = spent(noise, sampling, times, delta)
        assert ours >= exact_epsilon(with_it, without, times, delta)
        assert ours >= exact_epsilon(without, with_it, times, delta)


def renyi(first: list[mpmath.mpf], second: list[mpmath.mpf], order: int) -> mpmath.mpf:
    pairs = zip(first, second, strict=True)
    return mpmath.log(mpmath.fsum(p**order / q ** (order - 1) for p, q in pairs)) / (order - 1)


@pytest.mark.parametrize(("variance", "shift"), [(1, (1,)), (0.5, (2,)), (3, (3,)), (1, (1, 1)), (1, (2, -1))])
@pytest.mark.parametrize("sampling", [0.1, 0.6])
@pytest.mark.parametrize("order", [2, 5])
def test_discrete_divergences_of_integer_orders_are_the_continuous_ones(
    variance: float, shift: tuple[int, ...], sampling: float, order: int
) -> None:
    """The theorem of docs/privacy.md, summed over the lattice; and the other direction, which is never more."""
    with mpmath.workdps(30):
        reach = math.ceil(9 * math.sqrt(variance)) + order * max(map(abs, shift))
        cells = list(itertools.product(range(-reach, reach + 1), repeat=len(shift)))
        normal = mpmath.fsum(mpmath.exp(-(mpmath.mpf(x) ** 2) / (2 * variance)) for x in range(-reach, reach + 1))

        def without(x: tuple[int, ...]) -> mpmath.mpf:
            return mpmath.exp(-mpmath.mpf(sum(c * c for c in x)) / (2 * variance)) / normal ** len(shift)

        def with_it(x: tuple[int, ...]) -> mpmath.mpf:
            moved = tuple(c - step for c, step in zip(x, shift, strict=True))
            return (1 - mpmath.mpf(sampling)) * without(x) + mpmath.mpf(sampling) * without(moved)

        here, there = [without(x) for x in cells], [with_it(x) for x in cells]
        added, removed = renyi(there, here, order), renyi(here, there, order)
        noise = math.sqrt(variance) / math.hypot(*shift)
        ours = float(accounting._divergences(NoisySum(noise, sampling))[ORDERS.index(order)])
        assert float(added) == pytest.approx(ours, rel=1e-9)
        assert removed <= added


@pytest.mark.parametrize("variance", [0.5, 0.75, 1.0, 2.0])
@pytest.mark.parametrize("members", [2, 3, 4])
def test_a_sum_of_discrete_gaussians_is_within_the_slack_of_one(variance: float, members: int) -> None:
    with mpmath.workdps(60):
        reach = 40
        weights = [mpmath.exp(-(mpmath.mpf(x) ** 2) / (2 * variance)) for x in range(-reach, reach + 1)]
        one = [w / mpmath.fsum(weights) for w in weights]
        total = one
        for _ in range(members - 1):
            total = [
                mpmath.fsum(total[k] * one[n - k] for k in range(max(0, n - 2 * reach), min(n, len(total) - 1) + 1))
                for n in range(len(total) + 2 * reach)
            ]
        middle, summed = members * reach, members * variance
        whole = mpmath.fsum(mpmath.exp(-(mpmath.mpf(x) ** 2) / (2 * summed)) for x in range(-200, 201))
        bound = 5 * sum(math.exp(-2 * math.pi**2 * variance * k / (k + 1)) for k in range(1, members))
        for x in range(-12, 13):
            ideal = mpmath.exp(-(mpmath.mpf(x) ** 2) / (2 * summed)) / whole
            assert abs(mpmath.log(total[middle + x] / ideal)) <= bound


def test_slack_pays_for_what_it_stands_for() -> None:
    """Two members' noise of variance 1/2 is no discrete Gaussian: its own ε, exactly, is below ours with the slack."""
    reach = 20
    points = np.arange(-reach, reach + 1)
    one = np.exp(-(points**2) / (2 * 0.5))
    one /= one.sum()
    both = np.convolve(one, one)
    without, shifted = np.append(both, 0), np.append(0, both)
    seen = (without > 0) & (shifted > 0)
    without, shifted = without[seen], shifted[seen]
    slack = 5 * math.exp(-(math.pi**2) * 0.5)
    for sampling in (0.2, 1.0):
        with_it = (1 - sampling) * without + sampling * shifted
        for delta in (1e-2, 1e-4):
            ours = spent(1.0, sampling, 2, delta, slack=slack)
            assert ours >= max(exact_epsilon(with_it, without, 2, delta), exact_epsilon(without, with_it, 2, delta))
            assert ours > spent(1.0, sampling, 2, delta)


def test_tails_are_paid_out_of_delta_times_what_the_epsilon_weighs() -> None:
    plain, tail = spent(1.0, 0.1, 100), 1e-12
    ours = spent(1.0, 0.1, 100, tail=tail)
    left = DELTA - (1 + math.exp(ours)) * 100 * tail
    assert 0 < left < DELTA
    assert plain < spent(1.0, 0.1, 100, left) <= ours
    assert spent(1.0, 0.1, 100, tail=1e-8) == math.inf, "δ does not pay for these"


# --- manners ---------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=6)
@given(noise=st.floats(0.5, 20), sampling=st.floats(0.001, 1), times=st.integers(1, 500), factor=st.floats(1.01, 3))
def test_more_rounds_more_sampling_or_less_noise_never_cost_less(
    noise: float, sampling: float, times: int, factor: float
) -> None:
    here = spent(noise, sampling, times)
    assert spent(noise, sampling, math.ceil(times * factor)) >= here
    assert spent(noise, min(1.0, sampling * factor), times) >= here
    assert spent(noise / factor, sampling, times) >= here
    assert spent(noise, sampling, times, DELTA / factor) >= here
    assert spent(noise, sampling, times, slack=1e-3) >= here


def test_events_add_up_in_any_order_and_grouping() -> None:
    a, b = NoisySum(1.0, 0.1), NoisySum(2.0, 0.5, 1e-20, 1e-25)
    once = epsilon([Repeated(a, 3), Repeated(b, 2)], DELTA)
    assert epsilon([Repeated(b), Repeated(a, 2), Repeated(b), Repeated(a)], DELTA) == once
    assert once > max(spent(1.0, 0.1, 3), spent(2.0, 0.5, 2))


def test_nothing_costs_nothing_and_the_unprotected_costs_everything() -> None:
    assert epsilon([], DELTA) == 0.0
    assert epsilon([Repeated(NoisySum(5.0, 0.1)), Repeated(Unprotected())], DELTA) == math.inf
    assert spent(1e-200, 0.5, 1) == math.inf, "no overflow on the way"
    assert spent(1.0, 0.1, 2**53 - 1) > 1e10


def test_an_event_without_a_theorem_is_refused() -> None:
    class Shuffled:
        noise_multiplier, sampling, slack, tail = 1.0, 0.1, 0.0, 0.0

    for ask in (epsilon, cross_check):
        with pytest.raises(UnsupportedEvent, match="Shuffled"):
            ask([Repeated(NoisySum(1.0, 0.1)), Repeated(Shuffled())], DELTA)  # type: ignore[arg-type]


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, 2.0, math.nan, math.inf])
def test_a_delta_that_is_none_is_refused(delta: float) -> None:
    for ask in (epsilon, cross_check):
        with pytest.raises(ConfigError, match="δ"):
            ask([Repeated(NoisySum(1.0, 0.1))], delta)
    with pytest.raises(ConfigError, match="δ"):
        calibrate(8, delta, 0.1, 10)


def test_a_ledger_of_hundreds_of_equal_rounds_is_priced_at_once() -> None:
    import time

    spent(1.1, 0.07, 1)
    began = time.process_time()
    epsilon_curve([Repeated(NoisySum(1.1, 0.07, 1e-30, 1e-25))], DELTA, range(300))
    assert time.process_time() - began < 1.0
    assert epsilon_curve([Repeated(NoisySum(1.1, 0.07))], DELTA, [0, 1, 5]) == (
        0.0,
        spent(1.1, 0.07, 1),
        spent(1.1, 0.07, 5),
    )


@pytest.mark.parametrize(
    ("target", "sampling", "rounds"), [(8.0, 0.064, 200), (2.0, 0.01, 1000), (0.5, 1.0, 10), (30.0, 1.0, 1)]
)
def test_calibration_finds_the_least_noise_of_four_digits(target: float, sampling: float, rounds: int) -> None:
    noise = calibrate(target, DELTA, sampling, rounds)
    assert float(f"{noise:.4g}") == noise
    assert spent(noise, sampling, rounds) <= target
    step = 10.0 ** (math.floor(math.log10(noise)) - 3)
    assert spent(float(f"{noise - step:.4g}"), sampling, rounds) > target


def test_calibration_counts_steps_tails_and_slack() -> None:
    assert calibrate(4, DELTA, 0.1, 10, steps=5) == calibrate(4, DELTA, 0.1, 50)
    noise = calibrate(4, DELTA, 1.0, 50, slack=0.01, tail=1e-10)
    assert noise > calibrate(4, DELTA, 1.0, 50)
    assert spent(noise, 1.0, 50, slack=0.01, tail=1e-10) <= 4
    assert calibrate(1e4, DELTA, 0.01, 1) == accounting.LEAST_NOISE


@pytest.mark.parametrize(
    ("target", "sampling", "rounds", "more", "says"),
    [
        (0.0, 0.1, 10, {}, "ε"),
        (math.nan, 0.1, 10, {}, "ε"),
        (math.inf, 0.1, 10, {}, "ε"),
        (1.0, 0.0, 10, {}, "sampling"),
        (1.0, 1.5, 10, {}, "sampling"),
        (1.0, 0.1, 0, {}, "round"),
        (1e-4, 1.0, 10**6, {}, "fewer rounds"),
        (8.0, 1.0, 10, {"tail": 1e-3}, "No noise multiplier"),
        (1.0, 1.0, 10, {"slack": 5.0}, "No noise multiplier"),
    ],
)
def test_an_impossible_target_is_refused(target: float, sampling: float, rounds: int, more: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        calibrate(target, DELTA, sampling, rounds, **more)
