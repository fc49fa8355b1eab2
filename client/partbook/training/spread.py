"""Per-recording training on several devices: one process each, with a replica of the model, and one sum of integers.

    this process      draws recordings, windows and rounding keys; lays micro-batches out; adds sums up; adds the noise
    a worker          updates of a micro-batch's recordings, clipped, rounded, added up: integers come back, once a step

A worker gets the next micro-batch when it is done with the last, so devices of unlike speed are busy to the end. Who
works on what cannot be seen in the result: micro-batches are cut before (`micro_batches`), every recording is rounded
with a key that travels with it, and integers add up exactly in any order. In DP-SGD each step starts from the adapter
that the step before led to, which all workers are sent: an all-reduce through this process, of one adapter out and one
sum back.

Data parallelism is all there is, on purpose: the adapter is small (10^4 to 10^6 numbers), and a base model of a few
hundred million parameters fits a card many times over. FSDP (Zhao et al. 2023, arXiv 2304.11277) shards parameters
because they do not fit; it averages gradients over a batch in floating point, where what is noised here is a sum of
single recordings' gradients, in integers. See docs/multi-gpu.md.

Workers are spawned, kept between rounds, and hold no recording longer than its micro-batch: they get neither vault, nor
its key, nor a file. Each has a pipe of its own; whoever dies closes it. A worker whose parent is gone, however it
ended, exits at once, in the middle of a batch too: a thread waits for the pipe that the system closes with the parent.
(Linux's PR_SET_PDEATHSIG would not do: it is sent when the *thread* that started the process ends, and rounds come in
on threads.)
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.util import Finalize
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from partbook.errors import TrainingCrashed
from partbook.model.adapter import attach
from partbook.model.config import ModelConfig
from partbook.model.transformer import PartbookModel
from partbook.privacy.mechanism import NoisyGrid
from partbook.threads import exactly
from partbook.training.devices import take_share
from partbook.training.replica import Keyed, Replica, Summed, Task


@dataclass(frozen=True, slots=True)
class _Base:
    """A model as it travels to a worker: arrays, since tensors would go by way of shared-memory files."""

    config: ModelConfig
    state: dict[str, NDArray[Any]]

    def build(self) -> PartbookModel:
        model = attach(PartbookModel(self.config))
        model.load_state_dict({name: torch.from_numpy(array) for name, array in self.state.items()})
        return model


@dataclass(frozen=True, slots=True)
class _Step:
    """A task as it travels."""

    task: Task
    adapter: dict[str, NDArray[np.float32]]
    grid: NoisyGrid

    @classmethod
    def of(cls, task: Task, grid: NoisyGrid) -> _Step:
        arrays = {name: tensor.detach().cpu().numpy() for name, tensor in task.adapter.items()}
        return cls(replace(task, adapter={}), arrays, grid)

    def whole(self) -> Task:
        return replace(self.task, adapter={name: torch.from_numpy(array) for name, array in self.adapter.items()})


@dataclass(slots=True)
class _Worker:
    device: torch.device
    process: SpawnProcess
    pipe: Connection

    def send(self, what: object) -> None:
        with self._named():
            self.pipe.send(what)

    def receive(self) -> Any:
        with self._named():
            return self.pipe.recv()

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, ConnectionError) as error:
            self.process.join(1)
            code = self.process.exitcode
            how = "" if code is None else f" (signal {-code})" if code < 0 else f" (exit code {code})"
            raise TrainingCrashed(
                f"The process that was training on {self.device} ended before it was done{how}, most likely for want "
                "of memory. Nothing has left this node, and the round may be asked for again; if it happens again, "
                "name fewer `devices`, or raise `gpu_share` in the policy."
            ) from error


class Spread:
    """Worker processes, one a device. They start with the first sum, and end with `close` or with this process."""

    def __init__(self, model: PartbookModel, devices: Sequence[torch.device], *, gpu_share: float = 1.0) -> None:
        """Workers for a base model with adapters attached, which stays where it is.

        Args:
            model: what each worker gets a replica of.
            devices: at least one, all of one kind.
            gpu_share: of each device's memory, at most.
        """
        assert len({device.type for device in devices}) == 1, "`devices_of` gives some, of one kind"
        self._model, self._devices, self._share = model, tuple(devices), gpu_share
        self._workers: list[_Worker] = []
        # Before the standard library would ask the workers to end, which are deaf to that, and wait for them.
        self._end = Finalize(self, _end, (self._workers,), exitpriority=10)

    def __enter__(self) -> Spread:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def kind(self) -> str:
        """`cpu` or `cuda`."""
        return self._devices[0].type

    @property
    def processes(self) -> tuple[int, ...]:
        """Ids of the workers there are."""
        return tuple(worker.process.pid or 0 for worker in self._workers)

    def close(self) -> None:
        """End the workers at once; what they are at is lost. A later sum starts new ones."""
        _end(self._workers)

    def sum(self, task: Task, grid: NoisyGrid, batches: Iterable[Keyed]) -> Summed:
        """The rounded updates of all recordings, added up: what `Replica.sum` says, whoever works on what.

        Raises:
            ValueOutOfRange: an update is longer than the clip.
            TrainingCrashed: a worker ended. All are ended, and new ones start with the next sum.
        """
        try:
            self._start()
            return self._sum(task, grid, iter(batches))
        except BaseException:
            # Whatever stopped it, workers may still be at a step that nobody will fetch.
            self.close()
            raise

    def _sum(self, task: Task, grid: NoisyGrid, batches: Iterator[Keyed]) -> Summed:
        step = _Step.of(task, grid)
        for worker in self._workers:
            worker.send(step)
        summed = Summed(np.zeros(grid.dimension, np.int64))
        working = {worker.pipe: worker for worker in self._workers}
        following = next(batches, None)  # laid out while the workers are busy
        while working:
            for pipe in wait(list(working)):
                assert isinstance(pipe, Connection), "there is nothing else to wait for"
                said = working[pipe].receive()
                if said is None:
                    working[pipe].send(following)
                    following = None if following is None else next(batches, None)
                elif isinstance(said, Exception):
                    raise said
                else:
                    summed.add(said)
                    del working[pipe]
        assert following is None, "every micro-batch was worked on"
        return summed

    def _start(self) -> None:
        if self._workers:
            return
        spawn = multiprocessing.get_context("spawn")
        threads = torch.get_num_threads()
        with _undisturbed():
            for device in self._devices:
                ours, theirs = spawn.Pipe()
                arguments = (theirs, str(device), self._share, threads)
                process = spawn.Process(target=_work, args=arguments, daemon=True, name=f"training on {device}")
                process.start()
                theirs.close()
                self._workers.append(_Worker(device, process, ours))
        state = {name: tensor.detach().cpu().numpy() for name, tensor in self._model.state_dict().items()}
        for worker in self._workers:
            worker.send(_Base(self._model.config, state))


def _end(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.pipe.close()
        worker.process.kill()  # it keeps nothing that would want to be put away
    while workers:
        workers.pop().process.join()


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Workers inherit being deaf to what a terminal or a service manager tells the whole group: the parent decides."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(pipe: Connection, device_name: str, share: float, threads: int) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # As many as the parent would use: how a sum is split between threads decides its last bits.
    exactly(threads)
    device = torch.device(device_name)
    with contextlib.suppress(EOFError, ConnectionError):  # the parent's end closes with the parent
        base: _Base = pipe.recv()
        take_share(device, share)
        replica = Replica(base.build().to(device))
        del base
        while True:
            step: _Step = pipe.recv()
            try:
                answer: Summed | Exception = replica.sum(step.whole(), step.grid, _asked_for(pipe))
            except (EOFError, ConnectionError):
                raise
            except Exception as error:
                answer = error
            pipe.send(answer)
            del answer, step


def _asked_for(pipe: Connection) -> Iterator[Keyed]:
    """Micro-batches, each asked for when the one before is done, until there are no more."""
    while True:
        pipe.send(None)
        keyed = pipe.recv()
        if keyed is None:
            return
        yield keyed


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker has been started by somebody"
    parent.join()
    os._exit(1)
