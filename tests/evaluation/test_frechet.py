import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from partbook.errors import InputError
from partbook.evaluation.estimates import Estimate
from partbook.evaluation.frechet import Gaussian, distance, frechet, unbiased


def clips(seed: int, count: int = 12, patches: int = 6, dimensions: int = 4, shift: float = 0.0) -> list[np.ndarray]:
    """Clips whose patches resemble each other."""
    random = np.random.default_rng(seed)
    return [
        shift + random.standard_normal(dimensions) + random.standard_normal((patches, dimensions)) for _ in range(count)
    ]


def gaussian(mean: list[float], covariance: np.ndarray) -> Gaussian:
    return Gaussian.of(np.array(mean), covariance)


def test_on_a_line_it_is_the_difference_of_means_and_of_deviations():
    """d² = (μ1 - μ2)² + (σ1 - σ2)²: Dowson & Landau, one dimension."""
    assert distance(gaussian([1.0], np.array([[4.0]])), gaussian([4.0], np.array([[25.0]]))) == pytest.approx(9 + 9)


def test_covariances_that_commute_differ_by_their_roots():
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    first, second = turn * [1.0, 4.0, 9.0] @ turn.T, turn * [16.0, 0.0, 4.0] @ turn.T
    assert distance(gaussian([0, 0, 0], first), gaussian([0, 0, 0], second)) == pytest.approx(9 + 4 + 1)


def test_covariances_that_do_not_commute():
    """tr of the root of [[1, 0], [0, 4]] @ [[2, 1], [1, 2]]: det 12, trace 10, so √(10 + 2√12)."""
    first, second = np.diag([1.0, 4.0]), np.array([[2.0, 1.0], [1.0, 2.0]])
    expected = 5 + 4 - 2 * np.sqrt(10 + 2 * np.sqrt(12))
    assert distance(gaussian([0, 0], first), gaussian([0, 0], second)) == pytest.approx(expected)


@given(st.integers(0, 1000), st.integers(1, 8))
def test_it_is_that_of_the_textbooks_matrix_root_is_symmetric_and_0_to_itself(seed, dimensions):
    from scipy.linalg import sqrtm

    random = np.random.default_rng(seed)
    a, b = (random.standard_normal((dimensions, dimensions + 2)) for _ in range(2))
    first, second = gaussian(list(a[:, 0]), a @ a.T), gaussian(list(b[:, 0]), b @ b.T)
    root = np.trace(sqrtm(a @ a.T @ b @ b.T)).real
    expected = ((a[:, 0] - b[:, 0]) ** 2).sum() + np.trace(a @ a.T) + np.trace(b @ b.T) - 2 * root
    assert distance(first, second) == pytest.approx(expected, abs=1e-6)
    assert distance(second, first) == pytest.approx(distance(first, second), abs=1e-9)
    assert distance(first, first) == pytest.approx(0.0, abs=1e-9)


def test_equal_sets_are_at_0_and_a_moved_set_at_the_square_of_the_way():
    here = clips(1)
    assert frechet(here, here, resamples=5).value == pytest.approx(0.0, abs=1e-9)
    moved = [clip + np.array([3.0, 0.0, 4.0, 0.0]) for clip in here]
    assert frechet(here, moved, resamples=5).value == pytest.approx(25.0)


def test_features_that_never_change_are_allowed():
    here = [np.hstack([clip, np.ones((len(clip), 1))]) for clip in clips(2)]
    assert frechet(here, here, resamples=5).value == pytest.approx(0.0, abs=1e-9)


def test_more_features_than_patches_need_shrinkage():
    few = np.random.default_rng(0).standard_normal((4, 4))
    with pytest.raises(InputError, match="more than 4 patches"):
        Gaussian.fitted(few)
    shrunk = Gaussian.fitted(few, "ledoit-wolf")
    assert np.linalg.eigvalsh(shrunk.covariance).min() > 0
    with pytest.raises(InputError, match="One patch"):
        Gaussian.fitted(few[:1], "ledoit-wolf")


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(InputError, match="too few"):
        frechet(clips(1)[:1], clips(2))
    with pytest.raises(InputError, match="too few"):
        unbiased(clips(1)[:3], clips(2))
    with pytest.raises(InputError, match="finite"):
        frechet([np.full((9, 2), np.nan)] * 3, clips(1, dimensions=2))
    with pytest.raises(InputError, match="4 and 3 dimensions"):
        frechet(clips(1), clips(2, dimensions=3))


def test_the_interval_holds_the_value_repeats_itself_and_narrows_with_clips():
    few, many = (frechet(clips(3, n), clips(4, n, shift=1.0), resamples=50) for n in (10, 60))
    assert few.low <= few.value <= few.high
    assert many.high - many.low < few.high - few.low
    assert frechet(clips(3, 10), clips(4, 10, shift=1.0), resamples=50) == few
    assert frechet(clips(3, 10), clips(4, 10, shift=1.0), resamples=50, seed=2) != few


def test_clips_are_drawn_and_not_their_patches():
    """Repeating each clip's patches tells nothing new: the interval stays."""
    here, there = clips(5, patches=1), clips(6, patches=1, shift=1.0)
    again = [[np.repeat(clip, 8, axis=0) for clip in side] for side in (here, there)]
    narrow, wide = frechet(*again, resamples=100), frechet(here, there, resamples=100)
    assert narrow.high - narrow.low == pytest.approx(wide.high - wide.low, rel=0.25)


def test_the_bias_of_few_clips_is_taken_off():
    """Two sets of one law, whose true distance is 0, and two at a known one."""
    biased, free = (
        np.mean([of(clips(seed, 40), clips(100 + seed, 40)) for seed in range(3)])
        for of in (lambda a, b: frechet(a, b, resamples=2).value, lambda a, b: unbiased(a, b).value)
    )
    assert free < 0.4 * biased
    apart = unbiased(clips(1, 80), clips(2, 80, shift=2.0))
    assert apart.low < 16.0 < apart.high
    assert isinstance(apart, Estimate)
    assert unbiased(clips(1, 8), clips(2, 8)) == unbiased(clips(1, 8), clips(2, 8))
