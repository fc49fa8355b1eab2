"""How many threads a process computes with, and how those wait for each other: chosen here and nowhere else.

A thread that is done with its share of a product waits for the other's. libgomp, with which torch comes, has it spin
for that; where somebody else has the other core, it spins away what the scheduler gives it, at every product. It does
so as long as a process has no more threads than there are cores: two threads that train one model beside other work
take ten times the CPU seconds and twenty times as long, four of two models do not (`make bench-contention`). So:

    every `partbook` command             threads that wait asleep (`wait_passively`): as many as torch likes, for a
                                         node may have its machine to itself, and what is computed stays the same
    demo, simulate, audit                one thread (`one_thread`): they train several labels at once as it is
    serve, generate, the demo's pieces   one thread: a step of one token is too small to share
    workers of an ingest, and parties    one thread each (`one_thread_each`): there are as many as there are cores
      that are processes on one machine

What an operator has set wins: OMP_NUM_THREADS over all that is said here of how many, and OMP_WAIT_POLICY, like the
settings of single runtimes (GOMP_SPINCOUNT, KMP_BLOCKTIME), over how they wait. OpenBLAS and MKL go by OMP_NUM_THREADS.

A sum's last bits depend on how many threads share it. One thread is the same on every machine.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Final

COUNT: Final = "OMP_NUM_THREADS"
WAITING: Final = "OMP_WAIT_POLICY"
_ALSO_WAITING: Final = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def wait_passively() -> None:
    """Let threads of this process, and of those it starts, sleep while they wait, unless it is said otherwise.

    To be called before torch is imported: OpenMP's runtime reads the environment when it is loaded.
    """
    if not any(name in os.environ for name in (WAITING, *_ALSO_WAITING)):
        os.environ[WAITING] = "PASSIVE"


def one_thread() -> None:
    """Compute with one thread from now on, here and in processes that are started, unless OMP_NUM_THREADS is set."""
    if COUNT in os.environ:
        return
    os.environ[COUNT] = "1"
    if "torch" in sys.modules:
        exactly(1)


@contextlib.contextmanager
def one_thread_within() -> Iterator[None]:
    """Let torch compute with one thread in this block, unless OMP_NUM_THREADS is set."""
    import torch

    before = torch.get_num_threads()
    if COUNT not in os.environ:
        exactly(1)
    try:
        yield
    finally:
        exactly(before)


def one_thread_each() -> dict[str, str]:
    """What to add to the environment of processes that share this machine; nothing where OMP_NUM_THREADS is set."""
    return {} if COUNT in os.environ else {COUNT: "1"}


@contextlib.contextmanager
def in_environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables in this block, for processes that start in it; what they were before comes back."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def exactly(count: int) -> None:
    """Let torch compute with `count` threads, whatever is set: where sums must come out as elsewhere, bit for bit."""
    import torch

    torch.set_num_threads(count)
