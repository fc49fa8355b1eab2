from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, norm

from partbook.evaluation.estimates import Estimate, bootstrap, share


def test_a_bootstraps_interval_is_the_normal_one_where_the_mean_is_normal() -> None:
    values = norm.ppf((np.arange(400) + 0.5) / 400)
    found = bootstrap([values], np.mean, resamples=4000)
    half = 1.96 * values.std() / 20
    assert found.value == pytest.approx(0, abs=1e-12)
    assert found.low == pytest.approx(-half, abs=0.006)
    assert found.high == pytest.approx(half, abs=0.006)


def test_groups_are_drawn_each_from_itself() -> None:
    found = bootstrap([np.zeros(5), np.ones(7)], lambda a, b: float(b.mean() - a.mean()))
    assert found == Estimate(1.0, 1.0, 1.0)


def test_rows_are_drawn_whole() -> None:
    rows = np.repeat(np.arange(6.0)[:, None], 2, axis=1)
    assert bootstrap([rows], lambda drawn: float((drawn[:, 0] != drawn[:, 1]).sum())) == Estimate(0.0, 0.0, 0.0)


def test_one_seed_gives_one_interval_and_another_another() -> None:
    values = np.arange(20.0)
    assert bootstrap([values], np.median, seed=3) == bootstrap([values], np.median, seed=3)
    assert bootstrap([values], np.mean, seed=3) != bootstrap([values], np.mean, seed=4)


def test_of_nothing_nothing_is_estimated() -> None:
    for found in (bootstrap([np.zeros(0)], np.mean), bootstrap([np.ones(3), np.zeros(0)], np.mean), share(0, 0)):
        assert all(math.isnan(number) for number in (found.value, found.low, found.high))


@given(st.integers(1, 60), st.data())
@settings(max_examples=40)
def test_a_shares_interval_is_clopper_and_pearsons(total: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, total))
    found = share(count, total)
    assert found.value == count / total
    assert found.low == pytest.approx(beta.ppf(0.025, count, total - count + 1) if count else 0.0, abs=1e-9)
    assert found.high == pytest.approx(beta.ppf(0.975, count + 1, total - count) if count < total else 1.0, abs=1e-9)


def test_a_known_interval() -> None:
    # Of ten none: 1 - 0.025 ** (1 / 10).
    assert share(0, 10).high == pytest.approx(1 - 0.025**0.1)
    assert share(10, 10) == Estimate(1.0, pytest.approx(0.025**0.1), 1.0)
