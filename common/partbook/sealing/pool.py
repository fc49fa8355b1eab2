"""Sealing and opening in several processes, since TenSEAL uses one core and holds the interpreter's lock.

Processes are spawned, not forked: the parent may have threads (gRPC, torch, SEAL's own) whose locks a fork would
copy in whatever state they are. A worker gets its key once, through the pipe it is started by, and imports nothing
but `blocks`.

Each worker has a pipe of its own and at most one chunk at a time. Whoever dies closes their end: a worker whose parent
was killed ends, and a parent whose worker was killed is told, also in the middle of a message. (The standard
library's process pool shares one pipe for all results; a worker killed while writing to it leaves the parent waiting
for ever, which chunks of megabytes make likely.)
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import Any, TypeVar

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
        self._crews: list[_Crew] = []

    def __enter__(self) -> SealPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the workers at once; what they are at is lost."""
        while self._crews:
            self._crews.pop().end()

    def seal_stream(self, public: SealPublic, chunks: Iterable[NDArray[np.uint64]]) -> Iterator[bytes]:
        """Sealed chunks, in order; at most one a worker is in memory besides the one handed out.

        Raises:
            ValueOutOfRange: a slot is t or more.
            SealingCrashed: a worker was ended.
        """
        return self._stream(chunks, lambda chunk: blocks.seal(public, chunk), _seal_with, public.blob)

    def open_stream(self, secret: SealSecret, chunks: Iterable[bytes]) -> Iterator[NDArray[np.uint64]]:
        """The slots of sealed chunks, in order; at most one a worker is in memory besides the one handed out.

        Raises:
            ForeignSealKey: a chunk is sealed to another key.
            AlteredCiphertext: a chunk is not one, or was altered.
            SealingCrashed: a worker was ended.
        """
        return self._stream(chunks, lambda chunk: blocks.open_chunk(secret, chunk), _open_with, secret.reveal())

    def _stream(
        self,
        chunks: Iterable[_In],
        here: Callable[[_In], _Out],
        there: Callable[[bytes], Callable[[_In], _Out]],
        key: bytes,
    ) -> Iterator[_Out]:
        source = iter(chunks)
        first = list(itertools.islice(source, 2))
        if self.workers == 1 or len(first) < 2:
            while first:
                yield here(first.pop(0))
            yield from map(here, source)
            return
        crew = self._free_crew(there, key)
        crew.busy = True
        try:
            yield from crew.work(itertools.chain(first, source))
        except BaseException:
            # Whatever stopped the stream, its workers may still hold answers that nobody will fetch.
            crew.end()
            with contextlib.suppress(ValueError):
                self._crews.remove(crew)
            raise
        crew.busy = False

    def _free_crew(self, there: Callable[[bytes], Callable[[Any], Any]], key: bytes) -> _Crew:
        for crew in self._crews:
            if not crew.busy and crew.there is there and crew.key == key:
                return crew
        crew = _Crew(self.workers, there, key)
        self._crews.append(crew)
        return crew


class _Crew:
    """Workers that do the same with the same key."""

    def __init__(self, workers: int, there: Callable[[bytes], Callable[[Any], Any]], key: bytes) -> None:
        self.there, self.key, self.busy = there, key, False
        self._workers: list[tuple[SpawnProcess, Connection]] = []
        spawn = multiprocessing.get_context("spawn")
        with _undisturbed():
            for _ in range(workers):
                ours, theirs = spawn.Pipe()
                process = spawn.Process(target=_work, args=(theirs, there, key), daemon=True)
                process.start()
                theirs.close()
                self._workers.append((process, ours))

    def work(self, chunks: Iterator[Any]) -> Iterator[Any]:
        """Results in the order of the chunks, which go round the workers: every chunk costs much the same."""
        connections = [connection for _, connection in self._workers]
        waiting = 0
        for connection, chunk in zip(connections, chunks, strict=False):
            with _crash_named():
                connection.send(chunk)
            waiting += 1
        for connection in itertools.cycle(connections):
            if not waiting:
                return
            with _crash_named():
                result = connection.recv()
            waiting -= 1
            if isinstance(result, Exception):
                raise result
            for chunk in itertools.islice(chunks, 1):
                with _crash_named():
                    connection.send(chunk)
                waiting += 1
            yield result

    def end(self) -> None:
        for process, connection in self._workers:
            connection.close()
            process.kill()  # it keeps nothing that would want to be put away
        for process, _ in self._workers:
            process.join()
        self._workers.clear()
        self.key = b""


@contextlib.contextmanager
def _crash_named() -> Iterator[None]:
    """Around a worker's pipe only: where chunks come from may break connections of its own."""
    try:
        yield
    except (EOFError, ConnectionError) as error:
        raise SealingCrashed(
            "A process that was sealing or opening chunks was ended before it was done, most likely for want of "
            "memory; try again with fewer workers (each takes about 200 MB)."
        ) from error


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C waits until the workers being started have inherited being deaf to it; they start up for a second."""
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


def _work(connection: Connection, there: Callable[[bytes], Callable[[Any], Any]], key: bytes) -> None:
    # The terminal sends Ctrl-C to every process of the group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    do = there(key)
    # The parent's end closes with the stream, or with the parent.
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            chunk = connection.recv()
            try:
                result = do(chunk)
            except Exception as error:
                result = error
            connection.send(result)


def _seal_with(blob: bytes) -> Callable[[NDArray[np.uint64]], bytes]:
    public = SealPublic(blob)
    return lambda slots: blocks.seal(public, slots)


def _open_with(blob: bytes) -> Callable[[bytes], NDArray[np.uint64]]:
    secret = SealSecret(blob)
    return lambda chunk: blocks.open_chunk(secret, chunk)
