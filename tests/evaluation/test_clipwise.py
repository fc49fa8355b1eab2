import numpy as np
import pytest

from partbook.evaluation.clipwise import bootstrap, jackknife


def of_means(seed: int, count: int):
    values = np.random.default_rng(seed).standard_normal(count)
    return lambda chosen: float(values[chosen].mean())


def test_the_bootstraps_interval_of_a_mean_is_two_standard_errors_either_way():
    found = bootstrap([400], of_means(1, 400), resamples=1000)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 / 20, rel=0.12)
    assert found.low < found.value < found.high


def test_the_jackknifes_interval_of_a_difference_is_too():
    values = np.random.default_rng(2).standard_normal((2, 400))
    widths = []
    for seed in range(20):
        found = jackknife([400, 400], lambda a, b: float(values[0][a].mean() - values[1][b].mean()), seed=seed)
        widths.append(found.high - found.low)
        assert found.value == pytest.approx(values[0].mean() - values[1].mean())
    assert np.sqrt(np.mean(np.square(widths))) / 2 == pytest.approx(1.96 * np.sqrt(2 / 400), rel=0.15)


def test_a_statistic_that_resamples_lower_keeps_its_interval_around_its_value():
    """The number of different clips: a resample has 63 % of them."""
    found = bootstrap([100], lambda chosen: float(len(set(chosen))))
    assert found.value == 100
    assert found.low < 100 < found.high
    assert found.high - found.low < 20


def test_nothing_reaches_below_what_is_possible():
    for of in (bootstrap, jackknife):
        found = of([10], of_means(3, 10), least=0.0)
        assert found.low >= 0
        below = of([10], lambda chosen: -1.0, least=0.0)
        assert (below.value, below.low, below.high) == (0.0, 0.0, 0.0)
