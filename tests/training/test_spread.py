"""One device, two or three: the same integers, and a worker's end is a named error and nothing else."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from trio import MEMBERS, Trio
from tunes import recording_of, tune

from partbook.errors import RoundError, TrainingCrashed, ValueOutOfRange
from partbook.model.adapter import adapter_state, attach, flatten
from partbook.model.checkpoint import load_model
from partbook.model.transformer import PartbookModel
from partbook.music.tokens import Tokenizer
from partbook.node.label import LabelNode
from partbook.node.learning import Learner
from partbook.node.policy import Policy
from partbook.plan.training import DistributedDp, LocalDp
from partbook.privacy.mechanism import NoisyGrid
from partbook.training.examples import Examples
from partbook.training.per_recording import Observed, dp_sgd, drawn_sum, recording_updates
from partbook.training.replica import Task, micro_batches
from partbook.training.spread import Spread

pytestmark = pytest.mark.timeout(300)  # processes that import torch

CPU = torch.device("cpu")
PLAN = DistributedDp(noise_multiplier=1.0, sampling=0.7, batch=8.0, clip=0.1, windows=6, steps=2, learning_rate=0.1)
ALONE = LocalDp(noise_multiplier=1.0, sampling=0.7, batch=8.0, clip=0.1, bound=2.0, steps=2, learning_rate=0.3)


def stream(seed: str) -> Callable[[int], bytes]:
    """Words that come again with the seed; what they are asked for decides nothing but their number."""
    counter = iter(range(10**9))
    return lambda size: hashlib.shake_256(f"{seed}/{next(counter)}".encode()).digest(size)


@dataclass(frozen=True)
class Label:
    """A tiny model away from its start, and sixteen recordings: a handful of micro-batches."""

    model: PartbookModel
    state: dict[str, Tensor]
    examples: Examples
    pad: int

    def grid(self, training: DistributedDp | LocalDp, honest: int = 2) -> NoisyGrid:
        return NoisyGrid(16, training.clip, len(flatten(self.state)), training.noise_multiplier, honest)

    def sum(self, spread: Spread | None, seed: str = "draw") -> tuple[np.ndarray, Observed]:
        observed = Observed(PLAN.clip)
        given = self.model, self.state, self.examples, PLAN, self.pad, np.random.default_rng(4)
        total = drawn_sum(*given, self.grid(PLAN), observed, words=stream(seed), spread=spread)
        return total, observed

    def descend(self, spread: Spread | None) -> np.ndarray:
        given = self.model, self.state, self.examples, ALONE, self.pad, np.random.default_rng(4)
        return dp_sgd(*given, self.grid(ALONE, 1), words=stream("descend"), spread=spread).vector


@pytest.fixture(scope="module")
def label(tiny_base: Path, tiny_tokenizer: Tokenizer) -> Label:
    model = attach(load_model(tiny_base))
    random = torch.Generator().manual_seed(3)
    state = {n: t + 0.1 * torch.randn(t.shape, generator=random) for n, t in adapter_state(model).items()}
    recordings = [recording_of(tune(k % 5), tiny_tokenizer, k) for k in range(24)]
    return Label(model, state, Examples(recordings, tiny_tokenizer, 64), tiny_tokenizer.pad)


@pytest.fixture(scope="module")
def pair(label: Label) -> Iterator[Spread]:
    with Spread(label.model, [CPU, CPU]) as spread:
        yield spread


def ended(process: int) -> bool:
    """Whether a process is over; a zombie is, though its parent has not looked yet."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def until(done: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)


def test_one_device_two_and_three_lead_to_the_same_integers(label: Label, pair: Spread) -> None:
    batches = micro_batches(label.examples, np.arange(24), PLAN.windows, np.random.default_rng(4), 2048)
    assert len(list(batches)) >= 3, "there must be something to divide"
    total, observed = label.sum(None)
    assert total.any()
    again, seen = label.sum(pair)
    assert np.array_equal(again, total)
    assert (seen.norms, seen.losses) == (observed.norms, observed.losses)
    three = Spread(label.model, [CPU] * 3)
    assert np.array_equal(label.sum(three)[0], total)
    workers = three.processes
    assert not any(map(ended, workers))
    del three
    gc.collect()
    assert all(map(ended, workers)), "workers end with what started them, closed or not"
    assert not np.array_equal(label.sum(pair, seed="another draw")[0], total)


def test_the_sum_is_that_of_the_plain_loop(label: Label, pair: Spread) -> None:
    """Every recording's update by itself, rounded with the key that is its own."""
    drawn, grid = np.arange(1, 24, 2), label.grid(PLAN)
    keys = {int(recording): os.urandom(32) for recording in drawn}
    given = label.examples, drawn, PLAN.windows, np.random.default_rng(7), 2048
    keyed = [(batch, [keys[int(one)] for one in batch.recordings]) for batch in micro_batches(*given)]
    summed = pair.sum(Task(label.state, PLAN, label.pad), grid, keyed)
    expected = np.zeros(grid.dimension, np.int64)
    random = np.random.default_rng(7)
    for one in recording_updates(label.model, label.state, label.examples, drawn, PLAN, label.pad, random, budget=2048):
        expected += grid.rounded(one.vector, lambda size, key=keys[one.recording]: key[:size])
        assert summed.seen[one.recording] == (one.norm, one.loss)
    assert np.array_equal(summed.total, expected)
    assert set(summed.seen) == set(drawn.tolist())


def test_local_noise_takes_every_step_from_what_the_last_one_led_to(label: Label, pair: Spread) -> None:
    assert np.array_equal(label.descend(pair), label.descend(None))


def test_workers_are_kept_between_rounds(label: Label, pair: Spread) -> None:
    label.sum(pair)
    before = pair.processes
    label.sum(pair)
    assert pair.processes == before
    assert len(before) == 2


def test_nobody_drawn_is_a_sum_of_zeros(label: Label, pair: Spread) -> None:
    summed = pair.sum(Task(label.state, PLAN, label.pad), label.grid(PLAN), [])
    assert not summed.total.any()
    assert summed.seen == {}


def test_a_killed_worker_is_a_named_error_and_the_next_sum_is_right(label: Label, pair: Spread) -> None:
    total = label.sum(pair)[0]
    left = pair.processes
    given = label.examples, np.arange(24), PLAN.windows, np.random.default_rng(4), 600

    def midway():
        for number, batch in enumerate(micro_batches(*given)):
            if number == 3:
                os.kill(left[1], signal.SIGKILL)
            yield batch, [bytes(32)] * len(batch.recordings)

    with pytest.raises(TrainingCrashed, match=r"cpu ended before it was done \(signal 9\)"):
        pair.sum(Task(label.state, PLAN, label.pad), label.grid(PLAN), midway())
    assert all(map(ended, left))
    assert np.array_equal(label.sum(pair)[0], total)


def test_an_error_in_a_worker_is_the_callers(label: Label, pair: Spread) -> None:
    longer = DistributedDp(**{**PLAN.model_dump(), "clip": 10 * PLAN.clip})  # beyond what the grid is for
    given = label.examples, np.arange(24), PLAN.windows, np.random.default_rng(4), 2048
    keyed = [(batch, [bytes(32)] * len(batch.recordings)) for batch in micro_batches(*given)]
    with pytest.raises(ValueOutOfRange):
        pair.sum(Task(label.state, longer, label.pad), label.grid(PLAN), keyed)
    assert pair.processes == ()


@pytest.mark.parametrize(("how", "workers"), [(signal.SIGKILL, 2), (signal.SIGTERM, 1)], ids=["kill -9", "SIGTERM"])
def test_workers_do_not_outlive_a_parent_that_was_killed(
    tiny_base: Path, tmp_path: Path, how: signal.Signals, workers: int
) -> None:
    told = tmp_path / "workers"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).with_name("spread_life.py")), str(tiny_base), str(told), str(workers)]
    parent = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, start_new_session=True)
    try:
        until(told.exists)
        processes = [int(text) for text in told.read_text().split()]
        assert len(processes) == workers
        os.kill(parent.pid, how)
        parent.wait(60)
        until(lambda: all(map(ended, processes)))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(parent.pid, signal.SIGKILL)
        parent.wait()


def test_a_node_that_lost_a_worker_trains_again_and_pays_once(trio: Trio, tmp_path: Path) -> None:
    config = trio.parties.node(trio.config(MEMBERS[0], tmp_path), Policy(modes=("masked",), epsilon_recording=100.0))
    node = LabelNode(config)
    node._trainer = learner = Learner(config.base, config.vault, config.key, seed=None, devices=["cpu", "cpu"])
    plan = trio.plan(training=DistributedDp(noise_multiplier=1.5, sampling=1.0, batch=3.0, clip=0.5))
    given = trio.signed(plan), trio.start.tobytes()
    assert learner._spread is not None
    started = learner._spread._start

    def crippled() -> None:
        started()
        os.kill(learner._spread.processes[0], signal.SIGKILL)

    learner._spread._start = crippled
    with pytest.raises(RoundError, match="cpu ended"):
        node.train(*given)
    assert [debit.state for debit in node._ledger.debits()] == ["reserved"]
    learner._spread._start = started
    node.train(*given)
    (debit,) = node._ledger.debits()
    assert (debit.state, debit.question) == ("reserved", plan.question())
    learner.close()
    assert learner._spread.processes == ()
    node.close()
