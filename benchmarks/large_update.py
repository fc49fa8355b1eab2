"""A sealed update of fifty million numbers, end to end: how much memory each party's process ever takes, and how long.

Every party is a process of its own, as in a deployment: pinned nodes and a custodian on TLS lines with client
certificates to the front, Flower's SuperLink with its database behind it, and a ServerApp that runs the coordinator's
real attempt, has the sum opened, and hands it to the labels, which take the step; at the end the labels release the
model to it. Messages cross as Flower's own objects, in pieces of 5 MiB.

One thing is not real. No adapter of the small base model has fifty million numbers: a label's learner is replaced by
one that draws its vector from the operating system, and the coordinator scores and keeps no model, so what training and
scoring would take is not in the figures.

The sum is checked number by number against that of the vectors, which each label writes down once its peak was read.

python -m benchmarks.large_update [--parameters N] [--members N] [--rounds N] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

import numpy as np
from flwr.app import RecordDict
from numpy.typing import NDArray

from benchmarks.claims import Claim, report
from benchmarks.ensemble import CUSTODIAN  # and the tests' switchboard on the path
from partbook.coordinator.grid import GridTransport, size_of
from partbook.coordinator.home import Home
from partbook.identity.roster import Roster
from partbook.plan import wire

if TYPE_CHECKING:
    from flwr.clientapp import ClientApp
    from torch import Tensor

    from partbook.node.learning import Learned
    from partbook.plan.rounds import RoundPlan
    from partbook.simulation.parties import Parties

LIMIT: Final = 2.0  # GB
TIMEOUT: Final = 3600.0  # seconds for an exchange
BITS: Final = 16
TENSOR: Final = 2**20  # numbers in each of the stand-in adapter's tensors
STRETCH: Final = 2**22  # numbers compared at a time
TOGETHER: Final = 400.0  # seconds until everybody must be here, or back
COORDINATOR: Final = "Coordinator"
HOME: Final = "home"
START = "spawn"
"""How a process starts: with nothing in its memory that is not its own."""


class DrawnLearner:
    """Stands in for `partbook.node.learning.Learner`: an adapter of any size, and random vectors instead of updates."""

    parameters = 0  # set by the process it is in

    def __init__(self, base: Path, vault: Path, key: Path | None, **options: object) -> None:
        del base, vault, key, options
        self.recordings = ("0" * 64,)  # the ledger debits recordings
        self.like = stand_in(self.parameters)

    def keep(self, recordings: object) -> None:
        """There are none to choose from."""

    def close(self) -> None:
        """There is nothing to give back."""

    def learn(self, plan: RoundPlan, state: Mapping[str, Tensor]) -> Learned:
        """Whole numbers on the plan's grid, (d,), each as likely as any."""
        from partbook.node.learning import Learned

        del state
        vector = np.empty(plan.parameters, np.uint32)
        for start in range(0, len(vector), TENSOR):
            part = vector[start : start + TENSOR]
            part[:] = np.frombuffer(os.urandom(4 * len(part)), np.uint32) % np.uint32(plan.grid.span + 1)
        return Learned(vector, float("nan"), float("nan"), 0)


def stand_in(parameters: int) -> dict[str, Tensor]:
    """An adapter state of so many numbers, the same in every process."""
    import torch

    generator, state = np.random.Generator(np.random.Philox(7)), {}
    for index, start in enumerate(range(0, parameters, TENSOR)):
        numbers = generator.random(min(TENSOR, parameters - start), np.float32)
        numbers -= np.float32(0.5)
        state[f"blocks.{index:05d}.b"] = torch.from_numpy(numbers)
    return state


# Messages


class Noted(GridTransport):
    """The coordinator's transport, which remembers how large the largest message was, either way, in bytes."""

    largest = 0

    def exchange(
        self, kind: str, requests: Mapping[str, RecordDict], *, timeout: float
    ) -> dict[str, RecordDict | Exception]:
        """See `partbook.plan.transport.Transport`."""
        answers = super().exchange(kind, requests, timeout=timeout)
        sizes = [
            size_of(content) for content in (*requests.values(), *answers.values()) if isinstance(content, RecordDict)
        ]
        self.largest = max(self.largest, *sizes)
        return answers


def connected(
    folder: Path, party: str, identity: Path, app: ClientApp, config: Mapping[str, Any], kinds: frozenset[str]
) -> None:
    """Be a party's pinned node until told to end."""
    from partbook.identity.keys import IdentityKey
    from partbook.identity.tls import client_context, renewed
    from partbook.node.fleet import Link
    from partbook.node.pinned import serve, stopping

    roster, tls = Roster.read(enrolled(folder).roster), folder / "tls" / party
    leaf = renewed(tls, IdentityKey.load(identity), party)
    address = f"localhost:{Home.open(folder / HOME).server.port}"
    with stopping() as stop, Link(address, client_context(roster, tls), leaf, stop=stop) as link:
        link.connect()
        serve(link, app, config, kinds, stop)


# Processes


def peak(process: int | None = None) -> float:
    """The most memory that this process, or another, ever had, GB."""
    status = Path(f"/proc/{process or 'self'}/status").read_text(encoding="ascii")
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) / 1e9


def label_process(parameters: int, member: str, folder: Path) -> None:
    """A label's node. What it leaves: its peak, its last vector and, if it is the first, the last opened sum."""
    from partbook.node import label
    from partbook.node.app import app, close_nodes, flower_config, open_node
    from partbook.node.opened_sum import OpenedSum

    config, first, real = node_config(folder, member), member == names(1)[0], OpenedSum.numbers

    def noted(total: OpenedSum) -> Iterator[NDArray[np.uint64]]:
        with (folder / "opened.numbers").open("wb") as file:
            for stretch in real(total):
                file.write(stretch.astype("<u4").data)
                yield stretch

    DrawnLearner.parameters = parameters
    began = peak()
    with patch.object(label, "Learner", DrawnLearner), patch.object(OpenedSum, "numbers", noted if first else real):
        connected(folder, member, config.identity, app, flower_config(config), wire.TO_LABELS)
        told, vector = {"before": began, "peak": peak()}, open_node(config)._vector
    if vector is None:
        return  # the coordinator says what went wrong
    vector.astype("<u4", copy=False).tofile(folder / f"{member}.numbers")
    close_nodes()
    (folder / f"{member}.json").write_text(json.dumps(told))


def custodian_process(folder: Path) -> None:
    """The custodian."""
    from partbook.custodian.app import app, flower_config

    began, config = peak(), enrolled(folder).custodian
    connected(folder, config.name, config.identity, app, flower_config(config), wire.TO_CUSTODIANS)
    (folder / f"{CUSTODIAN}.json").write_text(json.dumps({"before": began, "peak": peak()}))


def coordinator_process(parameters: int, rounds: int, model: str, folder: Path) -> None:
    """The coordinator's rounds, from the plan to the hash of the model that they led to."""
    from switchboard import ServerApp

    from partbook.coordinator import superlink
    from partbook.coordinator.attempt import Attempt
    from partbook.coordinator.control import Control
    from partbook.coordinator.sealed import SealedSums
    from partbook.coordinator.serverapp import _be_quick
    from partbook.identity.keys import IdentityKey
    from partbook.plan.exchanges import write_plan
    from partbook.plan.greeting import Greeter

    parties, home, seconds = enrolled(folder), Home.open(folder / HOME), dict[str, float]()
    roster, key = Roster.read(parties.roster), IdentityKey.load(parties.coordinator)
    _be_quick()
    began = peak()
    with Control(home.server.superlink) as control:
        run = control.submit(superlink.bundle(), home.federation_file)
        played = ServerApp(home, run)
        played.take_part()
        everybody = (*(member.name for member in roster.members), CUSTODIAN)
        transport = Noted(played.grid, everybody, Greeter(key, roster), patience=TOGETHER, grace=TOGETHER, held=True)
        assert transport.members() == sorted(everybody), f"only {transport.members()} are here"
        for number in range(1, rounds + 1):
            plan = planned(roster, parameters, number, model)
            attempt = Attempt(write_plan(key, plan), roster, key, folder / "state" / "attempt")
            attempt.run(transport, None, TIMEOUT, lambda kind, number=number: say(f"round {number}: {kind}"))  # type: ignore[misc]
            sums = SealedSums(folder / "state" / "sums", roster, key, transport, TIMEOUT)
            for step, work in {
                "open": lambda: sums.open(attempt),  # noqa: B023 - called at once
                "apply": lambda: sums.apply(plan, attempt.record),  # noqa: B023 - called at once
            }.items():
                say(f"round {number}: {step}")
                model = work() or model
            attempt.forget()
            assert not attempt.record.dropped, attempt.record.dropped
            for kind, spent in attempt.record.seconds.items():
                seconds[kind] = seconds.get(kind, 0.0) + spent / rounds
        adding, like = peak(), stand_in(parameters)
        say("release")
        clock = time.monotonic()
        sums.release(rounds, model, like)
        seconds["release"] = time.monotonic() - clock
        told = {"before": began, "peak": peak(), "adding": adding, "seconds": seconds, "largest": transport.largest}
        (folder / f"{COORDINATOR}.json").write_text(json.dumps(told))
        played.close()
        control.stop(run)


def planned(roster: Any, parameters: int, number: int, model: str) -> RoundPlan:
    """A sealed round of everybody, from the model with this hash."""
    from partbook.model.checkpoint import base_manifest
    from partbook.plan.rounds import RoundPlan, ServerStep
    from partbook.plan.training import PlainTraining

    return RoundPlan(
        federation=roster.federation,
        roster=roster.hash,
        round=number,
        nonce=secrets.token_hex(16),
        deadline=int(time.time() + TIMEOUT),
        base_hash=base_manifest()["files"]["model.safetensors"],
        model_hash=model,
        parameters=parameters,
        cohort=tuple(member.name for member in roster.members),
        threshold=len(roster.members),
        training=PlainTraining(steps=1, batch=1, clip=0.5),
        step=ServerStep(rule="adam", momentum=0.9, learning_rate=0.01),  # which remembers most
        mode="sealed",
        bits=BITS,
        seal_key=roster.custodian.seal_key,
    )


# The federation


def names(members: int) -> list[str]:
    """Labels' names."""
    return [f"Label {index + 1}" for index in range(members)]


def enrolled(folder: Path, members: int = 0) -> Parties:
    """Keys and a roster that all have signed; made once."""
    from switchboard import FEDERATION

    from partbook.simulation.parties import enrol

    there = folder / "office" / "roster.toml"
    found = names(members) if members else [member.name for member in Roster.read(there).members]
    return enrol(folder / "office", FEDERATION, {name: folder / name / "keys" for name in found})


def node_config(folder: Path, member: str) -> Any:
    """A label's configuration; what it keeps lies in a folder of its own."""
    from partbook.node.label import NodeConfig

    kept = folder / "kept" / member
    bare = NodeConfig(member, folder / "vaults" / member, Path(), Path(), state=kept, ledger=kept / "ledger.sqlite")
    return enrolled(folder).node(bare)


@dataclass(frozen=True, slots=True)
class Ran:
    """What a run left.

    Attributes:
        processes: by party, peak memory and that before the first message, GB.
        adding: the coordinator's before the release, GB.
        seconds: of each exchange, mean over the rounds, and of the release.
        largest: message of the coordinator, bytes.
        exact: whether the last opened sum was that of the last vectors.
    """

    processes: dict[str, tuple[float, float]]
    adding: float
    seconds: dict[str, float]
    largest: int
    exact: bool


def run(folder: Path, parameters: int, members: int, rounds: int) -> Ran:
    """Whole rounds between fresh processes.

    Raises:
        RuntimeError: one of them failed.
    """
    from switchboard import Switchboard

    from partbook.model.adapter import state_hash
    from partbook.vault.store import Vault

    labels = names(members)
    (folder / "state").mkdir()
    model = state_hash(stand_in(parameters))
    context = multiprocessing.get_context(START)
    running: dict[str, BaseProcess] = {}
    services: dict[str, float] = {}

    def start(name: str, target: Callable[..., None], *arguments: object) -> None:
        running[name] = context.Process(target=target, args=(*arguments, folder), name=name)
        running[name].start()

    with Switchboard(folder, tuple(labels)) as board:
        for member in labels:
            Vault.create(folder / "vaults" / member).close()
        board.start("superlink", "front")
        try:
            for member in labels:
                start(member, label_process, parameters, member)
            start(CUSTODIAN, custodian_process)
            start(COORDINATOR, coordinator_process, parameters, rounds, model)
            running[COORDINATOR].join()
            services = {name: peak(process.pid) for name, process in board.processes.items()}
            for name in (*labels, CUSTODIAN):
                running[name].terminate()
            for name in (COORDINATOR, *labels, CUSTODIAN):
                running[name].join()
                if running[name].exitcode:
                    raise RuntimeError(f"{name} ended with exit code {running[name].exitcode}; its words are above.")
        finally:
            for process in running.values():
                process.kill()
                process.join()
    told = {name: json.loads((folder / f"{name}.json").read_text()) for name in running}
    last = told[COORDINATOR]
    processes = {name: (about["peak"], about["before"]) for name, about in told.items()}
    processes |= {name: (most, 0.0) for name, most in services.items()}
    return Ran(processes, last["adding"], last["seconds"], last["largest"], is_exact(folder, labels, parameters))


def is_exact(folder: Path, labels: list[str], parameters: int) -> bool:
    """Whether what was opened is the sum of what the labels drew, number by number."""
    opened = np.memmap(folder / "opened.numbers", "<u4", "r")
    drawn = [np.memmap(folder / f"{member}.numbers", "<u4", "r") for member in labels]
    if {len(opened), *map(len, drawn)} != {parameters}:
        return False
    return all(
        np.array_equal(
            opened[start : start + STRETCH],
            np.sum([vector[start : start + STRETCH] for vector in drawn], axis=0, dtype=np.uint64),
        )
        for start in range(0, parameters, STRETCH)
    )


def say(what: str) -> None:
    """Where the run is, for whoever waits."""
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    """Measure, print, and close with the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large_update")
    parser.add_argument("--parameters", type=int, default=50_000_000)
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2, help="the second steps with what the first left")
    parser.add_argument("--folder", type=Path, help="for what is kept; a temporary one where not given")
    chosen = parser.parse_args(arguments)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=chosen.folder, prefix="large-update-") as folder:
        ran = run(Path(folder), chosen.parameters, chosen.members, chosen.rounds)
    print(f"{chosen.members} labels, {chosen.parameters:,} numbers of {BITS} bits, sealed, {chosen.rounds} rounds in "
          f"{time.monotonic() - began:.0f} s; the sum is {'exact' if ran.exact else 'WRONG'}")  # fmt: skip
    for kind, seconds in ran.seconds.items():
        print(f"    {kind:18} {seconds:7.1f} s{'' if kind == 'release' else ' a round'}")
    print(f"    largest message, either way: {ran.largest / 1e6:.1f} MB")
    for name, (most, before) in ran.processes.items():
        before_it = f", {before:.2f} GB before the first message" if before else ""
        print(f"    {name:18} {most:5.2f} GB at most{before_it}")
    print(f"    {COORDINATOR} before the release, which it holds as a whole: {ran.adding:.2f} GB")
    kinds = {
        "a label's node": names(chosen.members),
        "the custodian": [CUSTODIAN],
        "the coordinator's ServerApp": [COORDINATOR],
    }
    kinds |= {"the SuperLink": ["superlink"], "the front": ["front"]}
    size = f"{chosen.parameters / 1e6:g}M"
    claims = [
        Claim(
            f"memory of {kind}, {size}", "GB", max(ran.processes[name][0] for name in who), LIMIT, "limit", 1.0,
            at_least=False,
        )
        for kind, who in kinds.items()
    ]  # fmt: skip
    claims.append(Claim(f"sealed sum exact, {size}", "sums", float(ran.exact), 1.0, "limit", 1.0))
    return 0 if report("large_update", claims) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
