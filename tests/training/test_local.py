from pathlib import Path

import numpy as np
import pytest

from partbook.model.adapter import adapter_state, attach, flatten, selection, unflatten
from partbook.model.checkpoint import load_model
from partbook.model.likelihood import evaluate
from partbook.music.recording import Recording
from partbook.music.tokens import Tokenizer
from partbook.plan.training import PlainTraining
from partbook.training.examples import Examples
from partbook.training.local import local_update


def update(base: Path, tokenizer: Tokenizer, recordings: list[Recording], training: PlainTraining, seed: int = 0):
    model = attach(load_model(base))
    state = adapter_state(model)
    examples = Examples(recordings, tokenizer, model.config.context)
    random = np.random.default_rng(seed)
    return local_update(model, state, examples, training, tokenizer.pad, random), state, model


def test_an_update_added_to_the_adapter_makes_the_recordings_likelier(
    tiny_base: Path, tiny_tokenizer: Tokenizer, recordings: list[Recording]
) -> None:
    training = PlainTraining(steps=30, batch=4, learning_rate=1e-2, clip=100.0)
    result, state, model = update(tiny_base, tiny_tokenizer, recordings, training)
    before = evaluate(load_model(tiny_base), tiny_tokenizer, recordings).per_token
    moved = unflatten(flatten(state) + result.vector, state)
    from partbook.model.adapter import apply_adapter

    after = evaluate(apply_adapter(model, moved), tiny_tokenizer, recordings).per_token
    assert after < before - 0.1


def test_the_same_seed_gives_the_same_update(
    tiny_base: Path, tiny_tokenizer: Tokenizer, recordings: list[Recording]
) -> None:
    training = PlainTraining(steps=2, batch=2)
    first, _, _ = update(tiny_base, tiny_tokenizer, recordings, training, seed=1)
    second, _, _ = update(tiny_base, tiny_tokenizer, recordings, training, seed=1)
    other, _, _ = update(tiny_base, tiny_tokenizer, recordings, training, seed=2)
    assert np.array_equal(first.vector, second.vector)
    assert not np.array_equal(first.vector, other.vector)


def test_an_update_is_clipped_to_the_plans_bound(
    tiny_base: Path, tiny_tokenizer: Tokenizer, recordings: list[Recording]
) -> None:
    training = PlainTraining(steps=3, batch=2, learning_rate=0.1, clip=0.01)
    result, _, _ = update(tiny_base, tiny_tokenizer, recordings, training)
    assert result.norm > 0.01
    assert 0.0099 < np.linalg.norm(result.vector.astype(np.float64)) <= 0.01


def test_with_norms_alone_only_norms_move(
    tiny_base: Path, tiny_tokenizer: Tokenizer, recordings: list[Recording]
) -> None:
    model = attach(load_model(tiny_base))
    state = adapter_state(model)
    examples = Examples(recordings, tiny_tokenizer, 32)
    training, random = PlainTraining(steps=2, batch=2), np.random.default_rng(0)
    result = local_update(model, state, examples, training, tiny_tokenizer.pad, random, scope="norms")
    moved = flatten(adapter_state(model)) - flatten(state)
    assert np.array_equal(np.flatnonzero(moved), selection(state, "norms")[result.vector != 0])
    assert np.count_nonzero(result.vector) > 0.9 * len(result.vector)


def test_a_batch_takes_each_recording_at_most_once_while_they_last(
    tiny_tokenizer: Tokenizer, recordings: list[Recording]
) -> None:
    examples = Examples(recordings, tiny_tokenizer, 32)
    windows = examples.batch(len(recordings), np.random.default_rng(0))
    owners = set()
    for row in windows.ids:
        first = int(tiny_tokenizer.bar_starts(row)[0])  # behind the header
        body = [int(i) for i in row[first:] if i not in (tiny_tokenizer.pad, tiny_tokenizer.eos)]
        owners |= {n for n, r in enumerate(recordings) if " ".join(map(str, body)) in " ".join(map(str, r.ids))}
    assert owners == set(range(len(recordings)))
    assert len(examples.batch(10, np.random.default_rng(0))) == 10


def test_nothing_to_train_on_is_said(tiny_tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="ingest"):
        Examples([], tiny_tokenizer, 32)
