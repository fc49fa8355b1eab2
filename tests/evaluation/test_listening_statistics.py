"""Exact tests and agreement, held to textbook values and to plain counting."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from partbook.evaluation.listening.statistics import (
    MISSING,
    by_guessing,
    critical,
    fleiss_kappa,
    krippendorff_alpha,
    margins_p,
    power,
    proportion,
    raw_agreement,
    trials_needed,
)

# Fleiss 1971's kind of table, as in the worked example of its Wikipedia article: 10 subjects, 14 raters, 5 categories.
FLEISS = [
    [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
]  # fmt: skip
# Krippendorff 2011, section C: four observers, twelve units, some unseen.
KRIPPENDORFF = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, -1, -1, -1],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, -1, 3],
    [-1, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, -1],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, -1],
]
tables = st.integers(2, 5).flatmap(
    lambda listeners: st.lists(
        st.lists(st.sampled_from([0, 1, MISSING]), min_size=listeners, max_size=listeners), min_size=1, max_size=12
    )
)


def test_fifteen_of_twenty_have_the_textbook_interval_and_p() -> None:
    found = proportion(15, 20)
    assert (found.low, found.high) == pytest.approx((0.5090, 0.9134), abs=1e-4)
    assert found.p == pytest.approx(2 * 21_700 / 2**20), "21,700 of the 2^20 ways have 15 or more"
    assert found.share == 0.75


def test_no_hit_of_ten_has_the_closed_form_of_clopper_and_pearson() -> None:
    found = proportion(0, 10)
    assert found.low == 0.0
    assert found.high == pytest.approx(1 - 0.025 ** (1 / 10))
    assert found.p == pytest.approx(2 / 2**10)


def test_of_no_trials_nothing_is_known() -> None:
    found = proportion(0, 0)
    assert (found.low, found.high, found.p) == (0.0, 1.0, 1.0)
    assert math.isnan(found.share)


@given(st.integers(1, 60), st.data())
def test_hits_and_misses_mirror_each_other(of: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, of))
    found, mirrored = proportion(hits, of), proportion(of - hits, of)
    assert found.low <= found.share <= found.high
    assert (found.low, found.p) == pytest.approx((1 - mirrored.high, mirrored.p))


def test_who_guesses_gets_fifteen_of_twenty_once_in_forty_eight_times() -> None:
    assert by_guessing(15, 20) == pytest.approx(sum(math.comb(20, k) for k in range(15, 21)) / 2**20)
    assert round(1 / by_guessing(15, 20)) == 48


@pytest.mark.parametrize(("of", "least"), [(5, 6), (6, 6), (10, 9), (20, 15), (100, 61)])
def test_the_fewest_hits_that_count_are_those_of_the_sign_tests_tables(of: int, least: int) -> None:
    assert critical(of) == least


def test_power_is_counted_exactly() -> None:
    tail = sum(math.comb(20, k) * 0.75**k * 0.25 ** (20 - k) for k in (*range(15, 21), *range(6)))
    assert power(20, 0.75) == pytest.approx(tail)
    assert power(20, 0.5) <= 0.05, "who guesses is found out in at most 5 % of tests"
    assert power(5, 0.99) == 0.0, "five trials cannot prove anything at 5 %"


@pytest.mark.parametrize(("share", "wanted"), [(0.75, 0.8), (0.6, 0.8), (0.9, 0.9), (0.25, 0.8)])
def test_from_the_number_of_trials_needed_on_power_never_falls_short(share: float, wanted: float) -> None:
    needed = trials_needed(share, wanted)
    assert power(needed - 1, share) < wanted
    assert all(power(of, share) >= wanted for of in range(needed, 2 * needed))


def test_the_lady_who_tasted_all_eight_cups_right_had_one_chance_in_seventy_each_way() -> None:
    assert margins_p(np.array([[4, 0], [0, 4]])) == pytest.approx(2 / 70)


def listeners_of(counts: list[list[int]]) -> np.ndarray:
    return np.array([np.repeat(np.arange(len(row)), row) for row in counts]).T


def test_fleiss_kappa_of_the_worked_example_is_a_fifth() -> None:
    assert fleiss_kappa(listeners_of(FLEISS)) == pytest.approx(0.210, abs=5e-4)
    assert raw_agreement(listeners_of(FLEISS)) == pytest.approx(0.378, abs=5e-4)


def test_krippendorffs_alpha_of_his_own_examples() -> None:
    assert krippendorff_alpha(np.array(KRIPPENDORFF)) == pytest.approx(0.743, abs=5e-4)
    two = np.array([[0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]])
    assert krippendorff_alpha(two) == pytest.approx(0.095, abs=5e-4)


def test_full_agreement_is_one_and_one_category_throughout_proves_nothing() -> None:
    both = np.array([[0, 1, 1, 0], [0, 1, 1, 0]])
    assert fleiss_kappa(both) == krippendorff_alpha(both) == raw_agreement(both) == 1.0
    same = np.zeros((2, 4), int)
    assert math.isnan(fleiss_kappa(same))
    assert math.isnan(krippendorff_alpha(same))
    assert raw_agreement(same) == 1.0


def test_one_listener_alone_agrees_with_nobody() -> None:
    alone = np.array([[0, 1, MISSING]])
    assert all(math.isnan(measure(alone)) for measure in (fleiss_kappa, krippendorff_alpha, raw_agreement))


@given(tables)
def test_raw_agreement_is_that_of_pairs_counted_one_by_one(rows: list[list[int]]) -> None:
    answers = np.array(rows).T
    shares = []
    for trial in answers.T:
        pairs = list(combinations(trial[trial != MISSING], 2))
        if pairs:
            shares.append(sum(a == b for a, b in pairs) / len(pairs))
    found = raw_agreement(answers)
    assert math.isnan(found) if not shares else found == pytest.approx(np.mean(shares))


@given(tables, st.randoms(use_true_random=False))
def test_agreement_does_not_depend_on_the_order_of_listeners_or_the_names_of_answers(rows, random) -> None:
    answers = np.array(rows).T
    turned = answers[random.sample(range(len(answers)), len(answers))]
    turned = np.where(turned == MISSING, MISSING, 1 - turned)
    for measure in (fleiss_kappa, krippendorff_alpha):
        assert measure(answers) == pytest.approx(measure(turned), nan_ok=True)
