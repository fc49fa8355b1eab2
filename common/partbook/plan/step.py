"""From the sum of all contributions to the next adapter: the plain average, then FedAvgM's step.

The same sum gives the same bits wherever this runs: in sealed rounds every label takes the step by itself, and the
labels then sign one hash.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from partbook.plan.rounds import RoundPlan, ServerStep


def mean_update(
    total: NDArray[np.uint32] | NDArray[np.uint64], contributions: int, plan: RoundPlan
) -> NDArray[np.float64]:
    """The average update, (d,), each contribution counting the same.

    Args:
        total: exact integer sums of quantised numbers, (d,).
        contributions: how many were added.
        plan: the round's.

    Raises:
        ValueOutOfRange: a sum is larger than so many contributions can make it.
    """
    return plan.grid.dequantise_sum(total, contributions) / contributions


def step(
    adapter: NDArray[np.float32], mean: NDArray[np.float64], velocity: NDArray[np.float32], rule: ServerStep
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The next adapter and velocity, (d,) each: v ← μ·v + mean; w ← w + η·v (Hsu et al. 2019, arXiv 1909.06335)."""
    moving = rule.momentum * velocity.astype(np.float64) + mean
    moved = adapter.astype(np.float64) + rule.learning_rate * moving
    return moved.astype(np.float32), moving.astype(np.float32)
