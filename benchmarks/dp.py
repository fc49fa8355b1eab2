"""A gradient for each recording: what it costs next to plain training, to Opacus, and to one recording at a time.

Every way is given the same windows of the same recordings and does all of a step, from laying the windows out:

    plain         one mean gradient for all of them, and AdamW
    ours          each recording's clipped gradient, and their sum
    ours, noisy   the same on the noisy grid: rounded to whole numbers, summed, discrete Gaussian noise added
    Opacus        GradSampleModule with hooks, DPOptimizer clips, sums and adds noise
    one by one    plain training's gradient of each recording in turn, clipped and summed

They take turns on one thread; a way's time is the median of its turns, in CPU seconds, so that neighbours on the
machine count as little as they can. Memory is the peak over what a process of its own held before its first step.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from benchmarks.claims import Claim, report
from partbook.model.adapter import AdaptedLinear, adapter_state, attach, trained_parameters
from partbook.model.checkpoint import load_model, load_tokenizer
from partbook.model.config import full
from partbook.model.layers import Norm
from partbook.model.likelihood import to_tensors
from partbook.model.transformer import PartbookModel
from partbook.music.mel import FRAMES_PER_SECOND
from partbook.music.notes import Notes
from partbook.music.recording import Recording
from partbook.music.tokens import Tokenizer
from partbook.plan.training import DistributedDp
from partbook.privacy.mechanism import NoisyGrid
from partbook.training.clipping import clip
from partbook.training.examples import Examples
from partbook.training.per_recording import recording_updates

CLIP: Final = 0.5
NOISE: Final = 1.0
BITS: Final = 24
OPACUS: Final = "Opacus, hooks"
WAYS: Final = ("plain", "ours", "ours, noisy", OPACUS, "one by one")

Step = Callable[[], NDArray[np.floating] | None]


@dataclass(frozen=True)
class Bench:
    """The same work for every way.

    Attributes:
        device: where.
        precision: of products, by autocast.
        tokenizer: the shipped one.
        examples: recordings of random notes and sound.
        rows: one window of each recording, (recordings, 1): what `recording_updates` draws with `seed`.
        model: makes a model with fresh adapters.
    """

    device: torch.device
    precision: torch.dtype
    tokenizer: Tokenizer
    examples: Examples
    rows: NDArray[np.int64]
    model: Callable[[], PartbookModel]
    seed: int = 1

    @classmethod
    def of(cls, size: str, device: torch.device, precision: torch.dtype, recordings: int) -> Bench:
        """The shipped base model (`small`), or one of the design's size with random weights (`full`)."""
        tokenizer = load_tokenizer()
        config = full(len(tokenizer)) if size == "full" else load_model().config
        made = [_recording(i, tokenizer, config.context) for i in range(recordings)]
        examples = Examples(made, tokenizer, config.context)

        def model() -> PartbookModel:
            torch.manual_seed(0)
            return attach(PartbookModel(config) if size == "full" else load_model()).to(device)

        rows = examples.draw(np.arange(recordings), 1, np.random.default_rng(cls.seed))
        return cls(device, precision, tokenizer, examples, rows, model)

    @property
    def tokens(self) -> int:
        """Tokens predicted in one step; padding is not counted."""
        return int(self.examples.tokens(self.rows).sum())

    def losses(self, model: nn.Module, rows: NDArray[np.int64]) -> torch.Tensor:
        """Mean loss of each of some windows."""
        ids, mel, heard = to_tensors(self.examples.take(rows.ravel()), self.device)
        pad = self.tokenizer.pad
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            logits = model(ids[:, :-1], mel, heard).flatten(0, 1)
            found = F.cross_entropy(logits, ids[:, 1:].flatten(), reduction="none", ignore_index=pad)
        return found.view(len(ids), -1).sum(1) / (ids[:, 1:] != pad).sum(1)

    def way(self, name: str) -> Step:
        """One step of a way; returns the sum of clipped gradients where it keeps one."""
        return {
            "plain": self._plain,
            "ours": lambda: self._ours(None),
            "ours, noisy": lambda: self._ours(NOISE),
            OPACUS: self._opacus,
            "one by one": self._one_by_one,
        }[name]()

    def _plain(self) -> Step:
        model = self.model().train()
        optimiser = torch.optim.AdamW(list(trained_parameters(model).values()), lr=1e-3, weight_decay=0.0)

        def step() -> None:
            self.losses(model, self.rows).mean().backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

        return step

    def _ours(self, noise: float | None) -> Step:
        model = self.model()
        state = adapter_state(model)
        training = DistributedDp(noise_multiplier=NOISE, sampling=1.0, batch=len(self.rows), clip=CLIP)
        dimension = sum(tensor.numel() for tensor in state.values())
        grid = None if noise is None else NoisyGrid(BITS, CLIP, dimension, noise, 1)

        def step() -> NDArray[np.floating]:
            total = np.zeros(dimension, np.float64 if grid is None else np.int64)
            for update in recording_updates(
                model,
                state,
                self.examples,
                np.arange(len(self.rows)),
                training,
                self.tokenizer.pad,
                np.random.default_rng(self.seed),
                precision=self.precision,
            ):
                total += update.vector if grid is None else grid.rounded(update.vector)
            return total if grid is None else grid.noisy(total) / grid.scale

        return step

    def _opacus(self) -> Step:
        from opacus import GradSampleModule
        from opacus.grad_sample import register_grad_sampler
        from opacus.grad_sample.layer_norm import compute_layer_norm_grad_sample
        from opacus.optimizers import DPOptimizer

        def of_adapted(
            layer: AdaptedLinear, activations: list[torch.Tensor], backprops: torch.Tensor
        ) -> dict[nn.Parameter, torch.Tensor]:
            low = activations[0].to(backprops.dtype) @ layer.a.T.to(backprops.dtype) * layer.scale
            return {layer.b: torch.einsum("n...o,n...r->nor", backprops, low)}

        warnings.filterwarnings("ignore", "Full backward hook")  # the sound before the notes needs no gradient
        register_grad_sampler(AdaptedLinear)(of_adapted)
        register_grad_sampler(Norm)(compute_layer_norm_grad_sample)
        model = self.model().train()
        parameters = trained_parameters(model)
        wrapped = GradSampleModule(model, loss_reduction="sum", strict=False)
        optimiser = DPOptimizer(
            torch.optim.SGD(list(parameters.values()), lr=0.0),
            noise_multiplier=NOISE,
            max_grad_norm=CLIP,
            expected_batch_size=len(self.rows),
            loss_reduction="sum",
        )

        def step() -> NDArray[np.floating]:
            self.losses(wrapped, self.rows).sum().backward()
            optimiser.step()
            clipped = [parameters[name].summed_grad.flatten().cpu() for name in sorted(parameters)]
            optimiser.zero_grad(set_to_none=True)
            return -torch.cat(clipped).numpy()

        return step

    def _one_by_one(self) -> Step:
        model = self.model().train()
        parameters = list(trained_parameters(model).values())

        def step() -> NDArray[np.floating]:
            total = np.zeros(sum(p.numel() for p in parameters))
            for row in self.rows:
                found = torch.autograd.grad(self.losses(model, row).sum(), parameters)
                total -= clip(torch.cat([g.flatten() for g in found]).cpu().numpy(), CLIP)[0]
            return total

        return step

    def speeds(self, names: tuple[str, ...], turns: int) -> dict[str, float]:
        """Tokens a second of each way, in turns; also says how far their sums of clipped gradients lie apart."""
        steps = {name: self.way(name) for name in names}
        seconds: dict[str, list[float]] = {name: [] for name in names}
        sums: dict[str, NDArray[np.floating] | None] = {}
        for turn in range(turns + 1):
            for name in names:
                began = self._clock()
                sums[name] = steps[name]()
                if turn:  # the first warms up
                    seconds[name].append(self._clock() - began)
        ours = sums["ours"]
        for name in set(names) & {OPACUS, "one by one"}:
            theirs = sums[name]
            assert ours is not None
            assert theirs is not None
            print(f"  sums of clipped gradients, ours and {name}: {_apart(ours, theirs):.0e} apart")
        return {name: self.tokens / statistics.median(turns_of_it) for name, turns_of_it in seconds.items()}

    def _clock(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    def memory(self, name: str) -> float:
        """MiB that two steps of a way take at most, over what the process held before them."""
        step = self.way(name)
        if self.device.type == "cuda":
            held = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            step(), step()
            return (torch.cuda.max_memory_allocated() - held) / 2**20
        held = _peak_after_reset()
        step(), step()
        return (_peak() - held) / 2**20


def main(argv: list[str] | None = None) -> int:
    """Compare all ways on the shipped model, and on a CUDA card, the full size too, both ways."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=int, default=16)
    parser.add_argument("--turns", type=int, default=7)
    asked = parser.parse_args(argv)
    torch.set_num_threads(1)
    cpu = Bench.of("small", torch.device("cpu"), torch.float32, asked.recordings)
    memory = {name: _memory_alone(name, asked.recordings) for name in WAYS}
    print(f"shipped base, CPU, one thread, float32: {asked.recordings} recordings, {cpu.tokens} tokens a step")
    speeds = cpu.speeds(WAYS, asked.turns)
    claims = _claims(speeds, memory, "the shipped base on one CPU thread")
    if torch.cuda.is_available():
        card = torch.cuda.get_device_name()
        for precision, said in ((torch.float32, "float32"), (torch.bfloat16, "bfloat16")):
            gpu = Bench.of("full", torch.device("cuda"), precision, 2 * asked.recordings)
            print(f"12 layers, 512 wide, {card}, {said}: {2 * asked.recordings} recordings, {gpu.tokens} tokens a step")
            names = WAYS[:4]
            speeds = gpu.speeds(names, asked.turns)
            claims += _claims(speeds, {name: gpu.memory(name) for name in names}, f"12×512 in {said} on {card}")
    else:
        print("no CUDA card here: the full size, 12×512, was not measured")
    return 0 if report("dp", claims) else 1


def _claims(speeds: dict[str, float], memory: dict[str, float], where: str) -> list[Claim]:
    for name, speed in speeds.items():
        share = speed / speeds["plain"]
        print(f"  {name:13} {speed:9.0f} tokens/s  {share:5.2f} × plain  {memory[name]:7.0f} MiB")
    plain = "plain training, same batch"
    return [
        Claim(f"clipped gradient of each recording, {where}", "tokens/s", speeds["ours"], speeds["plain"], plain, 0.7),
        Claim(f"rounded and noisy, {where}", "tokens/s", speeds["ours, noisy"], speeds["plain"], plain, 0.7),
        Claim(f"rounded and noisy, {where}", "tokens/s", speeds["ours, noisy"], speeds[OPACUS], OPACUS, 1.0),
        Claim(f"memory over the model's, {where}", "MiB", memory["ours, noisy"], memory["plain"], plain, 1.5, False),
    ]


def _recording(index: int, tokenizer: Tokenizer, context: int) -> Recording:
    """About two windows of random tokens under random sound; a fifth of the recordings are shorter than one."""
    random = np.random.default_rng(index)
    count = int(context * (random.uniform(0.4, 1.0) if index % 5 == 0 else random.uniform(1.5, 2.0)))
    ids = random.integers(3, len(tokenizer), count).astype(np.int16)
    bars = np.arange(0, count, 24)
    nothing = Notes(*(np.zeros(0, kind) for kind in (np.float32, np.float32, np.uint8, np.uint8)))
    mel = random.uniform(-1, 1, (int(2 * len(bars) * FRAMES_PER_SECOND), 128)).astype(np.float16)
    return Recording("", 2.0 * len(bars), nothing, ids, bars, (2.0 * np.arange(len(bars))).astype(np.float32), mel)


def _memory_alone(name: str, recordings: int) -> float:
    # A fork has all libraries loaded already; it comes before this process trains, so no threads are lost in it.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(1, mp_context=context) as alone:
        return alone.submit(_memory, name, recordings).result()


def _memory(name: str, recordings: int) -> float:
    torch.set_num_threads(1)
    return Bench.of("small", torch.device("cpu"), torch.float32, recordings).memory(name)


def _peak_after_reset() -> int:
    # Where the kernel lets us forget what importing and loading once took; elsewhere that stays in the figure.
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    """Most bytes this process has held."""
    if sys.platform == "linux":
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _apart(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    return float(np.linalg.norm(first - second) / np.linalg.norm(second))


if __name__ == "__main__":
    sys.exit(main())
