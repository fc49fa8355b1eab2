"""A run of seconds: a model of a few thousand parameters, and batches of noise that are a function of their number.

As a program, `python tiny_run.py FOLDER STEPS SAVE_EVERY` trains until it is done or ended, and says each step.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from partbook.model.config import ModelConfig
from partbook.model.transformer import PartbookModel
from partbook.music.windows import Windows
from partbook.training.recipe import Recipe
from partbook.training.run import Run

CONFIG = ModelConfig(vocabulary=40, width=16, layers=2, heads=2, hidden=32, context=24)
PAD = 0
TOKENS = 64  # of a step
RECIPE = Recipe(tokens=TOKENS * 12, step_tokens=TOKENS, warmup=TOKENS * 3, dropout=0.2, corpus="noise")


def recipe(steps: int = 12, **other: object) -> Recipe:
    return replace(RECIPE, tokens=TOKENS * steps, **other)  # type: ignore[arg-type]


def model(config: ModelConfig = CONFIG, seed: int = 5) -> PartbookModel:
    torch.manual_seed(seed)
    return PartbookModel(config)


def windows(lengths: list[int], random: np.random.Generator) -> Windows:
    """Rows of so many targets each, padded to the longest."""
    ids = np.full((len(lengths), max(lengths) + 1), PAD, np.int64)
    for row, length in enumerate(lengths):
        ids[row, : length + 1] = random.integers(1, CONFIG.vocabulary, length + 1)
    memory = random.uniform(-1, 1, (len(lengths), 688, 128)).astype(np.float32)
    return Windows(ids, memory, random.random(len(lengths)) < 0.7)


def batch(number: int) -> list[Windows]:
    random = np.random.default_rng([9, number])
    return [windows([20, 20], random), windows([9, 8, 7], random)]


def main(folder: str, steps: str, save_every: str) -> int:
    torch.set_num_threads(1)
    with Run.open(Path(folder), model(), recipe(int(steps))) as run:
        print(f"from {run.step}", flush=True)
        ending = run.go(
            batch, PAD, on_step=lambda s: print(f"step {s.number}", flush=True), save_every=float(save_every)
        )
    print(ending.message, flush=True)
    return ending.exit_code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
