"""What floating point lets one recording change about the others' updates, against what the noise leaves for it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable

import numpy as np
import torch
from tunes import recording_of, tune

from partbook.model.adapter import adapter_state, attach
from partbook.model.checkpoint import load_model
from partbook.plan.training import DistributedDp
from partbook.privacy.mechanism import COMPANY, NoisyGrid
from partbook.training.examples import Examples
from partbook.training.per_recording import recording_updates


def coins(recording: int) -> Callable[[int], bytes]:
    """The same roundings for a recording whoever is with it, so that all that differs is floating point."""
    counter = iter(range(1000))
    return lambda size: hashlib.shake_256(f"{recording}/{next(counter)}".encode()).digest(size)


def test_one_recording_more_changes_the_others_sum_by_far_less_than_the_noise_leaves_room_for(
    tiny_base, tiny_tokenizer
) -> None:
    model = attach(load_model(tiny_base))
    recordings = [recording_of(tune(k % 5), tiny_tokenizer, k) for k in range(24)]
    examples = Examples(recordings, tiny_tokenizer, model.config.context)
    adapter = {name: tensor + 0.01 * torch.randn(tensor.shape) for name, tensor in adapter_state(model).items()}
    dimension = sum(tensor.numel() for tensor in adapter.values())
    training = DistributedDp(noise_multiplier=1.0, sampling=1.0, batch=24, windows=2, clip=0.05)
    grid = NoisyGrid(16, training.clip, dimension, 1.0, 2)
    key = int.from_bytes(os.urandom(8), "little")

    def rounded(drawn: np.ndarray) -> dict[int, np.ndarray]:
        random = np.random.Generator(np.random.Philox(key))
        updates = recording_updates(model, adapter, examples, drawn, training, tiny_tokenizer.pad, random, budget=2048)
        return {one.recording: grid.rounded(one.vector, coins(one.recording)) for one in updates}

    everybody = rounded(np.arange(24))
    for left_out in (0, 11, 23):
        others = rounded(np.delete(np.arange(24), left_out))
        moved = sum(everybody[one] - vector for one, vector in others.items())
        norm = float(np.linalg.norm(moved.astype(np.float64)))
        assert norm < 0.1 * float(COMPANY - 1) * grid.sensitivity, f"{norm} of {grid.sensitivity}"
