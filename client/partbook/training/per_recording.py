"""One clipped update for each recording: what noise is calibrated to, since one recording is what it must hide.

`Replica` computes; here it is decided what: which recordings are drawn, which of their windows, and with what each is
rounded. All of it is drawn in this process and travels with the recordings, so what comes out does not depend on where
they are worked on: on this device, or spread over several (`Spread`).

Nothing here is noisy or may leave the machine. `NoisyGrid` rounds what is summed and adds the noise.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from partbook.model.adapter import flatten, selection, unflatten
from partbook.model.scope import Scope
from partbook.model.transformer import PartbookModel
from partbook.plan.training import DistributedDp, LocalDp
from partbook.privacy.mechanism import NoisyGrid
from partbook.privacy.sampling import poisson_sample
from partbook.training.clipping import clip
from partbook.training.examples import Examples
from partbook.training.replica import ROUNDING_KEY, TOKENS, RecordingUpdate, Replica, Task, micro_batches

if TYPE_CHECKING:
    from partbook.training.spread import Spread

__all__ = ["DpUpdate", "Observed", "RecordingUpdate", "dp_sgd", "drawn_sum", "recording_updates"]


@dataclass(slots=True)
class Observed:
    """What a label may note of its own recordings in a round, for itself alone: none of it is noisy.

    Attributes:
        clip: C.
        norms, losses: of the updates noted, one each.
    """

    clip: float
    norms: list[float] = field(default_factory=list, repr=False)
    losses: list[float] = field(default_factory=list, repr=False)

    def note(self, update: RecordingUpdate) -> None:
        """Take one update into account."""
        self.norms.append(update.norm)
        self.losses.append(update.loss)

    @property
    def recordings(self) -> int:
        """Updates noted."""
        return len(self.norms)

    @property
    def broken(self) -> int:
        """Updates that were not finite, and counted as zeros."""
        return int(np.sum(~np.isfinite(self.norms)))

    @property
    def clipped(self) -> float:
        """Share of the updates that were longer than C; 0 where there are none."""
        return float(np.mean(np.array(self.norms) > self.clip)) if self.norms else 0.0

    @property
    def norm(self) -> float:
        """Median norm before clipping; NaN where there is none."""
        finite = [norm for norm in self.norms if np.isfinite(norm)]
        return float(np.median(finite)) if finite else float("nan")

    @property
    def loss(self) -> float:
        """Mean loss, nats per token; NaN where there is none."""
        finite = [loss for loss in self.losses if np.isfinite(loss)]
        return float(np.mean(finite)) if finite else float("nan")


def recording_updates(
    model: PartbookModel,
    adapter: Mapping[str, Tensor],
    examples: Examples,
    drawn: NDArray[np.int64],
    training: DistributedDp | LocalDp,
    pad: int,
    random: np.random.Generator,
    *,
    scope: Scope = "all",
    budget: int | None = None,
    precision: torch.dtype = torch.float32,
) -> Iterator[RecordingUpdate]:
    """The clipped update of each drawn recording, from the shortest windows to the longest; see `Replica.updates`.

    Args:
        model: base model with adapters attached; left as it is, but in evaluation mode: no dropout.
        adapter: the global state, on any device.
        examples: this label's windows.
        drawn: recordings, each once; may be none.
        training: windows, steps, learning rate and clip. The steps of `LocalDp` are taken by `dp_sgd`, not here.
        pad: id of padding.
        random: picks each recording's windows, by a key that does not depend on the others (`Examples.draw`). No
            guarantee rests on it.
        scope: which parameters are trained; gradients of the others are not even computed.
        budget: positions of a micro-batch; `TOKENS` for the device if None.
        precision: of the model's products, by autocast. The copies and their gradients stay float32.
    """
    replica = Replica(model)
    batches = micro_batches(examples, drawn, training.windows, random, budget or TOKENS[replica.kind])
    return replica.updates(Task(adapter, training, pad, scope, precision), batches)


def drawn_sum(
    model: PartbookModel,
    adapter: Mapping[str, Tensor],
    examples: Examples,
    training: DistributedDp | LocalDp,
    pad: int,
    random: np.random.Generator,
    grid: NoisyGrid,
    observed: Observed,
    *,
    scope: Scope = "all",
    precision: torch.dtype = torch.float32,
    words: Callable[[int], bytes] = os.urandom,
    spread: Spread | None = None,
) -> NDArray[np.int64]:
    """Draw recordings by themselves, and add up each one's clipped and rounded update: int64 (trained,), no noise yet.

    One recording more or less moves it by at most the grid's sensitivity, which is what both kinds of noise rest on.

    Args:
        model, adapter, examples, training, pad, random, scope, precision: as for `recording_updates`.
        grid: on which updates are rounded.
        observed: is told of every update.
        words: the system's generator, of which sampling and rounding are made; each recording is rounded with a key
            of its own.
        spread: processes that work on the recordings in the model's place.

    Raises:
        TrainingCrashed: one of those processes ended.
    """
    drawn = poisson_sample(len(examples), training.sampling, words)
    keys = {int(recording): words(ROUNDING_KEY) for recording in drawn}
    replica = Replica(model) if spread is None else spread
    batches = micro_batches(examples, drawn, training.windows, random, TOKENS[replica.kind])
    keyed = ((batch, [keys[int(recording)] for recording in batch.recordings]) for batch in batches)
    summed = replica.sum(Task(adapter, training, pad, scope, precision), grid, keyed)
    for _, (norm, loss) in sorted(summed.seen.items()):
        observed.norms.append(norm)
        observed.losses.append(loss)
    return summed.total


@dataclass(frozen=True, slots=True)
class DpUpdate:
    """What one round of DP-SGD at one label led to.

    Attributes:
        vector: noisy update, float32 (trained,), clipped to the plan's bound.
        norm: its L2 norm before clipping.
        observed: of every recording drawn in every step. Private.
    """

    vector: NDArray[np.float32]
    norm: float
    observed: Observed

    @property
    def loss(self) -> float:
        """Mean loss, nats per token; NaN where nothing was drawn. Private."""
        return self.observed.loss

    @property
    def drawn(self) -> int:
        """Recordings drawn, counted in each step they were drawn in. Private."""
        return self.observed.recordings


def dp_sgd(
    model: PartbookModel,
    adapter: Mapping[str, Tensor],
    examples: Examples,
    training: LocalDp,
    pad: int,
    random: np.random.Generator,
    noise: NoisyGrid,
    *,
    scope: Scope = "all",
    precision: torch.dtype = torch.float32,
    words: Callable[[int], bytes] = os.urandom,
    spread: Spread | None = None,
) -> DpUpdate:
    """DP-SGD (Abadi et al. 2016, arXiv 1607.00133 v2, Algorithm 1) with this label's own discrete Gaussian noise.

    The returned vector depends on the recordings through the noisy sums alone, so it may be seen by anybody at the
    cost of `training.steps` of them.

    Args:
        model, adapter, examples, pad, random, scope, precision: as for `recording_updates`.
        training: steps, sampling, batch, learning rate, clip and bound.
        noise: the grid for one contributor, of `training.clip` and the number of parameters in scope.
        words: the system's generator, of which sampling, rounding and noise are made.
        spread: processes that work on the recordings in the model's place. In every step they start from the adapter
            that the steps before led to, and noise is added here, once, to the sum of what they return.

    Raises:
        TrainingCrashed: one of those processes ended.
    """
    places = selection(adapter, scope)
    assert noise.honest == 1, "nobody else's noise protects this label"
    assert (noise.dimension, noise.clip) == (len(places), training.clip), "the noise must fit what it hides"
    start = flatten(adapter)
    moved = np.zeros(len(places), np.float64)
    observed = Observed(training.clip)
    for _ in range(training.steps):
        now = start.copy()
        now[places] += moved.astype(np.float32)
        state = unflatten(now, adapter)
        total = drawn_sum(
            model,
            state,
            examples,
            training,
            pad,
            random,
            noise,
            observed,
            scope=scope,
            precision=precision,
            words=words,
            spread=spread,
        )
        gradient = noise.noisy(total, words) / noise.scale / training.batch
        moved += training.learning_rate * gradient
    vector, norm = clip(moved.astype(np.float32), training.bound)
    return DpUpdate(vector, norm, observed)
