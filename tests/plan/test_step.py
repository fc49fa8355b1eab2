import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from test_rounds import FIELDS

from partbook.errors import ValueOutOfRange
from partbook.plan.rounds import RoundPlan, ServerStep
from partbook.plan.step import Motion, mean_update, step
from partbook.plan.training import DistributedDp

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
    before = Motion(np.ones(10, np.float32), np.zeros(10, np.float32), 3)
    moved, after = step(adapter, mean.astype(np.float64), before, ServerStep(learning_rate=0.5))
    velocity = after.velocity
    assert np.array_equal(velocity, mean)
    assert after.steps == 4
    assert np.array_equal(moved, (adapter.astype(np.float64) + 0.5 * mean.astype(np.float64)).astype(np.float32))
    assert moved.dtype == velocity.dtype == np.float32


def test_momentum_carries_the_last_steps_on_as_in_the_paper() -> None:
    # Hsu et al. 2019, section 4: v <- beta v + delta; w <- w + eta v, written out by hand for a constant mean of 1.
    rule = ServerStep(learning_rate=1.0, momentum=0.5)
    adapter, motion = np.zeros(1, np.float32), Motion.none(1)
    seen = []
    for _ in range(4):
        adapter, motion = step(adapter, np.ones(1), motion, rule)
        seen.append((float(motion.velocity[0]), float(adapter[0])))
    assert seen == [(1.0, 1.0), (1.5, 2.5), (1.75, 4.25), (1.875, 6.125)]


def test_adam_takes_the_steps_of_pytorchs() -> None:
    rule = ServerStep(rule="adam", learning_rate=0.03, momentum=0.9, second=0.97, floor=1e-8)
    theirs = torch.nn.Parameter(torch.zeros(10, dtype=torch.float64))
    optimiser = torch.optim.Adam([theirs], lr=0.03, betas=(0.9, 0.97), eps=1e-8, maximize=True)
    ours, motion = np.zeros(10, np.float32), Motion.none(10)
    for update in np.random.default_rng(3).standard_normal((6, 10)):
        theirs.grad = torch.from_numpy(update)
        optimiser.step()
        ours, motion = step(ours, update, motion, rule)
    assert motion.steps == 6
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-5)


def test_what_is_not_trained_does_not_move() -> None:
    adapter, trained = np.arange(10, dtype=np.float32), np.array([2, 5])
    for rule in (ServerStep(momentum=0.5), ServerStep(rule="adam", momentum=0.5)):
        moved, motion = adapter, Motion.none(10)
        for _ in range(3):
            moved, motion = step(moved, np.ones(2), motion, rule, trained)
        assert list(np.flatnonzero(moved != adapter)) == [2, 5]


def test_a_noisy_sum_is_divided_by_the_public_batch_never_by_a_count() -> None:
    training = DistributedDp(noise_multiplier=1.0, sampling=0.5, batch=40.0, clip=2.0)
    plan = RoundPlan(**{**FIELDS, "training": training})
    grid = plan.grid
    one = np.zeros(10, np.int64)
    one[3] = grid.sensitivity
    for contributions in (2, 3):
        total = one + contributions * grid.largest
        mean = mean_update(total.astype(np.uint64), contributions, plan)
        assert mean[3] == pytest.approx(grid.sensitivity / grid.scale / 40.0)
        assert not np.delete(mean, 3).any()
