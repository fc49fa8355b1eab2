"""Rounds in which each of a few recordings is in or out by a coin, and all that the strongest adversary sees of them.

The canaries are bars of random notes, one window long, so that whoever knows them knows the very updates that their
label makes of them, and so that no two updates are alike. The adversary is the one the claim of `DistributedDp` is made
against, in its strongest form: it knows the model before each round, every canary, every other recording, and the exact
sum of every round, as the coordinator of masked rounds does; it does not know the coins or any member's noise. Each
label also holds one recording that everybody knows to be in.

`Federation.play` adds up the members' vectors directly, which is what unmasking leaves of them, to the bit
(tests/secagg/test_exactness.py); what becomes a vector is the nodes' own code. `Federation.play_messages` takes the
same adversary through whole rounds: vaults, keys, nodes, masks and signed messages.

With `protected=False` the sums are made in the same way but for the noise, which is left out: to see that the attack
finds what there is to be found. No plan can ask a node for that.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from partbook.errors import ConfigError
from partbook.model.adapter import adapter_state, attach, flatten, selection, state_hash, unflatten
from partbook.model.checkpoint import BASE, base_manifest, load_model, load_tokenizer
from partbook.model.scope import Scope
from partbook.model.transformer import PartbookModel, pick_device
from partbook.music.notation import score_of
from partbook.music.notes import Notes
from partbook.music.recording import Recording
from partbook.music.tokens import HIGHEST_PITCH, LOWEST_PITCH, Tokenizer, bar_seconds
from partbook.plan.rounds import RoundPlan, ServerStep
from partbook.plan.step import Motion, mean_update, step
from partbook.plan.training import DistributedDp
from partbook.privacy.accounting import calibrate, epsilon
from partbook.privacy.events import NoisySum, events_of
from partbook.privacy.mechanism import NoisyGrid
from partbook.privacy.sampling import poisson_sample
from partbook.training.examples import Examples
from partbook.training.per_recording import recording_updates

FEDERATION: Final = "An audit on one machine"
LABELS: Final = ("Alto", "Bass", "Cantus", "Tenor", "Quintus", "Sextus")
STEP: Final = ServerStep(learning_rate=0.3)
BITS: Final = 20  # masked rounds' own
CLIP: Final = 0.05
"""Far below the canaries' gradients, so that each moves the sum by all that one recording may."""

_NOTES: Final = 12
_BEAT: Final = 0.5  # seconds


@dataclass(frozen=True, slots=True)
class Setting:
    """How large the audited federation is, and what it claims.

    Attributes:
        epsilon, delta: claimed for each recording after all rounds.
        labels: members; all of them are needed and none colludes, so that the noise the adversary faces is no more
            than what the claim counts on.
        each: canaries of one label.
        rounds: how many; every recording takes part in each.
        clip: C, in units of the gradient.
        step: what the average update does to the model.
        scope: what is trained.
        base: the base model.

    Raises:
        ConfigError: there are not three to six labels, or no canaries.
    """

    epsilon: float = 1.0
    delta: float = 1e-5
    labels: int = 4
    each: int = 20
    rounds: int = 4
    clip: float = CLIP
    step: ServerStep = STEP
    scope: Scope = "all"
    base: Path = BASE

    def __post_init__(self) -> None:
        if not 3 <= self.labels <= len(LABELS):
            raise ConfigError(f"An audit has 3 to {len(LABELS)} labels, not {self.labels}.")
        if self.each < 1 or self.rounds < 1:
            raise ConfigError(f"An audit needs a canary a label and a round, not {self.each} and {self.rounds}.")

    @property
    def canaries(self) -> int:
        """m, of all labels."""
        return self.labels * self.each

    @property
    def members(self) -> tuple[str, ...]:
        """The labels' names, sorted."""
        return tuple(sorted(LABELS[: self.labels]))


@dataclass(frozen=True, slots=True)
class View:
    """What the adversary distils of all rounds, with m canaries.

    Attributes:
        gram: Σ_t U_t U_tᵀ of the canaries' clipped updates U_t (m, d), float64 (m, m).
        seen: Σ_t U_t s_t of the rounds' sums s_t (d,), without what is known to be in them, float64 (m,).
        variance: of what else is in each coordinate of each sum, noise and rounding, as the sums themselves show it:
            noise that is less than it should be is noticed, too.
        adapter: after the last round, float32 (D,).
    """

    gram: NDArray[np.float64] = field(repr=False)
    seen: NDArray[np.float64] = field(repr=False)
    variance: float
    adapter: NDArray[np.float32] = field(repr=False)

    def scores(self) -> NDArray[np.float64]:
        """How much of each canary is in the sums, about 1 or 0 where there is no noise: (m,).

        Least squares of the sums on the canaries' updates, drawn towards ½ as the noise demands: the linear estimate of
        least mean squared error for coins of mean ½ and variance ¼. Without noise it is plain least squares.
        """
        ridge = 4 * self.variance * np.eye(len(self.seen))
        excess: NDArray[np.float64] = np.linalg.solve(self.gram + ridge, self.seen - self.gram.sum(1) / 2)
        return excess + 0.5


def canary(number: int, tokenizer: Tokenizer, random: np.random.Generator) -> Recording:
    """Two bars of random notes on a grid of eighths; silence before them."""
    pitches = random.integers(LOWEST_PITCH, HIGHEST_PITCH + 1, _NOTES)
    loudness = random.integers(20, 120, _NOTES)
    rows = [(i * _BEAT / 2, _BEAT / 2, int(p), int(v)) for i, (p, v) in enumerate(zip(pitches, loudness, strict=True))]
    notes = Notes.from_rows(rows)
    score = score_of(notes, np.arange(_NOTES, dtype=np.float64) * _BEAT, 0, beats_per_minute=60 / _BEAT)
    ids = tokenizer.encode(score, hand="heard")
    starts = tokenizer.bar_starts(ids)
    nothing = np.full((1, 128), -1.0, np.float16)
    return Recording(f"canary {number}", _NOTES * _BEAT, notes, ids, starts, bar_seconds(score, len(starts)), nothing)


class Federation:
    """The model, the canaries and the plan of a setting; what is random is drawn anew in each run."""

    def __init__(
        self, setting: Setting, random: np.random.Generator, recordings: list[Recording] | None = None
    ) -> None:
        """Make canaries, and calibrate the noise to the claim.

        Args:
            setting: how large.
            random: makes the canaries; no guarantee rests on it.
            recordings: m in place of the canaries, label by label, for attacks that care what is played.

        Raises:
            ConfigError: no noise grants the claim.
            AlteredFile: the base model is not what its manifest names.
        """
        self.setting = setting
        self.model: PartbookModel = attach(load_model(setting.base)).to(pick_device())
        self.tokenizer = load_tokenizer(setting.base)
        self.like: dict[str, Tensor] = adapter_state(self.model)
        count, labels = setting.canaries, setting.labels
        made = recordings or [canary(number, self.tokenizer, random) for number in range(count)]
        assert len(made) == count, "each label has as many as the setting says"
        self.recordings = [*made, *(canary(count + label, self.tokenizer, random) for label in range(labels))]
        self._examples = Examples(self.recordings, self.tokenizer, self.model.config.context)
        self._places = selection(self.like, setting.scope)
        self.plan = self._planned()
        self._first: NDArray[np.float32] | None = None  # at the base model the updates are the same in all runs

    @cached_property
    def claimed(self) -> float:
        """ε that the plan's accountant says, at the setting's δ, of all rounds; at most the setting's."""
        return epsilon(events_of(self.plan, "colluders") * self.setting.rounds, self.setting.delta)

    @property
    def mu(self) -> float:
        """μ for which all rounds together are μ-Gaussian differentially private, but for the noise being discrete:
        √rounds / σ (Dong, Roth and Su 2022, arXiv 1905.02383, Theorem 2.7 and Corollary 3.3)."""
        return float(np.sqrt(self.setting.rounds)) / self._training.noise_multiplier

    def coins(self, random: np.random.Generator) -> NDArray[np.bool_]:
        """A fair coin a canary, (m,)."""
        return random.random(self.setting.canaries) < 0.5

    def play(self, coins: NDArray[np.bool_], *, protected: bool = True) -> View:
        """All rounds, the members' vectors added up directly; see the module."""
        present = np.concatenate([coins, np.ones(self.setting.labels, np.bool_)])
        belongs = np.concatenate(
            [np.repeat(np.arange(self.setting.labels), self.setting.each), np.arange(self.setting.labels)]
        )
        adapter, motion = flatten(self.like), Motion.none(sum(t.numel() for t in self.like.values()))
        watched = _Watch(self.setting.canaries)
        grid = self._grid
        for number in range(self.setting.rounds):
            updates = self._updates(adapter, number)
            total = np.zeros(self.plan.parameters, np.uint32)
            for label in range(self.setting.labels):
                own = np.flatnonzero(present & (belongs == label))
                drawn = own[poisson_sample(len(own), self._training.sampling)]
                of_label = np.zeros(self.plan.parameters, np.int64)
                for recording in drawn:
                    of_label += grid.rounded(updates[recording])
                total += grid.contribution(of_label) if protected else _bare(grid, of_label)
            mean = mean_update(total, self.setting.labels, self.plan)
            watched.note(updates, mean * self._training.batch)
            adapter, motion = step(adapter, mean, motion, self.plan.step, self._places)
        return watched.view(adapter)

    def play_messages(self, coins: NDArray[np.bool_], folder: Path) -> View:
        """All rounds in `folder`, with vaults, keys, nodes, masks and signed messages; the adversary reads the
        coordinator's checkpoints.

        Raises:
            PartbookError: whatever ended the run.
        """
        from safetensors.numpy import load_file

        from partbook.node.label import NodeConfig
        from partbook.plan.federation import FederationConfig
        from partbook.simulation.federation import simulate
        from partbook.simulation.parties import enrol
        from partbook.vault.store import Vault

        setting, members = self.setting, self.setting.members
        assert (setting.step.rule, setting.step.momentum) == ("momentum", 0.0), "a step tells the sum behind it"
        homes = {member: folder / member for member in members}
        for label, member in enumerate(members):
            own = [label * setting.each + i for i in range(setting.each) if coins[label * setting.each + i]]
            with Vault.create(homes[member] / "vault") as vault:
                for number in [*own, setting.canaries + label]:
                    vault.add(self.recordings[number], hashlib.sha256(f"canary {number}".encode()).hexdigest())
        parties = enrol(folder / "office", FEDERATION, {member: home / "keys" for member, home in homes.items()})
        nodes = {
            member: parties.node(
                NodeConfig(member, home / "vault", parties.roster, Path(), state=home / "rounds", base=setting.base)
            )
            for member, home in homes.items()
        }
        config = FederationConfig(
            roster=parties.roster,
            key=parties.coordinator,
            mode="masked",
            bits=BITS,
            rounds=setting.rounds,
            threshold=setting.labels,
            base=setting.base,
            state=folder / "coordinator",
            scope=setting.scope,
            training=self._training,
            step=setting.step,
        )
        simulate(config, nodes)
        states = [load_file(config.state / f"round-{number:04d}.safetensors") for number in range(setting.rounds + 1)]
        watched = _Watch(setting.canaries)
        for number, (before, after) in enumerate(pairwise(state["adapter"] for state in states)):
            moved = (after.astype(np.float64) - before)[self._places]
            watched.note(self._updates(before, number), moved / setting.step.learning_rate * self._training.batch)
        return watched.view(states[-1]["adapter"])

    @property
    def _training(self) -> DistributedDp:
        assert isinstance(self.plan.training, DistributedDp), "the only kind that is audited"
        return self.plan.training

    @property
    def _grid(self) -> NoisyGrid:
        assert isinstance(self.plan.grid, NoisyGrid), "as above"
        return self.plan.grid

    def _planned(self) -> RoundPlan:
        setting = self.setting

        def with_noise(multiplier: float) -> RoundPlan:
            return RoundPlan(
                federation=FEDERATION,
                roster="0" * 64,
                round=1,
                nonce="0" * 32,
                deadline=0,
                base_hash=base_manifest(setting.base)["files"]["model.safetensors"],
                model_hash=state_hash(self.like),
                scope=setting.scope,
                parameters=len(self._places),
                cohort=setting.members,
                threshold=setting.labels,
                training=DistributedDp(
                    noise_multiplier=multiplier,
                    sampling=1.0,
                    batch=setting.canaries / 2 + setting.labels,
                    clip=setting.clip,
                ),
                step=setting.step,
                mode="masked",
                bits=BITS,
            )

        (one,) = events_of(with_noise(1.0), "colluders")
        assert isinstance(one.event, NoisySum), "that is what such a round is"
        # Neither grows with σ.
        slack, tail = one.event.slack, one.event.tail
        return with_noise(calibrate(setting.epsilon, setting.delta, 1.0, setting.rounds, slack=slack, tail=tail))

    def _updates(self, adapter: NDArray[np.float32], number: int) -> NDArray[np.float32]:
        """Of every recording, in their order, as any node makes them of it from this adapter: (recordings, d)."""
        if number == 0 and self._first is not None:
            return self._first
        found = np.empty((len(self.recordings), self.plan.parameters), np.float32)
        for one in recording_updates(
            self.model,
            unflatten(adapter, self.like),
            self._examples,
            np.arange(len(self.recordings)),
            self._training,
            self.tokenizer.pad,
            np.random.default_rng(number),
            scope=self.setting.scope,
        ):
            found[one.recording] = one.vector
        if number == 0:
            self._first = found
        return found


class _Watch:
    """Adds up what a `View` is made of, round by round."""

    def __init__(self, canaries: int) -> None:
        self._count = canaries
        self._gram = np.zeros((canaries, canaries))
        self._seen = np.zeros(canaries)
        self._variances: list[float] = []

    def note(self, updates: NDArray[np.float32], total: NDArray[np.float64]) -> None:
        """A round's updates, known recordings' last, (m + known, d), and its sum, (d,)."""
        own, known = updates[: self._count].astype(np.float64), updates[self._count :]
        rest = total - known.sum(0, dtype=np.float64)
        gram, seen = own @ own.T, own @ rest
        # What no combination of canaries accounts for is noise; d is far more than m, so that it tells how much.
        unexplained = float(rest @ rest - seen @ np.linalg.lstsq(gram, seen)[0])
        self._variances.append(max(unexplained, 0.0) / (len(rest) - self._count))
        self._gram += gram
        self._seen += seen

    def view(self, adapter: NDArray[np.float32]) -> View:
        """Of all rounds noted."""
        return View(self._gram, self._seen, float(np.mean(self._variances)), adapter)


def _bare(grid: NoisyGrid, total: NDArray[np.int64]) -> NDArray[np.uint32]:
    """What `NoisyGrid.contribution` would be without its noise. It protects nobody, and no node's code can reach it."""
    return (np.clip(total, -grid.signal_bound, grid.signal_bound) + grid.largest).astype(np.uint32)
