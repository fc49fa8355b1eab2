"""A model on one device that gives the recordings of a micro-batch their updates, and adds them up as integers.

Which recordings share a micro-batch is decided before anybody computes, from what was drawn alone. So a micro-batch
is the same on whatever device it is worked on, and integers add up to the same sum in whatever order: that is why one
device and eight lead to one vector, bit for bit, where the devices compute alike.

Each recording of a batch trains its own copy of the adapter. The copies are one tensor per name with a leading
dimension of recordings, the frozen base beneath them is shared, and a batch is multiplied by all copies at once
(`AdaptedLinear`, `Norm`), so that the gradient of a copy *is* its recording's gradient: exact, at the cost of an
ordinary backward pass, without hooks and without a sum over the batch to undo. Several steps on each recording
alone are the same thing again on the moved copies.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from partbook.model.adapter import in_scope
from partbook.model.likelihood import to_tensors
from partbook.model.precision import products
from partbook.model.scope import Scope
from partbook.model.transformer import PartbookModel
from partbook.music.windows import Windows
from partbook.plan.training import DistributedDp, LocalDp
from partbook.privacy.mechanism import NoisyGrid
from partbook.training.clipping import clip_rows
from partbook.training.examples import Examples

TOKENS: Final = {"cpu": 2048, "cuda": 16_384}
"""Positions of a micro-batch, padding included, by kind of device: what bounds memory, whatever was drawn.

On a CPU that is a quarter of a gigabyte for the small model. Twice as many are slower: more of them are padding, and
less stays in the cache.
"""


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Recordings that are multiplied at once: arrays alone, so that any process can work on them.

    Attributes:
        recordings: which, (recordings,).
        pieces: their windows, laid out; each holds as many windows of every recording, usually all.
        tokens: to predict in a recording's windows, (recordings,).
    """

    recordings: NDArray[np.int64]
    pieces: tuple[Windows, ...] = field(repr=False)
    tokens: NDArray[np.int64] = field(repr=False)


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


@dataclass(frozen=True, slots=True)
class Task:
    """What is asked of every recording that was drawn.

    Attributes:
        adapter: the state that all start from.
        training: steps, learning rate and clip.
        pad: id of padding.
        scope: which parameters are trained; gradients of the others are not even computed.
        precision: of the model's products, by autocast. The copies and their gradients stay float32.
    """

    adapter: Mapping[str, Tensor] = field(repr=False)
    training: DistributedDp | LocalDp
    pad: int
    scope: Scope = "all"
    precision: torch.dtype = torch.float32


@dataclass(slots=True)
class Summed:
    """The clipped and rounded updates of some recordings, added up. Private, all of it: there is no noise yet.

    Attributes:
        total: int64 (trained,).
        seen: norm and loss of each recording; see `RecordingUpdate`.
    """

    total: NDArray[np.int64] = field(repr=False)
    seen: dict[int, tuple[float, float]] = field(default_factory=dict, repr=False)

    def take(self, update: RecordingUpdate, grid: NoisyGrid, key: bytes) -> None:
        """Round one recording's update with a key of its own, and add it.

        Raises:
            ValueOutOfRange: the update is longer than the clip.
        """
        assert len(key) == ROUNDING_KEY, "a recording is rounded with a key of its own"
        self.total += grid.rounded(update.vector, lambda size: key[:size])
        self.seen[update.recording] = update.norm, update.loss

    def add(self, other: Summed) -> None:
        """Take in the sum of other recordings: integers, so in any order."""
        assert not self.seen.keys() & other.seen.keys(), "a recording counts once"
        self.total += other.total
        self.seen |= other.seen


ROUNDING_KEY: Final = 32
"""Bytes that one recording's rounding is made of."""

Keyed = tuple[MicroBatch, list[bytes]]
"""Recordings, and the keys that they are rounded with."""


def micro_batches(
    examples: Examples, drawn: NDArray[np.int64], windows: int, random: np.random.Generator, budget: int
) -> Iterator[MicroBatch]:
    """All drawn recordings, from the shortest windows to the longest, laid out as they are asked for.

    Args:
        examples: this label's windows.
        drawn: recordings, each once; may be none.
        windows: of each recording.
        random: picks each recording's windows, by a key that does not depend on the others (`Examples.draw`).
        budget: positions of a micro-batch.
    """
    rows = examples.draw(drawn, windows, random)  # (drawn, m)
    tokens = examples.tokens(rows)
    for places, each in _together(tokens.max(1, initial=1), windows, budget):
        starts = range(0, windows, each)
        pieces = tuple(examples.take(rows[places, start : start + each].ravel()) for start in starts)
        yield MicroBatch(drawn[places], pieces, tokens[places].sum(1))


class Replica:
    """A model on its device, ready for one task after another. It is put into evaluation mode: no dropout."""

    def __init__(self, model: PartbookModel) -> None:
        """Use a base model with adapters attached; the adapter it carries is never looked at."""
        self._model, self._device = model.eval(), model.embedding.weight.device

    @property
    def kind(self) -> str:
        """`cpu` or `cuda`."""
        return self._device.type

    def updates(self, task: Task, batches: Iterable[MicroBatch]) -> Iterator[RecordingUpdate]:
        """The clipped update of each recording.

        With one step the update is minus the gradient of the recording's mean loss per token; with k steps of
        `DistributedDp`, the sum of the k gradients met on the way, which is what SGD moved by over its learning rate.
        """
        training = task.training
        state = {f"model.{name}": tensor.detach().to(self._device) for name, tensor in task.adapter.items()}
        names = [f"model.{name}" for name in in_scope(task.adapter, task.scope)]
        steps, rate = (training.steps, training.learning_rate) if isinstance(training, DistributedDp) else (1, 0.0)
        losses = _Losses(self._model, task.pad)
        for batch in batches:
            with products(self._device, task.precision):
                pieces = [losses.prepare(piece) for piece in batch.pieces]
                counts = torch.from_numpy(batch.tokens).to(self._device)
                update, loss = _descend(losses, state, names, pieces, counts, steps, rate)
            vectors, norms = (found.cpu().numpy() for found in clip_rows(update, training.clip))
            for recording, vector, norm, value in zip(batch.recordings, vectors, norms, loss.tolist(), strict=True):
                yield RecordingUpdate(int(recording), vector, float(norm), value)

    def sum(self, task: Task, grid: NoisyGrid, batches: Iterable[Keyed]) -> Summed:
        """The rounded updates of all recordings, added up.

        Raises:
            ValueOutOfRange: an update is longer than the clip.
        """
        summed = Summed(np.zeros(grid.dimension, np.int64))
        waiting: deque[bytes] = deque()

        def alone() -> Iterator[MicroBatch]:
            for batch, keys in batches:
                waiting.extend(keys)
                yield batch

        for update in self.updates(task, alone()):
            summed.take(update, grid, waiting.popleft())
        assert not waiting, "every recording was rounded"
        return summed


class _Losses(nn.Module):
    """The model as a function from an adapter's copies to each recording's loss."""

    def __init__(self, model: PartbookModel, pad: int) -> None:
        super().__init__()
        self.model, self.pad = model, pad

    def prepare(self, windows: Windows) -> tuple[Tensor, Tensor, Tensor]:
        """Ids and encoded memory of windows: no adapter acts before the decoder, so steps share it."""
        ids, mel, has_memory = to_tensors(windows, self.model.embedding.weight.device)
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


def _together(longest: NDArray[np.int64], windows: int, budget: int) -> Iterator[tuple[NDArray[np.int64], int]]:
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
