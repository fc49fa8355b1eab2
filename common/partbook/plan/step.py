"""From the sum of all contributions to the next adapter: the average, then the server's step.

The same sum gives the same bits wherever this runs: in sealed rounds every label takes the step by itself, and the
labels then sign one hash. So only +, −, ×, ÷ and √ are used, which IEEE 754 rounds alike everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from partbook.plan.rounds import RoundPlan, ServerStep
from partbook.plan.training import DistributedDp
from partbook.secagg.grid import decoded


@dataclass(frozen=True, slots=True)
class Motion:
    """What the server's step remembers.

    Attributes:
        velocity: float32 (D,), the first moment.
        second: float32 (D,), the second moment; zeros under `momentum`.
        steps: taken so far.
    """

    velocity: NDArray[np.float32]
    second: NDArray[np.float32]
    steps: int = 0

    @classmethod
    def none(cls, size: int) -> Motion:
        """Before any step."""
        return cls(np.zeros(size, np.float32), np.zeros(size, np.float32))


def mean_update(
    total: NDArray[np.uint32] | NDArray[np.uint64], contributions: int, plan: RoundPlan
) -> NDArray[np.float64]:
    """The average update, (d,): over contributions, or with distributed noise over the plan's public batch.

    Args:
        total: exact integer sums of quantised numbers, (d,), or any stretch of them, which gives that stretch.
        contributions: how many were added.
        plan: the round's.

    Raises:
        ValueOutOfRange: a sum is larger than so many contributions can make it.
    """
    grid, training = plan.grid, plan.training
    mean = decoded(total, contributions, grid.largest, grid.scale)
    # Never by a true count: how many recordings were drawn is not anybody's to know (PROTOCOL §3).
    mean /= training.batch if isinstance(training, DistributedDp) else contributions
    return mean


def step(
    adapter: NDArray[np.float32],
    mean: NDArray[np.float64],
    motion: Motion,
    rule: ServerStep,
    trained: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.float32], Motion]:
    """The next adapter (D,), and what the step after it needs.

    `momentum`: v ← μ·v + mean; w ← w + η·v (Hsu et al. 2019, arXiv 1909.06335).
    `adam`: v ← β1·v + (1 − β1)·mean; s ← β2·s + (1 − β2)·mean²; w ← w + η·v̂ / (√ŝ + τ), where ^ divides by 1 − βᵗ
    (Reddi et al. 2021, arXiv 2003.00295, algorithm 2; Kingma and Ba 2015, arXiv 1412.6980, algorithm 1).

    Args:
        adapter: the whole one, (D,).
        mean: the average update of the trained numbers, (d,).
        motion: as the last step left it.
        rule: the plan's.
        trained: which numbers of the adapter `mean` is about, (d,); all where None.
    """
    moved, update = adapter.astype(np.float64), mean
    if trained is not None:
        update = np.zeros(len(adapter), np.float64)
        update[trained] = mean
    velocity, second = motion.velocity.astype(np.float64), motion.second.astype(np.float64)
    steps = motion.steps + 1
    if rule.rule == "momentum":
        velocity = rule.momentum * velocity + update
        moved += rule.learning_rate * velocity
    else:
        velocity = rule.momentum * velocity + (1.0 - rule.momentum) * update
        second = rule.second * second + (1.0 - rule.second) * (update * update)
        direction = velocity / _unbiased(rule.momentum, steps)
        moved += rule.learning_rate * (direction / (np.sqrt(second / _unbiased(rule.second, steps)) + rule.floor))
    return moved.astype(np.float32), Motion(velocity.astype(np.float32), second.astype(np.float32), steps)


def _unbiased(beta: float, steps: int) -> float:
    power = 1.0
    for _ in range(steps):  # not `**`, whose last bit is the C library's own
        power *= beta
    return 1.0 - power
