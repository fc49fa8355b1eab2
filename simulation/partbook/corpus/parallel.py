"""One function over many works, on all cores where there are enough of them to pay for starting processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Final, TypeVar

FEW: Final = 64  # works that are read sooner than processes have started
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
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        try:
            yield from pool.map(read, works, chunksize=8)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
