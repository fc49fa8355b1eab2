"""The round loop. It reads as the algorithm:

    for each round
        1  plan      fix the cohort, the model and the training, and hash it
        2  train     every member trains and says `ready`
        3  lock      masks and seal take their exchanges here (PROTOCOL §1, 2–3 and 5–6); none in this version
        4  collect   every ready member hands over its clipped update
        5  step      average, move the adapter
        6  score     on public held-out recordings
        7  keep      checkpoint; a crash from here on repeats nothing

Fewer answers than the threshold abort the round by name, with the state as it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from flwr.app import RecordDict
from numpy.typing import NDArray

from partbook.coordinator.aggregation import average, step
from partbook.coordinator.checkpoints import Checkpoints, FederationState, RoundRecord
from partbook.coordinator.validation import ValidationSet
from partbook.errors import CohortTooSmall, ConfigError, CorruptMessage, PartbookError
from partbook.model.adapter import adapter_state, apply_adapter, attach, flatten, state_hash, unflatten
from partbook.model.checkpoint import BASE, base_manifest, load_model, load_tokenizer
from partbook.model.transformer import pick_device
from partbook.plan import wire
from partbook.plan.federation import FederationConfig
from partbook.plan.rounds import RoundPlan
from partbook.plan.transport import Transport

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the loop is, for whoever watches.

    Attributes:
        round: the round, from 0 (before any) to `rounds`.
        rounds: how many there will be.
        stage: `score`, `train`, `collect` or `done`.
        record: the round's record once it is done.
    """

    round: int
    rounds: int
    stage: str
    record: RoundRecord | None = None


class Coordinator:
    """One federation's coordinator. Holds the global adapter and public data; never a member's data."""

    def __init__(self, config: FederationConfig, on_progress: Callable[[Progress], None] = lambda _: None) -> None:
        """Load the base model, the public validation set and the newest checkpoint.

        Raises:
            AlteredFile: the base model or a checkpoint is not what it should be.
            ConfigError: the configuration asks for a lock that this version does not have.
        """
        if config.locks.names():
            raise ConfigError(
                f"locks.{config.locks.names()[0]} is on, but this version has no such lock yet; turn it off."
            )
        self._config, self._tell = config, on_progress
        base = config.base or BASE
        self._base_hash: str = base_manifest(base)["files"]["model.safetensors"]
        self._model = attach(load_model(base)).to(pick_device())
        self._tokenizer = load_tokenizer(base)
        self._like = adapter_state(self._model)
        self._validation = ValidationSet.read(config.validation) if config.validation else None
        self._checkpoints = Checkpoints(config.state, config.name, self._base_hash)

    def run(self, transport: Transport) -> FederationState:
        """Run the rounds that are still to do; returns the last state.

        Raises:
            CohortTooSmall: too few members answered; the state is that of the last finished round.
        """
        state = self._checkpoints.load() or self._begin()
        while state.round < self._config.rounds:
            state = self._round(state, transport)
        return state

    def _begin(self) -> FederationState:
        adapter = flatten(self._like)
        self._tell(Progress(0, self._config.rounds, "score"))
        record = RoundRecord(0, state_hash(self._like), validation=self._score(adapter))
        state = FederationState(adapter, np.zeros_like(adapter), (record,))
        self._checkpoints.save(state, self._like)
        self._tell(Progress(0, self._config.rounds, "done", record))
        return state

    def _round(self, state: FederationState, transport: Transport) -> FederationState:
        began, number, rounds = time.monotonic(), state.round + 1, self._config.rounds
        plan = self._plan(state, number)

        self._tell(Progress(number, rounds, "train"))
        ready = self._train(plan, state.adapter, transport)

        self._tell(Progress(number, rounds, "collect"))
        updates = self._collect(plan, ready, transport)

        mean = average(updates, len(state.adapter), plan.training.clip)
        adapter, velocity = step(state.adapter, mean, state.velocity, self._config.step)

        self._tell(Progress(number, rounds, "score"))
        record = RoundRecord(
            number,
            state_hash(unflatten(adapter, self._like)),
            tuple(sorted(updates)),
            time.monotonic() - began,
            float(np.linalg.norm(mean)),
            self._score(adapter),
        )
        state = FederationState(adapter, velocity, (*state.history, record))
        self._checkpoints.save(state, self._like)
        self._tell(Progress(number, rounds, "done", record))
        return state

    def _plan(self, state: FederationState, number: int) -> RoundPlan:
        return RoundPlan(
            federation=self._config.name,
            round=number,
            base_hash=self._base_hash,
            model_hash=state.history[-1].adapter_hash,
            cohort=self._config.cohort,
            threshold=self._config.quorum,
            training=self._config.training,
            locks=self._config.locks,
        )

    def _train(self, plan: RoundPlan, adapter: NDArray[np.float32], transport: Transport) -> list[str]:
        requests = {member: wire.pack_train(plan, adapter) for member in plan.cohort}
        replies = transport.exchange(wire.TRAIN, requests, timeout=self._config.timeout)
        hashes = self._accept(plan, replies, wire.unpack_ready)
        return sorted(member for member, answered in hashes.items() if answered == plan.hash())

    def _collect(self, plan: RoundPlan, ready: list[str], transport: Transport) -> dict[str, NDArray[np.float32]]:
        requests = {member: wire.pack_ask(plan.hash()) for member in ready}
        replies = transport.exchange(wire.CONTRIBUTE, requests, timeout=self._config.timeout)
        answers = self._accept(plan, replies, wire.unpack_contribution)
        return {member: update for member, (answered, update) in answers.items() if answered == plan.hash()}

    def _accept(
        self, plan: RoundPlan, replies: dict[str, RecordDict | Exception], unpack: Callable[[RecordDict], T]
    ) -> dict[str, T]:
        """Unpack the answers of an exchange; too few good ones end the round, and the message says why each failed."""
        good: dict[str, T] = {}
        reasons: dict[str, str] = {member: "no answer in time" for member in plan.cohort if member not in replies}
        for member, reply in replies.items():
            try:
                if isinstance(reply, Exception):
                    raise reply
                wire.raise_refusal(reply, member)
                good[member] = unpack(reply)
            except PartbookError as error:
                reasons[member] = str(error)
        if len(good) < plan.threshold:
            why = "; ".join(f"{member}: {reason}" for member, reason in sorted(reasons.items()))
            raise CohortTooSmall(
                f"Round {plan.round}: {len(good)} of {len(plan.cohort)} members answered, "
                f"{plan.threshold} are needed. {why}"
            )
        return good

    def _score(self, adapter: NDArray[np.float32]) -> dict[str, float]:
        if self._validation is None:
            return {}
        apply_adapter(self._model, unflatten(adapter, self._like))
        scores = self._validation.score(self._model, self._tokenizer)
        if any(not np.isfinite(score.per_token) for score in scores.values()):
            raise CorruptMessage("The model's loss is no number after this round; lower the learning rate or the clip.")
        return {label: score.per_token for label, score in scores.items()}
