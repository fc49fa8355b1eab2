"""The base's training loop beside a bare PyTorch loop: tokens a second of the same model, optimisers and batches.

Ours makes batches ahead in a thread, seeds every step, looks at loss and norm, keeps a moving average, tells a watcher
and saves once a turn; the bare loop does forward, backward, clipping and both optimisers' step, and nothing else. They
take turns in one process, and each one's fastest turn counts: a shared machine only ever slows a turn down. On a CPU
seconds of a core are measured too, all threads of the process together, which hardly depend on who else is at work.

python -m benchmarks.training_loop [--turns N] [--steps N] [--layers N] [--width N] [--hidden N] [--context N]
                                   [--batch N] [--vocabulary N]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.claims import Claim, report
from partbook.model.config import ModelConfig
from partbook.model.likelihood import to_tensors
from partbook.model.transformer import PartbookModel, parameter_count, pick_device
from partbook.music.windows import Windows
from partbook.training.muon import Optimiser
from partbook.training.recipe import Recipe
from partbook.training.run import Run, Step

PAD = 0
TARGET = 0.9  # of the bare loop's tokens a second


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds by the clock, and of a core."""

    clock: float
    core: float

    def since(self, before: Took) -> Took:
        """Between two readings."""
        return Took(self.clock - before.clock, self.core - before.core)


def _now() -> Took:
    return Took(time.perf_counter(), time.process_time())


class Bare:
    """What anybody would write."""

    def __init__(self, model: PartbookModel, recipe: Recipe) -> None:
        self.model, self.recipe = model.train(), recipe
        self.optimiser = Optimiser(model, recipe.muon_rate, recipe.adamw_rate, recipe.weight_decay)

    def turn(self, batches: list[Windows]) -> Took:
        """Train a step on each."""
        device = self.model.embedding.weight.device
        began = _now()
        for windows in batches:
            ids, mel, has_memory = to_tensors(windows, device)
            with torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda"):
                logits = self.model(ids[:, :-1], mel, has_memory)
                loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), ignore_index=PAD)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
            self.optimiser.step(1.0)
        _wait(device)
        return _now().since(began)


class Ours:
    """`Run`, prolonged for every turn."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.told = 0

    def turn(self, batches: list[Windows]) -> Took:
        """Train a step on each, and save."""
        first = self.run.step
        tokens = sum(int((windows.ids[:, 1:] != PAD).sum()) for windows in batches)
        self.run.recipe = self.run.recipe.prolonged(self.run.tokens + tokens)
        began = _now()
        # Two more are asked for ahead than are trained on.
        self.run.go(lambda number: [batches[(number - first) % len(batches)]], PAD, on_step=self._hear)
        _wait(next(self.run.model.parameters()).device)
        return _now().since(began)

    def _hear(self, step: Step) -> None:
        self.told += 1


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _batch(random: np.random.Generator, rows: int, context: int, vocabulary: int) -> Windows:
    ids = random.integers(1, vocabulary, (rows, context + 1))
    memory = random.uniform(-1, 1, (rows, 688, 128)).astype(np.float32)
    return Windows(ids, memory, np.ones(rows, np.bool_))


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and say whether the claim is met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = {"layers": 4, "width": 256, "heads": 4, "hidden": 1024, "context": 1024, "batch": 8, "vocabulary": 2048}
    for name, value in ({"turns": 4, "steps": 3} | sizes).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    asked = parser.parse_args(argv)
    device = pick_device()
    config = ModelConfig(asked.vocabulary, asked.width, asked.layers, asked.heads, asked.hidden, asked.context)
    recipe = Recipe(tokens=1, step_tokens=asked.batch * asked.context, warmup=0)
    torch.manual_seed(1)
    ours, theirs = (PartbookModel(config, dropout=recipe.dropout).to(device) for _ in range(2))
    print(f"{parameter_count(ours):,} parameters on {device}, {torch.get_num_threads()} threads")
    random = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder, Run.open(Path(folder), ours, recipe) as run:
        pair = {"ours": Ours(run), "bare": Bare(theirs, recipe)}
        best = dict.fromkeys(pair, (0.0, 0.0))
        for turn in range(asked.turns + 1):
            steps = asked.steps if turn else 1  # the first warms up
            batches = [_batch(random, asked.batch, asked.context, asked.vocabulary) for _ in range(steps)]
            # Whoever goes first changes, so that neither always has the warmer machine.
            for name in sorted(pair, reverse=bool(turn % 2)):
                took, tokens = pair[name].turn(batches), steps * asked.batch * asked.context
                clock, core = tokens / took.clock, tokens / took.core
                print(
                    f"turn {turn}  {name}  {clock:10,.0f} tokens/s  {core:10,.0f} a core-second{'' if turn else '  *'}"
                )
                if turn:
                    best[name] = max(best[name][0], clock), max(best[name][1], core)
    print("* warms up and does not count")
    assert pair["ours"].told == run.step == asked.turns * asked.steps + 1
    if device.type == "cuda":
        print(f"{torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB of the card's memory for both")
    units = ("tokens/s",) if device.type == "cuda" else ("tokens/s", "tokens/core-second")
    pairs = zip(units, best["ours"], best["bare"], strict=False)
    claims = [Claim("base training", unit, mine, its, "bare PyTorch loop", TARGET) for unit, mine, its in pairs]
    return 0 if report("training", claims) else 1


if __name__ == "__main__":
    sys.exit(main())
