"""Sealing and opening in several processes, since TenSEAL uses one core and holds the interpreter's lock.

Processes are spawned, not forked: the parent may have threads (gRPC, torch, SEAL's own) whose locks a fork would
copy in whatever state they are. A worker gets its key once, through the pipe it is started by, and imports nothing
but `blocks`. Ctrl-C is the parent's to handle; a worker ends when its parent does, however that ended.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from partbook.errors import SealingCrashed
from partbook.sealing import blocks
from partbook.sealing.parameters import SealPublic, SealSecret

_In = TypeVar("_In")
_Out = TypeVar("_Out")


class SealPool:
    """Worker processes, started when a stream needs them and ended with the `with` block.

    A stream of one chunk, or a pool of one worker, is worked on right here: starting a process costs more.
    """

    def __init__(self, workers: int | None = None) -> None:
        """A pool of `workers` processes; None: as many as this process may use cores."""
        if workers is not None and workers < 1:
            raise ValueError("a pool has at least one worker")
        self.workers = workers or _cores()
        self._executors: dict[tuple[str, str], ProcessPoolExecutor] = {}

    def __enter__(self) -> SealPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the workers, each after the chunk it is at."""
        while self._executors:
            _, executor = self._executors.popitem()
            executor.shutdown(wait=True, cancel_futures=True)

    def seal_stream(self, public: SealPublic, chunks: Iterable[NDArray[np.uint64]]) -> Iterator[bytes]:
        """Sealed chunks, in order; at most `workers` + 1 are in memory besides the one handed out.

        Raises:
            ValueOutOfRange: a slot is t or more.
            SealingCrashed: a worker was ended.
        """
        return self._stream(
            chunks, lambda c: blocks.seal(public, c), _seal, ("seal", public.key_id), _start_sealing, public.blob
        )

    def open_stream(self, secret: SealSecret, chunks: Iterable[bytes]) -> Iterator[NDArray[np.uint64]]:
        """The slots of sealed chunks, in order; at most `workers` + 1 are in memory besides the one handed out.

        Raises:
            ForeignSealKey: a chunk is sealed to another key.
            AlteredCiphertext: a chunk is not one, or was altered.
            SealingCrashed: a worker was ended.
        """
        return self._stream(
            chunks, lambda c: blocks.open_chunk(secret, c), _open, ("open", secret.key_id), _start_opening,
            secret.reveal(),
        )  # fmt: skip

    def _stream(
        self,
        chunks: Iterable[_In],
        here: Callable[[_In], _Out],
        there: Callable[[_In], _Out],
        name: tuple[str, str],
        start: Callable[[bytes], None],
        key: bytes,
    ) -> Iterator[_Out]:
        source = iter(chunks)
        first = list(itertools.islice(source, 2))
        if self.workers == 1 or len(first) < 2:
            while first:
                yield here(first.pop(0))
            yield from map(here, source)
            return
        if name not in self._executors:
            self._executors[name] = ProcessPoolExecutor(
                self.workers, multiprocessing.get_context("spawn"), initializer=start, initargs=(key,)
            )
        executor = self._executors[name]
        ahead: deque[Future[_Out]] = deque()
        try:
            while True:
                while (
                    len(ahead) <= self.workers and (chunk := first.pop(0) if first else next(source, None)) is not None
                ):
                    with _undisturbed():
                        ahead.append(executor.submit(there, chunk))
                if not ahead:
                    return
                yield ahead.popleft().result()
        except BrokenProcessPool as error:
            self._executors.pop(name, None)
            executor.shutdown(wait=True, cancel_futures=True)
            raise SealingCrashed(
                "A process that was sealing or opening chunks was ended before it was done, most likely for want of "
                "memory; try again with fewer workers (each takes about 200 MB)."
            ) from error
        finally:
            for future in ahead:
                future.cancel()


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C waits until a worker that `submit` starts has inherited being deaf to it; it starts up for a second."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# A worker's own key: set once by its initializer.
_public: SealPublic | None = None
_secret: SealSecret | None = None


def _start_sealing(blob: bytes) -> None:
    global _public
    _start()
    _public = SealPublic(blob)


def _start_opening(blob: bytes) -> None:
    global _secret
    _start()
    _secret = SealSecret(blob)


def _start() -> None:
    # The terminal sends Ctrl-C to every process of the group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A killed parent closes nothing: a worker waiting for its queue would wait for ever.
    parent = multiprocessing.parent_process()
    assert parent is not None, "only a worker is started so"
    parent.join()
    os._exit(1)


def _seal(slots: NDArray[np.uint64]) -> bytes:
    assert _public is not None, "the initializer ran"
    return blocks.seal(_public, slots)


def _open(chunk: bytes) -> NDArray[np.uint64]:
    assert _secret is not None, "the initializer ran"
    return blocks.open_chunk(_secret, chunk)
