from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pieces import RISE, line, piece

from partbook.evaluation.tonality import (
    MAJOR_PROFILE,
    MINOR_PROFILE,
    Key,
    in_scale,
    key,
    key_of,
    key_stability,
    pitch_classes,
    weighted_classes,
)


def test_five_of_24_keys_are_near_each() -> None:
    keys = [Key(tonic, minor) for tonic in range(12) for minor in (False, True)]
    for home in keys:
        near = [other for other in keys if other.near(home)]
        assert len(near) == 5
        assert home in near
        assert all(home.near(other) for other in near)


def test_near_c_major_are_f_g_a_minor_and_c_minor() -> None:
    near = {(k.tonic, k.minor) for k in (Key(t, m) for t in range(12) for m in (False, True)) if k.near(Key(0, False))}
    assert near == {(0, False), (5, False), (7, False), (9, True), (0, True)}


@pytest.mark.parametrize("tonic", range(12))
@pytest.mark.parametrize("minor", [False, True])
def test_each_profile_is_in_its_own_key(tonic: int, minor: bool) -> None:
    assert key_of(np.roll(MINOR_PROFILE if minor else MAJOR_PROFILE, tonic)) == Key(tonic, minor)


@given(st.lists(st.integers(0, 40), min_size=12, max_size=12))
def test_the_key_is_the_best_correlation(weights: list[int]) -> None:
    found = key_of(np.array(weights, np.float64))
    if len(set(weights)) == 1:
        assert found == Key(0, False)
        return
    fit = {
        (t, m): np.corrcoef(np.roll(MINOR_PROFILE if m else MAJOR_PROFILE, t), weights)[0, 1]
        for t in range(12)
        for m in (False, True)
    }
    assert fit[found.tonic, found.minor] == pytest.approx(max(fit.values()), abs=1e-8)


def test_of_keys_that_fit_alike_the_first_is_taken_at_any_scale() -> None:
    """A diminished seventh chord fits four keys: which, must not hang on the last digit."""
    chord = np.zeros(12)
    chord[[0, 3, 6, 9]] = 1.0
    assert {(key_of(chord * scale).tonic, key_of(chord * scale).minor) for scale in (1, 3, 7, 1 / 3, 1e6)} == {
        (0, True)
    }


def test_notes_weigh_in_a_key_as_long_as_they_sound() -> None:
    read = piece((0, 8, 55), (0, 1, 60), (1, 1, 60), (2, 1, 60))
    assert weighted_classes(read).tolist() == [36, 0, 0, 0, 0, 0, 0, 96, 0, 0, 0, 0]
    assert key(read).tonic == 7
    assert pitch_classes(read)[[0, 7]].tolist() == [0.75, 0.25]


@pytest.mark.parametrize("scale", [(0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 3, 5, 7, 8, 11)])
@pytest.mark.parametrize("tonic", range(12))
def test_each_of_36_scales_is_wholly_in_scale_and_chromatic_notes_are_not(scale: tuple[int, ...], tonic: int) -> None:
    assert in_scale(line([60 + tonic + step for step in scale])) == 1.0
    assert in_scale(line(range(60, 72))) == 7 / 12


def test_stretches_with_few_notes_are_left_out() -> None:
    # In 16 quarters there is one stretch, in 17 a second is begun; with three notes it does not count.
    assert np.isnan(key_stability(line([*RISE] * 2)))
    assert key_stability(line([*RISE] * 2 + [60])) == 1.0
    assert np.isnan(key_stability(line([*RISE, 60, 66, 61], [*[1.0] * 8, 1, 1, 7])))
