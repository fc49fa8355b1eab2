from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from support.workers import workers_of

from partbook.errors import AlteredCiphertext, SealingCrashed, ValueOutOfRange
from partbook.sealing.blocks import open_chunk
from partbook.sealing.parameters import SealPublic, SealSecret
from partbook.sealing.pool import SealPool
from partbook.secagg.rings import T

Keys = tuple[SealSecret, SealPublic]

STREAM_FOR_EVER = """
import itertools, sys
import numpy as np
from partbook.sealing.parameters import generate
from partbook.sealing.pool import SealPool

if __name__ == "__main__":
    _, public = generate()
    with SealPool(2) as pool:
        for sealed in pool.seal_stream(public, (np.zeros(4096, np.uint64) for _ in itertools.count())):
            print("sealed", flush=True)
"""


def chunks(count: int) -> list[NDArray[np.uint64]]:
    return [np.random.default_rng(i).integers(0, T, 4096 + i, dtype=np.uint64) for i in range(count)]


def test_streams_keep_their_order_and_look_ahead_no_further_than_promised(seal_keys: Keys) -> None:
    secret, public = seal_keys
    values, taken, before = chunks(9), 0, set(workers_of())

    def counted() -> Iterator[NDArray[np.uint64]]:
        nonlocal taken
        for chunk in values:
            taken += 1
            yield chunk

    with SealPool(2) as pool:
        stream = pool.seal_stream(public, counted())
        sealed = [next(stream)]
        assert taken == 2 + 1
        assert len(set(workers_of()) - before) == 2
        sealed += stream
        assert [open_chunk(secret, chunk).tolist() for chunk in sealed] == [v.tolist() for v in values]
        opened = list(pool.open_stream(secret, iter(sealed)))
        assert [o.tolist() for o in opened] == [v.tolist() for v in values]
        with pytest.raises(ValueOutOfRange):  # a worker's refusal is the same named error
            list(pool.seal_stream(public, [values[0], np.full(2, T, dtype=np.uint64)]))
        with pytest.raises(AlteredCiphertext):
            list(pool.open_stream(secret, [sealed[0], sealed[1][:-1]]))
    assert set(workers_of()) <= before


@pytest.mark.parametrize(("workers", "count"), [(2, 0), (2, 1), (1, 3)])
def test_what_a_pool_would_only_slow_down_starts_no_process(seal_keys: Keys, workers: int, count: int) -> None:
    secret, public = seal_keys
    with SealPool(workers) as pool:
        before = set(workers_of())
        sealed = list(pool.seal_stream(public, chunks(count)))
        opened = list(pool.open_stream(secret, sealed))
        assert set(workers_of()) == before
    assert [o.tolist() for o in opened] == [c.tolist() for c in chunks(count)]


def test_a_killed_worker_is_a_named_error_and_the_pool_goes_on(seal_keys: Keys) -> None:
    _, public = seal_keys
    before = set(workers_of())
    with SealPool(2) as pool:
        stream = pool.seal_stream(public, iter(chunks(40)))
        next(stream)
        for worker in set(workers_of()) - before:
            worker.send_signal(signal.SIGKILL)
        with pytest.raises(SealingCrashed, match="fewer workers"):
            list(stream)
        assert len(list(pool.seal_stream(public, chunks(2)))) == 2


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_its_parent(tmp_path: Path, how: signal.Signals) -> None:
    script = tmp_path / "stream.py"
    script.write_text(STREAM_FOR_EVER)
    parent = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"sealed\n"
    workers = psutil.Process(parent.pid).children(recursive=True)
    assert len(workers) >= 2
    if how == signal.SIGINT:
        os.killpg(parent.pid, how)  # as a terminal does
        _, errors = parent.communicate(timeout=120)
        assert errors.count(b"Traceback") == 1, errors.decode()
    else:
        parent.kill()
        parent.communicate(timeout=120)
    deadline = time.monotonic() + 20
    while any(w.is_running() and w.status() != psutil.STATUS_ZOMBIE for w in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [w for w in workers if w.is_running() and w.status() != psutil.STATUS_ZOMBIE]
