"""The round loop. It reads as the algorithm:

    for each round
        1  plan      fix the cohort, the model and the training, sign it
        2  add up    members train; masks, shares, contributions, confirmations, reveals: `attempt`
        3  step      masked: average, and move the adapter
                     sealed: the custodian opens the sum for the labels, who take the step: `sealed`
        4  score     on public held-out recordings, where the model is known
        5  keep      checkpoint; a crash from here on repeats nothing
    sealed: at the end the labels endorse the model, and hand it over

Fewer members than the threshold abort the round by name, with the state as it was. The next attempt is at the same
round, with the vectors that members have stored; if shares were asked for already, it is at a round of the next number,
for which they train anew.
"""

from __future__ import annotations

import dataclasses
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from partbook.coordinator.attempt import Attempt, AttemptRecord
from partbook.coordinator.checkpoints import Checkpoints, FederationState, RoundRecord
from partbook.coordinator.privacy import spent_by
from partbook.coordinator.sealed import SealedSums
from partbook.coordinator.totals import MaskedTotal
from partbook.coordinator.validation import ValidationSet
from partbook.errors import CohortTooSmall, ConfigError, CorruptMessage, ForeignSealKey
from partbook.identity.keys import IdentityKey
from partbook.identity.roster import Roster
from partbook.model.adapter import (
    adapter_state,
    apply_adapter,
    attach,
    flatten,
    in_scope,
    selection,
    state_hash,
    unflatten,
)
from partbook.model.checkpoint import BASE, base_manifest, load_model, load_tokenizer
from partbook.model.transformer import pick_device
from partbook.plan.exchanges import write_plan
from partbook.plan.federation import FederationConfig
from partbook.plan.greeting import Greeter
from partbook.plan.rounds import RoundPlan, default_threshold
from partbook.plan.step import Motion, mean_update, step
from partbook.plan.transport import Transport
from partbook.sealing.parameters import SealPublic


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the loop is, for whoever watches.

    Attributes:
        round: the round, from 0 (before any) to `rounds`.
        rounds: how many there will be.
        stage: a message kind of `partbook.plan.wire`, `score` or `done`.
        record: the round's record once it is done.
    """

    round: int
    rounds: int
    stage: str
    record: RoundRecord | None = None


class Coordinator:
    """One federation's coordinator. Holds public data, its own key and sums; never a member's data."""

    def __init__(self, config: FederationConfig, on_progress: Callable[[Progress], None] = lambda _: None) -> None:
        """Load keys and roster, the base model, the public validation set and the newest checkpoint.

        Raises:
            AlteredFile: the base model or a checkpoint is not what it should be.
            ConfigError: the roster names another coordinator, or no custodian where rounds are sealed.
            ForeignSealKey: the custodian's public key is not the one in the roster.
        """
        self._config, self._tell = config, on_progress
        self._roster = Roster.read(config.roster)
        self._key = IdentityKey.load(config.key)
        if self._key.public != self._roster.coordinator:
            raise ConfigError(f"key: {config.key} is not the coordinator's key in the roster {config.roster}.")
        self._seal_key = self._custodians_key()
        base = config.base or BASE
        self._base_hash: str = base_manifest(base)["files"]["model.safetensors"]
        self._model = attach(load_model(base)).to(pick_device())
        self._tokenizer = load_tokenizer(base)
        self._like = adapter_state(self._model)
        self._parameters = sum(self._like[name].numel() for name in in_scope(self._like, config.scope))
        self._validation = ValidationSet.read(config.validation) if config.validation else None
        # The coordinator of sealed rounds knows no model in between, so its states differ in nothing but their number.
        keep = 3 if config.mode == "sealed" else None
        self._checkpoints = Checkpoints(config.state, self._roster.federation, self._base_hash, keep=keep)

    @property
    def parties(self) -> tuple[str, ...]:
        """Whom the rounds need: the members, and the custodian in sealed ones."""
        members = tuple(member.name for member in self._roster.members)
        custodian = self._roster.custodian
        return members if self._config.mode == "masked" or custodian is None else (*members, custodian.name)

    @property
    def greeter(self) -> Greeter:
        """Asks nodes who they are."""
        return Greeter(self._key, self._roster)

    def run(self, transport: Transport) -> FederationState:
        """Run the rounds that are still to do; returns the last state.

        Raises:
            CohortTooSmall: too few members answered; the state is that of the last finished round.
        """
        state = self._checkpoints.load() or self._begin()
        sums = SealedSums(self._config.state / "sums", self._roster, self._key, transport, self._config.timeout)
        while len(state.history) <= self._config.rounds:
            state = self._round(state, transport, sums)
        if not self._known(state):
            state = self._release(state, sums)
        return state

    def _begin(self) -> FederationState:
        adapter = flatten(self._like)
        self._tell(Progress(0, self._config.rounds, "score"))
        record = RoundRecord(0, state_hash(self._like), validation=self._score(adapter))
        state = FederationState(adapter, Motion.none(0 if self._config.mode == "sealed" else len(adapter)), (record,))
        self._checkpoints.save(state, self._like)
        self._tell(Progress(0, self._config.rounds, "done", record))
        return state

    def _round(self, state: FederationState, transport: Transport, sums: SealedSums) -> FederationState:
        began, rounds = time.monotonic(), self._config.rounds
        attempt = self._attempt(state)
        plan = attempt.plan
        number = plan.round

        sealed = plan.mode == "sealed"
        if sealed and sums.behind(state.round):
            sums.catch_up(state.round, AttemptRecord())
        start = None if sealed else state.adapter.astype("<f4").tobytes()
        try:
            attempt.run(transport, start, self._config.timeout, lambda kind: self._tell(Progress(number, rounds, kind)))
        except (CohortTooSmall, CorruptMessage):
            if attempt.revealing:
                # Whoever revealed answers no second attempt: two sums of the same vectors could differ by just one.
                self._checkpoints.give_up(number, spent_by(plan))
            # Nobody who was lost can come back into this attempt: the round is planned anew, under fresh masks.
            attempt.forget()
            sums.doubt(attempt.record.elsewhere)
            raise

        adapter, motion, norm = state.adapter, state.motion, None
        if sealed:
            sums.open(attempt)
            model_hash = sums.apply(plan, attempt.record)
        else:
            assert isinstance(attempt.total, MaskedTotal), "a masked plan adds up integers"
            mean = mean_update(attempt.total.numbers(), len(attempt.machine.survivors), plan)
            if len(motion.velocity) != len(adapter):
                motion = Motion.none(len(adapter))  # sealed rounds, of which the coordinator steps none, came before
            adapter, motion = step(adapter, mean, motion, plan.step, selection(self._like, plan.scope))
            model_hash, norm = state_hash(unflatten(adapter, self._like)), float(np.linalg.norm(mean))
            self._tell(Progress(number, rounds, "score"))
        record = RoundRecord(
            number,
            model_hash,
            attempt.machine.survivors,
            time.monotonic() - began,
            norm,
            {} if sealed else self._score(adapter),
            {member: kind for member, (kind, _) in attempt.record.dropped.items()},
            attempt.record.seconds,
            spent_by(plan),
        )
        state = FederationState(adapter, motion, (*state.history, record))
        self._checkpoints.save(state, self._like)
        attempt.forget()
        self._tell(Progress(number, rounds, "done", record))
        return state

    def _attempt(self, state: FederationState) -> Attempt:
        """The attempt at the next round that was cut off, or a new one."""
        path = self._config.state / "attempt"
        self._leave_attempt_of_another_roster(path, state.round)
        found = Attempt.resume(path, self._roster, self._key)
        model_hash = state.history[-1].adapter_hash
        if found is not None and found.plan.model_hash == model_hash and found.plan.round > state.round:
            return found
        plan = self._plan(model_hash, max(state.round, self._checkpoints.given_up) + 1)
        return Attempt(write_plan(self._key, plan), self._roster, self._key, path)

    def _leave_attempt_of_another_roster(self, path: Path, done: int) -> None:
        """Members that contributed under an earlier roster answer no other attempt at that round: it is given up."""
        plan = Attempt.plan_at(path)
        if plan is None or plan.roster == self._roster.hash:
            return
        if (self._config.state / "sums" / f"round-{plan.round:04d}.opened").exists() and plan.round > done:
            raise ConfigError(
                f"roster: the sum of round {plan.round} was opened under the earlier version {plan.roster[:12]}…, and "
                "labels may have taken its step. Finish the round with that roster, then install the new one."
            )
        if plan.round > max(done, self._checkpoints.given_up):
            self._checkpoints.give_up(plan.round, spent_by(plan))
        path.unlink()

    def _plan(self, model_hash: str, number: int) -> RoundPlan:
        cohort = tuple(sorted(member.name for member in self._roster.members))
        try:
            return self._planned(model_hash, number, cohort)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise ConfigError(f"The configuration and the roster make no plan: {first['msg']}.") from error

    def _planned(self, model_hash: str, number: int, cohort: tuple[str, ...]) -> RoundPlan:
        config = self._config
        return RoundPlan(
            federation=self._roster.federation,
            roster=self._roster.hash,
            round=number,
            nonce=secrets.token_hex(16),
            # Every exchange may take the timeout: training, and five short ones.
            deadline=int(time.time() + 6 * config.timeout),
            base_hash=self._base_hash,
            model_hash=model_hash,
            scope=config.scope,
            parameters=self._parameters,
            cohort=cohort,
            threshold=default_threshold(len(cohort)) if config.threshold is None else config.threshold,
            training=config.training,
            step=config.step,
            mode=config.mode,
            bits=config.number_bits,
            seal_key="" if self._seal_key is None else self._seal_key.key_id,
        )

    def _known(self, state: FederationState) -> bool:
        return state_hash(unflatten(state.adapter, self._like)) == state.history[-1].adapter_hash

    def _release(self, state: FederationState, sums: SealedSums) -> FederationState:
        """Take the model of sealed rounds from the labels that endorse it."""
        last = state.history[-1]
        adapter = sums.release(last.round, last.adapter_hash, self._like)
        state = dataclasses.replace(state, adapter=adapter)
        self._tell(Progress(last.round, self._config.rounds, "score"))
        scored = dataclasses.replace(last, validation=self._score(adapter))
        state = dataclasses.replace(state, history=(*state.history[:-1], scored))
        self._checkpoints.save(state, self._like)
        return state

    def _custodians_key(self) -> SealPublic | None:
        if self._config.mode == "masked":
            return None
        custodian = self._roster.custodian
        if custodian is None:
            raise ConfigError(f"mode: sealed rounds need a custodian, and the roster {self._config.roster} names none.")
        assert self._config.seal_key is not None, "the configuration was validated"
        try:
            return SealPublic.read(self._config.seal_key, custodian.seal_key)
        except ForeignSealKey as error:
            raise ForeignSealKey(f"seal_key: {error}") from error

    def _score(self, adapter: NDArray[np.float32]) -> dict[str, float]:
        if self._validation is None:
            return {}
        apply_adapter(self._model, unflatten(adapter, self._like))
        scores = self._validation.score(self._model, self._tokenizer)
        if any(not np.isfinite(score.per_token) for score in scores.values()):
            raise CorruptMessage("The model's loss is no number after this round; lower the learning rate or the clip.")
        return {label: score.per_token for label, score in scores.items()}
