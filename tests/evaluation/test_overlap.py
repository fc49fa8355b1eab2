from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import erf
from scipy.stats import norm

from partbook.evaluation.overlap import overlapping_area

NORMAL = norm.ppf((np.arange(500) + 0.5) / 500)  # no draw of a normal distribution is so like it
OTHER = norm.ppf((np.arange(200) + 0.5) / 200)


def test_two_draws_of_one_distribution_overlap() -> None:
    assert overlapping_area(OTHER, NORMAL) > 0.97


@pytest.mark.parametrize("shift", [0.5, 1.0, 2.0, 4.0])
def test_shifted_normals_overlap_as_the_integral_says(shift: float) -> None:
    """Distances are |N(0, 2)| within the reference and |N(shift, 2)| between the sets."""
    x = np.linspace(0, 14, 20001)
    within = 2 * np.exp(-(x**2) / 4)
    between = np.exp(-((x - shift) ** 2) / 4) + np.exp(-((x + shift) ** 2) / 4)
    wanted = np.trapezoid(np.minimum(within, between), x) / math.sqrt(4 * math.pi)
    assert overlapping_area(OTHER + shift, NORMAL) == pytest.approx(wanted, abs=0.03)


def test_pieces_that_are_all_the_same_overlap_with_a_normal_reference_by_what_the_module_says() -> None:
    """Distances |N(0, 1)| against |N(0, 2)|: the densities cross at 2 · sqrt(ln 2 / 2)."""
    cross = 2 * math.sqrt(math.log(2) / 2)
    wanted = erf(cross / 2) + 1 - erf(cross / math.sqrt(2))
    assert wanted == pytest.approx(0.83, abs=0.005)
    assert overlapping_area(np.zeros(50), NORMAL) == pytest.approx(wanted, abs=0.03)


def test_sets_apart_do_not_overlap() -> None:
    assert overlapping_area(NORMAL + 50, NORMAL) < 0.001
    assert overlapping_area(np.full(9, 5.0), np.full(9, 3.0)) < 0.001


def test_equal_numbers_overlap_wholly_however_they_were_rounded() -> None:
    assert overlapping_area(np.full(9, 0.3), np.full(9, 0.3)) == 1.0
    assert overlapping_area(np.full(9, 0.1 + 0.2), np.full(9, 0.3)) == 1.0


def test_what_is_not_a_number_is_left_out_and_of_fewer_than_two_nothing_is_said() -> None:
    gaps = np.r_[np.nan, NORMAL, np.nan]
    assert overlapping_area(gaps, gaps) == overlapping_area(NORMAL, NORMAL)
    assert math.isnan(overlapping_area(np.array([1.0, np.nan]), NORMAL))
    assert math.isnan(overlapping_area(NORMAL, np.array([])))


_NUMBERS = st.lists(st.floats(-100, 100), min_size=2, max_size=8).map(np.array)


@given(_NUMBERS, _NUMBERS)
@settings(max_examples=50)
def test_an_overlap_is_a_share_at_any_scale(candidate: np.ndarray, reference: np.ndarray) -> None:
    found = overlapping_area(candidate, reference)
    assert 0 <= found <= 1 + 1e-9
    if np.ptp(np.r_[candidate, reference]) > 1e-6:
        assert overlapping_area(8 * candidate, 8 * reference) == pytest.approx(found, abs=1e-9)
