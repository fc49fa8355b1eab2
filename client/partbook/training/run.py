"""A long training of the base that may be ended at any second and goes on as if it had not been.

    with Run.open(folder, model, recipe) as run:
        ending = run.go(batch, pad, on_step=…)
    print(ending.message)

What a step does is a function of the state that is kept (weights, their average, both optimisers, how far it is), of
its number, and of the recipe: batches are asked for by number, and torch's generator is seeded before each step from
the recipe's seed and that number. So nothing a watcher does between steps moves the run, and a run that was killed
and resumed leads to the same bits as one that was not, on one machine with one number of threads. (CUDA adds up
gradients in an order of its own: there a resumed run is as good, not the same.)

The gradient of a step is that of the mean over all its tokens, however they are spread over micro-batches. Products may
be bfloat16 (`partbook.model.precision`); weights, gradients and averages are float32 everywhere.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from partbook.errors import ConfigError, TrainingDiverged
from partbook.model.config import ModelConfig
from partbook.model.precision import products
from partbook.model.transformer import PartbookModel
from partbook.music.windows import Windows
from partbook.node.holding import only_one
from partbook.training import saved_state
from partbook.training.muon import Optimiser
from partbook.training.prefetch import Prefetch, Prepared
from partbook.training.recipe import Recipe

SAVE_EVERY: Final = 60.0  # seconds
_FORMAT: Final = "partbook/v1/training-run"
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)

Auxiliary = Callable[[Windows, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Step:
    """One step that is done.

    Attributes:
        number: from 1.
        tokens: seen so far, those of this step included.
        loss: nats per token.
        auxiliary: the further loss, a window's mean; None where there is none.
        rate: Muon's; AdamW's is the same share of its own peak.
        norm: L2 norm of the gradient before it was clipped.
        seconds: that it took, waiting for its batch included.
        tokens_per_second: of this step.
    """

    number: int
    tokens: int
    loss: float
    auxiliary: float | None
    rate: float
    norm: float
    seconds: float
    tokens_per_second: float


@dataclass(frozen=True, slots=True)
class Ending:
    """How `Run.go` ended; the state is kept.

    Attributes:
        step, tokens: how far it is.
        signal: that asked it to stop; None where all tokens are seen.
    """

    step: int
    tokens: int
    signal: int | None

    @property
    def exit_code(self) -> int:
        """0, or what a shell would say of the signal."""
        return 0 if self.signal is None else 128 + self.signal

    @property
    def message(self) -> str:
        """For people."""
        far = f"step {self.step:,}, {self.tokens:,} tokens"
        if self.signal is None:
            return f"Done: {far}."
        return f"Stopped by {signal.Signals(self.signal).name} after {far}; the same command goes on from there."


class Run:
    """A model, its optimisers and its average, in a folder that one process holds at a time."""

    def __init__(
        self, folder: Path, model: PartbookModel, recipe: Recipe, *, precision: torch.dtype = torch.float32
    ) -> None:
        """Begin anew, without a look at the folder; `open` is what to call."""
        self.folder, self.model, self.recipe, self.precision = folder, model, recipe, precision
        self.step = 0
        self.tokens = 0
        self._optimiser = Optimiser(model, recipe.muon_rate, recipe.adamw_rate, recipe.weight_decay)
        self._names = [name for name, _ in model.named_parameters()]
        self._parameters: list[Tensor] = [parameter for _, parameter in model.named_parameters()]
        self._average = [parameter.detach().clone() for parameter in self._parameters]
        self._device = self._parameters[0].device
        self._held = contextlib.ExitStack()
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = recipe.dropout

    @classmethod
    def open(
        cls,
        folder: Path,
        model: PartbookModel,
        recipe: Recipe,
        *,
        prolong: bool = False,
        precision: torch.dtype = torch.float32,
    ) -> Run:
        """Start a run in a folder, or go on with the one that is there.

        Args:
            folder: made where missing; outside version control.
            model: on its device; its weights are where a new run starts, and are replaced where one goes on.
            recipe: the run's own, whose dropout the model gets.
            prolong: whether the run's number of tokens may be changed to the recipe's.
            precision: of the model's products. It is the machine's affair and no part of the recipe: a run may go on in
                another.

        Raises:
            ConfigError: the folder's run has another recipe or model, or cannot be read or written.
            AlteredFile: its state is torn or was altered.
            AlreadyRunning: another process trains in it.
        """
        run = cls(folder, model, recipe, precision=precision)
        with contextlib.ExitStack() as held:
            held.enter_context(only_one(folder))
            state = saved_state.load(folder)
            if state is not None:
                run._restore(state, prolong)
            run._held = held.pop_all()
        return run

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the folder go, and save nothing."""
        self._held.close()

    @property
    def done(self) -> bool:
        """Whether all tokens are seen."""
        return self.tokens >= self.recipe.tokens

    def go(
        self,
        batch: Callable[[int], Sequence[Windows]],
        pad: int,
        *,
        on_step: Callable[[Step], None] | None = None,
        auxiliary: Auxiliary | None = None,
        save_every: float = SAVE_EVERY,
    ) -> Ending:
        """Train to the recipe's last token, or until SIGINT or SIGTERM ends it after the step in hand.

        A second SIGINT ends it at once, and loses what is not saved.

        Args:
            batch: micro-batches of a step by its number, from 0, about `recipe.step_tokens` tokens in all. Called in a
                thread, ahead of time; the same number must give the same windows, and torch's global generator stays
                untouched.
            pad: id of padding, which carries no loss.
            on_step: told each step, before it is saved: after a kill, steps since the last save are told again. It may
                do with the model what it likes, weights excepted.
            auxiliary: a loss for each window, (b,), of a micro-batch and of what the encoder made of its sound, (b, s,
                d), weighted as it shall be; its mean over the step's windows is added. Its parameters are the model's.
            save_every: seconds.

        Raises:
            TrainingDiverged: a loss or gradient is not finite.
            ConfigError: the state cannot be written.
        """
        saved = time.monotonic()
        pinned = self._device.type == "cuda"
        with _stopping() as stopped, Prefetch(batch, self.step, pad, pinned=pinned) as prefetch:
            while not self.done and not stopped:
                step = self._one(prefetch, pad, auxiliary)
                if on_step is not None:
                    on_step(step)
                if time.monotonic() - saved >= save_every:
                    self.save()
                    saved = time.monotonic()
            self.save()
        self.model.eval()
        return Ending(self.step, self.tokens, None if self.done else stopped[0])

    def save(self) -> None:
        """Keep the state as it is, between two steps.

        Raises:
            ConfigError: it cannot be written.
        """
        state = {
            "format": _FORMAT,
            "recipe": self.recipe.as_state(),
            "model": _shape(self.model),
            "step": self.step,
            "tokens": self.tokens,
            "weights": self.model.state_dict(),
            "average": dict(zip(self._names, self._average, strict=True)),
            "optimisers": self._optimiser.state(),
        }
        saved_state.save(self.folder, state)

    def averaged_weights(self) -> dict[str, Tensor]:
        """The model's state with its parameters' moving averages: what is released."""
        return self.model.state_dict() | {n: a.clone() for n, a in zip(self._names, self._average, strict=True)}

    @contextlib.contextmanager
    def averaged(self) -> Iterator[PartbookModel]:
        """The model, with the moving averages for weights, in this block."""
        with torch.no_grad():
            own = [parameter.clone() for parameter in self._parameters]
            torch._foreach_copy_(self._parameters, self._average)
        try:
            yield self.model
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self._parameters, own)

    def _one(self, prefetch: Prefetch, pad: int, auxiliary: Auxiliary | None) -> Step:
        began = time.perf_counter()
        batch = prefetch.take()
        if batch.tokens == 0:
            raise ValueError(f"The batch of step {self.step} has no token to learn from.")
        torch.manual_seed(_seed(self.recipe.seed, self.step))
        self.model.train()
        loss, further = self._gradient(batch, pad, auxiliary)
        norm = nn.utils.clip_grad_norm_(self._parameters, self.recipe.clip)
        found = torch.stack([loss, further, norm.detach()]).tolist()
        if not torch.tensor(found).isfinite().all():
            self.model.zero_grad(set_to_none=True)
            raise TrainingDiverged(
                f"Step {self.step + 1} has a loss of {found[0]:.3g}, a further loss of {found[1]:.3g} and a gradient "
                f"of norm {found[2]:.3g}; nothing was learnt from it. Lower the rates, or look at its batch, number "
                f"{self.step}."
            )
        share = self.recipe.share(self.tokens)
        self._optimiser.step(share)
        weight = 1.0 - self.recipe.averaging(self.step)
        with torch.no_grad():
            torch._foreach_lerp_(self._average, self._parameters, weight)
        self.step += 1
        self.tokens += batch.tokens
        seconds = time.perf_counter() - began
        return Step(
            number=self.step,
            tokens=self.tokens,
            loss=found[0],
            auxiliary=None if auxiliary is None else found[1],
            rate=self.recipe.muon_rate * share,
            norm=found[2],
            seconds=seconds,
            tokens_per_second=batch.tokens / seconds,
        )

    def _gradient(self, batch: Prepared, pad: int, auxiliary: Auxiliary | None) -> tuple[Tensor, Tensor]:
        """Add up the gradient of a step; returns its loss, nats per token, and the further loss per window."""
        loss, further = torch.zeros(2, device=self._device)
        windows = sum(len(one) for one in batch.windows)
        for one, tensors in zip(batch.windows, batch.tensors, strict=True):
            ids, mel, has_memory = (tensor.to(self._device, non_blocking=True) for tensor in tensors)
            with products(self._device, self.precision):
                memory, audible = self.model.encode(mel, has_memory)
                logits = self.model.decode(ids[:, :-1], memory, audible)
                targets, logits = ids[:, 1:].flatten(), logits.flatten(0, 1).float()
                nats = F.cross_entropy(logits, targets, ignore_index=pad, reduction="sum") / batch.tokens
                total = nats
                if auxiliary is not None:
                    added = auxiliary(one, memory).sum() / windows
                    further += added.detach()
                    total = nats + added
            total.backward()  # type: ignore[no-untyped-call]
            loss += nats.detach()
        return loss, further

    def _restore(self, state: dict[str, Any], prolong: bool) -> None:
        if state.get("format") != _FORMAT:
            raise ConfigError(
                f"{self.folder} holds a training of format {state.get('format')!r}; choose another folder."
            )
        _same_model(self.folder, state["model"], _shape(self.model))
        changed = self.recipe.differences(state["recipe"])
        if prolong:
            changed.pop("tokens", None)
        if changed:
            said = "; ".join(f"{name} {old!r}, asked for {new!r}" for name, (old, new) in changed.items())
            remedy = "Ask for it to be prolonged" if set(changed) == {"tokens"} else "Ask for what it has"
            raise ConfigError(
                f"{self.folder} holds a run of another recipe: {said}. {remedy}, or choose another folder."
            )
        self.step, self.tokens = state["step"], state["tokens"]
        self.model.load_state_dict(state["weights"])
        for name, average in zip(self._names, self._average, strict=True):
            average.copy_(state["average"][name])
        self._optimiser.restore(state["optimisers"])


@dataclass(frozen=True, slots=True)
class Kept:
    """What a run's folder holds, for those who do not train.

    Attributes:
        model: with the averaged weights, in evaluation mode, on the CPU.
        recipe: as `Recipe.as_state` gives it.
        step, tokens: how far it is.
    """

    model: PartbookModel
    recipe: dict[str, Any]
    step: int
    tokens: int


def kept(folder: Path) -> Kept | None:
    """The last save of a run that may go on meanwhile; None where there is none.

    Raises:
        AlteredFile: it is torn or was altered.
        ConfigError: it cannot be read, or is of another format.
    """
    state = saved_state.load(folder)
    if state is None:
        return None
    if state.get("format") != _FORMAT:
        raise ConfigError(f"{folder} holds a training of format {state.get('format')!r}; choose another folder.")
    model = PartbookModel(ModelConfig(**state["model"]["config"]))
    model.load_state_dict(state["weights"] | state["average"])
    return Kept(model.eval(), state["recipe"], state["step"], state["tokens"])


def _shape(model: PartbookModel) -> dict[str, Any]:
    """What must be the same for weights to fit: the configuration, and every tensor's shape."""
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    return {"config": json.loads(model.config.to_json()), "shapes": shapes}


def _same_model(folder: Path, kept: dict[str, Any], asked: dict[str, Any]) -> None:
    for what in ("config", "shapes"):
        old, new = kept[what], asked[what]
        differing = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
        if differing:
            said = "; ".join(f"{name} {old.get(name)}, asked for {new.get(name)}" for name in differing[:4])
            raise ConfigError(f"{folder} holds a run of another model: {said}. Choose another folder.")


def _seed(seed: int, step: int) -> int:
    digest = hashlib.sha256(f"partbook/v1/training-step {seed} {step}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


@contextlib.contextmanager
def _stopping() -> Iterator[list[int]]:
    """A list that gets the number of the first SIGINT or SIGTERM; a second SIGINT ends the process at once.

    Outside the main thread, where nobody may handle signals, it stays empty.
    """
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def stop(number: int, _: object) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
