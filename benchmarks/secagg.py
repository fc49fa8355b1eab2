"""Secure aggregation and sealing against Flower's SecAgg+ and NVIDIA FLARE's encryption: one run, one machine.

Seconds are of CPU time on one core, the best of a few turns in which ours and the other alternate, since these
machines are shared. Memory is measured in processes of their own, before this one has grown.

python -m benchmarks.secagg [--parameters N …] [--neighbours K …] [--streamed N] [--members N] [--dropped N] [--turns N]
"""

from __future__ import annotations

import argparse
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import sealing_peer
from benchmarks.claims import Claim, report
from benchmarks.cohort import Cohort, OneNode, play
from partbook.secagg.grid import Grid
from partbook.secagg.rings import CHUNK, SEED_BYTES, WORDS, add_masks

FLOWER = "Flower 1.41 SecAgg+"
GRID = Grid(16, 0.5)


@dataclass(frozen=True, slots=True)
class Client:
    """CPU seconds of one client's contribution, and what it sends.

    Attributes:
        mask_seconds: from quantised values to masked bytes: every mask, and serialising.
        signed_seconds: the same as a contribution that nobody can alter on its way, with seeds derived, SHA-256 and
            signature; Flower has none of these.
        whole_seconds: from float32 values to what is sent, quantisation included.
        vector_bytes: of the masked vector.
        message_bytes: of what is signed beside it.
    """

    mask_seconds: float
    signed_seconds: float
    whole_seconds: float
    vector_bytes: int
    message_bytes: int


def clients(parameters: int, neighbours: int, turns: int = 5) -> tuple[Client, Client]:
    """Ours and Flower's, for a vector of `parameters` masked with `neighbours` others."""
    from benchmarks.secagg_peer import FlowerClient

    weights, flower, fresh = _weights(parameters), FlowerClient(neighbours), _node(neighbours)
    fields, theirs = GRID.quantise(weights), flower.quantised(weights)

    seeds = [(os.urandom(SEED_BYTES), 1 if index % 2 else -1) for index in range(neighbours + 1)]

    def masked(values: NDArray[np.uint32]) -> int:
        size = 0
        for chunk, start in enumerate(range(0, parameters, CHUNK)):
            part = values[start : start + CHUNK]
            add_masks(part, seeds, WORDS, chunk)
            size += len(WORDS.to_bytes(part))
        return size

    def signed(node: OneNode, values: NDArray[np.uint32]) -> tuple[int, int]:
        blobs = messages = 0
        for message, blob in node.contribute(values):
            blobs, messages = blobs + len(blob), messages + len(message)
        return blobs, messages

    def whole(node: OneNode, values: NDArray[np.float32]) -> tuple[int, int]:
        return signed(node, GRID.quantise(values))

    seconds, sent = _best(
        {
            "ours": lambda: (masked, fields.copy()),
            "flower": lambda: (flower.masked, theirs),
            "ours, signed": lambda: (partial(signed, fresh()), fields.copy()),
            "ours, whole": lambda: (partial(whole, fresh()), weights),
            "flower, whole": lambda: (flower.contributed, weights),
        },
        turns,
    )
    # Flower puts the weighting factor, one more number, in front of the parameters.
    return (
        Client(seconds["ours"], seconds["ours, signed"], seconds["ours, whole"], *sent["ours, signed"]),
        Client(seconds["flower"], seconds["flower"], seconds["flower, whole"], sum(map(len, sent["flower"])), 0),
    )


def _node(neighbours: int) -> Callable[[], OneNode]:
    """A node ready to contribute, fresh each time: no seed is derived before it is measured."""
    cohort = Cohort(neighbours + 1)
    return lambda: OneNode(cohort)


def _weights(parameters: int) -> NDArray[np.float32]:
    weights = np.random.default_rng(3).random(parameters, np.float32)
    weights -= np.float32(0.5)
    return weights


def _best(
    ways: Mapping[str, Callable[[], tuple[Callable[[Any], Any], NDArray[Any]]]], turns: int
) -> tuple[dict[str, float], dict[str, Any]]:
    """The least CPU seconds of each way, taken in turns, and what it gave. Preparing it is not timed."""
    best: dict[str, float] = dict.fromkeys(ways, float("inf"))
    results: dict[str, Any] = {}
    for _ in range(turns):
        for name, prepare in ways.items():
            way, argument = prepare()
            began = time.process_time()
            results[name] = way(argument)
            best[name] = min(best[name], time.process_time() - began)
    return best, results


def peak_memory(whose: str, parameters: int, neighbours: int) -> int:
    """Bytes by which a fresh process grew at most, from before there was a vector until it was masked and sent."""
    command = [sys.executable, "-m", "benchmarks.secagg", "--memory", whose, str(parameters), str(neighbours)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    return int(done.stdout.splitlines()[-1])


def _grow(whose: str, parameters: int, neighbours: int) -> int:
    if whose == "ours":
        node = _node(neighbours)()
        _send_all(node, 1000)  # whatever is loaded when it is first used
        node = _node(neighbours)()
        before = _peak()
        _send_all(node, parameters)
    else:
        from benchmarks.secagg_peer import FlowerClient

        flower = FlowerClient(neighbours)
        flower.contributed(_weights(1000))
        before = _peak()
        flower.contributed(_weights(parameters))
    return max(_peak() - before, mmap.PAGESIZE)  # a tiny vector may find room that is there already


def _send_all(node: OneNode, parameters: int) -> None:
    for _ in node.contribute(GRID.quantise(_weights(parameters))):
        pass  # sent, and forgotten


def _peak() -> int:
    # Not getrusage, whose figure for a process begins with the peak of the one that started it.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))


def unmasking(length: int, members: int = 50, dropped: int = 3, turns: int = 3) -> float:
    """CPU seconds that the coordinator takes to restore the secrets of a real round and take the masks off its sum."""
    rounds = [play(Cohort(members), length, dropped) for _ in range(turns)]
    assert all(done.exact for done in rounds), "the sum is the survivors' integer sum"
    return min(done.coordinator.seconds["opening"] for done in rounds)


def masking_claims(sizes: list[int], neighbours: list[int], turns: int) -> list[Claim]:
    """Ours against Flower's client, and their memory at the largest size."""
    largest, claims = max(sizes), []
    grown = {whose: peak_memory(whose, largest, neighbours[0]) / (4 * largest) for whose in ("ours", "flower")}
    print(
        f"memory at {_short(largest)} parameters, in vectors of 4 bytes a parameter, the float32 vector itself "
        f"included: ours {grown['ours']:.2f}, Flower {grown['flower']:.2f}"
    )
    for size in sizes:
        for k in neighbours:
            ours, flower = clients(size, k, turns)
            what = f"{_short(size)} parameters, k = {k}"
            print(f"{what}: {ours.vector_bytes / size:.4f} bytes a parameter, Flower {flower.vector_bytes / size:.4f}")
            for name, target, here, there in (
                ("masked", 4.0, ours.mask_seconds, flower.mask_seconds),
                # Flower hashes and signs nothing: doing so as well must still cost less than its masks alone.
                ("masked, hashed and signed (Flower: masked)", 1.0, ours.signed_seconds, flower.signed_seconds),
                (
                    "quantised, masked, hashed and signed (Flower: quantised and masked)",
                    1.0,
                    ours.whole_seconds,
                    flower.whole_seconds,
                ),
            ):
                print(f"    {name}: {_ms(here)}, Flower {_ms(there)}, {there / here:.1f} times faster")
                claims.append(Claim(f"{name}, {what}", "parameters/s", size / here, size / there, FLOWER, target))
    sent, unit = ours.vector_bytes / size, "bytes/parameter"
    return [
        *claims,
        Claim("masked vector as sent", unit, sent, flower.vector_bytes / size, FLOWER, 0.5, at_least=False),
        Claim("masked vector as sent", unit, sent, 4.0, "limit", 1.0, at_least=False),
        Claim(f"memory, {_short(largest)}", "vectors", grown["ours"], 3.0, "limit", 1.0, at_least=False),
        Claim(f"memory, {_short(largest)}", "vectors", grown["ours"], grown["flower"], FLOWER, 1.0, at_least=False),
    ]


def sealing_claims(parameters: int, streamed: int) -> list[Claim]:
    """Ours against FLARE's preset."""
    claims = sealing_peer.claims(parameters, streamed)
    for claim in claims:
        digits = 2 if claim.ours < 1000 else 0
        print(
            f"{claim.what}: {claim.ours:,.{digits}f} {claim.unit}, {claim.peer_name} {claim.peer:,.{digits}f} "
            f"({claim.ours / claim.peer:.2f} times)"
        )
    return claims


def main(arguments: list[str]) -> int:
    """Measure everything, print it, and close with the JSON line."""
    if arguments[:1] == ["--memory"]:
        print(_grow(arguments[1], *map(int, arguments[2:])))
        return 0
    parser = argparse.ArgumentParser(prog="python -m benchmarks.secagg")
    parser.add_argument("--parameters", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--neighbours", type=int, nargs="+", default=[10, 50])
    parser.add_argument("--streamed", type=int, default=50_000_000)
    parser.add_argument("--members", type=int, default=50, help="of the coordinator's round")
    parser.add_argument("--dropped", type=int, default=3, help="of these")
    parser.add_argument("--turns", type=int, default=5, help="of ours and Flower's")
    chosen = parser.parse_args(arguments)
    smallest = min(chosen.parameters)
    assert smallest <= CHUNK, "the coordinator's round is of one chunk"
    claims = masking_claims(chosen.parameters, chosen.neighbours, chosen.turns)
    claims += sealing_claims(smallest, chosen.streamed)
    opening = unmasking(smallest, chosen.members, chosen.dropped)
    what = f"coordinator opens {_short(smallest)} parameters, {chosen.dropped} of {chosen.members} dropped"
    print(f"{what}: {opening:.2f} s, every sum exact")
    claims.append(Claim(what, "s", opening, 2.0, "limit", 1.0, at_least=False))
    return 0 if report("secagg", claims) else 1


def _short(count: int) -> str:
    return f"{count / 1e6:g}M"


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
