from __future__ import annotations

import itertools
import os
import time

import pytest
import slow
from hypothesis import given, settings
from hypothesis import strategies as st

from partbook.errors import CohortTooSmall, CorruptMessage
from partbook.secagg.shares import Interpolation, P, combine, split

secrets_ = st.binary(min_size=32, max_size=32)


def altered(share: bytes, by: int = 1) -> bytes:
    return ((int.from_bytes(share, "big") + by) % P).to_bytes(33, "big")


def test_p_is_the_smallest_prime_above_two_to_the_256():
    def prime(number):
        return all(pow(base, number - 1, number) == 1 for base in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37))

    assert next(number for number in range(2**256 + 1, 2**256 + 1000, 2) if prime(number)) == P


@given(secret=secrets_, data=st.data())
def test_any_threshold_of_the_shares_give_the_secret_back(secret, data):
    points = data.draw(st.lists(st.integers(1, 200), min_size=1, max_size=12, unique=True))
    threshold = data.draw(st.integers(1, len(points)))
    shares = dict(zip(points, split(secret, threshold, points), strict=True))
    held = data.draw(st.lists(st.sampled_from(points), min_size=threshold, unique=True))
    assert combine({point: shares[point] for point in held}, threshold) == secret
    assert slow.restored({point: shares[point] for point in held}, threshold) == secret


def test_every_subset_of_a_small_cohort_agrees():
    secret = os.urandom(32)
    shares = dict(enumerate(split(secret, 3, range(1, 6)), start=1))
    for size in (3, 4, 5):
        for held in itertools.combinations(shares, size):
            assert combine({point: shares[point] for point in held}, 3) == secret


def test_shares_are_drawn_anew_each_time():
    first, second = (split(bytes(32), 2, [1, 2]) for _ in range(2))
    assert first != second
    assert all(len(share) == 33 for share in first + second)


def test_fewer_than_threshold_shares_fit_every_secret():
    shares = dict(enumerate(split(os.urandom(32), 3, range(1, 4)), start=1))
    known = {point: int.from_bytes(shares[point], "big") for point in (1, 2)}
    for guess in (bytes(32), os.urandom(32)):
        third = slow.interpolated({0: int.from_bytes(guess, "big"), **known}, 3)
        assert combine({1: shares[1], 2: shares[2], 3: third.to_bytes(33, "big")}, 3) == guess


@settings(max_examples=30)
@given(data=st.data())
def test_one_wrong_share_is_noticed_wherever_there_is_one_to_spare(data):
    points = list(range(1, 9))
    threshold = data.draw(st.integers(1, 7))
    shares = dict(zip(points, split(os.urandom(32), threshold, points), strict=True))
    held = {point: shares[point] for point in points[: data.draw(st.integers(threshold + 1, 8))]}
    wrong = data.draw(st.sampled_from(sorted(held)))
    held[wrong] = altered(held[wrong], data.draw(st.integers(1, P - 1)))
    with pytest.raises(CorruptMessage, match="contradict"):
        combine(held, threshold)


def test_shares_on_a_curve_of_the_next_degree_are_noticed():
    shares = dict(enumerate(split(os.urandom(32), 5, range(1, 9)), start=1))
    with pytest.raises(CorruptMessage, match="contradict"):
        combine(shares, 4)


def test_weights_serve_many_secrets_with_the_same_points():
    points = [2, 3, 5, 7, 11]
    weights = Interpolation(points, 3)
    for _ in range(5):
        secret = os.urandom(32)
        shares = split(secret, 3, points)
        assert weights.secret(shares) == secret
        shares[4] = altered(shares[4])
        with pytest.raises(CorruptMessage):
            weights.secret(shares)
    with pytest.raises(ValueError, match="5 points"):
        weights.secret(shares[:3])


def test_too_few_shares_end_the_round_and_say_how_many_are_needed():
    shares = dict(enumerate(split(bytes(32), 3, [1, 2, 3]), start=1))
    del shares[2]
    with pytest.raises(CohortTooSmall, match=r"2 shares .* 3 are needed"):
        combine(shares, 3)


@pytest.mark.parametrize("bad", [b"", bytes(32), bytes(34), P.to_bytes(33, "big"), b"\xff" * 33])
def test_what_is_no_share_is_refused_by_its_point_and_never_shown(bad):
    shares = dict(enumerate(split(bytes(32), 2, [1, 2, 3]), start=1)) | {2: bad}
    with pytest.raises(CorruptMessage, match="point 2") as refusal:
        combine(shares, 2)
    assert "ffff" not in str(refusal.value)


@pytest.mark.parametrize(
    ("secret", "threshold", "points"),
    [
        (bytes(31), 1, [1]),
        (bytes(32), 0, [1]),
        (bytes(32), 2, [1]),
        (bytes(32), 1, [0, 1]),
        (bytes(32), 1, [1, 1]),
        (bytes(32), 1, [P]),
    ],
)
def test_a_sharing_that_cannot_be_is_a_mistake_of_the_caller(secret, threshold, points):
    with pytest.raises(ValueError, match=r"secret|threshold|Points"):
        split(secret, threshold, points)


def test_a_combination_that_cannot_be_is_a_mistake_of_the_caller():
    for shares, threshold in [({0: bytes(33)}, 1), ({1: bytes(33)}, 0), ({P: bytes(33)}, 1)]:
        with pytest.raises(ValueError, match=r"threshold|Points"):
            combine(shares, threshold)


def test_a_hundred_secrets_of_a_hundred_members_are_restored_in_a_second():
    points = range(1, 101)
    secret = os.urandom(32)
    shares = dict(zip(points, split(secret, 67, points), strict=True))
    began = time.process_time()
    for _ in range(100):
        assert combine(shares, 67) == secret
    assert time.process_time() - began < 1
