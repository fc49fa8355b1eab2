"""Per-recording training spread over devices: how much faster, and what the process that hands out work has to do.

All of a step, from laying windows out to the sum of rounded updates: on one device in this process, and on several, a
process each. Where there are no CUDA cards, "devices" are processes on the CPU, of one thread each; on a machine that
others use too, the share of the one process that hands out work says more than seconds, and bounds how many devices
it can keep busy. With a single card, one worker is compared with none: what handing out costs, and for how many such
cards one process could lay out micro-batches.

python -m benchmarks.devices [--devices N …] [--recordings N] [--turns N]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from benchmarks.claims import Claim, report
from benchmarks.dp import BITS, CLIP, NOISE, Bench
from partbook.model.adapter import adapter_state
from partbook.plan.training import DistributedDp
from partbook.privacy.mechanism import NoisyGrid
from partbook.training.replica import TOKENS, Keyed, Replica, Task, micro_batches
from partbook.training.spread import Spread


@dataclass(frozen=True, slots=True)
class Cost:
    """Medians over the turns, of one step.

    Attributes:
        wall: seconds.
        here: CPU seconds of the process that hands out work, or does it all.
        there: of its workers, together.
        total: the sum of rounded updates.
    """

    wall: float
    here: float
    there: float
    total: NDArray[np.int64]


class Step:
    """The same draw, again and again."""

    def __init__(self, recordings: int, device: torch.device) -> None:
        size, self.precision = "full" if device.type == "cuda" else "small", torch.float32  # as nodes do
        self.bench = Bench.of(size, device, self.precision, recordings)
        self.model = self.bench.model()
        self.training = DistributedDp(noise_multiplier=NOISE, sampling=1.0, batch=recordings, clip=CLIP)
        state = adapter_state(self.model)
        self.task = Task(state, self.training, self.bench.tokenizer.pad, precision=self.precision)
        self.grid = NoisyGrid(BITS, CLIP, sum(tensor.numel() for tensor in state.values()), NOISE, 1)
        self.keys = [os.urandom(32) for _ in range(recordings)]

    def batches(self) -> list[Keyed]:
        """Laid out while they are counted as part of a step."""
        drawn, random = np.arange(len(self.keys)), np.random.default_rng(self.bench.seed)
        given = self.bench.examples, drawn, self.training.windows, random, TOKENS[self.bench.device.type]
        return [(batch, [self.keys[one] for one in batch.recordings]) for batch in micro_batches(*given)]

    def cost(self, where: Replica | Spread, turns: int) -> Cost:
        """Of steps after a first that is not counted, in which workers start."""
        total = where.sum(self.task, self.grid, self.batches()).total
        workers = [psutil.Process(one) for one in where.processes] if isinstance(where, Spread) else []
        walls, heres, theres = [], [], []
        for _ in range(turns):
            wall, here, there = time.perf_counter(), time.process_time(), _cpu(workers)
            again = where.sum(self.task, self.grid, iter(self.batches())).total
            walls.append(time.perf_counter() - wall)
            heres.append(time.process_time() - here)
            theres.append(_cpu(workers) - there)
            assert np.array_equal(again, total) or self.bench.device.type == "cuda", "the same draw, the same sum"
        return Cost(*(statistics.median(each) for each in (walls, heres, theres)), total)


def _cpu(processes: Sequence[psutil.Process]) -> float:
    return sum(sum(one.cpu_times()[:2]) for one in processes)


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and say whether every claim is met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    parser.add_argument("--devices", type=int, nargs="*", default=[cards or 2])
    parser.add_argument("--recordings", type=int, default=128)
    parser.add_argument("--turns", type=int, default=5)
    asked = parser.parse_args(argv)
    torch.set_num_threads(1)
    kind = "cuda" if cards else "cpu"
    step = Step(asked.recordings, torch.device(f"{kind}:0" if kind == "cuda" else kind))
    count = len(step.batches())
    print(
        f"{asked.recordings} recordings in {count} micro-batches, {step.bench.tokens} tokens, d = {step.grid.dimension}"
    )
    alone = step.cost(Replica(step.model), asked.turns)
    _show(f"one {kind} device, no processes", alone, alone)
    claims = []
    for number in asked.devices:
        devices = [torch.device(f"cuda:{index}" if kind == "cuda" else "cpu") for index in range(number)]
        with Spread(step.model, devices) as spread:
            cost = step.cost(spread, asked.turns)
        _show(f"{number} {kind} processes", cost, alone)
        share = cost.here / (cost.here + cost.there)
        print(
            f"    {1000 * cost.here / count:.1f} ms of the process that hands out for a micro-batch: enough for "
            f"{cost.wall * number / cost.here:.0f} such devices"
        )
        if kind == "cpu":  # a card adds in no fixed order: `benchmarks.company` says how far that goes
            same = float(np.array_equal(cost.total, alone.total))
            claims.append(Claim(f"sum of {number} devices the same", "sums", same, 1.0, "one device", 1.0))
        claims += [
            Claim(f"{number} devices, a step", "s", cost.wall, alone.wall, "one device", 1.2 / number, at_least=False),
            Claim(f"CPU time of handing out, {number} devices", "share", share, 1.0, "all", 0.1, at_least=False),
        ]
    if kind == "cpu":
        print("no CUDA card here: processes on the CPU stand for them, and say nothing of a card's speed")
    return 0 if report("devices", claims) else 1


def _show(name: str, cost: Cost, alone: Cost) -> None:
    print(
        f"  {name:30} {cost.wall:7.2f} s  {alone.wall / cost.wall:5.2f} ×   CPU here {cost.here:6.2f} s, "
        f"in workers {cost.there:6.2f} s"
    )


if __name__ == "__main__":
    sys.exit(main())
