"""A label's update without noise: a few steps on its own recordings from the global adapter, then clipped.

Only the difference between the adapter after and before leaves this module, and its L2 norm over all trained
parameters is at most C. The loss stays with the label.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from partbook.errors import ValueOutOfRange
from partbook.model.adapter import apply_adapter, flatten, in_scope, selection, trained_parameters
from partbook.model.likelihood import to_tensors, token_losses
from partbook.model.scope import Scope
from partbook.model.transformer import PartbookModel
from partbook.plan.training import PlainTraining
from partbook.training.clipping import clip
from partbook.training.examples import Examples


@dataclass(frozen=True, slots=True)
class LocalUpdate:
    """What one round of local training led to.

    Attributes:
        vector: clipped update, float32 (trained,), in the adapter's canonical order.
        norm: L2 norm before clipping. Private.
        loss: mean training loss, nats per token. Private.
    """

    vector: NDArray[np.float32]
    norm: float
    loss: float


def local_update(
    model: PartbookModel,
    adapter: Mapping[str, Tensor],
    examples: Examples,
    training: PlainTraining,
    pad: int,
    random: np.random.Generator,
    *,
    scope: Scope = "all",
) -> LocalUpdate:
    """Train for the plan's steps from `adapter` and return the clipped difference.

    Args:
        model: base model with adapters attached; its adapter is overwritten.
        adapter: the global state to start from.
        examples: this label's windows.
        training: steps, batch, learning rate and clip.
        pad: id of padding.
        random: picks recordings and windows; no guarantee rests on it.
        scope: which parameters are trained.

    Raises:
        ValueOutOfRange: training diverged.
    """
    apply_adapter(model, adapter)
    named = trained_parameters(model)
    parameters = [named[name] for name in in_scope(named, scope)]
    before = flatten(adapter)
    optimiser = torch.optim.AdamW(parameters, lr=training.learning_rate, weight_decay=0.0)
    device = model.embedding.weight.device
    losses = []
    model.train()
    for _ in range(training.steps):
        ids, mel, has_memory = to_tensors(examples.batch(training.batch, random), device)
        loss = token_losses(model, ids, mel, has_memory, pad).sum() / (ids[:, 1:] != pad).sum()
        loss.backward(inputs=parameters)  # type: ignore[no-untyped-call]
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
    model.eval()
    update = flatten(dict(named)) - before
    clipped, norm = clip(update[selection(adapter, scope)], training.clip)
    if not np.isfinite(norm):
        raise ValueOutOfRange("Training led to something that is no number; lower the plan's learning rate.")
    return LocalUpdate(clipped, norm, float(np.mean(losses)))
