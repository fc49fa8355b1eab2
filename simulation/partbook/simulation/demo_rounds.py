"""The demo's rounds: noise measured out, every label's policy written, the rounds, the ledgers read, the comparison."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from partbook.coordinator.checkpoints import Checkpoints, RoundRecord
from partbook.coordinator.privacy import PrivacyStatement, statement
from partbook.coordinator.rounds import Progress
from partbook.coordinator.validation import ValidationSet
from partbook.model.adapter import adapter_state, attach, selection
from partbook.model.checkpoint import base_manifest, load_model
from partbook.model.scope import Scope
from partbook.node.budget import Budget
from partbook.node.label import NodeConfig
from partbook.node.ledger import LEDGER_FILE
from partbook.plan.federation import FederationConfig
from partbook.plan.rounds import Mode, ServerStep, default_threshold
from partbook.plan.training import PlainTraining
from partbook.simulation.drops import Drop
from partbook.simulation.federation import Traffic, simulate
from partbook.simulation.noise import Asked, Measured, account, measure
from partbook.simulation.parties import Parties
from partbook.simulation.report import Locks
from partbook.simulation.results import DemoLabel, doing, locks
from partbook.simulation.scoring import RoundScores, without_noise


@dataclass(frozen=True, slots=True)
class Course:
    """How a run trains.

    Attributes:
        asked: its noise.
        rounds: how many.
        scope: which of the adapter's numbers are trained.
        step: what the average update does to the model.
        plain: each node's share of a round where no noise is asked for.
    """

    asked: Asked
    rounds: int
    scope: Scope
    step: ServerStep
    plain: PlainTraining


@dataclass(frozen=True, slots=True)
class Ran:
    """What the rounds left behind.

    Attributes:
        traffic: who sent how much.
        history: of every round, with scores.
        privacy: what the rounds cost each recording, by the plans.
        accounts: the same by each label's own ledger.
        noiseless: held-out nats per token by label had there been no noise; empty where there was none.
        locks: which were on.
    """

    traffic: Traffic
    history: tuple[RoundRecord, ...]
    privacy: PrivacyStatement
    accounts: Mapping[str, Budget]
    noiseless: Mapping[str, float]
    locks: Locks

    @property
    def recordings(self) -> int:
        """Behind `privacy`, of all labels."""
        assert self.locks.recordings is not None, "the demo counts them"
        return self.locks.recordings


class Watcher(Protocol):
    """Whoever shows a person how far things are."""

    def stage(self, name: str, total: int) -> None:
        """A stage begins; it has `total` steps."""
        ...

    def now(self, what: str) -> None:
        """What is being done."""
        ...

    def step(self, what: str) -> None:
        """One step is done."""
        ...

    def note(self, text: str) -> None:
        """Something worth reading."""
        ...


@dataclass(frozen=True, slots=True)
class DemoRounds:
    """Rounds to come.

    Attributes:
        federation: its name.
        labels: with their vaults filled.
        parties: with their keys.
        course: how to train.
        mode: `masked` or `sealed`.
        drops: labels that fall away on purpose.
        base: folder of the base model.
        validation: folder of the public validation set.
        out: of the run.
        seed: of everything that no guarantee rests on.
    """

    federation: str
    labels: Sequence[DemoLabel]
    parties: Parties
    course: Course
    mode: Mode
    drops: Sequence[Drop]
    base: Path
    validation: Path
    out: Path
    seed: int

    def run(self, watch: Watcher, stage: Callable[[str, int], AbstractContextManager[None]]) -> Ran:
        """Run them, and say what they cost.

        Args:
            watch: told what is going on.
            stage: gives a context for a named stage of so many steps.

        Raises:
            PartbookError: whatever ended the rounds.
        """
        measured = self._measured()
        config = self._config(measured)
        nodes = {label.name: self._node(label, measured) for label in self.labels}
        validation = ValidationSet.read(self.validation)
        custodian = None
        if self.mode == "sealed":
            custodian = dataclasses.replace(self.parties.custodian, record=self.out / "custodian" / "opened.json")
        scores = RoundScores(validation, self.base, nodes, self.course.rounds)

        def on_progress(progress: Progress) -> None:
            where = f"round {progress.round} of {progress.rounds}"
            if progress.record is None:
                watch.now(f"{where}: {doing(progress.stage)}")
            elif found := scores.after(progress.record):
                watch.step(f"{where}: {self._mean(found):.3f} nats/token held out")
            elif progress.round < progress.rounds:
                watch.step(f"{where} is done")

        with stage("Rounds: labels train, and add up what nobody reads", self.course.rounds + 1):
            traffic = simulate(
                config, nodes, custodian, drops=self.drops, workers=self._workers, on_progress=on_progress
            )
            base_hash: str = base_manifest(self.base)["files"]["model.safetensors"]
            checkpoints = Checkpoints(config.state, self.federation, base_hash)
            state = checkpoints.load()
            assert state is not None, "the rounds have just written it"
            if custodian is not None:
                watch.step(f"released by the labels: {self._mean(state.history[-1].validation):.3f}")
        privacy = statement(state.history, checkpoints.lost(), measured.delta)
        accounts = {name: account(node) for name, node in nodes.items()}
        for name, budget in accounts.items():
            spent, everywhere = budget.total.committed, all(name in r.members for r in state.history if r.round)
            # Otherwise the label fell away before anything of it had left, and paid for fewer rounds.
            assert spent == privacy.colluders if everywhere else spent <= privacy.colluders, f"{name} says {spent}"
        return Ran(
            traffic,
            scores.filled(state.history),
            privacy,
            accounts,
            self._compare(validation, config, watch, stage),
            locks(
                measured.training,
                state.history,
                privacy,
                custodian=None if custodian is None else custodian.name,
                threshold=self._threshold,
                bits=config.number_bits,
                recordings=self._recordings,
                dimension=len(selection(adapter_state(attach(load_model(self.base))), self.course.scope)),
            ),
        )

    def _mean(self, scores: Mapping[str, float]) -> float:
        """Over labels; what else is scored is a control."""
        return sum(scores[label.name] for label in self.labels) / len(self.labels)

    @property
    def _workers(self) -> int:
        # Each computes with one thread; who is first at one's work cannot be seen in what comes out.
        return max(2, min(len(self.labels), os.cpu_count() or 1))

    @property
    def _threshold(self) -> int:
        return default_threshold(len(self.labels))

    @property
    def _recordings(self) -> int:
        return sum(label.recordings for label in self.labels)

    def _measured(self) -> Measured:
        return measure(
            self.course.asked,
            self.course.plain,
            recordings=self._recordings,
            labels=len(self.labels),
            threshold=self._threshold,
            rounds=self.course.rounds,
            mode=self.mode,
        )

    def _config(self, measured: Measured) -> FederationConfig:
        return FederationConfig(
            roster=self.parties.roster,
            key=self.parties.coordinator,
            seal_key=self.parties.seal_key,
            mode=self.mode,
            rounds=self.course.rounds,
            base=self.base,
            state=self.out / "coordinator",
            validation=self.validation,
            scope=self.course.scope,
            training=measured.training,
            step=self.course.step,
        )

    def _node(self, label: DemoLabel, measured: Measured) -> NodeConfig:
        label.journal.unlink(missing_ok=True)
        # What a party remembers of a round lies with this run: asked about a round again, it would refuse.
        state = self.out / "nodes" / label.folder
        bare = NodeConfig(
            label.name,
            label.vault,
            self.parties.roster,
            self.parties.folders[label.name] / "identity.pem",
            ledger=state / LEDGER_FILE,
            state=state,
            journal=label.journal,
            base=self.base,
            seed=self.seed,
        )
        return self.parties.node(bare, measured.policy)

    def _compare(
        self,
        validation: ValidationSet,
        config: FederationConfig,
        watch: Watcher,
        stage: Callable[[str, int], AbstractContextManager[None]],
    ) -> dict[str, float]:
        if isinstance(config.training, PlainTraining):
            return {}
        with stage("For comparison only: the same rounds without noise", config.rounds):
            return without_noise(
                validation,
                self.base,
                [label.vault for label in self.labels],
                config.training,
                config.scope,
                config.step,
                config.rounds,
                seed=self.seed,
                on_round=lambda number: watch.step(f"round {number} of {config.rounds}"),
            )
