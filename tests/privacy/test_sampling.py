"""Poisson sampling: each recording by itself, never more often than asked."""

from __future__ import annotations

import hashlib
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from partbook.privacy.sampling import poisson_sample

LEVEL = 1e-7


def words_of(*values: int):
    return lambda size: b"".join(value.to_bytes(8, "little") for value in values)[:size]


@given(st.floats(0, 1, exclude_max=True))
def test_a_probability_is_taken_down_to_a_multiple_of_2_to_the_minus_64(probability):
    threshold = int(Fraction(probability) * 2**64)
    assert Fraction(threshold, 2**64) <= Fraction(probability) < Fraction(threshold + 1, 2**64)
    drawn = poisson_sample(3, probability, words_of(max(threshold - 1, 0), threshold, 2**64 - 1))
    assert drawn.tolist() == ([0] if threshold else [])


@pytest.mark.parametrize("probability", [0.001, 0.1, 0.5, 0.97])
def test_how_many_are_drawn_is_binomial(probability):
    stream = hashlib.shake_256(repr(probability).encode()).digest(8 * 40 * 2000)
    sizes = [
        len(poisson_sample(40, probability, lambda size, start=320 * i: stream[start : start + size]))
        for i in range(2000)
    ]
    expected = stats.binom.pmf(np.arange(41), 40, probability) * len(sizes)
    seen = np.bincount(sizes, minlength=41)
    common = expected > 10
    assert (
        stats.chisquare([*seen[common], seen[~common].sum()], [*expected[common], expected[~common].sum()]).pvalue
        > LEVEL
    )


def test_each_recording_is_drawn_as_often_as_any_other_and_by_itself():
    stream = hashlib.shake_256(b"each").digest(8 * 10 * 8_000)
    drawn = np.zeros((8_000, 10), int)
    for i in range(len(drawn)):
        drawn[i, poisson_sample(10, 0.3, lambda size, start=80 * i: stream[start : start + size])] = 1
    assert stats.chisquare(drawn.sum(0)).pvalue > LEVEL
    pair = np.bincount(drawn[:, 3] * 2 + drawn[:, 4], minlength=4).reshape(2, 2)
    assert stats.chi2_contingency(pair).pvalue > LEVEL


def test_a_probability_of_one_draws_all_and_of_zero_none():
    assert poisson_sample(5, 1.0).tolist() == [0, 1, 2, 3, 4]
    assert poisson_sample(5, 0.0).tolist() == []


def test_the_operating_system_decides_and_indices_rise():
    drawn = poisson_sample(10_000, 0.5)
    assert drawn.dtype == np.int64
    assert (np.diff(drawn) > 0).all()
    assert not np.array_equal(drawn, poisson_sample(10_000, 0.5))


def test_nothing_can_be_drawn_from_nothing():
    assert poisson_sample(0, 0.5).shape == (0,)
    assert poisson_sample(0, 1.0).shape == (0,)


@pytest.mark.parametrize("probability", [-0.1, 1.0000001, float("nan"), float("inf")])
def test_what_is_no_probability_is_refused(probability):
    with pytest.raises(ValueError, match="probability"):
        poisson_sample(5, probability)


def test_a_negative_count_is_refused():
    with pytest.raises(ValueError, match="-1"):
        poisson_sample(-1, 0.5)
