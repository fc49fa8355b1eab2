"""What can be read of one recording's update, lock by lock."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from partbook.model.adapter import adapter_state, attach
from partbook.model.checkpoint import load_model
from partbook.music.recording import Recording
from partbook.music.tokens import Tokenizer
from partbook.simulation.audit.inversion import (
    READINGS,
    Reading,
    Recovered,
    Stage,
    guesses,
    picture,
    run,
    seal_as_numbers,
    words_as_numbers,
)
from partbook.simulation.audit.matching import Effort, Matcher

pytestmark = pytest.mark.timeout(300)  # attacks run in the first test

LENGTH = 8
EFFORT = Effort(widths=(4,), sweeps=3, replacements=2, own=8)
TRIED = ("clipped", "masks", "all")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, recordings: list[Recording]) -> Stage:
    short = [
        replace(r, ids=r.ids[:LENGTH], bar_starts=r.bar_starts[:1], bar_seconds=r.bar_seconds[:1]) for r in recordings
    ]
    return Stage(tmp_path_factory.mktemp("stage"), tiny_base, short)


@pytest.fixture(scope="module")
def matcher(stage: Stage) -> Matcher:
    return Matcher(stage.model, stage.adapter, stage.tokenizer, LENGTH, seed=1, effort=EFFORT)


@pytest.fixture(scope="module")
def truth(stage: Stage) -> np.ndarray:
    return stage.recording.ids.astype(np.int64)


@pytest.fixture(scope="module")
def readings(stage: Stage) -> dict[str, Reading]:
    return stage.readings()


@pytest.fixture(scope="module")
def found(matcher: Matcher, truth: np.ndarray, readings: dict[str, Reading]) -> dict[str, Recovered]:
    return {
        name: Recovered.of(matcher.invert(readings[name].numbers, sharpness=readings[name].sharpness).tokens, truth)
        for name in TRIED
    }


def test_there_is_a_reading_for_every_bar_of_the_picture(readings: dict[str, Reading], stage: Stage) -> None:
    assert list(readings) == list(READINGS)
    assert all(r.numbers.shape == (stage.grid.dimension,) for r in readings.values())


def test_an_update_is_minus_the_mean_gradient_that_the_attacker_computes(
    stage: Stage, matcher: Matcher, truth: np.ndarray
) -> None:
    mine = -matcher.gradient(truth) / (LENGTH + 1)
    np.testing.assert_allclose(stage.update(1e6), mine, rtol=1e-3, atol=1e-5)


def test_the_inner_products_of_all_tokens_are_those_of_their_gradients(matcher: Matcher, truth: np.ndarray) -> None:
    import torch

    prefix = torch.from_numpy(np.append(1, truth[:3]))[None]
    direction = torch.randn(1, len(matcher.gradient(truth)), generator=torch.Generator().manual_seed(1))
    fast = matcher._inner(prefix, direction, matcher._next(prefix))[0]
    for token in (3, 50, 200, int(truth[3])):
        one = matcher._gradients(torch.cat([prefix, torch.tensor([[token]])], 1), last=True)[0]
        assert float(fast[token]) == pytest.approx(float(one @ direction[0]), rel=2e-2, abs=2e-2)


def test_without_locks_tokens_are_read_and_clipping_is_no_lock(
    found: dict[str, Recovered], matcher: Matcher, truth: np.ndarray
) -> None:
    own = list(matcher.written(4, 5))
    chance = max(g.bag for g in guesses(matcher, truth, own, 1).values())
    assert found["clipped"].exact >= 0.5
    assert found["clipped"].bag > chance + 0.25


def test_under_masks_alone_or_all_locks_nothing_is_read_beyond_chance(found: dict[str, Recovered]) -> None:
    # One token in eight may be right by luck, two hardly ever: there are 600.
    assert all(found[name].bag <= 0.25 for name in ("masks", "all"))


def test_what_is_under_masks_or_a_seal_does_not_point_towards_the_update(
    readings: dict[str, Reading], stage: Stage
) -> None:
    clear = readings["clear"].numbers
    spread = 1 / np.sqrt(stage.grid.dimension)
    for name in ("masks", "seal", "all"):
        other = readings[name].numbers
        assert abs(clear @ other) / np.linalg.norm(clear) / np.linalg.norm(other) < 6 * spread


def test_masks_come_off_to_the_very_field_values(stage: Stage) -> None:
    """The reading is honest: with no mask it would be the update itself."""
    grid = stage.grid
    field = np.arange(grid.dimension, dtype=np.uint32) % grid.span
    expected = (field.astype(np.int64) - grid.largest) / grid.scale
    np.testing.assert_allclose(words_as_numbers(field.astype("<u4").tobytes(), grid), expected)
    assert len(stage.masked(field)) == 4 * grid.dimension
    assert np.isfinite(seal_as_numbers(stage.sealed(field), grid.dimension)).all()


def test_recovered_counts_places_and_bags() -> None:
    truth = np.array([5, 5, 6, 7])
    assert Recovered.of(truth, truth) == Recovered(1.0, 1.0)
    assert Recovered.of(np.array([5, 6, 5, 8]), truth) == Recovered(0.25, 0.75)
    assert Recovered.of(np.array([1, 2, 3, 4]), truth) == Recovered(0.0, 0.0)


def test_a_run_reports_every_lock(tmp_path: Path, tiny_base: Path) -> None:
    said: list[str] = []
    effort = Effort(widths=(2,), sweeps=1, replacements=1, own=8)
    result = run(tmp_path, quick=True, seed=1, on_progress=said.append, base=tiny_base, effort=effort, length=4)
    assert set(result.figures["recovered"]) == set(READINGS)
    assert len(said) == len(READINGS)
    assert result.plot.stat().st_size > 10_000
    assert "ε = 8" in result.finding
    picture(tmp_path / "two.png", {n: [Recovered(0.5, 0.7)] * 2 for n in READINGS}, Recovered(0.1, 0.2), "two windows")
    assert (tmp_path / "two.png").exists()


def test_an_attacker_needs_no_music_of_their_own(tiny_base: Path, tiny_tokenizer: Tokenizer) -> None:
    model = attach(load_model(tiny_base))
    matcher = Matcher(model, adapter_state(model), tiny_tokenizer, 4, seed=2, effort=EFFORT)
    written = matcher.written(5, 3)
    assert written.shape == (5, 4)
    assert not np.isin(written, [tiny_tokenizer.pad, tiny_tokenizer.bos, tiny_tokenizer.eos]).any()
    assert np.array_equal(written, matcher.written(5, 3))
