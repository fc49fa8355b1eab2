"""One function over many works, on all cores where there are enough of them to pay for starting processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Final, TypeVar

FEW: Final = 64  # works that are read sooner than processes have started
_CHUNK: Final = 8  # works that a process is given at a time
_Work = TypeVar("_Work")
_Result = TypeVar("_Result")


def over(works: Sequence[_Work], read: Callable[[_Work], _Result]) -> Iterator[_Result]:
    """`read` of each work, in order.

    Where there are more than `FEW`, processes are spawned: `read` must be picklable, and a script that calls this
    needs the usual `if __name__ == "__main__":`. They are ended where the caller leaves off.
    """
    if len(works) <= FEW:
        yield from map(read, works)
        return
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context, initializer=_begin) as pool:
        waiting = deque(pool.submit(_each, read, works[at : at + _CHUNK]) for at in range(0, len(works), _CHUNK))
        started = set(multiprocessing.active_children()) - others
        try:
            while waiting:
                yield from waiting.popleft().result()
        except BaseException:
            # What they are at may take a minute, and nobody waits for it. Nothing is cancelled: Python 3.11's pool
            # takes a cancelled future for one that it must break.
            for process in started:
                process.terminate()
            raise


def _each(read: Callable[[_Work], _Result], works: Sequence[_Work]) -> list[_Result]:
    return [read(work) for work in works]


def _begin() -> None:
    """Ctrl-C reaches the whole foreground group, and it is the first process that decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
