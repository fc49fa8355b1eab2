import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from partbook.training.clipping import clip, clip_rows


@settings(max_examples=200)
@given(
    vector=arrays(np.float32, st.integers(1, 60), elements=st.floats(-1e4, 1e4, width=32)),
    bound=st.floats(1e-3, 1e4),
)
def test_no_vector_leaves_longer_than_the_bound(vector: np.ndarray, bound: float) -> None:
    clipped, norm = clip(vector, bound)
    assert np.linalg.norm(clipped.astype(np.float64)) <= bound
    if norm <= bound:
        assert np.array_equal(clipped, vector)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_rows_are_clipped_one_by_one(scale: float) -> None:
    rows = np.random.default_rng(0).normal(0, scale, (5, 400)).astype(np.float32)
    rows[2] *= 1e-3
    bound = 5 * scale
    clipped, norms = clip_rows(torch.from_numpy(rows), bound)
    assert np.array_equal(clipped[2].numpy(), rows[2])
    for index in range(5):
        alone, norm = clip(rows[index], bound)
        assert np.array_equal(clipped[index].numpy(), alone)
        assert float(norms[index]) == norm
        assert np.linalg.norm(alone.astype(np.float64)) <= bound


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_becomes_zeros(bad: float) -> None:
    rows = np.ones((2, 3), np.float32)
    rows[0, 1] = bad
    clipped, norms = clip_rows(torch.from_numpy(rows), 1.0)
    assert not clipped[0].any()
    assert not norms[0].isfinite()
    assert clipped[1].norm() > 0.99
