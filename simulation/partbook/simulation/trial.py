"""A researcher's federation: vaults of labels that lie on one machine, real keys, real locks, one adapter out.

    <out>/federation/           the roster, the coordinator's and the custodian's keys, what the custodian opened
    <out>/labels/<label>/       a label's keys, policy and ledger, what its node keeps, its journal of losses
    <out>/coordinator/          checkpoints, and at the end the adapter
    <out>/trial.json            what the run was asked for, and the noise that was measured out for it

Running a trial again goes on with it; with another question it is refused. Noise is measured out once, for the rounds
asked for at first, and the ledgers go on where they were: more rounds than that end with `BudgetExhausted`.
The ledgers count this trial alone. Those in the vaults, which real federations debit, are not touched.
"""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from pydantic import TypeAdapter, ValidationError

from partbook.coordinator.checkpoints import Checkpoints, RoundRecord
from partbook.coordinator.privacy import PrivacyStatement, statement
from partbook.coordinator.rounds import Progress
from partbook.errors import AlteredFile, ConfigError, InputError
from partbook.identity.message import COORDINATOR
from partbook.model.adapter import load_adapter, state_hash
from partbook.model.checkpoint import BASE, base_manifest
from partbook.model.scope import Scope
from partbook.node.budget import Budget
from partbook.node.label import NodeConfig
from partbook.node.ledger import LEDGER_FILE
from partbook.plan import wire
from partbook.plan.federation import FederationConfig
from partbook.plan.rounds import MINIMUM_COHORT, Mode, ServerStep, default_threshold
from partbook.plan.training import PlainTraining, Training
from partbook.simulation.drops import Drop
from partbook.simulation.federation import simulate
from partbook.simulation.grid import COORDINATOR_ID, Crossing
from partbook.simulation.noise import Asked, Measured, account, allowing, measure, recordings_in, server_step
from partbook.simulation.parties import CUSTODIAN, enrol

FEDERATION: Final = "A trial on one machine"

Engine: TypeAlias = Literal["process", "ray"]
"""What works on the nodes: this process (`federation.simulate`), or Flower's engine (`ray_engine.simulate_on_ray`)."""


@dataclass(frozen=True, slots=True)
class TrialOptions:
    """What a trial is.

    Attributes:
        vaults: folders, one a label.
        out: folder for keys, states and the adapter.
        rounds: how many in all; a trial that is run again counts those already done.
        mode: `masked` or `sealed`.
        drops: labels that fall away on purpose, as `Drop.parse` reads them.
        threshold: fewest labels whose updates may be summed; the secure default where None.
        asked: the noise.
        training: each node's share of a round where no noise is asked for.
        scope: which of the adapter's numbers are trained.
        step: what the average update does to the model.
        base: the base model.
        seed: of the order in which recordings are visited and of rounding, without noise; drawn from the system where
            None.
        engine: what works on the nodes. A trial may go on with the other: what it leads to is the same.
        workers: nodes that are worked on at a time; on Ray, of this machine.
        gpus: that each takes on Ray: a part of one, or none.
    """

    vaults: tuple[Path, ...]
    out: Path
    rounds: int = 3
    mode: Mode = "sealed"
    drops: tuple[str, ...] = ()
    threshold: int | None = None
    asked: Asked = field(default_factory=Asked)
    training: PlainTraining = field(default_factory=PlainTraining)
    scope: Scope = "all"
    step: ServerStep = field(default_factory=lambda: server_step(Asked()))
    base: Path = BASE
    seed: int | None = None
    engine: Engine = "process"
    workers: int = 2
    gpus: float = 0.0


@dataclass(frozen=True, slots=True)
class RoundTraffic:
    """Mean bytes that a label's node sent and received in one round."""

    sent: float
    received: float


@dataclass(frozen=True, slots=True)
class TrialResult:
    """What is there when a trial has ended, or was cut short.

    Attributes:
        labels: their names.
        history: every finished round, those of earlier runs among them.
        traffic: of the rounds of this run; under the number after the last finished one, what followed it: the
            release, or a round that was cut short. On Ray nobody counts it.
        adapter: the trained adapter's file; None until all rounds are done.
        privacy: what the rounds had cost each recording after each finished one, by its number.
        cost: what all have, those that were given up among them.
        recordings: behind that, of all labels.
        colluders: labels that distributed noise withstands; None where there is none.
    """

    labels: tuple[str, ...]
    history: tuple[RoundRecord, ...]
    traffic: Mapping[int, RoundTraffic]
    adapter: Path | None
    privacy: Mapping[int, PrivacyStatement]
    cost: PrivacyStatement
    recordings: int
    colluders: int | None


def labels_of(vaults: Sequence[Path]) -> dict[str, Path]:
    """Vaults by label, in the order of names: a folder's name, or its parent's where it is called `vault`.

    Raises:
        InputError: a folder holds no vault.
        ConfigError: fewer than three, two of one name, or a name that another party has.
    """
    found: dict[str, Path] = {}
    for given in vaults:
        vault = given.resolve()
        if not (vault / "index.sqlite").is_file():
            raise InputError(f"{given} holds no vault; give folders that `partbook node ingest --vault` made.")
        name = vault.parent.name if vault.name == "vault" else vault.name
        if name in found:
            raise ConfigError(f"{given} and {found[name]} both belong to a label {name!r}; rename one's folder.")
        if name.casefold() in (COORDINATOR.casefold(), CUSTODIAN.casefold()):
            raise ConfigError(f"{given}: {name!r} is another party's name; rename the folder.")
        found[name] = vault
    if len(found) < MINIMUM_COHORT:
        raise ConfigError(
            f"{len(found)} vaults were given; at least {MINIMUM_COHORT} are needed, because with two each label would "
            "learn the other's update from the sum."
        )
    return dict(sorted(found.items()))


class Trial:
    """One trial. `run` does what is left to do of it; `result` says what there is, also after an error."""

    def __init__(self, options: TrialOptions) -> None:
        """Make keys and roster, or find those of an earlier run.

        Raises:
            InputError, ConfigError: see `labels_of`; or a setting is wrong, or is not that of the earlier run.
            AlteredFile: the earlier run's note is broken.
        """
        self._options = options
        self._labels = labels_of(options.vaults)
        self._drops = [Drop.parse(text, list(self._labels)) for text in options.drops]
        if self._drops and options.engine == "ray":
            raise ConfigError("--drop is for the in-process engine; leave out --engine ray, or the drops.")
        count, threshold = len(self._labels), options.threshold
        if threshold is not None and not count < 2 * threshold <= 2 * count:
            raise ConfigError(f"threshold {threshold} must be above half of {count} labels, and at most all of them.")
        out = options.out
        self._base_hash: str = base_manifest(options.base)["files"]["model.safetensors"]
        self._recordings = recordings_in(tuple(self._labels.values()))
        self._measured = measured = self._same_question()
        homes = {name: out / "labels" / name for name in self._labels}
        parties = enrol(out / "federation", FEDERATION, homes)
        self._custodian = parties.custodian if options.mode == "sealed" else None
        try:
            self._config = FederationConfig(
                roster=parties.roster,
                key=parties.coordinator,
                seal_key=parties.seal_key,
                mode=options.mode,
                rounds=options.rounds,
                threshold=options.threshold,
                base=options.base,
                state=out / "coordinator",
                scope=options.scope,
                training=measured.training,
                step=options.step,
            )
        except ValidationError as error:
            first = error.errors()[0]
            raise ConfigError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}.") from error
        self._nodes = {
            name: parties.node(
                NodeConfig(
                    name,
                    vault,
                    parties.roster,
                    homes[name] / "identity.pem",
                    ledger=homes[name] / LEDGER_FILE,
                    state=homes[name] / "rounds",
                    journal=homes[name] / "journal.jsonl",
                    base=options.base,
                    seed=options.seed,
                ),
                measured.policy,
            )
            for name, vault in self._labels.items()
        }
        self._tally = _Tally(tuple(self._labels))

    def run(self, on_progress: Callable[[Progress], None] = lambda _: None) -> None:
        """Run the rounds that are still to do.

        Raises:
            PartbookError: whatever ended the run; the state is that of the last finished round.
        """

        self._tally.round = len(self.result().history) + 1

        def progress(now: Progress) -> None:
            if now.record is not None:
                self._tally.round = now.round + 1
            on_progress(now)

        parties, workers = (self._config, self._nodes, self._custodian), self._options.workers
        if self._options.engine == "ray":
            from partbook.simulation.ray_engine import simulate_on_ray

            simulate_on_ray(*parties, workers=workers, gpus=self._options.gpus, on_progress=progress)
            return
        simulate(
            *parties,
            drops=self._drops,
            workers=workers,
            on_progress=progress,
            on_crossing=self._tally.observe,
        )

    def result(self) -> TrialResult:
        """What is there by now."""
        checkpoints, delta = Checkpoints(self._config.state, FEDERATION, self._base_hash), self._measured.delta
        state, lost = checkpoints.load(), checkpoints.lost()
        history = () if state is None else tuple(record for record in state.history if record.round)
        adapter = self._config.state / "adapter.safetensors"
        # In sealed rounds the coordinator has the model before any round, and again when the labels released it.
        known = len(history) >= self._options.rounds and state_hash(load_adapter(adapter)) == history[-1].adapter_hash
        return TrialResult(
            tuple(self._labels),
            history,
            self._tally.means(),
            adapter if known else None,
            {
                record.round: statement(
                    history[:place], [(number, cost) for number, cost in lost if number < record.round], delta
                )
                for place, record in enumerate(history, 1)
            },
            statement(history, lost, delta),
            self._recordings,
            self._measured.colluders,
        )

    def accounts(self) -> dict[str, Budget]:
        """What each label's ledger says. Only where no round is running, and after one has run.

        Raises:
            LedgerBroken, VaultError: a ledger cannot be read.
        """
        return {name: account(node) for name, node in self._nodes.items()}

    def _same_question(self) -> Measured:
        """The noise as it was measured out at first.

        A round that was begun is gone on with as it was planned, so nothing in the plans may change.
        """
        options = self._options
        asked: dict[str, Any] = {
            "vaults": {name: str(path) for name, path in self._labels.items()},
            "locks": options.mode,
            "threshold": options.threshold,
            "base": self._base_hash,
            "seed": options.seed,
            "noise": asdict(options.asked) if options.asked.bounded else None,
            "training": None if options.asked.bounded else options.training.model_dump(),
            "scope": options.scope,
            "step": options.step.model_dump(),
        }
        note = options.out / "trial.json"
        if not note.exists():
            measured = self._measure()
            found = {"training": measured.training.model_dump(), "delta": measured.delta}
            options.out.mkdir(parents=True, exist_ok=True)
            note.write_text(json.dumps({**asked, "measured": found}, indent=1, sort_keys=True) + "\n")
            return measured
        try:
            before = json.loads(note.read_text())
            changed = [key for key, value in asked.items() if before[key] != value]
            training = TypeAdapter[Training](Training).validate_python(before["measured"]["training"])
            delta = float(before["measured"]["delta"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise AlteredFile(f"{note} is broken ({error}); choose another folder.") from error
        if changed:
            raise ConfigError(
                f"{options.out} holds a trial with another {' and '.join(changed)}; ask for the same to go on with it, "
                "or choose another folder with --out."
            )
        return Measured(training, delta, allowing(options.asked, training, delta, options.mode))

    def _measure(self) -> Measured:
        options = self._options
        threshold = default_threshold(len(self._labels)) if options.threshold is None else options.threshold
        return measure(
            options.asked,
            options.training,
            recordings=self._recordings,
            labels=len(self._labels),
            threshold=threshold,
            rounds=options.rounds,
            mode=options.mode,
        )


class _Tally:
    """Bytes of the labels' nodes, by round."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._nodes = range(COORDINATOR_ID + 1, COORDINATOR_ID + 1 + len(labels))
        self._lock = threading.Lock()
        self._sent: defaultdict[int, int] = defaultdict(int)
        self._received: defaultdict[int, int] = defaultdict(int)
        self.round = 1

    def observe(self, crossing: Crossing) -> None:
        if crossing.node_id in self._nodes and crossing.kind != wire.HELLO:
            with self._lock:
                (self._sent if crossing.inbound else self._received)[self.round] += len(crossing.data)

    def means(self) -> dict[int, RoundTraffic]:
        count = len(self._nodes)
        return {r: RoundTraffic(self._sent[r] / count, self._received[r] / count) for r in sorted(self._received)}
