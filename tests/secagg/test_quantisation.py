from __future__ import annotations

import os
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from partbook.errors import ValueOutOfRange
from partbook.secagg.grid import Grid
from partbook.secagg.rings import RESIDUES, WORDS

grids = st.builds(Grid, bits=st.integers(2, 24), clip=st.floats(1e-6, 1e6))


def repeatable(size: int) -> bytes:
    return bytes(range(size))


def vectors(grid: Grid, **how) -> st.SearchStrategy[np.ndarray]:
    return st.lists(st.floats(-grid.clip, grid.clip), max_size=20, **how).map(lambda x: np.array(x, np.float64))


def test_a_grid_is_symmetric_and_never_negative_on_the_wire():
    grid = Grid(bits=16, clip=0.5)
    assert (grid.largest, grid.span, grid.scale) == (32767, 65534, 65534.0)
    np.testing.assert_array_equal(grid.quantise(np.array([-0.5, 0.0, 0.5])), [0, 32767, 65534])
    assert Grid(bits=2, clip=1.0).span == 2


@given(grid=grids, data=st.data())
def test_the_sum_of_contributions_errs_by_less_than_a_step_each(grid, data):
    members = data.draw(st.integers(1, 5))
    d = data.draw(st.integers(0, 8))
    exactly_d = st.lists(st.floats(-grid.clip, grid.clip), min_size=d, max_size=d)
    contributions = [np.array(data.draw(exactly_d), np.float64) for _ in range(members)]
    total = np.zeros(d, np.uint64)
    for contribution in contributions:
        fields = grid.quantise(contribution)
        assert fields.dtype == np.uint32
        assert (fields <= grid.span).all()
        total += fields
    restored = grid.dequantise_sum(total, members)
    assert restored.dtype == np.float64
    for at in range(d):
        steps = sum(Fraction(float(c[at])) for c in contributions) * Fraction(grid.scale)
        assert abs(int(total[at]) - members * grid.largest - steps) < members
        assert restored[at] == (int(total[at]) - members * grid.largest) / grid.scale


@given(grid=grids, data=st.data())
def test_nothing_within_the_clip_is_refused_or_leaves_the_range(grid, data):
    inner = np.float32(grid.clip)
    edges = np.array([grid.clip, -grid.clip, 0.0, np.nextafter(grid.clip, 0), *data.draw(vectors(grid))])
    assert grid.quantise(edges).max() <= grid.span
    assert grid.quantise(edges)[:2].tolist() == [grid.span, 0]
    # A training loop in float32 clips to the float32 nearest to the clip, above it or below.
    assert grid.quantise(np.array([inner, -inner], np.float32)).max() <= grid.span


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1.0001, -1.0001, 1e30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_value_beyond_the_clip_is_named_by_its_place_and_never_shown(bad, dtype):
    values = np.zeros(50_000, dtype)
    values[[40_000, 45_000]] = bad
    with pytest.raises(ValueOutOfRange, match="Coordinate 40000 of 50000") as refusal:
        Grid(bits=16, clip=1.0).quantise(values)
    assert f"{bad}" not in str(refusal.value)


@pytest.mark.parametrize("bits", [2, 8, 16, 24])
def test_rounding_is_unbiased_with_the_variance_the_bound_allows(bits):
    grid = Grid(bits=bits, clip=1.0)
    n = 200_000
    for steps in (0.001, 0.25, 0.5, 0.9, -0.3):
        value = steps / grid.scale
        fields = grid.quantise(np.full(n, value), repeatable).astype(np.int64) - grid.largest
        assert set(np.unique(fields)) <= {np.floor(steps), np.floor(steps) + 1}
        fraction = steps - np.floor(steps)
        deviation = np.sqrt(fraction * (1 - fraction) / n)
        assert abs(fields.mean() - steps) < 5 * deviation
        assert fields.var() <= 0.25
        assert fields.var() == pytest.approx(fraction * (1 - fraction), rel=0.2)


def test_grid_points_are_kept_exactly():
    grid = Grid(bits=12, clip=float(2**11 - 1))
    points = np.arange(-grid.largest, grid.largest + 1, dtype=np.float32)
    np.testing.assert_array_equal(grid.quantise(points), np.arange(grid.span + 1))
    np.testing.assert_array_equal(grid.dequantise_sum(grid.quantise(points), 1), points)


def test_rounding_follows_the_key_and_a_node_draws_a_new_one():
    grid = Grid(bits=4, clip=1.0)
    values = np.linspace(-1, 1, 70_000)
    asked = []

    def words(size: int) -> bytes:
        asked.append(size)
        return repeatable(size)

    np.testing.assert_array_equal(grid.quantise(values, words), grid.quantise(values, repeatable))
    assert asked == [32]
    assert (grid.quantise(values) != grid.quantise(values)).any()
    # The second block does not repeat the first one's random bits.
    halves = grid.quantise(np.full(2**16, 0.03)).reshape(2, -1)
    assert (halves[0] != halves[1]).any()


def test_a_cohort_fits_while_its_largest_sum_stays_below_the_modulus():
    grid = Grid(bits=16, clip=1.0)
    assert grid.fits(65_538, WORDS.modulus)
    assert not grid.fits(65_539, WORDS.modulus)
    assert not grid.fits(1, grid.span)
    assert grid.fits(1, grid.span + 1)
    assert Grid(bits=24, clip=1.0).fits(10_000, RESIDUES.modulus)


def test_a_sum_that_its_members_cannot_reach_is_refused():
    grid = Grid(bits=8, clip=1.0)
    total = np.zeros(100, np.uint32)
    total[7] = 3 * grid.span
    assert grid.dequantise_sum(total, 3)[7] == pytest.approx(3.0)
    total[8] = 3 * grid.span + 1
    with pytest.raises(ValueOutOfRange, match="Coordinate 8 of 100"):
        grid.dequantise_sum(total, 3)
    with pytest.raises(ValueOutOfRange, match="Coordinate 0 of 1"):
        grid.dequantise_sum(np.array([-1]), 3)


def test_quantising_takes_the_result_and_two_mebibytes():
    values = np.frombuffer(os.urandom(2**22), np.uint8).astype(np.float32) / 256  # 16 MiB
    grid = Grid(bits=16, clip=1.0)
    tracemalloc.start()
    try:
        fields = grid.quantise(values)
        assert tracemalloc.get_traced_memory()[1] < fields.nbytes + 2**21
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("bits", "clip"), [(1, 1.0), (25, 1.0), (16, 0.0), (16, -1.0), (16, np.inf), (16, np.nan)])
def test_a_grid_that_cannot_be_is_a_mistake_of_the_caller(bits, clip):
    with pytest.raises(ValueError, match="grid"):
        Grid(bits=bits, clip=clip)


def test_what_no_grid_takes_is_a_mistake_of_the_caller():
    grid = Grid(bits=8, clip=1.0)
    for values in (np.zeros((2, 2)), np.zeros(2, np.int64), np.zeros(2, np.float16)):
        with pytest.raises(ValueError, match="float32 or float64"):
            grid.quantise(values)
    for total, members in [(np.zeros(2), 1), (np.zeros((1, 2), np.int64), 1), (np.zeros(2, np.int64), 0)]:
        with pytest.raises(ValueError, match=r"whole numbers|contribution"):
            grid.dequantise_sum(total, members)
