"""One clipped update for each recording: what noise is calibrated to, since one recording is what it must hide.

Each recording of a batch trains its own copy of the adapter. The copies are one tensor per name with a leading
dimension of recordings, the frozen base beneath them is shared, and a batch is multiplied by all copies at once
(`AdaptedLinear`, `Norm`), so that the gradient of a copy *is* its recording's gradient: exact, at the cost of an
ordinary backward pass, without hooks and without a sum over the batch to undo. Several steps on each recording
alone are the same thing again on the moved copies.

Nothing here is noisy or may leave the machine. `NoisyGrid` rounds what is yielded and adds the noise.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from partbook.model.adapter import flatten, in_scope, selection, unflatten
from partbook.model.likelihood import to_tensors
from partbook.model.scope import Scope
from partbook.model.transformer import PartbookModel
from partbook.plan.training import DistributedDp, LocalDp
from partbook.privacy.mechanism import NoisyGrid
from partbook.privacy.sampling import poisson_sample
from partbook.training.clipping import clip, clip_rows
from partbook.training.examples import Examples

TOKENS: Final = {"cpu": 2048, "cuda": 16_384}
"""Positions of a micro-batch, padding included, by kind of device: what bounds memory, whatever was drawn.

On a CPU that is a quarter of a gigabyte for the small model. Twice as many are slower: more of them are padding, and
less stays in the cache.
"""


@dataclass(frozen=True, slots=True)
class RecordingUpdate:
    """What one recording asks the adapter to become, and what the label may know of it.

    Attributes:
        recording: which.
        vector: float32 (trained,), in canonical order, of L2 norm at most C; towards lower loss, in units of the
            gradient. Zeros where the gradient was not finite.
        norm: L2 norm before clipping; infinite or NaN where the gradient was not finite. Private.
        loss: nats per token, mean over the steps. Private.
    """

    recording: int
    vector: NDArray[np.float32] = field(repr=False)
    norm: float = field(repr=False)
    loss: float = field(repr=False)


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
    """The clipped update of each drawn recording, from the shortest windows to the longest.

    With one step the update is minus the gradient of the recording's mean loss per token; with k steps of
    `DistributedDp`, the sum of the k gradients met on the way, which is what SGD moved by over its learning rate.

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
    device = model.embedding.weight.device
    state = {f"model.{name}": tensor.detach().to(device) for name, tensor in adapter.items()}
    names = [f"model.{name}" for name in in_scope(adapter, scope)]
    steps, rate = (training.steps, training.learning_rate) if isinstance(training, DistributedDp) else (1, 0.0)
    model.eval()
    losses = _Losses(model, pad)
    windows = examples.draw(drawn, training.windows, random)  # (drawn, m)
    tokens = examples.tokens(windows)
    for batch, each in _micro_batches(tokens.max(1, initial=1), training.windows, budget or TOKENS[device.type]):
        with _autocast(device, precision):
            pieces = [
                losses.prepare(examples, windows[batch, start : start + each])
                for start in range(0, training.windows, each)
            ]
            counts = torch.from_numpy(tokens[batch].sum(1)).to(device)
            update, loss = _descend(losses, state, names, pieces, counts, steps, rate)
        vectors, norms = (found.cpu().numpy() for found in clip_rows(update, training.clip))
        for recording, vector, norm, value in zip(drawn[batch], vectors, norms, loss.tolist(), strict=True):
            yield RecordingUpdate(int(recording), vector, float(norm), value)


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
) -> NDArray[np.int64]:
    """Draw recordings by themselves, and add up each one's clipped and rounded update: int64 (trained,), no noise yet.

    One recording more or less moves it by at most the grid's sensitivity, which is what both kinds of noise rest on.

    Args:
        model, adapter, examples, training, pad, random, scope, precision: as for `recording_updates`.
        grid: on which updates are rounded.
        observed: is told of every update.
        words: the system's generator, of which sampling and rounding are made.
    """
    drawn = poisson_sample(len(examples), training.sampling, words)
    total = np.zeros(grid.dimension, np.int64)
    for update in recording_updates(
        model, adapter, examples, drawn, training, pad, random, scope=scope, precision=precision
    ):
        total += grid.rounded(update.vector, words)
        observed.note(update)
    return total


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
) -> DpUpdate:
    """DP-SGD (Abadi et al. 2016, arXiv 1607.00133 v2, Algorithm 1) with this label's own discrete Gaussian noise.

    The returned vector depends on the recordings through the noisy sums alone, so it may be seen by anybody at the
    cost of `training.steps` of them.

    Args:
        model, adapter, examples, pad, random, scope, precision: as for `recording_updates`.
        training: steps, sampling, batch, learning rate, clip and bound.
        noise: the grid for one contributor, of `training.clip` and the number of parameters in scope.
        words: the system's generator, of which sampling, rounding and noise are made.
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
        )
        gradient = noise.noisy(total, words) / noise.scale / training.batch
        moved += training.learning_rate * gradient
    vector, norm = clip(moved.astype(np.float32), training.bound)
    return DpUpdate(vector, norm, observed)


class _Losses(nn.Module):
    """The model as a function from an adapter's copies to each recording's loss."""

    def __init__(self, model: PartbookModel, pad: int) -> None:
        super().__init__()
        self.model, self.pad = model, pad

    def prepare(self, examples: Examples, windows: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
        """Ids and encoded memory of windows (recordings, m): no adapter acts before the decoder, so steps share it."""
        ids, mel, has_memory = to_tensors(examples.take(windows.ravel()), self.model.embedding.weight.device)
        with torch.no_grad():
            return ids, *self.model.encode(mel, has_memory)

    def forward(self, ids: Tensor, memory: Tensor, audible: Tensor, recordings: int) -> Tensor:
        """Summed loss of each recording's tokens, (recordings,)."""
        logits = self.model.decode(ids[:, :-1], memory, audible)
        targets = ids[:, 1:].flatten()
        losses = F.cross_entropy(logits.flatten(0, 1), targets, reduction="none", ignore_index=self.pad)
        return losses.view(recordings, -1).sum(1)


def _descend(
    losses: _Losses,
    state: Mapping[str, Tensor],
    names: list[str],
    pieces: list[tuple[Tensor, Tensor, Tensor]],
    counts: Tensor,
    steps: int,
    rate: float,
) -> tuple[Tensor, Tensor]:
    """Minus the sum of the gradients of `steps` steps on every recording alone, (recordings, trained), and losses."""
    recordings = len(counts)
    shared = [state[name].expand(recordings, *state[name].shape) for name in names]
    total: list[Tensor] | None = None
    value = torch.zeros(recordings, device=counts.device)
    for _ in range(steps):
        moved = shared if total is None else [s - rate * t for s, t in zip(shared, total, strict=True)]
        copies = [copy.detach().requires_grad_() for copy in moved]
        for piece in pieces:
            sums = functional_call(losses, {**state, **dict(zip(names, copies, strict=True))}, (*piece, recordings))
            loss = sums / counts
            found = torch.autograd.grad(loss.sum(), copies)
            total = list(found) if total is None else [t + g for t, g in zip(total, found, strict=True)]
            value += loss.detach()
    assert total is not None, "there is at least one step and one piece"
    return torch.cat([t.flatten(1) for t in total], dim=1).neg_(), value / steps


def _micro_batches(longest: NDArray[np.int64], windows: int, budget: int) -> Iterator[tuple[NDArray[np.int64], int]]:
    """Recordings of like length together, with how many windows of each fit the budget at once (usually all)."""
    order = np.argsort(longest, kind="stable")
    start = 0
    while start < len(order):
        stop = start + 1
        while stop < len(order) and (stop + 1 - start) * windows * longest[order[stop]] <= budget:
            stop += 1
        batch = order[start:stop]
        yield batch, min(windows, max(1, budget // (len(batch) * int(longest[batch[-1]]))))
        start = stop


def _autocast(device: torch.device, precision: torch.dtype) -> contextlib.AbstractContextManager[object]:
    if precision == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, precision)
