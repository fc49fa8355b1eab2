"""The two engines that simulate a federation, side by side: seconds a round, and to start.

Masked rounds of the shipped base model with one step of plain training on one recording a label, so that what is
measured is the engine and the protocol; two labels at a time, one thread each, on either engine.

python -m benchmarks.engines [--labels N …] [--rounds N]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.claims import Claim, report
from partbook.coordinator.checkpoints import Checkpoints
from partbook.coordinator.rounds import Progress
from partbook.model.checkpoint import BASE, base_manifest
from partbook.music.notes import Notes
from partbook.music.recording import Recording
from partbook.node.label import NodeConfig
from partbook.plan.federation import FederationConfig
from partbook.plan.training import PlainTraining
from partbook.simulation.federation import simulate
from partbook.simulation.parties import enrol
from partbook.simulation.ray_engine import simulate_on_ray
from partbook.vault.store import Vault

WORKERS = 2


@dataclass(frozen=True, slots=True)
class Timed:
    """One run.

    Attributes:
        start: seconds until the first round's plan was made: the engine, its processes, greetings.
        rounds: seconds of each round.
        adapter: hash of what it led to.
    """

    start: float
    rounds: tuple[float, ...]
    adapter: str


class Federation:
    """Labels with a short recording each, and keys for all."""

    def __init__(self, folder: Path, labels: int) -> None:
        self.folder = folder
        self.names = [f"Label {index:02}" for index in range(labels)]
        for index, name in enumerate(self.names):
            with Vault.create(folder / name) as vault:
                vault.add(_recording(index), f"{index:064x}")
        self.parties = enrol(folder / "office", "engines", {name: folder / "keys" / name for name in self.names})

    def run(self, engine: str, rounds: int) -> Timed:
        """From nothing to the last round's end."""
        home = self.folder / engine
        config = FederationConfig(
            roster=self.parties.roster, key=self.parties.coordinator, mode="masked", rounds=rounds, base=BASE,
            state=home / "state", training=PlainTraining(steps=1, batch=1), timeout=600,
        )  # fmt: skip
        nodes = {name: self._node(name, home) for name in self.names}
        ends: list[float] = []

        def note(now: Progress) -> None:
            if now.record is not None:
                ends.append(time.perf_counter())

        began = time.perf_counter()
        go: Callable[..., object] = simulate_on_ray if engine == "ray" else simulate
        go(config, nodes, workers=WORKERS, on_progress=note)
        state = Checkpoints(config.state, "engines", base_manifest(BASE)["files"]["model.safetensors"]).load()
        assert state is not None, "rounds were done"
        # Round 0 is the base model's record, made when all have been greeted.
        times = tuple(float(each) for each in np.diff(ends))
        return Timed(ends[0] - began, times[-rounds:], state.history[-1].adapter_hash)

    def _node(self, name: str, home: Path) -> NodeConfig:
        kept = home / name
        return self.parties.node(
            NodeConfig(
                name, self.folder / name, Path(), Path(), state=kept, ledger=kept / "ledger.sqlite", base=BASE, seed=1
            )
        )


def _recording(index: int) -> Recording:
    random = np.random.default_rng(index)
    nothing = Notes(*(np.zeros(0, kind) for kind in (np.float32, np.float32, np.uint8, np.uint8)))
    ids = random.integers(3, 600, 200).astype(np.int16)
    bars = np.arange(0, 200, 25)
    seconds = (2.0 * np.arange(len(bars))).astype(np.float32)
    return Recording(f"noise {index}", 16.0, nothing, ids, bars, seconds, np.zeros((1400, 128), np.float16))


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and say whether every claim is met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=int, nargs="*", default=[3, 10])
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args(argv)
    torch.set_num_threads(1)
    claims = []
    for labels in asked.labels:
        with tempfile.TemporaryDirectory() as folder:
            federation = Federation(Path(folder), labels)
            here, there = (federation.run(engine, asked.rounds) for engine in ("process", "ray"))
        for engine, timed in (("in process", here), ("Ray", there)):
            each = ", ".join(f"{seconds:.1f}" for seconds in timed.rounds)
            print(f"{labels:4} labels  {engine:11} {timed.start:6.1f} s to start; rounds {each} s")
        last = there.rounds[-1], here.rounds[-1]
        claims += [
            Claim(f"adapter of {labels} labels", "same", float(there.adapter == here.adapter), 1.0, "in process", 1.0),
            Claim(f"a round of {labels} labels on Ray", "s", *last, "in process", 100.0, at_least=False),
        ]
    return 0 if report("engines", claims) else 1


if __name__ == "__main__":
    sys.exit(main())
