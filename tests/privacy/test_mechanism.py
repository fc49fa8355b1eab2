"""The noisy grid: sensitivity in whole numbers whatever comes in, noise as promised, sums that decode without bias."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import count

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from partbook.errors import ValueOutOfRange
from partbook.privacy import mechanism
from partbook.privacy.mechanism import COMPANY, NoisyGrid

LEVEL = 1e-7

ALL_TRAINED = 78_720

GRIDS = [
    NoisyGrid(16, 1.0, 400, 1.0, 3),
    NoisyGrid(12, 0.7, 40, 0.6, 2),
    NoisyGrid(10, 1e-3, 7, 2.0, 5),
    NoisyGrid(24, 123.456, 1000, 1.3, 1),
    NoisyGrid(9, 3.0, 1, 0.9, 1),
]


def seeded(seed: object) -> Callable[[int], bytes]:
    """A fresh repeatable stream for each call."""
    calls = count()
    return lambda size: hashlib.shake_256(repr((seed, next(calls))).encode()).digest(size)


def squared_norm(values: np.ndarray) -> int:
    """In Python's integers, which never overflow."""
    return sum(int(value) ** 2 for value in values)


def to_norm(vector: np.ndarray, norm: float) -> np.ndarray:
    """The vector, of that norm as float64 has it, then as float32."""
    return (vector.astype(np.float64) * (norm / np.linalg.norm(vector.astype(np.float64)))).astype(np.float32)


@st.composite
def updates(draw: st.DrawFn, grid: NoisyGrid) -> np.ndarray:
    """Updates within the clip, of shapes that rounding up at random could make too long."""
    d = grid.dimension
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = draw(st.sampled_from(["any", "halves", "spike", "tiny", "zero", "two", "edge"]))
    sign = random.choice([-1.0, 1.0], d)
    if shape == "zero":
        return np.zeros(d, np.float32)
    if shape == "tiny":
        return (sign * draw(st.sampled_from([1e-45, 1e-38, 1e-12, 1e-6])) * grid.clip / math.sqrt(d)).astype(np.float32)
    if shape == "spike":
        vector = np.zeros(d)
        vector[random.integers(d)] = sign[0]
    elif shape == "two":
        vector = np.full(d, 1e-4)
        vector[random.integers(d)] = sign[0]
    elif shape == "halves":
        # As many equal coordinates as fit, each half way between two points of the grid.
        most = math.floor(grid.norm_before / math.sqrt(d) - 0.5) if grid.norm_before > math.sqrt(d) else 0
        steps = draw(st.integers(0, max(0, most))) + 0.5
        used = min(d, int((grid.norm_before / steps) ** 2))
        vector = np.where(np.arange(d) < used, sign * steps / grid.scale, 0.0)
        return vector.astype(np.float32) if used else to_norm(sign, grid.clip)
    else:
        vector = random.normal(size=d) ** draw(st.sampled_from([1, 3, 5]))
    if shape == "edge":
        # A hair above the clip, as float32 rounding may leave it.
        return to_norm(vector, grid.clip * (1 + 2.0**-24.5))
    return to_norm(vector, grid.clip)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_one_recording_never_moves_a_nodes_sum_by_more_than_the_sensitivity(data):
    grid = data.draw(st.sampled_from(GRIDS))
    others = np.zeros(grid.dimension, np.int64)
    for update in data.draw(st.lists(updates(grid), max_size=3)):
        others += grid.rounded(update, seeded("others"))
    # Many more recordings than the grid has room for, so that the clamp works, on either side and in part.
    others *= data.draw(st.sampled_from([1, 7, 1000]))
    others += data.draw(st.sampled_from([0, grid.signal_bound, -grid.signal_bound]))
    one = grid.rounded(data.draw(updates(grid)), seeded(data.draw(st.integers(0, 1000))))
    assert squared_norm(one) <= grid.sensitivity**2

    key = data.draw(st.binary(min_size=32, max_size=32))
    without, along = (grid.noisy(total, lambda _: key) for total in (others, others + one))
    assert squared_norm(along - without) <= grid.sensitivity**2
    assert max(np.abs(along).max(), np.abs(without).max()) <= grid.largest


@pytest.mark.parametrize("shape", ["halves", "normal", "spike"])
@pytest.mark.parametrize("bits", [14, 16, 24])
def test_an_update_of_the_whole_model_at_the_clip_stays_within_the_sensitivity(bits, shape):
    grid = NoisyGrid(bits, 1.0, ALL_TRAINED, 1.0, 3)
    vector = np.random.default_rng(bits).normal(size=ALL_TRAINED)
    if shape == "halves":
        vector = np.ones(ALL_TRAINED)
        vector[int((grid.norm_before / 1.5) ** 2) :] = 0
    if shape == "spike":
        vector[1:] = 0
    for turn in range(3):
        rounded = grid.rounded(to_norm(vector, 1.0), seeded(turn))
        assert squared_norm(rounded) <= grid.sensitivity**2
        assert math.sqrt(squared_norm(rounded)) > 0.8 * grid.sensitivity


def test_roundings_that_came_out_too_long_are_thrown_away_and_at_least_two_in_five_are_kept(monkeypatch):
    grid = NoisyGrid(12, 1.0, 900, 1.0, 3)
    assert grid.norm_before**2 + grid.dimension / 4 > 0.9 * grid.sensitivity**2
    kept = []
    is_short = NoisyGrid._is_short
    monkeypatch.setattr(NoisyGrid, "_is_short", lambda self, v: kept.append(is_short(self, v)) or kept[-1])
    rng = np.random.default_rng(5)
    for turn in range(300):
        vector = np.ones(900) if turn % 2 else rng.normal(size=900)
        grid.rounded(to_norm(vector, 1.0), seeded(turn))
    assert sum(kept) == 300
    assert 0.39 < sum(kept) / len(kept) < 1


def test_rounding_that_never_succeeds_ends_towards_zero(monkeypatch):
    monkeypatch.setattr(mechanism, "_ROUNDINGS", 0)
    grid = NoisyGrid(12, 1.0, 900, 1.0, 3)
    update = to_norm(np.random.default_rng(1).normal(size=900), 1.0)
    exact = update.astype(np.float64) * grid.scale
    rounded = grid.rounded(update)
    assert np.array_equal(rounded, np.trunc(exact * min(1, 1 / np.linalg.norm(update.astype(np.float64)))))
    assert squared_norm(rounded) <= grid.sensitivity**2


def test_rounding_is_to_a_neighbour_and_without_bias():
    grid = NoisyGrid(14, 2.0, 300, 1.0, 3)
    update = to_norm(np.random.default_rng(2).normal(size=300), 1.5)
    exact = update.astype(np.float64) * grid.scale
    roundings = np.array([grid.rounded(update, seeded(turn)) for turn in range(3000)])
    assert np.abs(roundings - exact).max() < 1
    fraction = exact - np.floor(exact)
    z = (roundings.mean(0) - exact) / np.sqrt(fraction * (1 - fraction) / len(roundings) + 1e-12)
    assert stats.chi2.sf((z**2).sum(), len(z)) > LEVEL


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda u: u * np.float32(1.00001),
        lambda u: np.where(np.arange(len(u)) == 3, np.nan, u),
        lambda u: np.where(np.arange(len(u)) == 3, -np.inf, u),
        lambda u: u * np.float32(1e30),
        lambda u: np.full_like(u, np.finfo(np.float32).max),
    ],
)
def test_an_update_beyond_the_clip_or_not_finite_is_refused_without_telling_values(spoilt):
    grid = GRIDS[0]
    update = to_norm(np.random.default_rng(0).normal(size=grid.dimension), grid.clip)
    with pytest.raises(ValueOutOfRange, match="L2 norm 1 or less") as caught:
        grid.rounded(spoilt(update).astype(np.float32))
    assert not any(f"{value:g}" in str(caught.value) for value in update)


def test_an_update_that_float32_left_above_the_clip_is_scaled_down():
    grid = NoisyGrid(24, 1.0, 1, 1.0, 3)
    above = np.array([np.nextafter(np.float32(1), np.float32(2))])
    assert grid.rounded(above)[0] in {math.floor(grid.norm_before), math.ceil(grid.norm_before)}


@pytest.mark.parametrize("wrong", [np.zeros(399, np.float32), np.zeros((400, 1), np.float32), np.zeros(400, np.int64)])
def test_an_update_of_another_shape_or_kind_is_refused(wrong):
    with pytest.raises(ValueError, match="400 numbers"):
        GRIDS[0].rounded(wrong)


@pytest.mark.parametrize("wrong", [np.zeros(399, np.int64), np.zeros(400, np.int32), np.zeros(400, np.float64)])
def test_a_sum_of_another_shape_or_kind_is_refused(wrong):
    with pytest.raises(ValueError, match="400 int64"):
        GRIDS[0].noisy(wrong)


def test_noise_has_the_variance_that_was_promised():
    grid = NoisyGrid(16, 1.0, 200_000, 2.0, 4)
    noise = grid.noisy(np.zeros(200_000, np.int64), seeded("variance"))
    assert abs(noise.var() / grid.variance - 1) < 6 * math.sqrt(2 / len(noise))
    cuts = np.round(stats.norm.ppf(np.arange(1, 100) / 100) * math.sqrt(grid.variance))
    expected = np.diff(stats.norm.cdf((cuts - 0.5) / math.sqrt(grid.variance)), prepend=0, append=1) * len(noise)
    seen = np.bincount(np.searchsorted(cuts, noise, side="right"), minlength=100)
    assert stats.chisquare(seen, expected).pvalue > LEVEL


@pytest.mark.parametrize("side", [-1, 1])
def test_noise_beyond_the_tail_is_drawn_anew_and_every_field_value_fits(side, monkeypatch):
    grid = NoisyGrid(16, 1.0, 5000, 1.0, 3)
    # So short a tail that every third coordinate is drawn anew.
    short = math.isqrt(grid.variance)
    monkeypatch.setattr(NoisyGrid, "tail", property(lambda self: short))
    noise = grid.noisy(np.zeros(5000, np.int64), seeded("tail"))
    assert np.abs(noise).max() <= short
    assert np.abs(noise).max() > 0.99 * short
    inside = stats.truncnorm(-1, 1).cdf(noise / short)
    assert stats.kstest(inside, "uniform").pvalue > LEVEL
    fields = grid.contribution(np.full(5000, side * 2**62), seeded("edge"))
    assert fields.dtype == np.uint32
    assert fields.max() <= grid.span
    assert (fields.min() >= grid.span - 2 * short) if side > 0 else (fields.max() <= 2 * short)


def test_contributions_decode_to_the_sum_of_all_updates_and_noise_of_the_right_size():
    members, recordings, d = 6, 2, 20_000
    grid = NoisyGrid(20, 0.5, d, 0.8, 4)
    rng = np.random.default_rng(4)
    truth, total = np.zeros(d), np.zeros(d, np.uint64)
    for member in range(members):
        own = np.zeros(d, np.int64)
        for recording in range(recordings):
            update = to_norm(rng.normal(size=d), 0.4)
            truth += update.astype(np.float64)
            own += grid.rounded(update, seeded(("rounding", member, recording)))
        total += grid.contribution(own, seeded(("noise", member)))
    error = (grid.decode(total, members) - truth) * grid.scale
    variance = members * grid.variance
    assert abs(error.mean()) < 6 * math.sqrt(variance / d)
    assert abs(error.var() / variance - 1) < 6 * math.sqrt(2 / d) + members * recordings / 4 / variance


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_decoding_undoes_the_shift_and_the_scale(data):
    grid = data.draw(st.sampled_from(GRIDS))
    members = data.draw(st.integers(1, 200))
    value = data.draw(st.integers(-members * grid.largest, members * grid.largest))
    total = np.full(grid.dimension, value + members * grid.largest, np.int64)
    assert grid.decode(total, members) == pytest.approx(np.full(grid.dimension, value / grid.scale))


@pytest.mark.parametrize("value", [-1, 3 * GRIDS[0].span + 1])
def test_a_total_that_no_members_can_reach_is_refused(value):
    total = np.full(400, 100, np.int64)
    total[7] = value
    with pytest.raises(ValueOutOfRange, match="Coordinate 7 of 400"):
        GRIDS[0].decode(total, 3)


def test_a_total_of_another_shape_or_of_nobody_is_refused():
    with pytest.raises(ValueError, match="400 whole numbers"):
        GRIDS[0].decode(np.zeros(400), 3)
    with pytest.raises(ValueError, match="at least one contribution"):
        GRIDS[0].decode(np.zeros(400, np.int64), 0)


@given(
    st.integers(2, 24),
    st.floats(1e-6, 1e6),
    st.integers(1, 10**6),
    st.floats(0.05, 1000),
    st.integers(1, 1000),
)
@settings(max_examples=300, deadline=None)
def test_a_grid_that_is_accepted_keeps_its_promises(bits, clip, dimension, multiplier, honest):
    try:
        grid = NoisyGrid(bits, clip, dimension, multiplier, honest)
    except ValueError as error:
        if "take more bits" not in str(error):
            raise
        return
    moved = COMPANY * grid.sensitivity  # by one recording, and what floating point lets it do to the others
    assert honest * grid.variance >= (Fraction(multiplier) * moved) ** 2
    assert honest * (grid.variance - 1) < (Fraction(multiplier) * moved) ** 2
    assert grid.variance >= 16
    assert grid.tail**2 <= 144 * grid.variance < (grid.tail + 1) ** 2
    assert grid.signal_bound + grid.tail == grid.largest
    assert grid.signal_bound >= 3 * grid.sensitivity
    c, d = grid.norm_before, dimension
    assert c >= math.sqrt(d) * (1 - 1e-9)
    assert c**2 + d / 4 + c + math.sqrt(d) / 2 == pytest.approx(grid.sensitivity**2)
    assert grid.scale * clip == pytest.approx(c)
    # What `_is_short` adds up, at its very largest.
    assert (c + 1 + math.sqrt(d)) ** 2 < 2**45
    assert 0 <= grid.slack < 1e-50
    assert 0 < grid.truncation < 1e-24


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"bits": 1}, "bits"),
        ({"bits": 25}, "bits"),
        ({"clip": 0.0}, "clip"),
        ({"clip": math.nan}, "clip"),
        ({"clip": 1e-320}, "clip"),
        ({"noise_multiplier": 0.0}, "multiplier"),
        ({"noise_multiplier": math.inf}, "multiplier"),
        ({"honest": 0}, "member"),
        ({"dimension": 0}, "coordinate"),
        ({"bits": 12, "dimension": ALL_TRAINED}, "too coarse"),
        ({"noise_multiplier": 1e9}, "too coarse"),
        ({"noise_multiplier": 1e-4}, "variance"),
        ({"bits": 8, "dimension": 1, "honest": 1000}, "variance"),
    ],
)
def test_a_grid_that_cannot_keep_its_promises_is_refused(change, told):
    good = {"bits": 16, "clip": 1.0, "dimension": 400, "noise_multiplier": 1.0, "honest": 3}
    NoisyGrid(**good)
    with pytest.raises(ValueError, match=told):
        NoisyGrid(**good | change)


def test_a_cohort_fits_while_its_largest_sum_stays_under_the_modulus():
    grid = GRIDS[0]
    assert grid.fits(2**16, 2**32)
    assert grid.fits(3, 3 * grid.span + 1)
    assert not grid.fits(3, 3 * grid.span)


def weights(variance: int, reach: int) -> dict[int, Decimal]:
    return {x: (Decimal(-x * x) / (2 * variance)).exp() for x in range(-reach, reach + 1)}


def test_the_slack_bounds_how_far_two_members_noise_is_from_a_discrete_gaussian():
    grid = NoisyGrid(7, 1.0, 1, 2.9, 2)
    with localcontext() as context:
        context.prec = 140
        # Far enough that what lies beyond is nothing against the slack, 10^-72.
        one, both = weights(grid.variance, 100), weights(2 * grid.variance, 200)
        one_total, both_total = sum(one.values()), sum(both.values())
        apart = [
            abs((sum(one[x] * one[z - x] for x in one if z - x in one) / one_total**2 * both_total / both[z]).ln())
            for z in (0, 1, 2, 5, 10, 11)
        ]
    assert 0 < max(apart) <= Decimal(grid.slack)
    assert max(apart) > Decimal(grid.slack) / 10, "the bound is no larger than it need be"


def test_slack_is_nothing_for_one_member_and_never_rounded_down_to_nothing_for_more():
    assert NoisyGrid(24, 1.0, 1000, 1.0, 1).slack == 0
    assert NoisyGrid(24, 1.0, 1000, 1.0, 2).slack == 2.0**-1022


def test_truncation_bounds_the_chance_that_noise_meets_its_tail():
    grid = NoisyGrid(7, 1.0, 1, 2.9, 2)
    assert grid.tail < 60
    with localcontext() as context:
        context.prec = 60
        mass = weights(grid.variance, 200)
        beyond = sum(w for x, w in mass.items() if abs(x) > grid.tail) / sum(mass.values())
    assert 0 < beyond <= Decimal(grid.truncation)
    wide = NoisyGrid(16, 1.0, 400, 1.0, 3)
    assert wide.truncation == pytest.approx(400 * 2 * math.exp(-72))
