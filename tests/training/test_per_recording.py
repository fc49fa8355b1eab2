from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from partbook.model.adapter import adapter_state, apply_adapter, attach, flatten, in_scope, selection, unflatten
from partbook.model.checkpoint import load_model
from partbook.model.likelihood import to_tensors, token_losses
from partbook.model.transformer import PartbookModel
from partbook.music.recording import Recording
from partbook.music.tokens import Tokenizer
from partbook.plan.training import DistributedDp, LocalDp
from partbook.privacy.mechanism import NoisyGrid
from partbook.training.clipping import clip
from partbook.training.examples import Examples
from partbook.training.per_recording import Observed, RecordingUpdate, dp_sgd, recording_updates

UNCLIPPED = 1e6


@dataclass(frozen=True)
class Label:
    """A tiny model away from its start, and eight recordings of different lengths, each of several windows."""

    model: PartbookModel
    state: dict[str, Tensor]
    examples: Examples
    pad: int
    context: int

    def updates(self, drawn: list[int], seed: int = 0, **options: object) -> dict[int, RecordingUpdate]:
        """Of the drawn recordings; plan's fields and `recording_updates`' own options mixed."""
        own = {k: options.pop(k) for k in ("scope", "budget", "state", "model", "precision") if k in options}
        training = plan(**options)
        state, model = own.pop("state", self.state), own.pop("model", self.model)
        random = np.random.default_rng(seed)
        found = recording_updates(
            model, state, self.examples, np.array(drawn, dtype=np.int64), training, self.pad, random, **own
        )
        return {update.recording: update for update in found}

    def windows(self, drawn: list[int], count: int, seed: int = 0) -> np.ndarray:
        """Those that `updates` with the same seed trains on."""
        return self.examples.draw(np.array(drawn, dtype=np.int64), count, np.random.default_rng(seed))

    def one_by_one(self, rows: np.ndarray, steps: int = 1, rate: float = 0.0) -> dict[str, Tensor]:
        """Gradients summed over SGD steps on one recording, by the plain model with a single adapter."""
        model = apply_adapter(self.model, self.state)
        named = {n: p for n, p in model.named_parameters() if p.requires_grad}
        ids, mel, heard = to_tensors(self.examples.take(rows), torch.device("cpu"))
        total = {name: torch.zeros_like(p) for name, p in named.items()}
        for _ in range(steps):
            loss = token_losses(model, ids, mel, heard, self.pad).sum() / (ids[:, 1:] != self.pad).sum()
            gradients = torch.autograd.grad(loss, list(named.values()))
            for (name, parameter), gradient in zip(named.items(), gradients, strict=True):
                total[name] += gradient
                with torch.no_grad():
                    parameter -= rate * gradient
        return total


def plan(**fields: object) -> DistributedDp:
    return DistributedDp(**{"noise_multiplier": 1.0, "sampling": 0.5, "batch": 4.0, "clip": UNCLIPPED, **fields})


@pytest.fixture(scope="module")
def label(tiny_base: Path, tiny_tokenizer: Tokenizer, recordings: list[Recording]) -> Label:
    model = attach(load_model(tiny_base))
    random = torch.Generator().manual_seed(3)
    state = {n: t + 0.1 * torch.randn(t.shape, generator=random) for n, t in adapter_state(model).items()}
    cut = [(0, 300), (1, 300), (2, 300), (0, 20), (1, 45), (2, 63), (0, 62), (1, 9)]
    parts = [replace(recordings[r], ids=recordings[r].ids[:n]) for r, n in cut]
    return Label(model, state, Examples(parts, tiny_tokenizer, 64), tiny_tokenizer.pad, 64)


def close(vector: np.ndarray, expected: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> None:
    """Every named tensor within 1e-5 of its norm; without sound, attention to it has no gradient at all."""
    found = unflatten(vector, like)
    assert set(found) == set(expected)
    for name in expected:
        gap = (found[name] + expected[name]).norm()  # an update points downhill
        assert gap <= 1e-5 * expected[name].norm(), f"{name}: {float(gap / expected[name].norm()):.1e}"


@pytest.mark.parametrize("windows", [1, 3])
def test_each_update_is_the_gradient_of_its_recording_alone(label: Label, windows: int) -> None:
    drawn = list(range(8))
    found = label.updates(drawn, windows=windows)
    for recording, rows in zip(drawn, label.windows(drawn, windows), strict=True):
        close(found[recording].vector, label.one_by_one(rows), label.state)


def test_several_steps_are_those_of_sgd_on_each_recording_alone(label: Label) -> None:
    drawn = [1, 3, 4, 6]
    found = label.updates(drawn, windows=2, steps=3, learning_rate=0.3)
    for recording, rows in zip(drawn, label.windows(drawn, 2), strict=True):
        close(found[recording].vector, label.one_by_one(rows, steps=3, rate=0.3), label.state)
    assert not np.allclose(found[1].vector, 3 * label.updates(drawn, windows=2)[1].vector, rtol=1e-3)


def test_the_sum_of_clipped_updates_is_that_of_one_recording_at_a_time(label: Label) -> None:
    drawn = list(range(8))
    bound = float(np.median([u.norm for u in label.updates(drawn, windows=2).values()]))
    observed = Observed(bound)
    total, expected = np.zeros(len(flatten(label.state))), np.zeros(len(flatten(label.state)))
    for update in label.updates(drawn, windows=2, clip=bound).values():
        total += update.vector
        observed.note(update)
    for rows in label.windows(drawn, 2):
        gradient = flatten(label.one_by_one(rows)).astype(np.float64)
        expected -= gradient * min(1.0, bound / np.linalg.norm(gradient))
    assert observed.clipped == 0.5
    assert np.linalg.norm(total - expected) < 1e-5 * np.linalg.norm(expected)


@pytest.mark.parametrize("budget", [1, 70, 130, 400, 10**6])
def test_company_and_padding_change_nothing(label: Label, budget: int) -> None:
    """Whatever shares the micro-batch, and though the budget splits a recording's windows."""
    drawn = list(range(8))
    every = label.updates(drawn, windows=3, budget=budget, steps=2, learning_rate=0.2)
    whole = label.updates(drawn, windows=3, steps=2, learning_rate=0.2)
    for recording in drawn:
        gap = np.linalg.norm(every[recording].vector - whole[recording].vector)
        assert gap < 1e-5 * whole[recording].norm
        assert every[recording].loss == pytest.approx(whole[recording].loss, rel=1e-5)
    alone = label.updates([7])[7]
    assert np.linalg.norm(alone.vector - label.updates([2, 7, 0])[7].vector) < 1e-5 * alone.norm


def test_with_norms_alone_only_norms_move_and_as_they_did(label: Label) -> None:
    places = selection(label.state, "norms")
    names = in_scope(label.state, "norms")
    assert len(places) == sum(label.state[n].numel() for n in names) == 2 * 32 * 7
    assert all("norm" in name for name in names)
    whole = label.updates([0, 3], windows=2)
    part = label.updates([0, 3], windows=2, scope="norms")
    for recording in (0, 3):
        gap = np.linalg.norm(part[recording].vector - whole[recording].vector[places])
        assert gap < 1e-5 * part[recording].norm
        assert part[recording].norm < whole[recording].norm
    short = label.updates([0, 3], windows=2, scope="norms", clip=1e-3)
    assert all(0.99e-3 < np.linalg.norm(u.vector.astype(np.float64)) <= 1e-3 for u in short.values())


def test_selections_are_places_in_the_canonical_vector(label: Label) -> None:
    assert np.array_equal(selection(label.state, "all"), np.arange(len(flatten(label.state))))
    marked = {name: torch.full_like(t, float("norm" in name)) for name, t in label.state.items()}
    assert np.array_equal(selection(label.state, "norms"), np.flatnonzero(flatten(marked)))


def test_nobody_drawn_is_no_update(label: Label) -> None:
    assert label.updates([]) == {}
    observed = Observed(1.0)
    assert (observed.recordings, observed.clipped, observed.broken) == (0, 0.0, 0)


def test_the_model_keeps_its_own_adapter(label: Label) -> None:
    apply_adapter(label.model, label.state)
    label.updates([0, 1], steps=2, state={n: t + 1 for n, t in label.state.items()})
    assert np.array_equal(flatten(adapter_state(label.model)), flatten(label.state))
    assert all(p.grad is None for p in label.model.parameters())


@settings(max_examples=60, deadline=None)
@given(bound=st.floats(1e-6, 10.0), scale=st.floats(1e-12, 1e12))
def test_no_gradient_leaves_longer_than_the_bound(label: Label, bound: float, scale: float) -> None:
    if not hasattr(test_no_gradient_leaves_longer_than_the_bound, "kept"):
        kept = [u.vector for u in label.updates([0, 4, 7]).values()]
        test_no_gradient_leaves_longer_than_the_bound.kept = kept
    for vector in test_no_gradient_leaves_longer_than_the_bound.kept:
        clipped, _ = clip((vector * np.float32(scale)).astype(np.float32), bound)
        assert np.linalg.norm(clipped.astype(np.float64)) <= bound


def test_a_gradient_that_is_not_finite_counts_as_zeros_and_spoils_no_other(
    label: Label, tiny_tokenizer: Tokenizer, recordings: list[Recording]
) -> None:
    sick = replace(recordings[1], mel=np.full_like(recordings[1].mel, np.nan))
    examples = Examples([recordings[0], sick, recordings[2]], tiny_tokenizer, 64)
    found = replace(label, examples=examples).updates([0, 1, 2], windows=4, seed=5)
    healthy = replace(label, examples=Examples(recordings, tiny_tokenizer, 64)).updates([0, 1, 2], windows=4, seed=5)
    assert not found[1].vector.any()
    assert not np.isfinite(found[1].norm)
    for recording in (0, 2):
        gap = np.linalg.norm(found[recording].vector - healthy[recording].vector)
        assert gap < 1e-5 * healthy[recording].norm
    observed = Observed(1.0)
    for update in found.values():
        observed.note(update)
    assert (observed.recordings, observed.broken) == (3, 1)
    assert np.isfinite([observed.norm, observed.loss]).all()


def test_half_precision_points_the_same_way(label: Label) -> None:
    full, half = label.updates([0, 3]), label.updates([0, 3], precision=torch.bfloat16)
    for recording in full:
        a, b = full[recording].vector.astype(np.float64), half[recording].vector.astype(np.float64)
        assert half[recording].vector.dtype == np.float32
        assert a @ b > 0.98 * np.linalg.norm(a) * np.linalg.norm(b)


def test_a_recording_in_which_nothing_was_heard_is_still_one(
    label: Label, tiny_tokenizer: Tokenizer, recordings: list[Recording]
) -> None:
    empty = replace(recordings[0], ids=recordings[0].ids[:0], bar_starts=recordings[0].bar_starts[:0])
    examples = Examples([empty, recordings[1]], tiny_tokenizer, 64)
    found = replace(label, examples=examples).updates([0, 1], windows=2)
    assert len(found) == len(examples) == 2
    assert 0 < found[0].norm < np.inf


def test_a_recordings_windows_are_the_same_whoever_else_is_there(
    tiny_tokenizer: Tokenizer, recordings: list[Recording]
) -> None:
    """Else one recording less would be seen in the updates of all the others."""

    def texts(kept: list[Recording], drawn: list[int]) -> list[np.ndarray]:
        examples = Examples(kept, tiny_tokenizer, 64)
        rows = examples.draw(np.array(drawn), 2, np.random.default_rng(8))
        return [examples.take(of_one).ids for of_one in rows]

    with_all, without_first = texts(recordings, [0, 1, 2]), texts(recordings[1:], [0, 1])
    assert all(np.array_equal(a, b) for a, b in zip(with_all[1:], without_first, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(with_all[1:], texts(recordings, [1, 2]), strict=True))


def local(**fields: object) -> LocalDp:
    return LocalDp(**{"noise_multiplier": 0.05, "sampling": 1.0, "batch": 8.0, "clip": 1.0, "bound": 1e3, **fields})


def noise_for(training: LocalDp, dimension: int) -> NoisyGrid:
    return NoisyGrid(24, training.clip, dimension, training.noise_multiplier, 1)


@pytest.mark.parametrize("scope", ["all", "norms"])
def test_dp_sgd_is_sgd_on_clipped_sums_with_the_noise_it_promises(label: Label, scope: str) -> None:
    training = local(steps=1, learning_rate=0.5)
    places = selection(label.state, scope)
    result = dp_sgd(
        label.model,
        label.state,
        label.examples,
        training,
        label.pad,
        np.random.default_rng(0),
        noise_for(training, len(places)),
        scope=scope,
    )
    clean = sum(u.vector for u in label.updates(list(range(8)), clip=1.0, scope=scope).values())
    spread = 0.5 * training.noise_multiplier * training.clip / training.batch
    left = (result.vector - 0.5 * clean / training.batch) / spread
    assert result.vector.shape == places.shape
    # The noise is the system's: a fair draw fails once in 10^11 runs.
    assert abs(left.mean()) < 7 / np.sqrt(len(left))
    assert stats.chi2.ppf(1e-12, len(left)) < (left**2).sum() < stats.chi2.isf(1e-12, len(left))
    assert result.observed.recordings == 8


def test_dp_sgd_lowers_the_loss_and_is_clipped_as_a_whole(label: Label) -> None:
    training = local(steps=6, learning_rate=2.0)
    noise = noise_for(training, len(flatten(label.state)))
    run = label.model, label.state, label.examples
    result = dp_sgd(*run, training, label.pad, np.random.default_rng(0), noise)
    first, last = np.mean(result.observed.losses[:8]), np.mean(result.observed.losses[-8:])
    assert last < first - 0.05
    short = dp_sgd(*run, local(steps=2, bound=0.01), label.pad, np.random.default_rng(0), noise)
    assert np.linalg.norm(short.vector.astype(np.float64)) <= 0.01 < short.norm


def test_dp_sgd_adds_noise_though_nobody_is_drawn(label: Label) -> None:
    training = local(sampling=1e-9, steps=2)
    noise = noise_for(training, len(flatten(label.state)))
    run = label.model, label.state, label.examples, training, label.pad
    first, second = (dp_sgd(*run, np.random.default_rng(0), noise) for _ in range(2))
    assert first.observed.recordings == 0
    assert first.norm > 0
    assert not np.array_equal(first.vector, second.vector), "noise is the system's, whatever the seed"


def test_noise_that_does_not_fit_is_refused(label: Label) -> None:
    training = local()
    for wrong in (noise_for(training, 7), replace(noise_for(training, len(flatten(label.state))), honest=2)):
        with pytest.raises(AssertionError):
            dp_sgd(label.model, label.state, label.examples, training, label.pad, np.random.default_rng(0), wrong)
