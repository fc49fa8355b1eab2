"""Steps of training on one thread and on two, alone and beside busy loops: what threads that wait cost each other.

A thread that is done with its part of a product waits for the other's. libgomp, with which torch comes, lets it spin:
for milliseconds, which on a machine to itself is never long. Where somebody else has the other core, it spins for as
long as the scheduler lets it, hundreds of times a step. Three ways are compared, each in processes of its own, since
libgomp reads the environment when it is loaded:

    one thread              OMP_NUM_THREADS=1
    two, as torch comes     OMP_NUM_THREADS=2
    two, waiting passively  OMP_NUM_THREADS=2 OMP_WAIT_POLICY=PASSIVE: who waits sleeps

with three kinds of work on the shipped base: a step of every recording's own update (as with noise), a step of plain
training, and the first by two labels at once in one process, as `partbook demo` and `simulate` work. Busy loops are
one a core, in Python, at the usual priority.

python -m benchmarks.contention [--seconds S]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from benchmarks.claims import Claim, report

ONE: Final = "one thread"
DEFAULT: Final = "two, as torch comes"
PASSIVE: Final = "two, waiting passively"
WAYS: Final = {
    ONE: {"OMP_NUM_THREADS": "1"},
    DEFAULT: {"OMP_NUM_THREADS": "2"},
    PASSIVE: {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"},
}
RECORDINGS, PLAIN, BOTH = "recordings' own updates", "plain", "two labels at once"
WORK: Final = (RECORDINGS, PLAIN, BOTH)
_SETTINGS: Final = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Step:
    """One step of training, on average.

    Attributes:
        wall: seconds it took.
        cpu: seconds of all cores that it took.
    """

    wall: float
    cpu: float


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, and say whether every claim is met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each kind of work, at least one step")
    parser.add_argument("--recordings", type=int, default=16, help="in a step")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args(argv)
    if asked.measure:
        print(json.dumps(_measured(asked.seconds, asked.recordings)))
        return 0
    cores = os.cpu_count() or 1
    print(f"{cores} cores; load before {os.getloadavg()[0]:.1f}; {asked.recordings} recordings a step, shipped base")
    print(f"{'':24}{'':10}" + "".join(f"{work:>26}" for work in WORK))
    found: dict[tuple[str, bool], dict[str, Step]] = {}
    for busy in (False, True):
        with _busy(cores if busy else 0):
            for way in WAYS:
                steps = found[way, busy] = _in_a_process(way, asked.seconds, asked.recordings)
                each = "".join(f"{steps[w].wall:10.2f} s, {steps[w].cpu:6.2f} CPU s" for w in WORK)
                print(f"{way:24}{'busy' if busy else 'alone':10}{each}", flush=True)
    claims = [
        Claim(
            f"a step, {work}, one thread beside busy loops",
            *("s", found[ONE, True][work].wall, found[DEFAULT, True][work].wall, DEFAULT, 0.5, False),
        )
        for work in (RECORDINGS, PLAIN)
    ]
    claims += [
        Claim(
            f"a step, {work}, {way}, beside busy loops",
            "s",
            found[way, True][work].wall,
            found[way, False][work].wall,
            "alone",
            3.0,
            False,
        )
        for way, work in ((ONE, BOTH), (PASSIVE, RECORDINGS))
    ]
    return 0 if report("contention", claims) else 1


@contextlib.contextmanager
def _busy(loops: int) -> Iterator[None]:
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
    try:
        yield
    finally:
        for loop in running:
            loop.kill()
            loop.wait()


def _in_a_process(way: str, seconds: float, recordings: int) -> dict[str, Step]:
    kept = {name: value for name, value in os.environ.items() if name not in _SETTINGS}
    command = [sys.executable, "-m", "benchmarks.contention", "--measure"]
    command += ["--seconds", str(seconds), "--recordings", str(recordings)]
    done = subprocess.run(command, env=kept | WAYS[way], check=True, stdout=subprocess.PIPE, text=True)
    return {work: Step(*times) for work, times in json.loads(done.stdout.splitlines()[-1]).items()}


def _measured(seconds: float, recordings: int) -> dict[str, tuple[float, float]]:
    import numpy as np
    import torch

    from benchmarks.dp import Bench
    from partbook.model.adapter import adapter_state
    from partbook.plan.training import DistributedDp, PlainTraining
    from partbook.training.local import local_update
    from partbook.training.per_recording import recording_updates

    bench = Bench.of("small", torch.device("cpu"), torch.float32, recordings)
    models = bench.model(), bench.model()
    state, pad = adapter_state(models[0]), bench.tokenizer.pad
    noisy = DistributedDp(noise_multiplier=1.0, sampling=1.0, batch=recordings, clip=0.15)
    everything = np.arange(recordings)

    def own(label: int) -> None:
        random = np.random.default_rng(bench.seed)
        given = models[label], state, bench.examples, everything, noisy, pad, random
        assert sum(1 for _ in recording_updates(*given, scope="norms")) == recordings

    def plain() -> None:
        once = PlainTraining(steps=1, batch=recordings, learning_rate=5e-3, clip=5.0)
        local_update(models[0], state, bench.examples, once, pad, np.random.default_rng(bench.seed))

    with ThreadPoolExecutor(2) as labels:

        def both() -> None:
            list(labels.map(own, (0, 1)))

        works: dict[str, Callable[[], None]] = {RECORDINGS: lambda: own(0), PLAIN: plain, BOTH: both}
        return {name: _timed(works[name], seconds) for name in WORK}


def _timed(work: Callable[[], None], seconds: float) -> tuple[float, float]:
    work()  # the first warms up
    began, used, steps = time.perf_counter(), time.process_time(), 0
    while not steps or time.perf_counter() - began < seconds:
        work()
        steps += 1
    return (time.perf_counter() - began) / steps, (time.process_time() - used) / steps


if __name__ == "__main__":
    sys.exit(main())
