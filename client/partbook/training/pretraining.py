"""AdamW, warm-up and a cosine, for small models on public music: the baselines."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True, slots=True)
class Schedule:
    """AdamW with a linear warm-up and a cosine decay to a tenth.

    Attributes:
        steps: optimiser steps.
        peak: highest learning rate.
        warmup: steps until the peak.
        weight_decay: on matrices only.
        clip: L2 norm at which the batch gradient is clipped.
    """

    steps: int
    peak: float = 2e-3
    warmup: int = 60
    weight_decay: float = 0.05
    clip: float = 1.0

    def rate(self, step: int) -> float:
        """Learning rate at a step counted from 0."""
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.peak * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))


def adamw(model: nn.Module, schedule: Schedule) -> torch.optim.AdamW:
    """The optimiser of a model's every parameter."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": schedule.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=schedule.peak,
        betas=(0.9, 0.95),
    )


def descend(model: nn.Module, optimiser: torch.optim.Optimizer, rate: float, clip: float) -> None:
    """One step down the gradient that is there, at a learning rate, clipped to an L2 norm; it is gone afterwards."""
    for group in optimiser.param_groups:
        group["lr"] = rate
    nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
