"""A process that trains on several devices until it is killed.

`spread_life.py BASE OUT DEVICES` writes its workers' ids to OUT. It ends when its standard input does, so that it
does not outlive a test run that was killed.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from partbook.model.adapter import adapter_state, attach, flatten
from partbook.model.checkpoint import load_model, load_tokenizer
from partbook.music.windows import Windows
from partbook.plan.training import DistributedDp
from partbook.privacy.mechanism import NoisyGrid
from partbook.training.replica import Keyed, MicroBatch, Task
from partbook.training.spread import Spread


def endless(say: Path, spread: Spread) -> Iterator[Keyed]:
    """Silence, over and over; the workers' ids are told once they are at work."""
    windows = Windows(np.full((2, 40), 5), np.zeros((2, 688, 128), np.float32), np.zeros(2, bool))
    for number in itertools.count():
        if number == 4:
            said = say.with_suffix(".part")
            said.write_text(" ".join(map(str, spread.processes)))
            said.replace(say)
        yield MicroBatch(np.array([2 * number, 2 * number + 1]), (windows,), np.array([39, 39])), [bytes(32)] * 2


def end_with_stdin() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=end_with_stdin, daemon=True).start()
    torch.set_num_threads(1)
    base, out = Path(sys.argv[1]), Path(sys.argv[2])
    model = attach(load_model(base))
    state, pad = adapter_state(model), load_tokenizer(base).pad
    training = DistributedDp(noise_multiplier=1.0, sampling=1.0, batch=4.0, clip=0.1)
    grid = NoisyGrid(16, training.clip, len(flatten(state)), 1.0, 2)
    with Spread(model, [torch.device("cpu")] * int(sys.argv[3])) as workers:
        workers.sum(Task(state, training, pad), grid, endless(out, workers))
