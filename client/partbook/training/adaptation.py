"""One label alone: an adapter fine-tuned on its own recordings, without noise, for nobody else.

The best epoch is told by recordings that are held out and never trained on. Once they have not become likelier for some
epochs, it ends ("early stopping").

What is trained, and its rank, is what a federation trains without limits: every adapted matrix and the decoder's norms
(`partbook.model.adapter`). Adam (Kingma & Ba 2015, arXiv 1412.6980) with a linear warm-up over the first epoch, at a
rate that stays: how many epochs there will be is not known before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from partbook.errors import ConfigError, InputError
from partbook.model.adapter import adapter_state, apply_adapter, trained_parameters
from partbook.model.likelihood import evaluate, to_tensors, token_losses
from partbook.model.transformer import PartbookModel
from partbook.music.recording import Recording
from partbook.music.tokens import Tokenizer
from partbook.training.examples import Examples

FEWEST: Final = 5
"""Recordings below which nothing can be held out that says anything."""

_CLIP: Final = 1.0  # L2 norm at which a batch's gradient is clipped, as in pretraining


@dataclass(frozen=True, slots=True)
class Fitting:
    """How long and how fast an adapter is fitted to one label.

    Attributes:
        epochs: at most.
        patience: epochs without a better one, after which it ends.
        share: of the recordings that is held out, above 0 and below 1; one recording at least.
        rate: Adam's learning rate, at most 1. On twelve excerpts of pop songs, over twenty epochs, 3e-3 came as far as
            1e-2, after which the held-out ones soon turned unlikelier again; 1e-3 took two to three times the epochs.
        batch: windows in a step.
        seed: of what is held out, and of the order of windows.
    """

    epochs: int = 80
    patience: int = 10
    share: float = 0.2
    rate: float = 3e-3
    batch: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "patience", "batch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if not 0 < self.share < 1:
            raise ConfigError(f"share is {self.share:g}; it must lie above 0 and below 1, such as 0.2.")
        if not 0 < self.rate <= 1:
            raise ConfigError(f"rate is {self.rate:g}; it must be above 0 and at most 1, such as 0.003.")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}; it must be 0 or above.")


@dataclass(frozen=True, slots=True)
class Epoch:
    """Where an epoch led to.

    Attributes:
        number: from 1; 0 is where training begins.
        loss: mean training loss on the way, nats a token; NaN before the first.
        held_out: of the recordings held out, nats a token.
        adapter: the state after it.
    """

    number: int
    loss: float
    held_out: float
    adapter: Mapping[str, Tensor] = field(repr=False)


def hold_out(recordings: int, share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which recordings are trained on and which are held out: numbers in ascending order, two arrays.

    At least one is held out and at least one trained on. Nothing is drawn but by the seed.

    Raises:
        InputError: there are fewer than `FEWEST`.
    """
    if recordings < FEWEST:
        raise InputError(
            f"There are {recordings} recordings with notes, and {FEWEST} are the fewest of which some can be held out; "
            "ingest more with `partbook node ingest`."
        )
    held = min(max(1, round(share * recordings)), recordings - 1)
    order = np.random.Generator(np.random.Philox(key=[seed, 0])).permutation(recordings)
    return np.sort(order[held:]), np.sort(order[:held])


class Adaptation:
    """A fine-tuning that is gone through epoch by epoch, and knows its best one whenever it is left.

    Attributes:
        start: epoch 0, which nothing was trained for.
        best: the epoch whose held-out recordings are likeliest so far.
        ran: epochs that came to an end.
        ended: why it is over: "patience", "epochs", or "diverged"; empty while it is not.
        steps: optimiser steps of an epoch.
    """

    def __init__(
        self,
        model: PartbookModel,
        adapter: Mapping[str, Tensor],
        trained: Examples,
        held: Sequence[Recording],
        tokenizer: Tokenizer,
        fitting: Fitting,
    ) -> None:
        """Measure where it begins.

        Args:
            model: base model with adapters attached; its adapter is overwritten.
            adapter: the state to begin from.
            trained: windows of the recordings to train on.
            held: recordings that are held out.
            tokenizer: the model's.
            fitting: see there.

        Raises:
            ConfigError: the adapter does not fit the model.
        """
        apply_adapter(model, adapter)
        self._model, self._trained, self._held, self._tokenizer = model, trained, held, tokenizer
        self._fitting = fitting
        self.start = self.best = self._measured(0, float("nan"))
        self.ran, self.ended = 0, ""
        self.steps = -(-trained.pass_size // fitting.batch)

    def epochs(self, on_step: Callable[[], None] = lambda: None) -> Iterator[Epoch]:
        """Train, and yield each epoch when it was measured; `best` is up to date by then.

        Args:
            on_step: told of each optimiser step.
        """
        fitting, parameters = self._fitting, list(trained_parameters(self._model).values())
        random = np.random.Generator(np.random.Philox(key=[fitting.seed, 1]))
        optimiser = torch.optim.Adam(parameters, lr=fitting.rate)
        taken = 0
        while self.ran < fitting.epochs:
            self._model.train()
            nats, tokens = 0.0, 0
            for windows in self._trained.once(fitting.batch, random):
                taken += 1
                for group in optimiser.param_groups:
                    group["lr"] = fitting.rate * min(1.0, taken / self.steps)
                loss, count = self._step(windows, parameters, optimiser)
                nats, tokens = nats + loss, tokens + count
                on_step()
            epoch = self._measured(self.ran + 1, nats / tokens)
            self.ran += 1
            if not (isfinite(epoch.loss) and isfinite(epoch.held_out)):
                self.ended = "diverged"
                return
            if epoch.held_out < self.best.held_out:
                self.best = epoch
            elif self.ran - self.best.number >= fitting.patience:
                self.ended = "patience"
            if self.ran == fitting.epochs:
                self.ended = self.ended or "epochs"
            yield epoch
            if self.ended:
                return

    def _step(
        self, windows: NDArray[np.int64], parameters: list[nn.Parameter], optimiser: torch.optim.Optimizer
    ) -> tuple[float, int]:
        """One step down the mean loss of some windows: the sum of its nats, and over how many tokens."""
        pad = self._tokenizer.pad
        ids, mel, has_memory = to_tensors(self._trained.take(windows), self._model.embedding.weight.device)
        count = int((ids[:, 1:] != pad).sum())
        loss = token_losses(self._model, ids, mel, has_memory, pad).sum()
        (loss / count).backward(inputs=parameters)  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, _CLIP)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return float(loss.detach()), count

    def _measured(self, number: int, loss: float) -> Epoch:
        held_out = evaluate(self._model, self._tokenizer, self._held, batch=self._fitting.batch).per_token
        return Epoch(number, loss, held_out, adapter_state(self._model))
