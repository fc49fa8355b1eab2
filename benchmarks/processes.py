"""What a round costs between real processes: seconds, bytes and memory, with 3, 10 and 30 labels' nodes.

SuperLink, SuperExec, front, ServerApp, nodes and custodian run as an operator and engineers would start them, over TLS
with client certificates on loopback; rounds are sealed and noisy. The model has a few thousand parameters, so that what
is measured is the protocol and its transport, and training and ciphertexts are next to nothing. All share this
machine's cores: with 30 nodes it is the machine that is measured, more than anything.

The peer is the same rounds in one process, in the same run: the same messages, signed, masked and sealed by the same
code, with nothing between the parties.

python -m benchmarks.processes [--nodes N …] [--rounds N]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from benchmarks.claims import Claim, report
from benchmarks.ensemble import CUSTODIAN, MASKING, SERVICES, Ensemble, end_in_order

LIMIT: Final = 1.0  # seconds for an exchange with `FEW` nodes
FEW: Final = 3
PEER: Final = 30.0  # times the seconds of the same round in one process
LARGEST: Final = 500.0  # MB in any process
EACH: Final = 0.4  # GB that a process may need, before so many are started
PATIENCE: Final = 600.0


@dataclass(frozen=True, slots=True)
class Measured:
    """A federation of so many nodes.

    Attributes:
        nodes: labels.
        seconds: of each exchange of each round, by message kind.
        rounds: seconds of each round.
        alone: seconds of each round in one process.
        sent, received: bytes of content that a node got and gave in a round, mean.
        memory: MB at most, by process.
        together: MB of all processes at the end, what they share counted once (`Pss`).
    """

    nodes: int
    seconds: Mapping[str, Sequence[float]]
    rounds: Sequence[float]
    alone: Sequence[float]
    sent: float
    received: float
    memory: Mapping[str, float]
    together: float

    @property
    def exchange(self) -> float:
        """Median of the masking exchanges."""
        return statistics.median(seconds for kind in MASKING for seconds in self.seconds[kind])

    @property
    def round(self) -> float:
        """Median of the rounds but the first."""
        return statistics.median(self.rounds)

    def largest(self, names: Sequence[str]) -> float:
        """The most that any of these processes ever held, MB."""
        return max(self.memory[name] for name in names if name in self.memory)


def measured(folder: Path, nodes: int, rounds: int) -> Measured:
    """Start everybody, play the rounds, end everybody; then the same in one process."""
    began = time.monotonic()
    ensemble = Ensemble.of(folder, nodes, patience=PATIENCE)
    federation = ensemble.federation
    with federation:
        ensemble.up(lambda text: say(f"{nodes:3} nodes, {time.monotonic() - began:5.0f} s  {text}"))
        ensemble.aim(rounds + 1)
        federation.start_run()
        for done in range(1, rounds + 2):
            federation.until(f"round {done} is done", lambda done=done: federation.rounds_done() >= done, timeout=1800)  # type: ignore[misc]
            took = ensemble.history()[-1]["seconds"]
            say(f"{nodes:3} nodes, {time.monotonic() - began:5.0f} s  round {done} of {rounds + 1} took {took:.2f} s")
            if done == rounds + 1:
                memory = {name: found["VmHWM"] / 1e6 for name, found in ensemble.memory().items()}
                together = sum(map(proportional, filter(None, map(federation.pid, ensemble.everybody))))
        federation.finish_run()
        parties = federation.status()["parties"]
    history = ensemble.history()[1:]  # in the first one everything is loaded
    sent, received = (
        statistics.mean(parties[member][way] for member in ensemble.members) / (rounds + 1)
        for way in ("sent", "received")
    )
    kinds = history[0]["exchanges"]
    seconds = {kind: [one["exchanges"][kind] for one in history] for kind in kinds}
    alone = in_one_process(ensemble, folder / "alone", rounds + 1)[1:]
    return Measured(nodes, seconds, [one["seconds"] for one in history], alone, sent, received, memory, together)


def in_one_process(ensemble: Ensemble, folder: Path, rounds: int) -> list[float]:
    """Seconds of the same rounds, here."""
    from partbook.simulation.federation import simulate
    from partbook.simulation.parties import enrol

    say(f"{len(ensemble.members):3} nodes, in one process")
    keys = {member: folder / "keys" / member for member in ensemble.members}
    parties = enrol(folder / "office", "ensemble", keys)
    nodes = {
        member: replace(
            parties.node(replace(ensemble.federation.node_config(member), state=folder / member)),
            ledger=folder / member / "ledger.sqlite",
        )
        for member in ensemble.members
    }
    config = ensemble.config(rounds).model_copy(
        update={
            "roster": parties.roster,
            "key": parties.coordinator,
            "seal_key": parties.seal_key,
            "state": folder / "state",
        }
    )
    simulate(config, nodes, parties.custodian)
    import json

    history: list[dict[str, Any]] = json.loads((folder / "state" / "state.json").read_bytes())["history"]
    return [one["seconds"] for one in history[1:]]


def show(found: Measured) -> None:
    """Print one federation's figures."""
    say(f"{found.nodes} nodes: an exchange {found.exchange:.2f} s (median of {', '.join(k[6:] for k in MASKING)})")
    kinds = ", ".join(f"{kind.removeprefix('query.')} {statistics.median(s):.2f}" for kind, s in found.seconds.items())
    say(f"    s of each  {kinds}")
    say(f"    a round    {found.round:.2f} s; in one process {statistics.median(found.alone):.2f} s")
    say(f"    bytes      a node gets {found.sent:,.0f} and gives {found.received:,.0f} in a round")
    services = ", ".join(f"{name} {found.memory[name]:.0f}" for name in (*SERVICES, CUSTODIAN) if name in found.memory)
    nodes = [size for name, size in found.memory.items() if name.startswith("Label")]
    say(f"    MB at most {services}, a node {statistics.median(nodes):.0f}")
    say(f"    MB in all  {sum(found.memory.values()):,.0f}; with what they share counted once {found.together:,.0f}")


def proportional(process: int) -> float:
    """MB of a process, of what it shares with others a share only."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    return 1024 * next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0) / 1e6


def say(text: str) -> None:
    """Print at once."""
    print(text, flush=True)


def main(arguments: list[str]) -> int:
    """Measure, print, and close with the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.processes")
    parser.add_argument("--nodes", type=int, nargs="+", default=[3, 10, 30])
    parser.add_argument("--rounds", type=int, default=0, help="after a first one; 6, 4 and 2 where not given")
    chosen = parser.parse_args(arguments)
    end_in_order()
    found = []
    for nodes in chosen.nodes:
        free, needed = free_memory(), EACH * (nodes + len(SERVICES) + 2)
        if free < needed:
            say(f"{nodes} nodes are left out: {free:.0f} GB of memory are free, about {needed:.0f} are needed.")
            continue
        with tempfile.TemporaryDirectory(prefix="processes-") as scratch:
            rounds = chosen.rounds or (6 if nodes <= 3 else 4 if nodes <= 10 else 2)
            found.append(measured(Path(scratch), nodes, rounds))
        show(found[-1])
    return 0 if report("processes", list(_claims(found))) else 1


def free_memory() -> float:
    """GB that could be had now."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) / 1e9


def _claims(found: Sequence[Measured]) -> Iterator[Claim]:
    for one in found:
        if one.nodes <= FEW:
            yield Claim(f"an exchange with {one.nodes} nodes", "s", one.exchange, LIMIT, "limit", 1.0, at_least=False)
        yield Claim(
            f"a round with {one.nodes} nodes", "s", one.round, statistics.median(one.alone), "in one process", PEER,
            at_least=False,
        )  # fmt: skip
        yield Claim(
            f"memory of a process with {one.nodes} nodes", "MB", one.largest(list(one.memory)), LARGEST, "limit", 1.0,
            at_least=False,
        )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
