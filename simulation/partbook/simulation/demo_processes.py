"""A federation as real ones run it, all on this machine: every party a process of its own, TLS between them.

    <out>/noised/       the federation: sealed rounds with distributed DP. The labels' policies allow that and no more.
    <out>/release/      what came of it, signed
    <out>/check/        the same labels' federation without noise, sealed too
    <out>/check-release/    what came of that
    <out>/reference/    the rounds of `check` once more, in one process
    <out>/demo.json     what was asked for

The check is there because noise cannot be repeated: it is drawn from the operating system, as it must be. Without it,
and with the same seeds, processes must come to the very adapter that one process comes to. A policy that lets a round
without noise pass has to allow an infinite ε, and one ledger counts whatever its vault ever pays. So the check has
policies and ledgers of its own beside it: asked in the ledgers of `noised`, its rounds would be refused, and if they
were not, nobody could say any more what the recordings had spent.

Running it again with the same folder goes on with what is there.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from partbook.coordinator.checkpoints import Checkpoints, RoundRecord
from partbook.coordinator.locks import only_one
from partbook.coordinator.standing import PartyStanding, read_status
from partbook.errors import AlteredFile, ConfigError, InputError, ServiceFailed
from partbook.generator.release import Release, open_release
from partbook.identity.keys import IdentityKey
from partbook.model.checkpoint import BASE, base_manifest
from partbook.node.ledger import LEDGER_FILE
from partbook.node.policy import Policy
from partbook.plan.federation import FederationConfig
from partbook.plan.rounds import default_threshold
from partbook.plan.training import Training
from partbook.simulation.demo_rounds import Course
from partbook.simulation.noise import Measured, account, measure, recordings_in
from partbook.simulation.parties import CUSTODIAN
from partbook.simulation.processes import COORDINATOR, ProcessFederation, Site, memory_of

Part = Literal["noised", "check"]

NAMES: Final[Mapping[Part, str]] = {"noised": "The Three Partbooks", "check": "The Three Partbooks without noise"}
SERVICES: Final = (COORDINATOR, "superlink", "superexec", "front", "serverapp")
REVIVALS: Final = 3  # times that a party's process is started again in one federation
LOOK_EVERY: Final = 0.5  # seconds

_ANYWHERE: Final = Path("filled-in-by-configure")


@dataclass(frozen=True, slots=True)
class ProcessesOptions:
    """What is run.

    Attributes:
        out: folder of this run's results.
        vaults: each label's, filled.
        noised: how the federation trains, with distributed noise.
        check: how it trains where there is none.
        rounds: of each.
        seed: of everything that no guarantee rests on.
        base: the base model.
        sources: what the labels recorded, in words, for the release.
    """

    out: Path
    vaults: Mapping[str, Path]
    noised: Course
    check: Course
    rounds: int = 5
    seed: int = 1
    base: Path = BASE
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Process:
    """A process now.

    Attributes:
        name: whose.
        pid: None where it does not run.
        resident: bytes of memory now.
        peak: bytes at most, over all processes of that name.
    """

    name: str
    pid: int | None
    resident: int
    peak: int


class Watcher(Protocol):
    """Whoever shows a person how far it is."""

    def stage(self, text: str) -> None:
        """A stage begins."""
        ...

    def now(self, state: Path, processes: list[Process]) -> None:
        """How things are: the coordinator's state folder, or that of the reference, and what runs."""
        ...

    def note(self, text: str) -> None:
        """Something worth reading."""
        ...


@dataclass(frozen=True, slots=True)
class Ran:
    """What one federation of processes left behind.

    Attributes:
        history: its rounds, with the seconds of each exchange.
        sent, received: bytes of what the coordinator asked each party, and of what it was answered, in a round; the
            model's release, which comes once, is left out.
        memory: most resident bytes of each process.
        online: seconds from nothing to everybody online.
        release: signed, and verified.
    """

    history: tuple[RoundRecord, ...]
    sent: Mapping[str, float]
    received: Mapping[str, float]
    memory: Mapping[str, int]
    online: float
    release: Release


@dataclass(frozen=True, slots=True)
class ProcessesResult:
    """Everything.

    Attributes:
        noised, check: the two federations.
        spent: ε of each label's recordings by its own ledger.
        allowed: ε that its policy allows them.
        stated: ε by the coordinator's statement in the release, against the colluders that the noise withstands.
        delta: δ of all these.
        recordings: each label's.
        reference_seconds: the rounds of `check` in one process.
        reference_memory: most resident bytes of that.
        equal: whether the adapter in the release of `check` is that process's, bit for bit.
        out: where everything lies.
    """

    noised: Ran
    check: Ran
    spent: Mapping[str, float]
    allowed: Mapping[str, float]
    stated: float
    delta: float
    recordings: Mapping[str, int]
    reference_seconds: float
    reference_memory: int
    equal: bool
    out: Path

    @property
    def covered(self) -> bool:
        """Whether no ledger says more than the coordinator's statement, or than its label's policy allows."""
        return all(spent <= min(self.stated, self.allowed[name]) for name, spent in self.spent.items())

    @property
    def good(self) -> bool:
        """Whether everything is as it must be."""
        return self.equal and self.covered


class ProcessesDemo:
    """One run. `run` does whatever of it is not done yet."""

    def __init__(self, options: ProcessesOptions, watch: Watcher) -> None:
        """Measure the noise out.

        Raises:
            ConfigError: the folder holds a run of something else, or no noise is enough.
            InputError: the folder holds something else.
        """
        self._options, self._watch = options, watch
        self._recordings = {name: recordings_in([vault]) for name, vault in options.vaults.items()}
        self._measured = self._measure(options.noised)
        self._plain = self._measure(options.check)
        self._same_question()

    def run(self) -> ProcessesResult:
        """Do it all.

        Raises:
            AlreadyRunning: another process does it already, in the same folder.
            ServiceFailed, RunFailed: a process ended and does not come back, or the rounds could not be finished.
            PartbookError: whatever else ended it.
        """
        options, measured = self._options, self._measured
        with only_one(options.out / "lock", f"runs `partbook demo-processes --out {options.out}`"):
            noised = self._federate(
                "noised", options.noised, measured.training, measured.policy, options.out / "release"
            )
            self._watch.stage("The labels' ledgers, each read by its own label")
            nodes = [self._federation("noised", measured.policy).node_config(name) for name in options.vaults]
            budgets = {node.member: account(node) for node in nodes}
            unlimited = Policy(
                epsilon_recording=inf,
                delta=measured.delta,
                noise=("none",),
                modes=("sealed",),
            )
            plain = self._federate(
                "check", options.check, self._plain.training, unlimited, options.out / "check-release"
            )
            seconds, memory = self._refer(unlimited)
        return ProcessesResult(
            noised=noised,
            check=plain,
            spent={name: budget.total.committed for name, budget in budgets.items()},
            allowed={name: budget.total.limit for name, budget in budgets.items()},
            stated=float(noised.release.about["privacy"]["epsilon_colluders"]),
            delta=measured.delta,
            recordings=self._recordings,
            reference_seconds=seconds,
            reference_memory=memory,
            equal=_same(plain.release, options.out / "reference" / COORDINATOR / "adapter.safetensors"),
            out=options.out,
        )

    def _federate(self, part: Part, course: Course, training: Training, policy: Policy, release: Path) -> Ran:
        note = self._options.out / part / "figures.json"
        if not (note.exists() and release.exists()):
            with self._federation(part, policy) as federation:
                federation.configure(self._config(course, training))
                figures = self._rounds(part, federation, release)
            note.write_text(json.dumps(figures, indent=1) + "\n")
        return self._ran(part, release, json.loads(note.read_text()))

    def _rounds(self, part: Part, federation: ProcessFederation, release: Path) -> dict[str, Any]:
        """All processes up, the rounds, the release; returns what only living processes can tell."""
        words = "sealed, with distributed DP" if part == "noised" else "sealed, for comparison without noise"
        parties, began = [*federation.sites, CUSTODIAN], time.monotonic()
        memory = Memory(federation)
        self._watch.stage("Starting the coordinator, three labels and the custodian")
        federation.start_coordinator()
        for name in parties:
            _start(federation, name)
        for name in parties:
            federation.await_online(name)
            self._watch.now(federation.state, memory.look())
        online = time.monotonic() - began
        self._watch.stage(f"{self._options.rounds} rounds, {words}")
        federation.start_run()
        standing: dict[str, PartyStanding] = {}

        def count() -> None:
            status = read_status(federation.state)
            if status.complete and not standing:
                standing.update(status.parties)

        self._follow(federation, "run", memory, each=count)
        self._watch.stage("Signing a release")
        about = "sealed, distributed DP" if part == "noised" else "sealed, no noise: to be compared, not used"
        if not release.exists():
            federation.start_release(
                release,
                delta=self._measured.delta,
                name=f"{NAMES[part]}, seed {self._options.seed} ({about})",
                sources=self._options.sources,
            )
            self._follow(federation, "release", memory)
        count()
        rounds = self._options.rounds
        return {
            "online": online,
            "memory": memory.peaks,
            "sent": {name: standing[name].sent / rounds for name in parties},
            "received": {name: standing[name].received / rounds for name in parties},
        }

    def _refer(self, policy: Policy) -> tuple[float, int]:
        """The rounds of `check` in one process: its seconds, and its memory."""
        out = self._options.out / "reference"
        note = out / "figures.json"
        if not note.exists():
            shutil.rmtree(out, ignore_errors=True)
            self._watch.stage("The same rounds in one process, to be compared")
            with self._federation("check", policy) as federation:
                memory = Memory(federation)
                federation.start_reference(out)
                done = self._follow(federation, "reference", memory, state=out / COORDINATOR)
            note.write_text(json.dumps({"seconds": done["seconds"], "memory": memory.peaks["reference"]}) + "\n")
        found = json.loads(note.read_text())
        return found["seconds"], found["memory"]

    def _follow(
        self,
        federation: ProcessFederation,
        name: str,
        memory: Memory,
        *,
        state: Path | None = None,
        each: Callable[[], None] = lambda: None,
    ) -> dict[str, Any]:
        """Until a process has done its work; parties that end meanwhile are started again, as an init system would."""
        revived: dict[str, int] = {}
        while federation.processes[name].poll() is None:
            self._watch.now(state or federation.state, memory.look())
            each()
            for party in [one for one, process in federation.processes.items() if process.poll() is not None]:
                if party != name:
                    revived[party] = revived.get(party, 0) + 1
                    self._revive(federation, party, revived[party])
            time.sleep(LOOK_EVERY)
        found = federation.finished(name)
        self._watch.now(state or federation.state, memory.look())
        return found

    def _revive(self, federation: ProcessFederation, party: str, times: int) -> None:
        if party == COORDINATOR or times > REVIVALS:
            raise ServiceFailed(f"The process of {party} has ended: {federation.last_words(party)}")
        code = federation.processes.pop(party).returncode
        self._watch.note(f"{party}'s process has ended ({_how(code)}) and is started again.")
        _start(federation, party)

    def _federation(self, part: Part, policy: Policy) -> ProcessFederation:
        options, folder = self._options, self._options.out / part
        sites = {
            name: Site(vault, policy, options.base, folder / name / LEDGER_FILE, journal=True, seed=options.seed)
            for name, vault in options.vaults.items()
        }
        return ProcessFederation(folder, NAMES[part], sites)

    def _config(self, course: Course, training: Training) -> FederationConfig:
        return FederationConfig(
            roster=_ANYWHERE,
            key=_ANYWHERE,
            seal_key=_ANYWHERE,
            state=_ANYWHERE,
            mode="sealed",
            rounds=self._options.rounds,
            base=self._options.base.resolve(),
            scope=course.scope,
            training=training,
            step=course.step,
        )

    def _asked(self, course: Course, training: Training) -> dict[str, Any]:
        # The base model is told by its hash: where it lies makes no other question of it.
        return self._config(course, training).model_dump(mode="json", exclude={"base"})

    def _ran(self, part: Part, release: Path, figures: Mapping[str, Any]) -> Ran:
        options = self._options
        base: str = base_manifest(options.base)["files"]["model.safetensors"]
        state = Checkpoints(options.out / part / COORDINATOR / "state", NAMES[part], base).load()
        if state is None:
            raise AlteredFile(f"{options.out / part} has lost its rounds; choose another folder with --out.")
        key = IdentityKey.load(options.out / part / "office" / "coordinator.pem")
        return Ran(
            history=tuple(record for record in state.history if record.round),
            release=open_release(release, signer=key.public),
            **{name: figures[name] for name in ("sent", "received", "memory", "online")},
        )

    def _measure(self, course: Course) -> Measured:
        labels = len(self._options.vaults)
        return measure(
            course.asked,
            course.plain,
            recordings=sum(self._recordings.values()),
            labels=labels,
            threshold=default_threshold(labels),
            rounds=self._options.rounds,
            mode="sealed",
        )

    def _same_question(self) -> None:
        options, note = self._options, self._options.out / "demo.json"
        asked = {
            "vaults": {name: str(vault.resolve()) for name, vault in options.vaults.items()},
            "recordings": self._recordings,
            "rounds": options.rounds,
            "seed": options.seed,
            "base": base_manifest(options.base)["files"]["model.safetensors"],
            "noised": self._asked(options.noised, self._measured.training),
            "check": self._asked(options.check, self._plain.training),
        }
        if note.exists():
            before = json.loads(note.read_text())
            changed = [name for name, value in asked.items() if before.get(name) != value]
            if changed:
                raise ConfigError(
                    f"{options.out} holds a run with another {' and '.join(changed)}; ask for the same to go on with "
                    "it, or choose another folder with --out."
                )
            return
        if options.out.exists() and any(options.out.iterdir()):
            raise InputError(f"{options.out} holds something else; choose another folder with --out.")
        options.out.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps(asked, indent=1, sort_keys=True) + "\n")


@dataclass(slots=True)
class Memory:
    """What the processes of a federation hold, by the kernel's books (`VmRSS` and `VmHWM` of /proc/PID/status).

    Attributes:
        federation: whose.
        peaks: most resident bytes by process.
    """

    federation: ProcessFederation
    peaks: dict[str, int] = field(default_factory=dict)

    def look(self) -> list[Process]:
        """All of them now, the coordinator's first."""
        services = [name for name in SERVICES if COORDINATOR in self.federation.processes]
        return [self._of(name) for name in dict.fromkeys([*services, *self.federation.processes])]

    def _of(self, name: str) -> Process:
        pid = self.federation.pid(name)
        try:
            found = memory_of(pid) if pid is not None else {}
        except OSError:
            found = {}
        peak = self.peaks[name] = max(self.peaks.get(name, 0), found.get("VmHWM", 0))
        return Process(name, pid if found else None, found.get("VmRSS", 0), peak)


def _start(federation: ProcessFederation, party: str) -> None:
    if party == CUSTODIAN:
        federation.start_custodian(wait=False)
    else:
        federation.start_node(party, wait=False)


def _how(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _same(release: Release, adapter: Path) -> bool:
    """Whether a release's adapter is the one in a file: every number of it, bit for bit."""
    from safetensors.numpy import load, load_file

    ours, theirs = load(release.files["adapter.safetensors"]), load_file(adapter)
    return ours.keys() == theirs.keys() and all(
        ours[name].dtype == theirs[name].dtype and ours[name].tobytes() == theirs[name].tobytes() for name in ours
    )
