import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from test_rounds import FIELDS

from partbook.errors import ValueOutOfRange
from partbook.plan.rounds import RoundPlan, ServerStep
from partbook.plan.step import mean_update, step

PLAN = RoundPlan(**FIELDS)
VECTORS = arrays.arrays(np.float32, 10, elements=st.floats(-2, 2, width=32))


@given(st.lists(VECTORS.map(lambda v: v * np.float32(0.5)), min_size=1, max_size=5))
def test_the_mean_of_quantised_updates_is_their_mean_within_a_grid_step(updates: list[np.ndarray]) -> None:
    total = sum(PLAN.grid.quantise(update).astype(np.uint64) for update in updates)
    mean = mean_update(total, len(updates), PLAN)
    assert np.abs(mean - np.mean(np.array(updates, np.float64), axis=0)).max() <= 1 / PLAN.grid.scale


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64])
def test_masked_and_sealed_sums_of_the_same_integers_give_the_same_bits(dtype: type) -> None:
    total = np.random.default_rng(1).integers(0, 3 * PLAN.grid.span, 10)
    assert np.array_equal(mean_update(total.astype(dtype), 3, PLAN), mean_update(total.astype(np.uint64), 3, PLAN))


def test_a_sum_that_is_too_large_for_its_contributions_is_refused() -> None:
    total = np.full(10, 3 * PLAN.grid.span + 1, np.uint64)
    with pytest.raises(ValueOutOfRange):
        mean_update(total, 3, PLAN)


@given(VECTORS, VECTORS)
def test_without_momentum_the_step_is_the_scaled_mean(adapter: np.ndarray, mean: np.ndarray) -> None:
    moved, velocity = step(adapter, mean.astype(np.float64), np.ones(10, np.float32), ServerStep(learning_rate=0.5))
    assert np.array_equal(velocity, mean)
    assert np.array_equal(moved, (adapter.astype(np.float64) + 0.5 * mean.astype(np.float64)).astype(np.float32))
    assert moved.dtype == velocity.dtype == np.float32


def test_momentum_carries_the_last_steps_on_as_in_the_paper() -> None:
    # Hsu et al. 2019, section 4: v <- beta v + delta; w <- w + eta v, written out by hand for a constant mean of 1.
    rule = ServerStep(learning_rate=1.0, momentum=0.5)
    adapter, velocity = np.zeros(1, np.float32), np.zeros(1, np.float32)
    seen = []
    for _ in range(4):
        adapter, velocity = step(adapter, np.ones(1), velocity, rule)
        seen.append((float(velocity[0]), float(adapter[0])))
    assert seen == [(1.0, 1.0), (1.5, 2.5), (1.75, 4.25), (1.875, 6.125)]
