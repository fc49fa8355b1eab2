"""What only whoever plays every part on one machine can know: the loss after sealed rounds, and the loss without noise.

In sealed rounds the coordinator does not know the model until the labels release it; here one can look into a label's
copy instead. And what the noise cost is the difference to a model that nobody in a federation could train: the one of
the same rounds with every label's recordings in one place. It is scored and forgotten. Reports say so of both.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from partbook.coordinator.checkpoints import RoundRecord
from partbook.coordinator.validation import ValidationSet
from partbook.model.adapter import adapter_state, apply_adapter, attach, flatten, selection, unflatten
from partbook.model.checkpoint import load_model, load_tokenizer
from partbook.model.likelihood import evaluate
from partbook.model.scope import Scope
from partbook.model.transformer import PartbookModel, pick_device
from partbook.node.label import NodeConfig
from partbook.node.shared_model import SharedModel
from partbook.plan.rounds import ServerStep
from partbook.plan.step import Motion, step
from partbook.plan.training import DistributedDp, LocalDp
from partbook.privacy.sampling import poisson_sample
from partbook.training.clipping import clip
from partbook.training.examples import Examples
from partbook.training.replica import TOKENS, MicroBatch, RecordingUpdate, Replica, Task, micro_batches
from partbook.vault.store import Vault

_AT_ONCE: Final = 4  # threads at most: a micro-batch takes a quarter of a gigabyte
_POINTS: Final = 12  # of a curve, about; scoring a model takes as long as a label's training does


@dataclass(frozen=True, slots=True)
class Losses:
    """Held-out nats per token of one label's kind of music, or of the control: of the base model, of the release, and
    of what the same rounds would have led to without noise; None where they had none.
    """

    base: float
    after: float
    without_noise: float | None


class RoundScores:
    """Scores by round; the coordinator's own where it has them."""

    def __init__(self, validation: ValidationSet, base: Path, nodes: Mapping[str, NodeConfig], last: int) -> None:
        """Score on `validation` the copies that `nodes` keep; the round `last` is left to the coordinator."""
        self._validation, self._base, self._nodes, self._last = validation, base, nodes, last
        self._every = max(1, round(last / _POINTS))
        self._scores: dict[int, dict[str, float]] = {}

    def after(self, record: RoundRecord) -> dict[str, float]:
        """Nats per token by label after a round that has just been done; empty where it is not scored, or not yet."""
        if record.validation or record.round == self._last or record.round % self._every:
            self._scores[record.round] = record.validation
        else:
            self._scores[record.round] = self._of_a_copy(record.adapter_hash)
        return self._scores[record.round]

    def filled(self, history: Sequence[RoundRecord]) -> tuple[RoundRecord, ...]:
        """The records with all scores in them."""
        return tuple(replace(r, validation=r.validation or self._scores.get(r.round, {})) for r in history)

    def _of_a_copy(self, model_hash: str) -> dict[str, float]:
        model = attach(load_model(self._base)).to(pick_device())
        like = adapter_state(model)
        copies = (SharedModel.load(node.model, like) for node in self._nodes.values())
        shared = next(copy for copy in copies if copy.hash == model_hash)
        return _scored(model, shared.state, self._validation, self._base)


def without_noise(
    validation: ValidationSet,
    base: Path,
    vaults: Sequence[Path],
    training: DistributedDp | LocalDp,
    scope: Scope,
    rule: ServerStep,
    rounds: int,
    *,
    seed: int,
    on_round: Callable[[int], None] = lambda _: None,
) -> dict[str, float]:
    """Nats per token by label after the same rounds without noise: a comparison that only a demo can make.

    Each recording's update is clipped, and the server's step taken, as in the rounds themselves; there are no masks,
    no seal, no grid and no noise. It reads all labels' vaults, which in a federation nobody may; the model that it
    leads to is not kept.

    Args:
        validation: public recordings, on which to score.
        base: folder of the base model.
        vaults: every label's.
        training: what the labels did; its noise multiplier is not looked at.
        scope, rule, rounds: what was trained, and how.
        seed: of windows.
        on_round: told each finished round.
    """
    model = attach(load_model(base)).to(pick_device())
    tokenizer = load_tokenizer(base)
    like = adapter_state(model)
    places, adapter = selection(like, scope), flatten(like)
    motion, random = Motion.none(len(adapter)), np.random.default_rng(seed)
    heard = []
    for path in vaults:
        with Vault.open(path) as vault:
            heard.append([vault.get(identifier) for identifier in vault.ids()])
    # With distributed noise the labels' sums are one sum, over one batch; with local noise each divides by its own.
    pools = heard if isinstance(training, LocalDp) else [[one for own in heard for one in own]]
    examples = [Examples(pool, tokenizer, model.config.context) for pool in pools]
    with _Replicas(base) as replicas:
        for number in range(1, rounds + 1):
            found = [
                _noiseless(replicas, adapter, like, places, pool, training, tokenizer.pad, random, scope)
                for pool in examples
            ]
            adapter, motion = step(adapter, np.mean(found, axis=0), motion, rule, places)
            on_round(number)
    return _scored(model, unflatten(adapter, like), validation, base)


class _Replicas:
    """Copies of the base model, one for each of a few cores, which share micro-batches out.

    A micro-batch is what it would be for a single copy, and so is what comes of it: sums are made by whoever asked.
    """

    def __init__(self, base: Path) -> None:
        device = pick_device()
        count = _cores() if device.type == "cpu" else 1
        self._free: SimpleQueue[Replica] = SimpleQueue()
        for _ in range(count):
            self._free.put(Replica(attach(load_model(base)).to(device)))
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="replica")
        self.budget: Final = TOKENS[device.type]

    def updates(self, task: Task, batches: Iterable[MicroBatch]) -> Iterator[RecordingUpdate]:
        """The clipped update of each recording, in the order of the micro-batches, as `Replica.updates` has it."""
        for found in self._threads.map(partial(self._of_one, task), batches):
            yield from found

    def _of_one(self, task: Task, batch: MicroBatch) -> list[RecordingUpdate]:
        replica = self._free.get()
        try:
            return list(replica.updates(task, [batch]))
        finally:
            self._free.put(replica)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(cancel_futures=True)


def _noiseless(
    replicas: _Replicas,
    adapter: NDArray[np.float32],
    like: Mapping[str, Tensor],
    places: NDArray[np.int64],
    examples: Examples,
    training: DistributedDp | LocalDp,
    pad: int,
    random: np.random.Generator,
    scope: Scope,
) -> NDArray[np.float64]:
    steps, rate = (training.steps, training.learning_rate) if isinstance(training, LocalDp) else (1, 1.0)
    moved = np.zeros(len(places), np.float64)
    for _ in range(steps):
        now = adapter.copy()
        now[places] += moved.astype(np.float32)
        drawn = poisson_sample(len(examples), training.sampling)
        total = np.zeros(len(places), np.float64)
        batches = micro_batches(examples, drawn, training.windows, random, replicas.budget)
        for one in replicas.updates(Task(unflatten(now, like), training, pad, scope), batches):
            total += one.vector  # in the same order however many replicas there are: these are sums of floats
        moved += rate * total / training.batch
    if isinstance(training, LocalDp):
        moved = clip(moved.astype(np.float32), training.bound)[0].astype(np.float64)
    return moved


def _cores() -> int:
    return min(os.cpu_count() or 1, _AT_ONCE)


def _scored(
    model: PartbookModel, state: Mapping[str, Tensor], validation: ValidationSet, base: Path
) -> dict[str, float]:
    apply_adapter(model, state)
    tokenizer = load_tokenizer(base)
    # Scoring changes nothing in the model, so labels' recordings can be scored side by side.
    with ThreadPoolExecutor(_cores(), thread_name_prefix="score") as threads:
        scores = threads.map(lambda recordings: evaluate(model, tokenizer, recordings), validation.by_label.values())
        return {label: score.per_token for label, score in zip(validation.by_label, scores, strict=True)}
