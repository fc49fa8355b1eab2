"""What a node computes from its recordings for a plan: one vector of whole numbers, ready to be masked.

    distributed   draw recordings; each one's clipped update, rounded, summed; add this node's share of the noise
    local         DP-SGD with this node's own noise; clip what it led to; round
    plain         train; clip; round

Where there is noise, recordings are spread over all the devices there are (`Spread`), and the noise is added here,
once. Plain training is a few steps of one optimiser on mixed batches, for tests and simulations: it stays on the first
device.

Where there is noise, everything is drawn from the system's generator: were the choice of windows known, one recording
more would be seen to change which windows the others are trained on. A seed, for simulations that can be repeated,
is for plain training alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from partbook.errors import InputError
from partbook.model.adapter import adapter_state, attach
from partbook.model.checkpoint import load_model, load_tokenizer
from partbook.model.transformer import PartbookModel
from partbook.plan.rounds import RoundPlan
from partbook.plan.training import DistributedDp, LocalDp, PlainTraining
from partbook.privacy.mechanism import NoisyGrid
from partbook.secagg.grid import Grid
from partbook.training.devices import devices_of, take_share
from partbook.training.examples import Examples
from partbook.training.local import local_update
from partbook.training.per_recording import Observed, dp_sgd, drawn_sum
from partbook.training.spread import Spread
from partbook.vault.store import Vault

WINDOW: Final = 384
"""Positions of a window that is trained on, at most. A minute of music has several, and all but the first follow on
from sound, with no notes before them: so sound is listened to. Longer ones cost more and hear nothing."""


@dataclass(frozen=True, slots=True)
class Learned:
    """What training led to.

    Attributes:
        vector: whole numbers on the plan's grid, uint32 (d,). All that may leave, under masks.
        loss: mean training loss, nats per token; NaN where nothing was drawn. Private, as is all below.
        norm: mean L2 norm before clipping.
        drawn: recordings that were drawn; all of them in plain training.
    """

    vector: NDArray[np.uint32]
    loss: float
    norm: float
    drawn: int


class Trainer(Protocol):
    """What a label's node trains with: a base model, and the recordings of its vault that are not withdrawn.

    `Learner` is the one that nodes load for themselves. Whoever opens many nodes on the same vault in one process may
    load one and hand it to each.
    """

    @property
    def like(self) -> dict[str, Tensor]:
        """An adapter state of the base model, which gives names and shapes."""
        ...

    @property
    def recordings(self) -> tuple[str, ...]:
        """Identifiers of what is trained on."""
        ...

    def keep(self, recordings: Sequence[str]) -> None:
        """Train with these recordings alone from now on; InputError if there are none of them left."""
        ...

    def learn(self, plan: RoundPlan, state: dict[str, Tensor]) -> Learned:
        """The answer to a plan, from the adapter it starts from."""
        ...

    def close(self) -> None:
        """Let go of whatever is held beyond this process's memory."""
        ...


class Learner:
    """The model, and the recordings of one vault that are not withdrawn."""

    def __init__(
        self,
        base: Path,
        vault: Path,
        key: Path | None,
        *,
        seed: str | None,
        gpu_share: float = 1.0,
        devices: Sequence[str] | None = None,
        style: int | None = None,
    ) -> None:
        """Load the base model and the vault's recordings.

        Args:
            base: folder of the base model.
            vault: folder of the vault.
            key: its key file; inside the vault where None.
            seed: of windows and rounding in plain training; drawn from the system where None.
            gpu_share: of each accelerator's memory, at most; 0 keeps off them.
            devices: what to train on; see `devices_of`.
            style: the label's style number, in the header of its windows; none where None. See `Examples`.

        Raises:
            InputError: the vault is empty.
            ConfigError: a device cannot be used.
            VaultError, AlteredFile: the vault or the model cannot be opened.
        """
        found = devices_of(devices, gpu_share)
        self._device = found[0]
        take_share(self._device, gpu_share)
        self._model = attach(load_model(base))
        # Workers have replicas of their own: what this process took of a device would come on top of their share.
        self._spread = Spread(self._model, found, gpu_share=gpu_share) if len(found) > 1 else None
        if self._spread is None:
            self._model.to(self._device)
        self._tokenizer = load_tokenizer(base)
        self._vault, self._key, self._seed, self._style = vault, key, seed, style
        self.like: dict[str, Tensor] = adapter_state(self._model)
        self.recordings: tuple[str, ...] = ()
        self._examples = self._cut(set())

    def keep(self, recordings: Sequence[str]) -> None:
        """Train with these recordings alone from now on.

        Raises:
            InputError: there are none of them left.
        """
        if set(recordings) != set(self.recordings):
            self._examples = self._cut(set(self.recordings) - set(recordings))

    def close(self) -> None:
        """End the processes on other devices, if there are any; they start anew when they are needed."""
        if self._spread is not None:
            self._spread.close()

    def learn(self, plan: RoundPlan, state: dict[str, Tensor]) -> Learned:
        """The answer to a plan, from the adapter it starts from; it is never the same twice.

        Raises:
            ValueOutOfRange: training led to something that is no number.
            TrainingCrashed: a process on one of several devices ended. Nothing has left, so asking again is safe.
        """
        training, grid = plan.training, plan.grid
        if isinstance(training, DistributedDp):
            assert isinstance(grid, NoisyGrid), "the plan's noise says how its integers are read"
            return self._distributed(plan, training, grid, state)
        assert isinstance(grid, Grid), "as above"
        if isinstance(training, LocalDp):
            steps = dp_sgd(
                self._model,
                state,
                self._examples,
                training,
                self._tokenizer.pad,
                _system(),
                plan.local_grid,
                scope=plan.scope,
                spread=self._spread,
            )
            observed = steps.observed
            return Learned(grid.quantise(steps.vector), observed.loss, observed.norm, observed.recordings)
        assert isinstance(training, PlainTraining), "there is no other kind"
        with self._on_one_device() as model:
            update = local_update(
                model, state, self._examples, training, self._tokenizer.pad, self._random(plan), scope=plan.scope
            )
        vector = grid.quantise(update.vector, self._words(plan))
        return Learned(vector, update.loss, update.norm, len(self.recordings))

    def _distributed(
        self, plan: RoundPlan, training: DistributedDp, grid: NoisyGrid, state: dict[str, Tensor]
    ) -> Learned:
        observed, pad = Observed(training.clip), self._tokenizer.pad
        total = drawn_sum(
            self._model,
            state,
            self._examples,
            training,
            pad,
            _system(),
            grid,
            observed,
            scope=plan.scope,
            spread=self._spread,
        )
        return Learned(grid.contribution(total), observed.loss, observed.norm, observed.recordings)

    @contextlib.contextmanager
    def _on_one_device(self) -> Iterator[PartbookModel]:
        """The model on the first device, which workers, if there are any, leave to this process meanwhile."""
        self.close()
        try:
            yield self._model.to(self._device)
        finally:
            if self._spread is not None:
                self._model.to("cpu")
                torch.cuda.empty_cache()

    def _cut(self, withdrawn: set[str]) -> Examples:
        with Vault.open(self._vault, self._key) as vault:
            self.recordings = tuple(identifier for identifier in vault.ids() if identifier not in withdrawn)
            recordings = [vault.get(identifier) for identifier in self.recordings]
        if not recordings:
            raise InputError(
                f"The vault {self._vault} holds no recording to train on; run `partbook node ingest` first."
            )
        length = min(WINDOW, self._model.config.context)
        return Examples(recordings, self._tokenizer, length, style=self._style)

    def _random(self, plan: RoundPlan) -> np.random.Generator:
        if self._seed is None:
            return _system()
        return np.random.Generator(np.random.Philox(int.from_bytes(self._seeded(plan, "order")[:8], "little")))

    def _words(self, plan: RoundPlan) -> Callable[[int], bytes]:
        return os.urandom if self._seed is None else lambda size: self._seeded(plan, "rounding")[:size]

    def _seeded(self, plan: RoundPlan, purpose: str) -> bytes:
        return hashlib.sha256(f"{self._seed}/{plan.round}/{purpose}".encode()).digest()


def _system() -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=int.from_bytes(os.urandom(16), "little")))
