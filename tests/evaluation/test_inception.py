import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from partbook.errors import InputError
from partbook.evaluation.inception import inception, tag_shares


def test_clips_that_are_all_alike_score_1():
    assert inception([np.full((3, 5), 0.2)] * 4).value == pytest.approx(1.0)
    one = np.random.default_rng(0).random((3, 5))
    score = inception([one] * 4)
    assert (score.value, score.low, score.high) == pytest.approx((1.0, 1.0, 1.0))


@given(st.integers(2, 12), st.integers(1, 4), st.floats(0.01, 1.0))
def test_clips_of_k_kinds_that_share_no_tag_score_k(kinds, each, sure):
    clips = [np.eye(kinds)[[kind, kind]] * sure for kind in range(kinds) for _ in range(each)]
    assert inception(clips, resamples=2).value == pytest.approx(kinds)


def test_two_clips_by_hand():
    """p = (.5, .5) and (1, 0), mean (.75, .25): KL ½ln(⅔) + ½ln 2 and ln(4/3)."""
    expected = np.exp((0.5 * np.log(2 / 3) + 0.5 * np.log(2) + np.log(4 / 3)) / 2)
    assert inception([np.array([[0.1, 0.1]]), np.array([[0.6, 0.0]])]).value == pytest.approx(expected)


@given(st.integers(0, 1000), st.integers(1, 9))
def test_it_lies_between_1_and_the_number_of_clips_and_of_tags(seed, count):
    random = np.random.default_rng(seed)
    score = inception([random.random((2, 4)) ** 8 for _ in range(count)], resamples=5)
    assert 1.0 <= score.value <= min(count, 4) + 1e-9
    assert 1.0 <= score.low <= score.high


def test_a_clips_tags_are_the_mean_of_its_patches_shared_out():
    assert tag_shares(np.array([[0.2, 0.0, 0.6], [0.0, 0.2, 0.6]])) == pytest.approx([0.125, 0.125, 0.75])


def test_the_interval_is_of_clips_and_repeats_itself():
    random = np.random.default_rng(0)
    clips = [random.random((4, 6)) ** 4 for _ in range(20)]
    score = inception(clips)
    assert score.low < score.value < score.high
    assert inception(clips) == score
    assert inception(clips, seed=2) != score


@pytest.mark.parametrize("tags", [np.zeros((2, 3)), np.zeros((0, 3)), np.full((1, 3), np.nan), np.array([[-0.1, 1.0]])])
def test_what_is_no_clip_of_tags_is_refused(tags):
    with pytest.raises(InputError, match="embed the clip again"):
        inception([np.ones((1, 3)), tags])


def test_no_clips_are_refused():
    with pytest.raises(InputError, match="No clips"):
        inception([])
