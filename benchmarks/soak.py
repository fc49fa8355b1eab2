"""Two hundred rounds between real processes, while something keeps killing them and cutting their cables.

A coordinator, three labels and a custodian work with TLS, masks, seals and distributed noise; the model is tiny, the
ledgers are real. A schedule drawn from a seed names which process gets SIGKILL in which exchange of which round, and
whose cable is cut there, for how long. What died is started again as systemd would (`Restart=on-failure`), after a
shorter pause. At the end

    every round is done, or was given up by name; none is missing and none is there twice
    each label's ledger has each of them once, with what the coordinator's statement says of it, and the same ε
    the labels and the coordinator hold one model
    memory and disk are flat: their slopes over the rounds

python -m benchmarks.soak [--rounds N] [--seed N] [--every N] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.claims import Claim, report
from benchmarks.ensemble import CUSTODIAN, MASKING, Ensemble, end_in_order

if TYPE_CHECKING:
    from cutting import Cable

EXCHANGES: Final = ("train", *MASKING, "query.open", "query.apply")
COORDINATORS: Final = ("serverapp", "superlink", "superexec", "front", "coordinator", "run")
CUTS: Final = (3.0, 30.0)  # seconds, from the shortest to the longest
CUT_SHARE: Final = 0.3  # of the mishaps
RESTART_AFTER: Final = 2.0  # seconds; systemd's units say 30 and 60
PATIENCE: Final = 120.0
DELTA: Final = 1e-6
WARM_UP: Final = 5  # rounds of a process's life before its memory is looked at
SHORTEST_LIFE: Final = 10  # rounds after that, over which a slope is worth something
FLAT_MEMORY: Final = 5.0  # MB in 100 rounds
FLAT_DISK: Final = 1.0  # MB in 100 rounds, the SuperLink's database


@dataclass(frozen=True, slots=True)
class Mishap:
    """What happens, once the coordinator is in an exchange of a round.

    Attributes:
        round, exchange: when.
        victim: a process, or the party whose cable is cut.
        seconds: of the cut; None where the process is killed.
    """

    round: int
    exchange: str
    victim: str
    seconds: float | None = None

    def __str__(self) -> str:
        what = "kill -9" if self.seconds is None else f"a cut of {self.seconds:.0f} s"
        return f"round {self.round}, {self.exchange.removeprefix('query.')}: {what}, {self.victim}"


def schedule(rounds: int, every: int, members: Sequence[str], seed: int) -> list[Mishap]:
    """A mishap every so many rounds, in the order in which they happen; every process is a victim equally often."""
    draw = random.Random(seed)  # noqa: S311 (a run that can be repeated; nothing is protected by it)
    count = max(1, rounds // every)
    killed: list[str] = []
    while len(killed) < count:
        everybody = [*members, CUSTODIAN, *COORDINATORS]
        draw.shuffle(everybody)
        killed += everybody
    found = []
    for index in range(count):
        number = index * every + draw.randrange(1, every) + 1
        victim, seconds = killed.pop(0), None
        if draw.random() < CUT_SHARE:
            victim, seconds = draw.choice([*members, CUSTODIAN]), round(draw.uniform(*CUTS), 1)
        found.append(Mishap(min(number, rounds), draw.choice(EXCHANGES), victim, seconds))
    return found


@dataclass(slots=True)
class Sample:
    """How it stood after a round.

    Attributes:
        round, at: which; `time.monotonic`.
        memory: by process, its number and its resident MB.
        disk: MB by place.
    """

    round: int
    at: float
    memory: dict[str, tuple[int, float]]
    disk: dict[str, float]


@dataclass(slots=True)
class Soak:
    """The federation, what is to befall it, and what was seen.

    Attributes:
        ensemble: the federation.
        mishaps: still to come.
        cables: by party, what it is connected through.
        samples: one after each round.
        happened: mishaps, and the seconds into the run at which they came.
        endings: what a `coordinator run`, or a run that it followed, ended with, in its words.
    """

    ensemble: Ensemble
    mishaps: list[Mishap]
    cables: dict[str, Cable]
    samples: list[Sample] = field(default_factory=list)
    happened: list[tuple[float, Mishap]] = field(default_factory=list)
    endings: list[str] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)
    _due: dict[str, float] = field(default_factory=dict)
    _read: int = 0

    def run(self, rounds: int) -> None:
        """Until all rounds are done, whatever dies meanwhile."""
        federation = self.ensemble.federation
        self.ensemble.aim(rounds)
        federation.start_run()
        over = False
        while not over:
            time.sleep(0.05)
            done = federation.rounds_done()
            if done > (self.samples[-1].round if self.samples else 0):
                self._sample(done, rounds)
            if self.mishaps and self._is_time(self.mishaps[0], done):
                self._strike(self.mishaps.pop(0))
            self._listen()
            over = self._keep_up(rounds)

    def _is_time(self, mishap: Mishap, done: int) -> bool:
        if done + 1 != mishap.round:
            return done >= mishap.round
        return self.ensemble.federation.status().get("exchange") == mishap.exchange

    def _strike(self, mishap: Mishap) -> None:
        federation = self.ensemble.federation
        at = time.monotonic() - self._began
        if mishap.seconds is not None:
            threading.Thread(target=_cut, args=(self.cables[mishap.victim], mishap.seconds), daemon=True).start()
        elif federation.pid(mishap.victim) is None:
            self.mishaps.insert(0, mishap)  # it is down; once it is up
            return
        else:
            federation.kill(mishap.victim)
            if mishap.victim not in ("serverapp", "superlink", "superexec", "front"):
                self._due[mishap.victim] = time.monotonic() + RESTART_AFTER
        self.happened.append((at, mishap))
        say(f"{at:7.0f} s  {mishap}")

    def _keep_up(self, rounds: int) -> bool:
        """Start what died; True once all rounds are done and nothing is missing."""
        federation, now = self.ensemble.federation, time.monotonic()
        for name, process in list(federation.processes.items()):
            code = process.poll()
            if code is None:
                continue
            self._listen()
            del federation.processes[name]
            if name == "run" and code == 0 and federation.rounds_done() >= rounds:
                continue
            words = federation.last_words(name).strip().splitlines()
            say(f"{now - self._began:7.0f} s  {name} ended with {code}: {words[-1][-300:] if words else ''}")
            if name == "run" and code == 2:
                raise SystemExit(f"The rounds cannot go on: {federation.last_words('run')}")
            self._due[name] = now + RESTART_AFTER
        for name, due in list(self._due.items()):
            if now < due:
                continue
            del self._due[name]
            self._read = 0 if name == "run" else self._read
            if name == "coordinator":
                federation.start_coordinator()
            elif name == "run":
                federation.start_run()
            else:
                self.ensemble.start(name, wait=False)
        return not self._due and "run" not in federation.processes

    def _listen(self) -> None:
        """What `coordinator run` said since."""
        log = self.ensemble.federation.log("run")
        if not log.exists():
            return
        lines = log.read_text(errors="replace").splitlines()
        for line in lines[self._read :]:
            if "ended after round" in line:
                self.endings.append(line.strip())
            if not line.startswith("{"):
                say(f"{time.monotonic() - self._began:7.0f} s  {line.strip()[:400]}")
        self._read = len(lines)

    def _sample(self, done: int, rounds: int) -> None:
        federation, now = self.ensemble.federation, time.monotonic()
        memory = {}
        for name, found in self.ensemble.memory().items():
            process = federation.pid(name)
            if process is not None:
                memory[name] = (process, found["VmRSS"] / 1e6)
        link = federation.home / "link"
        disk = {
            "SuperLink's database": sum(size(path) for path in link.glob("superlink.sqlite*")),
            "coordinator's logs": size(link / "logs"),
            "coordinator's state": size(federation.state),
            "a label": size(federation.folder / self.ensemble.members[0]),
            "the custodian": size(federation.folder / CUSTODIAN) + size(federation.folder / "office" / "custodian"),
        }
        self.samples.append(Sample(done, now, memory, disk))
        seconds = self.ensemble.history()[-1]["seconds"]
        spent = now - self._began
        bar = "#" * (30 * done // rounds)
        left = spent / done * (rounds - done)
        say(f"{spent:7.0f} s  [{bar:<30}] {done} of {rounds}, {seconds:.1f} s, {left:.0f} s left")


def _cut(cable: Cable, seconds: float) -> None:
    with cable.cut():
        time.sleep(seconds)


def size(path: Path) -> float:
    """MB of a file, or of all below a folder, whatever comes and goes meanwhile."""
    files = [path] if path.is_file() else [Path(folder) / name for folder, _, names in os.walk(path) for name in names]
    found = 0
    for each in files:
        with contextlib.suppress(OSError):  # it has just been replaced
            found += each.stat().st_size
    return found / 1e6


def say(text: str) -> None:
    """Print at once."""
    print(text, flush=True)


# What is looked at in the end


def memory_slopes(samples: Sequence[Sample]) -> dict[str, tuple[float, int]]:
    """By process, MB in 100 rounds and the rounds behind it: one slope over all its lives, a level for each."""
    lives: dict[str, dict[int, list[tuple[int, float]]]] = {}
    for sample in samples:
        for name, (process, resident) in sample.memory.items():
            lives.setdefault(name, {}).setdefault(process, []).append((sample.round, resident))
    found = {}
    for name, by_process in lives.items():
        kept = [life[WARM_UP:] for life in by_process.values() if len(life) >= WARM_UP + SHORTEST_LIFE]
        if kept:
            found[name] = (100 * slope(kept), sum(map(len, kept)))
    return found


def disk_slopes(samples: Sequence[Sample]) -> dict[str, float]:
    """By place, MB in 100 rounds."""
    kept = samples[min(WARM_UP, len(samples) // 2) :]
    return {place: 100 * slope([[(one.round, one.disk[place]) for one in kept]]) for place in kept[0].disk}


def slope(series: Sequence[Sequence[tuple[int, float]]]) -> float:
    """Of the least-squares line, each series with a level of its own."""
    above = below = 0.0
    for points in series:
        middle, level = (sum(values) / len(points) for values in zip(*points, strict=True))
        above += sum((x - middle) * (y - level) for x, y in points)
        below += sum((x - middle) ** 2 for x, _ in points)
    return above / below if below else 0.0


@dataclass(frozen=True, slots=True)
class Books:
    """What the ledgers say, against the coordinator's statement.

    Attributes:
        equal: labels whose ledger is the statement, round for round and in ε.
        wrong: what does not fit, in words.
        epsilon: of the statement, against colluders.
        rounds: finished; given up.
    """

    equal: int
    wrong: tuple[str, ...]
    epsilon: float
    rounds: tuple[int, int]


def books(ensemble: Ensemble) -> Books:
    """Compare; no node may run."""
    from partbook.coordinator.checkpoints import Checkpoints, RoundRecord
    from partbook.coordinator.privacy import statement
    from partbook.node.budget import Budget
    from partbook.node.ledger import Ledger
    from partbook.node.policy import Policy
    from partbook.vault.store import Vault

    federation = ensemble.federation
    history = [RoundRecord(**{**one, "members": tuple(one["members"])}) for one in ensemble.history()]
    lost = Checkpoints(federation.state, "", "").lost()
    told = {record.round: record.spent["colluders"] for record in history}
    told |= {number: cost["colluders"] for number, cost in lost}
    said, wrong, equal = statement(history, lost, DELTA), list[str](), 0
    numbers = sorted([record.round for record in history] + [number for number, _ in lost])
    if numbers != list(range(1, len(numbers) + 1)):
        wrong.append(f"rounds are missing or twice: {numbers}")
    for member in ensemble.members:
        config = federation.node_config(member)
        with Vault.open(config.vault, config.key) as vault, Ledger.open(config.accounts, vault.ledger_key) as ledger:
            debits = [debit for debit in ledger.debits() if debit.state == "committed"]
            budget = Budget.of(ledger, Policy.in_force(config.vault, config.policy))
        paid = {debit.round: debit.events for debit in debits}
        before = len(wrong)
        if len(paid) != len(debits):
            wrong.append(f"{member} paid twice for a round")
        wrong += [f"{member} paid another price for round {n}" for n in paid if n in told and paid[n] != told[n]]
        wrong += [f"{member} did not pay for round {one.round}" for one in history if one.round not in paid]
        wrong += [f"{member} paid for round {n}, of which nobody knows" for n in paid if n not in told]
        if len(wrong) > before:
            continue
        unpaid = [number for number, _ in lost if number not in paid]
        replayed = statement(history, [one for one in lost if one[0] not in unpaid], budget.delta)
        if abs(replayed.colluders - budget.total.committed) > 1e-9 * replayed.colluders:
            wrong.append(f"{member} counts ε = {budget.total.committed}, the replay {replayed.colluders}")
        else:
            equal += 1
    return Books(equal, tuple(wrong), said.colluders, (len(history), len(lost)))


def one_model(ensemble: Ensemble) -> bool:
    """Whether the labels hold one model, and the coordinator was handed it."""
    from safetensors.numpy import load_file

    federation = ensemble.federation
    newest = ensemble.history()[-1]["round"]
    released = load_file(federation.state / f"round-{newest:04d}.safetensors")["adapter"].tobytes()
    held = [load_file(federation.node_config(member).model)["adapter"].tobytes() for member in ensemble.members]
    return all(model == released for model in held)


def aborted_without_a_name(endings: Sequence[str]) -> list[str]:
    """Endings that are neither an error of ours nor a killed process."""
    return [line for line in endings if not ("killed" in line or named(line))]


def named(line: str) -> bool:
    """Whether it says one of our errors' names."""
    from partbook import errors

    return any(isinstance(kind, type) and f"{name}:" in line for name, kind in vars(errors).items())


def claims(soak: Soak, rounds: int) -> Iterator[Claim]:
    """What was found, as claims; the rest is printed."""
    ensemble = soak.ensemble
    found = books(ensemble)
    for text in found.wrong:
        say(f"WRONG: {text}")
    say(
        f"{found.rounds[0]} rounds are finished, {found.rounds[1]} were given up; by the coordinator's statement "
        f"ε = {found.epsilon:.4g} at δ = {DELTA:g}"
    )
    yield Claim("rounds finished", "rounds", float(found.rounds[0]), float(rounds), "asked for", 1.0)
    yield Claim(
        "ledgers equal to the accountant's replay", "labels", float(found.equal), float(len(ensemble.members)),
        "labels", 1.0,
    )  # fmt: skip
    yield Claim("labels and coordinator hold one model", "models", float(one_model(ensemble)), 1.0, "limit", 1.0)
    nameless = aborted_without_a_name(soak.endings)
    for line in nameless:
        say(f"NAMELESS: {line}")
    yield Claim(
        "runs that ended without a name", "runs", float(len(nameless)), 1.0, "limit, below", 0.99, at_least=False
    )
    yield from _flat(soak)


def _flat(soak: Soak) -> Iterator[Claim]:
    slopes = memory_slopes(soak.samples)
    for name, (value, behind) in slopes.items():
        say(f"memory  {name:24}{value:+9.2f} MB in 100 rounds, over {behind} rounds")
    disks = disk_slopes(soak.samples)
    for place, value in disks.items():
        say(f"disk    {place:24}{value:+9.2f} MB in 100 rounds, {soak.samples[-1].disk[place]:.2f} MB in the end")
    for name, (value, _) in slopes.items():
        yield Claim(
            f"memory of {name} grows in 100 rounds by", "MB", max(0.0, value), FLAT_MEMORY, "limit", 1.0, at_least=False
        )
    yield Claim(
        "SuperLink's database grows in 100 rounds by", "MB", max(0.0, disks["SuperLink's database"]), FLAT_DISK,
        "limit", 1.0, at_least=False,
    )  # fmt: skip


def main(arguments: list[str]) -> int:
    """Soak, look, and close with the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=int, default=10, help="rounds between two mishaps, on average")
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where everything is put, and left")
    chosen = parser.parse_args(arguments)
    end_in_order()
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch:
        return _soak(chosen, chosen.folder or Path(scratch))


def _soak(chosen: argparse.Namespace, folder: Path) -> int:
    began = time.monotonic()
    ensemble = Ensemble.of(folder, chosen.members, patience=PATIENCE)
    from cutting import Cable

    federation = ensemble.federation
    cables = {party: Cable(federation.port) for party in ensemble.parties}
    federation.through = {party: cable.port for party, cable in cables.items()}
    mishaps = schedule(chosen.rounds, chosen.every, ensemble.members, chosen.seed)
    say(f"seed {chosen.seed}, {chosen.rounds} rounds, {len(mishaps)} mishaps:")
    for mishap in mishaps:
        say(f"    {mishap}")
    with federation:
        ensemble.up(lambda text: say(f"{time.monotonic() - began:7.0f} s  {text}"), attempts=20)
        soak = Soak(ensemble, mishaps, cables)
        soak.run(chosen.rounds)
        for party in ensemble.parties:
            if party in federation.processes:
                federation.stop(party)
        usual = sorted(one["seconds"] for one in ensemble.history())
        say(f"{time.monotonic() - began:.0f} s in all; a round takes {usual[len(usual) // 2]:.2f} s (median), "
            f"{usual[-1]:.1f} s at most")  # fmt: skip
        (folder / "samples.json").write_text(json.dumps([_plain(sample) for sample in soak.samples]))
        found = list(claims(soak, chosen.rounds))
    for cable in cables.values():
        cable.close()
    return 0 if report("soak", found) else 1


def _plain(sample: Sample) -> Mapping[str, Any]:
    return {"round": sample.round, "memory": sample.memory, "disk": sample.disk}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
