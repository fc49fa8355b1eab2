"""The same rounds once more in one process: what a federation of processes is held against.

    python -m partbook.simulation.reference --federation FOLDER --out OUT

reads the files that a `partbook.simulation.processes.ProcessFederation` wrote for its parties, and runs its rounds from
the beginning with every party in this process: the same plan, seeds, keys, policies and vaults, but nothing of what
the parties remember. Without noise the adapter must come out the same, bit for bit, whatever happened to the
processes. With noise it never does: noise is drawn from the operating system.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from partbook.custodian.settings import CustodianSettings
from partbook.node.label import NodeConfig
from partbook.node.ledger import LEDGER_FILE
from partbook.node.settings import NodeSettings
from partbook.plan.federation import FederationConfig
from partbook.simulation.parties import CUSTODIAN
from partbook.simulation.processes import COORDINATOR

if TYPE_CHECKING:
    from partbook.coordinator.rounds import Progress


def rerun(folder: Path, out: Path, on_progress: Callable[[Progress], None] = lambda _: None) -> Path:
    """Run a federation's rounds again in this process.

    Args:
        folder: of the `ProcessFederation`; none of its processes needs to run.
        out: folder for what the parties remember; must hold nothing of theirs.
        on_progress: told where the rounds are.

    Returns:
        The coordinator's state folder, with the adapter in it.

    Raises:
        ConfigError: a file is missing or wrong.
        PartbookError: whatever ended the rounds.
    """
    from partbook.simulation.federation import simulate

    config = FederationConfig.read(folder / COORDINATOR / "federation.toml")
    nodes: dict[str, NodeConfig] = {}
    for path in sorted(folder.glob("*/node.toml")):
        node = NodeSettings.read(path).node
        kept = out / node.member
        kept.mkdir(parents=True, mode=0o700)
        nodes[node.member] = replace(node, state=kept, ledger=kept / LEDGER_FILE, journal=None)
    custodian = None
    if config.mode == "sealed":
        office = CustodianSettings.read(folder / CUSTODIAN / "custodian.toml").custodian
        custodian = replace(office, record=out / "opened.json")
    state = out / COORDINATOR
    simulate(config.model_copy(update={"state": state}), nodes, custodian, on_progress=on_progress)
    return state


def _main() -> None:
    parser = argparse.ArgumentParser(description="Run a federation's rounds again in one process.")
    parser.add_argument("--federation", type=Path, required=True, help="folder of the federation of processes")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    given = parser.parse_args()

    def on_progress(now: Progress) -> None:
        if now.record is not None and now.round:
            print(f"round {now.round} of {now.rounds} is done", flush=True)

    began = time.monotonic()
    state = rerun(given.federation, given.out, on_progress)
    print(json.dumps({"state": str(state), "seconds": round(time.monotonic() - began, 3)}))


if __name__ == "__main__":
    _main()
