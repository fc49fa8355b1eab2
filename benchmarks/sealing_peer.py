"""Sealing against the homomorphic encryption of NVIDIA FLARE, on the same machine, in the same run.

FLARE's preset is that of `HEBuilder` (nvflare/lighter/impl/he.py, read in the 2.x sources): CKKS, degree 8192,
coefficient moduli [60, 40, 40], scale 2^40, *symmetric*, so that every client holds the key that opens every update.
Its filters encrypt a layer with `ts.ckks_vector(context, values).serialize()` and open it with `ckks_vector_from` and
`decrypt()` (nvflare/app_opt/he/model_encryptor.py and model_decryptor.py); that is what is timed here.

python -m benchmarks.sealing_peer [parameters]
"""

from __future__ import annotations

import contextlib
import io
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.claims import Claim, report
from partbook.sealing.blocks import open_chunk, seal
from partbook.sealing.packing import Packing
from partbook.sealing.parameters import generate
from partbook.sealing.pool import SealPool
from partbook.secagg.rings import CHUNK

_T = TypeVar("_T")

PACKING = Packing(span=2**16 - 2, cohort=64)
REPEATS = 5


@dataclass(frozen=True, slots=True)
class SealingCost:
    """What it took to seal and open one vector, in processor seconds.

    Both sides can be spread over cores (ours by `SealPool`), and other programs' load is not theirs.

    Attributes:
        parameters: of the vector.
        seal_seconds: from numbers to bytes that can travel.
        open_seconds: from these bytes to numbers.
        bytes_per_parameter: that travel.
    """

    parameters: int
    seal_seconds: float
    open_seconds: float
    bytes_per_parameter: float


@dataclass(frozen=True, slots=True)
class StreamCost:
    """What it took to seal a long vector chunk by chunk, in a process of its own.

    Attributes:
        parameters: of the vector.
        workers: sealing processes; 1 is the streaming process itself.
        seconds: from the first chunk to the last.
        peak_bytes: resident memory of the streaming process and all workers, each at its own peak.
        sealed_bytes: that would travel.
    """

    parameters: int
    workers: int
    seconds: float
    peak_bytes: int
    sealed_bytes: int


def measure_ours(parameters: int = 1_000_000) -> SealingCost:
    """16-bit values, two a slot, packed, sealed to a public key, opened and unpacked."""
    secret, public = generate()
    values = np.random.default_rng(3).integers(0, PACKING.span, parameters, dtype=np.uint32, endpoint=True)
    per_chunk = CHUNK * PACKING.fields
    lengths = [min(per_chunk, parameters - start) for start in range(0, parameters, per_chunk)]

    def sealed() -> list[bytes]:
        starts = range(0, parameters, per_chunk)
        return [seal(public, PACKING.pack(values[start : start + per_chunk])) for start in starts]

    def opened(chunks: list[bytes]) -> list[NDArray[np.uint64]]:
        return [
            PACKING.unpack(open_chunk(secret, chunk), length, contributions=1)
            for chunk, length in zip(chunks, lengths, strict=True)
        ]

    seal_seconds, chunks = _timed(sealed)
    open_seconds, back = _timed(lambda: opened(chunks))
    assert np.array_equal(np.concatenate(back), values), "opened as sealed"
    return SealingCost(parameters, seal_seconds, open_seconds, sum(map(len, chunks)) / parameters)


def measure_flare(parameters: int = 1_000_000) -> SealingCost:
    """Weights as 64-bit floats, encrypted and decrypted as FLARE's filters do."""
    import tenseal as ts

    context = ts.context(
        ts.SCHEME_TYPE.CKKS,
        poly_modulus_degree=8192,
        coeff_mod_bit_sizes=[60, 40, 40],
        encryption_type=ts.ENCRYPTION_TYPE.SYMMETRIC,
    )
    context.global_scale = 2**40
    weights = np.random.default_rng(3).standard_normal(parameters)
    with contextlib.redirect_stdout(io.StringIO()):  # a warning for each vector of several ciphertexts
        seal_seconds, blob = _timed(lambda: ts.ckks_vector(context, weights).serialize())
        open_seconds, back = _timed(lambda: ts.ckks_vector_from(context, blob).decrypt())
    assert np.allclose(back, weights, atol=1e-4), "opened as sealed, nearly"
    return SealingCost(parameters, seal_seconds, open_seconds, len(blob) / parameters)


def measure_stream(parameters: int = 50_000_000, workers: int = 1) -> StreamCost:
    """Seal a vector of `parameters` values, made chunk by chunk, in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.sealing_peer", "--stream", str(parameters), str(workers)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return StreamCost(**json.loads(done.stdout.splitlines()[-1]))


def _stream(parameters: int, workers: int) -> StreamCost:
    _, public = generate()
    per_chunk = CHUNK * PACKING.fields

    def chunks() -> Iterator[NDArray[np.uint64]]:
        rng = np.random.default_rng(3)
        for start in range(0, parameters, per_chunk):
            length = min(per_chunk, parameters - start)
            yield PACKING.pack(rng.integers(0, PACKING.span, length, dtype=np.uint32, endpoint=True))

    began, travelled = time.perf_counter(), 0
    with SealPool(workers) as pool:
        for chunk in pool.seal_stream(public, chunks()):
            travelled += len(chunk)
    seconds = time.perf_counter() - began
    # Not getrusage, whose figure for a process begins with the peak of the one that started it.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) * 1024
    if workers > 1:
        # Of the largest worker, or of this process if that was larger: an upper bound.
        peak += workers * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return StreamCost(parameters, workers, seconds, peak, travelled)


def _timed(what: Callable[[], _T]) -> tuple[float, _T]:
    began = time.process_time()
    result = what()
    return time.process_time() - began, result


def _cheapest(costs: Sequence[SealingCost]) -> SealingCost:
    return replace(
        costs[0],
        seal_seconds=min(cost.seal_seconds for cost in costs),
        open_seconds=min(cost.open_seconds for cost in costs),
    )


def claims(parameters: int = 1_000_000, streamed: int = 50_000_000) -> list[Claim]:
    """Ours against FLARE's preset, and the memory of a long stream against its limit."""
    stream, turns = measure_stream(streamed), []
    for _ in range(REPEATS):  # in turns, so that a busy minute of the machine is not one side's alone
        turns.append((measure_ours(parameters), measure_flare(parameters)))
    ours, flare = (_cheapest(side) for side in zip(*turns, strict=True))
    peer, size = "TenSEAL CKKS, NVIDIA FLARE's preset", ours.bytes_per_parameter
    return [
        Claim("parameters sealed", "1/s", parameters / ours.seal_seconds, parameters / flare.seal_seconds, peer, 2.0),
        Claim("parameters opened", "1/s", parameters / ours.open_seconds, parameters / flare.open_seconds, peer, 3.0),
        Claim("sealed size", "bytes/parameter", size, flare.bytes_per_parameter, peer, 8.2 / 57.4, at_least=False),
        Claim("sealed size", "bytes/parameter", size, 8.2, "limit", 1.0, at_least=False),
        Claim(
            f"peak memory, {streamed // 1_000_000}M parameters sealed", "bytes", float(stream.peak_bytes), 1.5e9,
            "limit", 1.0, at_least=False,
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:2] == ["--stream"]:
        outcome = _stream(int(sys.argv[2]), int(sys.argv[3]))
        print(json.dumps({name: getattr(outcome, name) for name in StreamCost.__slots__}))
    else:
        sys.exit(0 if report("sealing", claims(*map(int, sys.argv[1:2]))) else 1)
