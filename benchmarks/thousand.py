"""A thousand labels in one process: masked rounds along the graph of neighbours, every label a node with its own vault.

Nothing is sampled and nothing shared but the process: each label has its keys, its vault, its ledger and its adapter,
and each message crosses Flower's wire format. Only the roster is read and verified once for all of them instead of
once for each, since they lie on one disk. A few labels fall away in every round. The model is tiny, so what is measured
is what a large cohort costs.

python -m benchmarks.thousand [--nodes N] [--rounds N] [--workers N]
"""

from __future__ import annotations

import argparse
import functools
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Final
from unittest.mock import patch

from benchmarks.claims import Claim, report
from benchmarks.ensemble import tiny_base

LOST: Final = 0.04  # of the labels, in each round, before they contribute
MEMORY: Final = 16_000.0  # MB


def main(arguments: list[str]) -> int:
    """Play the rounds, and close with the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.thousand")
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="thousand-") as scratch:
        return measured(Path(scratch), chosen.nodes, chosen.rounds, chosen.workers)


def measured(folder: Path, count: int, rounds: int, workers: int) -> int:
    """Build the federation in `folder`, play, and report."""
    base = tiny_base(folder)
    from tunes import recording_of, tune

    from partbook.identity.roster import Roster
    from partbook.music.tokens import Tokenizer
    from partbook.node.app import open_node
    from partbook.node.label import NodeConfig
    from partbook.plan.federation import FederationConfig
    from partbook.plan.training import PlainTraining
    from partbook.simulation.drops import Drop
    from partbook.simulation.federation import Progress, simulate
    from partbook.simulation.parties import enrol
    from partbook.vault.store import Vault

    began = time.monotonic()
    names = tuple(f"Label {index + 1:05d}" for index in range(count))
    tokenizer = Tokenizer.load(base / "tokenizer.json")
    read = functools.lru_cache(maxsize=1)(Roster.read)
    nodes: dict[str, NodeConfig] = {}
    with patch.object(Roster, "read", read):
        parties = enrol(folder / "office", "cohort", {name: folder / name / "keys" for name in names})
        say(f"{time.monotonic() - began:7.0f} s  {count} labels have keys, and signed one roster")
        for index, name in enumerate(names):
            vault = folder / name / "vault"
            with Vault.create(vault) as opened:
                opened.add(recording_of(tune(index), tokenizer, index), f"{index:064x}")
            plain = NodeConfig(name, vault, Path(), Path(), state=folder / name / "state", base=base, seed=index)
            nodes[name] = parties.node(plain)
        say(f"{time.monotonic() - began:7.0f} s  and a vault each")
        for each in nodes.values():
            open_node(each)
        say(f"{time.monotonic() - began:7.0f} s  and a node, open")
        config = FederationConfig(
            roster=parties.roster,
            key=parties.coordinator,
            state=folder / "state",
            mode="masked",
            rounds=rounds,
            base=base,
            timeout=36_000,
            training=PlainTraining(steps=1, batch=1, clip=0.5),
        )
        away = max(1, round(LOST * count))
        lost = [
            Drop(names[(number * away + index) % count], "query.contribute", number)
            for number in range(1, rounds + 1)
            for index in range(away)
        ]
        seconds: list[float] = []

        def tell(progress: Progress) -> None:
            say(f"{time.monotonic() - began:7.0f} s  round {progress.round} of {rounds}: {progress.stage}")
            if progress.stage == "done" and progress.record is not None and progress.round:
                seconds.append(progress.record.seconds)
                assert len(progress.record.members) == count - away, "labels are missing that did not fall away"

        cpu = time.process_time()
        traffic = simulate(config, nodes, drops=lost, workers=workers, on_progress=tell)
        cpu = time.process_time() - cpu
    flows = [
        (traffic.of(name, inbound=False).total_bytes, traffic.of(name, inbound=True).total_bytes) for name in names
    ]
    gets, gives = (statistics.mean(way) / rounds / 1000 for way in zip(*flows, strict=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    say(
        f"{count} labels, {len(seconds)} rounds, {away} labels lost in each: {statistics.median(seconds):.0f} s a round"
    )
    say(f"    CPU, a label and a round, the coordinator's share in it: {cpu / count / rounds:.2f} s")
    say(f"    a label gets {gets:,.0f} kB and gives {gives:,.0f} kB in a round; at most {peak:,.0f} MB were held")
    done = f"rounds with {count} labels in one process"
    claims = [
        Claim(done, "rounds", float(len(seconds)), float(rounds), "asked for", 1.0),
        Claim("memory of it all", "MB", peak, MEMORY, "limit", 1.0, at_least=False),
    ]
    met = report("thousand", claims)
    return 0 if met else 1


def say(text: str) -> None:
    """Print at once."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
