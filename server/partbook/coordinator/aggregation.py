"""From updates to the next adapter: the plain average, then FedAvgM's step (Hsu et al. 2019, arXiv 1909.06335)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from partbook.errors import CorruptMessage
from partbook.plan.federation import ServerStep

NORM_SLACK = 1e-4  # relative; float32 rounding of an honestly clipped update


def average(updates: Mapping[str, NDArray[np.float32]], dimension: int, clip: float) -> NDArray[np.float64]:
    """The mean of the updates, (d,), each member counting the same.

    Raises:
        CorruptMessage: an update is of another length, or longer in L2 than the plan's clip; it names the member.
    """
    for member, update in sorted(updates.items()):
        if len(update) != dimension:
            raise CorruptMessage(f"{member} sent {len(update)} numbers where the adapter has {dimension}.")
        norm = float(np.linalg.norm(update.astype(np.float64)))
        if norm > clip * (1 + NORM_SLACK):
            raise CorruptMessage(f"{member} sent an update of norm {norm:.4g}, above the plan's clip {clip:.4g}.")
    # Members in sorted order, in float64: the same updates give the same bits whoever answers first.
    total = np.zeros(dimension, dtype=np.float64)
    for member in sorted(updates):
        total += updates[member]
    return total / len(updates)


def step(
    adapter: NDArray[np.float32], mean: NDArray[np.float64], velocity: NDArray[np.float32], rule: ServerStep
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The next adapter and velocity, (d,) each: v ← μ·v + mean; w ← w + η·v."""
    moving = rule.momentum * velocity.astype(np.float64) + mean
    moved = adapter.astype(np.float64) + rule.learning_rate * moving
    return moved.astype(np.float32), moving.astype(np.float32)
