"""A label's update: a few steps on its own recordings from the global adapter, then clipped.

Only the difference between the adapter after and before leaves this module, and its L2 norm over all trained
parameters is at most C. The loss stays with the label.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from partbook.model.adapter import apply_adapter, flatten, trained_parameters
from partbook.model.likelihood import to_tensors, token_losses
from partbook.model.transformer import PartbookModel
from partbook.music.recording import Recording
from partbook.music.tokens import Tokenizer
from partbook.music.windows import Windows, gather, spans
from partbook.plan.rounds import LocalTraining

STRIDE = 0.5  # training windows overlap by half, so that every bar is seen early and late in one


@dataclass(frozen=True, slots=True)
class LocalUpdate:
    """What one round of local training led to.

    Attributes:
        vector: clipped update, float32 (d,), in the adapter's canonical order.
        norm: L2 norm before clipping. Private.
        loss: mean training loss, nats per token. Private.
    """

    vector: NDArray[np.float32]
    norm: float
    loss: float


class Examples:
    """A label's windows, cut once and kept in memory, from which batches are drawn recording by recording."""

    def __init__(self, recordings: Sequence[Recording], tokenizer: Tokenizer, context: int) -> None:
        """Cut recordings into windows of `context` positions.

        Raises:
            ValueError: there is no recording.
        """
        if not recordings:
            raise ValueError("There are no recordings to train on; ingest some first.")
        self._pad = tokenizer.pad
        items = [[(r, span) for span in spans(r, context, stride=STRIDE)] for r in recordings]
        self._windows = gather(
            [i for of_one in items for i in of_one],
            context,
            bos=tokenizer.bos,
            eos=tokenizer.eos,
            pad=self._pad,
        )
        ends = np.cumsum([len(of_one) for of_one in items])
        self._rows = [np.arange(end - len(of_one), end) for end, of_one in zip(ends, items, strict=True)]

    def batch(self, size: int, random: np.random.Generator) -> Windows:
        """Windows of `size` recordings drawn evenly, one window each, cut to the longest among them."""
        drawn = random.choice(len(self._rows), size, replace=size > len(self._rows))
        rows = np.array([random.choice(self._rows[r]) for r in drawn])
        ids = self._windows.ids[rows]
        used = int((ids != self._pad).sum(1).max())
        return Windows(ids[:, :used], self._windows.memory[rows], self._windows.has_memory[rows])


def local_update(
    model: PartbookModel,
    adapter: Mapping[str, Tensor],
    examples: Examples,
    training: LocalTraining,
    pad: int,
    random: np.random.Generator,
) -> LocalUpdate:
    """Train for the plan's steps from `adapter` and return the clipped difference.

    Args:
        model: base model with adapters attached; its adapter is overwritten.
        adapter: the global state to start from.
        examples: this label's windows.
        training: steps, batch, learning rate and clip.
        pad: id of padding.
        random: picks recordings and windows. Nothing private rests on it yet: Poisson sampling from the system's
            generator comes with the noise.
    """
    apply_adapter(model, adapter)
    parameters = list(trained_parameters(model).values())
    before = flatten(adapter)
    optimiser = torch.optim.AdamW(parameters, lr=training.learning_rate, weight_decay=0.0)
    device = model.embedding.weight.device
    losses = []
    model.train()
    for _ in range(training.steps):
        ids, mel, has_memory = to_tensors(examples.batch(training.batch, random), device)
        loss = token_losses(model, ids, mel, has_memory, pad).sum() / (ids[:, 1:] != pad).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
    model.eval()
    update = flatten(dict(trained_parameters(model))) - before
    clipped, norm = clip(update, training.clip)
    return LocalUpdate(clipped, norm, float(np.mean(losses)))


def clip(update: NDArray[np.float32], bound: float) -> tuple[NDArray[np.float32], float]:
    """Scale a vector so that its L2 norm is at most `bound`; returns it and the norm it had.

    The result's norm, computed in float64, is never above the bound.
    """
    norm = float(np.linalg.norm(update.astype(np.float64)))
    if norm <= bound:
        return update.astype(np.float32), norm
    # One float32 step below the exact factor, so that rounding cannot lift the norm above the bound.
    factor = bound / norm * (1.0 - 2.0**-20)
    return (update.astype(np.float64) * factor).astype(np.float32), norm
