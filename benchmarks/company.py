"""What floating point lets one recording change about the *others'* updates, on every kind of device there is here.

The proof of privacy leaves a hundredth of the sensitivity Δ for it (`partbook.privacy.mechanism.COMPANY`), the one
place where it rests on a measurement: a matrix product adds in another order when one row more is in it, and a card may
add in no fixed order at all. Here the same recordings are worked on twice, with one of them left out the second time;
windows and rounding keys stay what they were. How far the sum of the others has moved, as an L2 norm in steps of the
grid, is compared with that hundredth. Each row also says how far the same draw moves by itself when it is done again.

A node multiplies in float32, without TF32, on cards as on CPUs. bfloat16 is measured beside it, to say why.

python -m benchmarks.company [--recordings N] [--draws N]
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.claims import Claim, report
from benchmarks.dp import CLIP, Bench
from partbook.model.adapter import adapter_state
from partbook.plan.training import DistributedDp
from partbook.privacy.mechanism import COMPANY, NoisyGrid
from partbook.training.per_recording import recording_updates

NOISE: Final = 0.7  # σ of a federation of a thousand recordings at ε = 8: less noise is a finer grid, and shows more
HONEST: Final = 2
GRIDS: Final = (16, 20, 24)  # bits
TENTH: Final = 0.1  # of the margin is what a device may take

Vectors = Mapping[int, NDArray[np.float32]]


class Company:
    """A label's recordings on one device, in one precision."""

    def __init__(self, size: str, device: str, precision: torch.dtype, recordings: int) -> None:
        self._bench = Bench.of(size, torch.device(device), precision, recordings)
        self._model = self._bench.model()
        torch.manual_seed(1)
        # As after some rounds: at B = 0 half of the gradients would be zero.
        self._adapter: dict[str, Tensor] = {
            name: tensor + 0.01 * torch.randn(tensor.shape, device=tensor.device)
            for name, tensor in adapter_state(self._model).items()
        }
        self._training = DistributedDp(noise_multiplier=NOISE, sampling=1.0, batch=recordings, windows=2, clip=CLIP)
        self.recordings = recordings
        self.dimension = sum(tensor.numel() for tensor in self._adapter.values())

    def updates(self, drawn: NDArray[np.int64]) -> Vectors:
        """Each drawn recording's clipped update; windows are those of every other draw."""
        bench = self._bench
        random = np.random.Generator(np.random.Philox(bench.seed))
        found = recording_updates(
            self._model, self._adapter, bench.examples, drawn, self._training, bench.tokenizer.pad, random,
            precision=bench.precision,
        )  # fmt: skip
        return {one.recording: one.vector for one in found}

    def moved(self, grids: tuple[NoisyGrid, ...], draws: int) -> tuple[list[float], list[float]]:
        """For each grid the most of Δ that leaving one out, and that doing it again, moved the sum of the others."""
        everybody = self.updates(np.arange(self.recordings))
        repeated = self.updates(np.arange(self.recordings))
        again, company = [apart(grid, everybody, repeated) for grid in grids], [0.0] * len(grids)
        for left_out in np.linspace(0, self.recordings - 1, draws).astype(int):
            others = self.updates(np.delete(np.arange(self.recordings), left_out))
            company = [max(most, apart(grid, everybody, others)) for most, grid in zip(company, grids, strict=True)]
        return company, again


def apart(grid: NoisyGrid, first: Vectors, second: Vectors) -> float:
    """L2 norm, in Δ, of the difference between the two sums of those recordings that both have, rounded alike."""
    moved = np.zeros(grid.dimension, np.int64)
    for recording, vector in second.items():
        moved += grid.rounded(first[recording], coins(recording)) - grid.rounded(vector, coins(recording))
    return float(np.linalg.norm(moved.astype(np.float64))) / grid.sensitivity


def coins(recording: int) -> Callable[[int], bytes]:
    """The same roundings for a recording whoever is with it, so that all that differs is floating point."""
    key = hashlib.sha256(f"{recording}".encode()).digest()
    return lambda size: key[:size]


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and say whether the margin holds wherever a node may train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=int, default=48)
    parser.add_argument("--draws", type=int, default=6, help="recordings left out, one after another")
    asked = parser.parse_args(argv)
    torch.set_num_threads(1)
    settings = [("small", "cpu", torch.float32)]
    if torch.cuda.is_available():
        settings += [
            (size, "cuda", precision) for size in ("small", "full") for precision in (torch.float32, torch.bfloat16)
        ]
    claims = []
    margin = float(COMPANY - 1)
    for size, device, precision in settings:
        company = Company(size, device, precision, asked.recordings)
        grids = tuple(NoisyGrid(bits, CLIP, company.dimension, NOISE, HONEST) for bits in GRIDS)
        where = torch.cuda.get_device_name() if device == "cuda" else "CPU"
        name = f"{'shipped base' if size == 'small' else '12×512'}, {str(precision).removeprefix('torch.')}, {where}"
        for grid, moved, again in zip(grids, *company.moved(grids, asked.draws), strict=True):
            print(
                f"{name}, {grid.bits} bits, d = {grid.dimension}: one recording less moves the others' sum by "
                f"{moved:.1e} Δ, doing it again by {again:.1e} Δ; the margin is {margin:g} Δ",
                flush=True,
            )
            if precision == torch.float32:
                what = f"what company moves, {name}, {grid.bits} bits"
                claims.append(Claim(what, "Δ", moved, margin, "the proof's margin", TENTH, at_least=False))
    return 0 if report("company", claims) else 1


if __name__ == "__main__":
    sys.exit(main())
