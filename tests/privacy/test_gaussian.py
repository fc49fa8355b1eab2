"""The sampler against the distribution's own weights, against OpenDP's exact sampler, and against its own exact way."""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import math
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal, localcontext
from fractions import Fraction
from pathlib import Path

import numpy as np
import opendp.prelude as dp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from partbook.privacy import gaussian
from partbook.privacy.gaussian import LARGEST_VARIANCE, SMALLEST_VARIANCE, discrete_gaussian

VECTORS = Path(__file__).parent.parent / "vectors" / "discrete_gaussian.json"

VARIANCES = [Fraction(1, 4), Fraction(1), Fraction(121, 4), Fraction(10**4), Fraction(10**8), Fraction(10**12)]

# The chance at which a fair sampler would fail a test. Our samples are seeded, so that a test fails always or never;
# OpenDP's are not, and are asked for in every run.
LEVEL, OF_OPENDP = 1e-7, 1e-11

dp.enable_features("contrib", "honest-but-curious")


def seeded(seed: object) -> Callable[[int], bytes]:
    return lambda size: hashlib.shake_256(repr(seed).encode()).digest(size)


def edges(variance: Fraction, cells: int) -> np.ndarray:
    """Whole numbers, rising, that cut the line in at most `cells` + 1 parts of about the same probability."""
    sigma = math.sqrt(variance)
    return np.unique(np.round(stats.norm.ppf(np.arange(1, cells) / cells) * sigma).astype(np.int64))


def probabilities(variance: Fraction, cuts: np.ndarray) -> np.ndarray:
    """Of x < cuts[0], cuts[0] <= x < cuts[1], …, cuts[-1] <= x, by adding up weights or, for large V, integrating.

    An integral of a Gaussian over unit cells is off by a part in 24 V of the sum.
    """
    if variance > 10**9:
        return np.diff(stats.norm.cdf((cuts - 0.5) / math.sqrt(variance)), prepend=0, append=1)
    far = int(40 * math.sqrt(variance)) + 2
    x = np.arange(-far, far + 1)
    weights = np.exp(-(x.astype(float) ** 2) / (2 * float(variance)))
    cell = np.searchsorted(cuts, x, side="right")
    return np.bincount(cell, weights, len(cuts) + 1) / weights.sum()


def counts(samples: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    return np.bincount(np.searchsorted(cuts, samples, side="right"), minlength=len(cuts) + 1)


def assert_fits(samples: np.ndarray, variance: Fraction, cells: int) -> None:
    cuts = edges(variance, cells)
    expected = probabilities(variance, cuts) * len(samples)
    assert expected.min() > 20
    assert stats.chisquare(counts(samples, cuts), expected).pvalue > LEVEL


@pytest.mark.parametrize("variance", VARIANCES, ids=str)
def test_samples_have_the_distributions_probabilities(variance):
    assert_fits(discrete_gaussian(variance, 1_500_000, seeded(variance)), variance, 300)


@pytest.mark.parametrize("variance", VARIANCES, ids=str)
def test_samples_and_opendps_come_from_one_distribution(variance):
    space = dp.vector_domain(dp.atom_domain(T=int)), dp.l2_distance(T=int)
    theirs = np.array(dp.m.make_gaussian(*space, scale=math.sqrt(variance))([0] * 8_000))
    ours = discrete_gaussian(variance, 300_000, seeded(("opendp", variance)))
    cuts = edges(variance, 40)
    table = np.array([counts(theirs, cuts), counts(ours, cuts)])
    assert stats.chi2_contingency(table).pvalue > OF_OPENDP


@pytest.mark.parametrize("variance", VARIANCES, ids=str)
def test_samples_have_the_distributions_moments(variance):
    size = 1_000_000
    x = discrete_gaussian(variance, size, seeded(("moments", variance))).astype(float)
    far = int(12 * math.sqrt(min(variance, 10**4))) + 2
    support = np.arange(-far, far + 1).astype(float)
    weights = np.exp(-(support**2) / (2 * float(min(variance, Fraction(10**4)))))
    weights /= weights.sum()
    # From 10^4 on, standardised moments are those of a Gaussian to more digits than are looked at.
    moments = {k: float((weights * support**k).sum()) for k in (2, 4, 6, 8)}
    x *= math.sqrt(min(variance, 10**4) / variance)
    assert abs(x.mean()) < 6 * math.sqrt(moments[2] / size)
    assert abs((x**3).mean()) < 6 * math.sqrt(moments[6] / size)
    assert abs((x**2).mean() - moments[2]) < 6 * math.sqrt((moments[4] - moments[2] ** 2) / size)
    assert abs((x**4).mean() - moments[4]) < 6 * math.sqrt((moments[8] - moments[4] ** 2) / size)


@pytest.mark.parametrize("variance", [Fraction(10**8), Fraction(10**12)], ids=str)
@pytest.mark.parametrize("modulus", [64, 97])
def test_the_lowest_digits_of_wide_samples_are_uniform(variance, modulus):
    x = discrete_gaussian(variance, 1_000_000, seeded((variance, modulus)))
    assert stats.chisquare(np.bincount(x % modulus, minlength=modulus)).pvalue > LEVEL


def test_one_sample_tells_nothing_of_the_next():
    x = np.clip(discrete_gaussian(Fraction(4), 1_000_000, seeded("pairs")), -4, 4) + 4
    for lag in (1, 2, 8):
        table = np.bincount(x[:-lag] * 9 + x[lag:], minlength=81).reshape(9, 9)
        assert stats.chi2_contingency(table).pvalue > LEVEL


def test_far_tails_are_as_thin_as_they_should_be_and_no_thinner():
    x = np.abs(discrete_gaussian(Fraction(64), 6_000_000, seeded("tails")))
    for reach in (28, 32, 36, 40):
        k = np.arange(-400, 401)
        weights = np.exp(-(k.astype(float) ** 2) / 128)
        expected = len(x) * weights[np.abs(k) >= reach].sum() / weights.sum()
        seen = int((x >= reach).sum())
        assert stats.poisson.cdf(seen, expected) > LEVEL
        assert stats.poisson.sf(seen - 1, expected) > LEVEL


def test_the_tail_goes_on_where_32_bits_end():
    variance = Fraction(64)
    sampler = gaussian._Sampler(gaussian._tables(variance), seeded("beyond")(32))
    beyond = len(gaussian._tables(variance).below) - 1
    z = np.array([sampler._invert_exactly(2**32 - 1) for _ in range(4000)])
    # The last word stands for the last 2^-32 of the distribution.
    weights = [Fraction(Decimal(-k * k / 128).exp()) for k in range(160)]
    total = sum(weights)
    above = [float(2**32 * sum(weights[k:]) / total) for k in range(beyond, beyond + 5)]
    expected = -np.diff([1, *above[1:], 0]) * len(z)
    seen = np.bincount(np.minimum(z - beyond, 4), minlength=5)
    assert seen[-1] > 5, "the test reaches beyond the table"
    assert stats.chisquare(seen, expected).pvalue > LEVEL


def all_exact(tables: gaussian._Tables) -> gaussian._Tables:
    """The same tables without trust in any fast decision."""
    unsure = np.full_like(tables.cells, gaussian._UNSURE)
    return replace(tables, cells=unsure, below=np.zeros_like(tables.below), doubt=2**40)


@pytest.mark.parametrize("variance", [*VARIANCES, Fraction(300), LARGEST_VARIANCE, SMALLEST_VARIANCE], ids=str)
def test_the_exact_way_and_the_fast_way_give_the_same_samples(variance, monkeypatch):
    words = seeded(("exact", variance))
    fast = discrete_gaussian(variance, 1500, words)
    tables = gaussian._tables
    monkeypatch.setattr(gaussian, "_tables", lambda v: all_exact(tables(v)))
    assert np.array_equal(discrete_gaussian(variance, 1500, words), fast)


def test_the_exact_way_alone_has_the_distributions_probabilities(monkeypatch):
    variance = Fraction(1000)
    tables = gaussian._tables
    # The first 32 bits decide nothing, so that all is decided on later ones.
    monkeypatch.setattr(gaussian, "_tables", lambda v: all_exact(tables(v)))
    decide_first, decide_next = gaussian._exponential, gaussian._cumulative
    monkeypatch.setattr(
        gaussian, "_exponential", lambda x, bits: decide_first(x, bits) if bits > 32 else (0, 1 << bits)
    )
    monkeypatch.setattr(
        gaussian,
        "_cumulative",
        lambda v, w, bits: decide_next(v, w, bits) if bits > 32 else [(0, 1 << bits)] * 3,
    )
    assert_fits(discrete_gaussian(variance, 8_000, seeded("late")), variance, 50)


@given(st.fractions(SMALLEST_VARIANCE, LARGEST_VARIANCE, max_denominator=10**6), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_fixed_point_probabilities_are_less_than_the_doubt_off(variance, seed):
    tables = gaussian._tables(variance)
    sampler = gaussian._Sampler(tables, bytes(32))
    random = np.random.default_rng(seed)
    z, u = random.integers(0, len(tables.below), 30), random.integers(0, tables.width, 30)
    z[:2], u[:2] = len(tables.below) - 1, (tables.width - 1, 0)
    product = u * (2 * z * tables.width + u)
    probability = sampler._probability(product, np.empty_like(product))
    for n, p in zip(product.tolist(), probability.tolist(), strict=True):
        low, high = gaussian._exponential(n / (2 * variance), 32)
        assert low - tables.doubt < p < high + tables.doubt
        assert high - low <= 1
    assert tables.doubt < 2**10, "the exact way stays rare"


@given(st.fractions(0, 200, max_denominator=10**9), st.sampled_from([32, 64, 96, 200]))
@settings(max_examples=100, deadline=None)
def test_an_exponential_lies_between_its_bounds(x, bits):
    low, high = gaussian._exponential(x, bits)
    with localcontext() as context:
        context.prec = 120
        exact = Fraction((Decimal(-x.numerator) / Decimal(x.denominator)).exp()) * 2**bits
    # 120 digits decide it: no exponential of a fraction but 1 is so near to a whole number.
    assert low <= exact <= high
    assert high - low <= 1


@pytest.mark.parametrize("variance", [Fraction(1, 4), Fraction(64), Fraction(10**6)], ids=str)
def test_a_cumulative_distribution_lies_between_its_bounds(variance):
    width = gaussian._tables(variance).width
    enclosures = gaussian._cumulative(variance, width, 96)
    with localcontext() as context:
        context.prec = 120
        weights = [
            (Decimal(-((k * width) ** 2) * variance.denominator) / Decimal(2 * variance.numerator)).exp()
            for k in range(3 * len(enclosures) + 40)
        ]
        total = sum(weights)
        for k, (low, high) in enumerate(enclosures):
            assert low <= sum(weights[: k + 1]) / total * 2**96 <= high
            assert high - low <= 2
    assert 2**96 - enclosures[-1][0] <= 2, "to where less than a unit is left"


@pytest.mark.parametrize("variance", [Fraction(1, 4), Fraction(255), Fraction(256), Fraction(10**6)], ids=str)
def test_the_width_is_a_power_of_two_next_to_an_eighth_of_sigma(variance):
    width = gaussian._tables(variance).width
    assert width.bit_count() == 1
    assert width == 1 or width <= math.sqrt(variance) / 8 < 2 * width


@pytest.mark.parametrize("size", [0, 1, 2, 63, 16_384, 16_385, 50_001])
def test_as_many_samples_as_asked_for(size):
    samples = discrete_gaussian(7, size, seeded(size))
    assert samples.shape == (size,)
    assert samples.dtype == np.int64


def test_the_smallest_noise_is_nearly_always_nothing_and_the_largest_fits():
    assert not discrete_gaussian(SMALLEST_VARIANCE, 10_000).any()
    assert np.abs(discrete_gaussian(int(LARGEST_VARIANCE), 10_000)).max() < 2**24 * 12


def test_every_call_draws_a_key_of_its_own_from_the_operating_system():
    assert not np.array_equal(discrete_gaussian(10**6, 100), discrete_gaussian(10**6, 100))
    asked = []
    discrete_gaussian(3, 10, lambda size: asked.append(size) or bytes(size))
    assert asked == [32]


@pytest.mark.parametrize("variance", [0, -1, 2**48 + 1, Fraction(1, 2**17), 2.5, float("nan"), float("inf")])
def test_a_variance_that_is_not_exact_or_not_in_range_is_refused(variance):
    with pytest.raises(ValueError, match="variance"):
        discrete_gaussian(variance, 1)


def test_fewer_than_no_samples_are_refused():
    with pytest.raises(ValueError, match="-1"):
        discrete_gaussian(1, -1)


@pytest.mark.parametrize("case", json.loads(VECTORS.read_text()), ids=lambda case: case["variance"])
def test_a_fixed_key_gives_the_samples_on_file(case):
    asked = discrete_gaussian(Fraction(case["variance"]), len(case["first"]), lambda _: bytes.fromhex(case["key"]))
    assert asked.tolist() == case["first"]
    many = discrete_gaussian(Fraction(case["variance"]), case["size"], lambda _: bytes.fromhex(case["key"]))
    assert hashlib.sha256(many.astype("<i8").tobytes()).hexdigest() == case["sha256"]


def test_no_floating_point_and_no_seeded_generator_comes_near_a_sample():
    tree = ast.parse(inspect.getsource(gaussian))
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    forbidden = {"random", "secrets", "float", "float32", "float64", "double", "exp2", "log", "sqrt", "scipy", "torch"}
    assert not forbidden & (names | imported)
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, float)]
