"""A label's node in a round: checks the plan, trains, and hands over one clipped update per plan.

No network here: messages come in as plans and vectors and go out as vectors. A retry of a contribution sends
the stored vector again, never a fresh one (PROTOCOL §1).
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from partbook.errors import (
    ClearSumsRefused,
    ConfigError,
    CorruptMessage,
    InputError,
    NotInCohort,
    StalePlan,
    UnknownModel,
)
from partbook.model.adapter import adapter_state, attach, state_hash, unflatten
from partbook.model.checkpoint import BASE, base_manifest, load_model, load_tokenizer
from partbook.plan.rounds import RoundPlan
from partbook.training.local import Examples, local_update
from partbook.vault.store import Vault


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """Where a node finds its things and what its label allows.

    Attributes:
        member: the label's name in the federation.
        vault: folder of the vault.
        journal: JSON-lines file for the label's own eyes: losses and norms, never sent. None keeps none.
        key: the vault's key file; inside the vault where None.
        base: folder of the base model.
        seed: of the order in which recordings are visited; drawn from the system where None.
        allow_clear_sums: whether plans without masks are accepted; only simulations set it.
    """

    member: str
    vault: Path
    journal: Path | None = None
    key: Path | None = None
    base: Path = BASE
    seed: int | None = None
    allow_clear_sums: bool = False


class LabelNode:
    """One label's side of the rounds."""

    def __init__(self, config: NodeConfig) -> None:
        """Load the base model and cut the vault's recordings into windows.

        Raises:
            VaultError: the vault cannot be opened.
            AlteredFile: the base model is not what its manifest names.
            InputError: the vault is empty.
        """
        self._config = config
        self._base_hash: str = base_manifest(config.base)["files"]["model.safetensors"]
        self._model = attach(load_model(config.base))
        self._tokenizer = load_tokenizer(config.base)
        self._shape = adapter_state(self._model)
        with Vault.open(config.vault, config.key) as vault:
            recordings = [vault.get(identifier) for identifier in vault.ids()]
        if not recordings:
            raise InputError(f"The vault {config.vault} is empty; run `partbook node ingest` first.")
        self._examples = Examples(recordings, self._tokenizer, self._model.config.context)
        self._finished: dict[str, NDArray[np.float32]] = {}
        self._round = 0
        # Reading the model and training it in place is one activity; a second message waits.
        self._busy = threading.Lock()

    @property
    def member(self) -> str:
        """The label's name in the federation."""
        return self._config.member

    def train(self, plan: RoundPlan, adapter: NDArray[np.float32]) -> str:
        """Check a plan, train for it, keep the clipped update; returns the plan's hash.

        Raises:
            PolicyRefusal: the plan is not one this label takes part in; the message says why.
            CorruptMessage: the adapter is not the one the plan names.
        """
        with self._busy:
            plan_hash = plan.hash()
            if plan_hash in self._finished:
                return plan_hash
            self._check(plan)
            try:
                state = unflatten(adapter, self._shape)
            except ConfigError as error:
                raise UnknownModel(f"{error} The coordinator must use the base model that the plan names.") from error
            if state_hash(state) != plan.model_hash:
                raise CorruptMessage(
                    "The adapter received is not the one the plan names; the coordinator must re-send it."
                )
            update = local_update(
                self._model, state, self._examples, plan.training, self._tokenizer.pad, self._random(plan)
            )
            self._finished = {plan_hash: update.vector}  # an older round's vector is of no use to anyone
            self._round = plan.round
            self._note(plan, update.loss, update.norm)
            return plan_hash

    def contribute(self, plan_hash: str) -> NDArray[np.float32]:
        """The update kept for a plan, (d,); the same bytes however often it is asked for.

        Raises:
            StalePlan: this node did not train for the plan.
        """
        with self._busy:
            if plan_hash not in self._finished:
                raise StalePlan(f"{self.member} holds no update for plan {plan_hash[:12]}…; start the round again.")
            return self._finished[plan_hash]

    def _check(self, plan: RoundPlan) -> None:
        if self.member not in plan.cohort:
            raise NotInCohort(f"{self.member} is not in the cohort of round {plan.round}.")
        if plan.base_hash != self._base_hash:
            raise UnknownModel(
                f"Round {plan.round} starts from base model {plan.base_hash[:12]}…, but {self.member} has installed "
                f"{self._base_hash[:12]}…; install the same Partbook release everywhere."
            )
        if plan.round <= self._round:
            raise StalePlan(f"{self.member} has already trained for round {self._round}; round {plan.round} is over.")
        if not plan.locks.masks and not self._config.allow_clear_sums:
            raise ClearSumsRefused(
                f"Round {plan.round} asks {self.member} for an update without masks, which the coordinator could "
                "read; only a simulation may. Ask the coordinator for masked rounds."
            )

    def _random(self, plan: RoundPlan) -> np.random.Generator:
        if self._config.seed is None:
            return np.random.Generator(np.random.Philox(int.from_bytes(os.urandom(8), "little")))
        text = f"{self._config.seed}/{self.member}/{plan.round}".encode()
        return np.random.Generator(np.random.Philox(int.from_bytes(hashlib.sha256(text).digest()[:8], "little")))

    def _note(self, plan: RoundPlan, loss: float, norm: float) -> None:
        if self._config.journal is None:
            return
        entry = {"round": plan.round, "loss": loss, "norm": norm, "clip": plan.training.clip}
        with self._config.journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
