"""From what a person asks of a simulated federation to noise measured out for it, and to policies that hold it to that.

In a real federation the coordinator's engineer runs `partbook privacy plan`, and every label writes a `policy.toml` of
its own. Here one person plays them all: the plan is calibrated to the ε asked for, and each label's policy allows that
ε and no more, so that it is the ledgers that end a run which asks for a round too many.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from partbook.errors import ConfigError
from partbook.node.budget import Budget
from partbook.node.label import NodeConfig
from partbook.node.ledger import Ledger
from partbook.node.policy import Noise, Policy
from partbook.plan.rounds import Mode, ServerStep
from partbook.plan.training import DistributedDp, LocalDp, PlainTraining, Training
from partbook.privacy.planning import Wish, default_colluders, default_delta, planned
from partbook.simulation.parties import ANYTHING
from partbook.vault.store import Vault

_ROUNDING = 1e-9  # the policy's ε lies above the one asked for by so much of it


@dataclass(frozen=True, slots=True)
class Asked:
    """Noise as a person asks for it.

    Attributes:
        kind: `distributed`: the labels' noise adds up; `local`: each label's own suffices; `none`.
        epsilon: ε of each recording after all rounds, against colluders; infinite for no noise at all.
        delta: δ; a power of ten below 1/(10·recordings) where None.
        sampling: q, with which each recording is drawn in a round, or in a label's own step.
        colluders: labels that may take their noise out again; fewer than a third where None.
        clip: C, L2 norm of one recording's update.
        windows: of each drawn recording.
        steps: `distributed`: on each recording alone; `local`: a label's DP-SGD steps in a round.
        learning_rate: of these steps.
        bound: L2 norm of a label's update in a round; `local` only.
    """

    kind: Noise = "distributed"
    epsilon: float = 8.0
    delta: float | None = None
    sampling: float = 1.0
    colluders: int | None = None
    clip: float = 0.3
    windows: int = 1
    steps: int = 1
    learning_rate: float = 0.01
    bound: float = 3.0

    @property
    def bounded(self) -> bool:
        """Whether there is to be noise."""
        return self.kind != "none" and self.epsilon != math.inf


@dataclass(frozen=True, slots=True)
class Measured:
    """What was asked for, measured out.

    Attributes:
        training: the plan's.
        delta: δ, at which the ledgers count.
        policy: every label's.
    """

    training: Training
    delta: float
    policy: Policy

    @property
    def colluders(self) -> int | None:
        """Labels that distributed noise withstands; None where there is no such noise."""
        return self.training.colluders if isinstance(self.training, DistributedDp) else None


def measure(
    asked: Asked,
    plain: PlainTraining,
    *,
    recordings: int,
    labels: int,
    threshold: int,
    rounds: int,
    mode: Mode,
) -> Measured:
    """The least noise that grants what is asked.

    Args:
        asked: by a person.
        plain: how to train where no noise is asked for.
        recordings: of all labels together. Only a simulation may know: in a federation the plan's batch is agreed upon.
        labels, threshold: members, and fewest whose sum may be opened.
        rounds: that the ε is to last for.
        mode: of the rounds.

    Raises:
        ConfigError: a figure is impossible, or no noise is enough; the message names it.
    """
    delta = default_delta(recordings) if asked.delta is None else asked.delta
    if not asked.bounded or asked.kind == "none":
        return Measured(plain, delta, allowing(asked, plain, delta, mode))
    pool = recordings / labels if asked.kind == "local" else float(recordings)
    if not 0 < asked.sampling <= 1:
        raise ConfigError(f"`sampling` is {asked.sampling} and must be above 0 and at most 1.")
    colluders = asked.colluders
    if colluders is None:  # more could open two sums of a round, which no plan may allow
        colluders = min(default_colluders(labels, threshold), 2 * threshold - labels - 1)
    wish = Wish(
        epsilon=asked.epsilon,
        delta=delta,
        recordings=recordings,
        rounds=rounds,
        batch=asked.sampling * pool,
        labels=labels,
        threshold=threshold,
        colluders=colluders,
        kind=asked.kind,
        steps=asked.steps if asked.kind == "local" else 1,
    )
    noise = planned(wish).noise_multiplier
    training: DistributedDp | LocalDp
    if asked.kind == "local":
        training = LocalDp(
            noise_multiplier=noise,
            sampling=wish.sampling,
            batch=wish.batch,
            steps=asked.steps,
            windows=asked.windows,
            learning_rate=asked.learning_rate,
            clip=asked.clip,
            bound=asked.bound,
        )
    else:
        training = DistributedDp(
            noise_multiplier=noise,
            sampling=wish.sampling,
            batch=wish.batch,
            colluders=colluders,
            windows=asked.windows,
            steps=asked.steps,
            learning_rate=asked.learning_rate,
            clip=asked.clip,
        )
    return Measured(training, delta, allowing(asked, training, delta, mode))


def server_step(asked: Asked, *, learning_rate: float | None = None, momentum: float | None = None) -> ServerStep:
    """The step that suits the noise, with what a person wants to be different.

    What distributed noise leaves of a mean gradient is small and of uneven scale, so Adam takes the step there;
    elsewhere the labels have taken steps themselves, and the average of these is one.
    """
    changed = {"learning_rate": learning_rate, "momentum": momentum}
    usual = ServerStep()
    if asked.bounded and asked.kind == "distributed":
        usual = ServerStep(rule="adam", learning_rate=0.02, momentum=0.9, second=0.99)
    return usual.model_copy(update={name: value for name, value in changed.items() if value is not None})


def allowing(asked: Asked, training: Training, delta: float, mode: Mode) -> Policy:
    """The policy of a label that allows what is asked and not a round more; anything where no noise is asked for."""
    if isinstance(training, PlainTraining):
        return ANYTHING.model_copy(update={"delta": delta})
    return Policy(
        epsilon_recording=asked.epsilon * (1 + _ROUNDING),
        delta=delta,
        sampling=training.sampling,
        noise=(training.kind,),
        modes=("sealed",) if mode == "sealed" else ("sealed", "masked"),
        colluders=training.colluders if isinstance(training, DistributedDp) else 0,
        rounds=100_000,  # the ε ends it earlier
    )


def recordings_in(vaults: Sequence[Path]) -> int:
    """How many recordings vaults hold together.

    Raises:
        VaultError: one cannot be opened.
    """
    total = 0
    for path in vaults:
        with Vault.open(path) as vault:
            total += len(vault.ids())
    return total


def account(node: NodeConfig) -> Budget:
    """What a label's ledger says of its recordings, held against its policy; no node may be at work with it.

    Raises:
        LedgerBroken, VaultError, ConfigError: it cannot be read.
    """
    with Vault.open(node.vault, node.key) as vault, Ledger.open(node.accounts, vault.ledger_key) as ledger:
        return Budget.of(ledger, Policy.in_force(node.vault, node.policy))
