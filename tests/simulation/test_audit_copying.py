"""Looking for copied passages: the search against brute force, the test against shuffles one can count."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tunes import recording_of, tune

from partbook.coordinator.validation import write_validation
from partbook.errors import InputError
from partbook.generator.release import pack_release
from partbook.identity.keys import IdentityKey
from partbook.model.adapter import adapter_state, attach, save_adapter
from partbook.model.checkpoint import base_manifest, load_model
from partbook.music.notes import Notes
from partbook.music.recording import Recording
from partbook.music.tokens import POSITIONS_PER_BEAT, Tokenizer
from partbook.simulation.audit.copying import (
    Shared,
    Trained,
    compare,
    in_beats,
    judged,
    longest_shared,
    newest_demo,
    trained_by_demo,
)
from partbook.vault.store import Vault

pytestmark = pytest.mark.timeout(300)  # whole audits

LABELS = ("Alto", "Bass")
STEP = st.tuples(st.integers(0, 2), st.integers(60, 62))


def notes(steps: list[tuple[int, int]], *, up: int = 0) -> Notes:
    """Notes from (positions to wait, pitch)."""
    onset = np.cumsum([wait for wait, _ in steps]) / POSITIONS_PER_BEAT
    return Notes.from_rows([(float(t), 0.5, pitch + up, 80) for t, (_, pitch) in zip(onset, steps, strict=True)])


def brute(first: Notes, second: Notes) -> int:
    """The longest run, by trying them all in whole positions."""

    def grams(piece: Notes, length: int) -> set[tuple[tuple[int, int], ...]]:
        at = np.round(piece.onset * POSITIONS_PER_BEAT).astype(int)
        pitch = piece.pitch.astype(int)
        return {
            tuple((int(at[i + k] - at[i]), int(pitch[i + k] - pitch[i])) for k in range(length))
            for i in range(len(piece) - length + 1)
        }

    best = 0
    for length in range(1, min(len(first), len(second)) + 1):
        if grams(first, length) & grams(second, length):
            best = length
    return best


@settings(max_examples=150, deadline=None)
@given(st.lists(STEP, min_size=1, max_size=14), st.lists(STEP, min_size=1, max_size=14), st.integers(-12, 12))
def test_the_longest_shared_run_is_that_of_brute_force_in_any_key(
    one: list[tuple[int, int]], other: list[tuple[int, int]], up: int
) -> None:
    first, second = notes(one), notes(other, up=up)
    assert longest_shared(first, second) == brute(first, second) == longest_shared(second, first)


def test_a_planted_passage_is_found_in_another_key_and_at_another_tempo(tiny_tokenizer: Tokenizer) -> None:
    original = tune(0)
    copy = original.shift_pitch(3)
    for mark in copy.tempos:
        mark.qpm *= 1.7
    whole = in_beats(original)
    assert longest_shared(whole, in_beats(copy)) == len(whole)
    recited = in_beats(tiny_tokenizer.decode(recording_of(original, tiny_tokenizer).ids))
    assert longest_shared(whole, recited) == len(whole)


def shared(runs: list[list[int]], private: list[bool], stratum: list[int]) -> Shared:
    return Shared(np.array(runs), np.array(private), np.array(stratum))


def test_the_p_value_is_that_of_all_shuffles() -> None:
    random = np.random.default_rng(4)
    found = shared(
        random.integers(2, 9, (3, 9)).tolist(), [True] * 3 + [False] * 2 + [True] * 2 + [False] * 2, [0] * 5 + [1] * 4
    )
    seen, larger, total = found.excess(), 0, 0
    for first in itertools.combinations(range(5), 3):
        for second in itertools.combinations(range(5, 9), 2):
            other = np.isin(np.arange(9), first + second)
            larger += found.excess(other) >= seen - 1e-12
            total += 1
    assert found.p_value(9_999, 1) == pytest.approx(larger / total, abs=0.02)


def test_the_longest_of_as_many_is_the_mean_over_all_choices() -> None:
    found = shared([[3, 5, 9, 4, 2, 7]], [True, True, True, False, True, False], [0, 0, 0, 0, 1, 1])
    choices = [max(a, 2) for a in (3, 5, 9)]
    assert found.longest_of_as_many()[0] == pytest.approx(np.mean(choices))


def test_recitation_is_told_from_style(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    style = random.integers(3, 7, (6, 40))
    private = [True] * 20 + [False] * 20
    honest = shared(style.tolist(), private, [0] * 40)
    assert honest.p_value(999, 1) > 0.01
    reciting = style.copy()
    reciting[np.arange(6), np.arange(6)] += 30
    result = judged(shared(reciting.tolist(), private, [0] * 40), "a test", tmp_path / "a.png", 1)
    assert not result.within
    assert result.figures["p_value"] < 0.01
    assert "more than chance" in result.finding
    assert max(result.figures["longest_private"]) >= 33 > max(result.figures["longest_heldout"])
    assert result.plot.stat().st_size > 10_000


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, recordings: list[Recording]
) -> tuple[Path, Path]:
    """A run's folder and its home, laid out as the demo lays them out."""
    folder = tmp_path_factory.mktemp("copying")
    demo, home = folder / "runs" / "one", folder / "home"
    vaults = home / f"base-{base_manifest(tiny_base)['files']['model.safetensors'][:8]}"
    for index, label in enumerate(LABELS):
        with Vault.create(vaults / "seed-7-1x20s" / label.lower() / "vault") as vault:
            vault.add(recordings[index], f"{index:064x}")
        write_validation(vaults / "public-1x20s" / "validation", label, recordings[2:3])
    demo.mkdir(parents=True)
    pools = {label: {"label": [{}], "heldout": [{}]} for label in LABELS}
    (demo / "split.json").write_text(json.dumps({"seed": 7, "labels": pools}))
    adapter = folder / "adapter.safetensors"
    save_adapter(adapter, adapter_state(attach(load_model(tiny_base))), {})
    pack_release(tiny_base, adapter, demo / "release", IdentityKey.generate(), {"name": "tiny"})
    return demo, home


def test_what_a_demo_trained_on_and_held_out_is_found_again(
    finished: tuple[Path, Path], recordings: list[Recording], tiny_tokenizer: Tokenizer
) -> None:
    demo, home = finished
    trained = trained_by_demo(demo, home)
    assert [[r.title for r in trained.private[label]] for label in LABELS] == [["tune 0"], ["tune 1"]]
    assert newest_demo(demo.parent) == demo
    pieces = [in_beats(tiny_tokenizer.decode(recordings[index].ids)) for index in (0, 2)]
    found = compare(pieces, trained, tiny_tokenizer)
    own, held = found.longest()
    assert own[0] == len(pieces[0]) > held[0]
    assert held[1] == len(pieces[1]) > own[1]


def test_a_run_without_its_vaults_or_its_split_is_refused_by_name(finished: tuple[Path, Path], tmp_path: Path) -> None:
    demo, _ = finished
    with pytest.raises(InputError, match="--home"):
        trained_by_demo(demo, tmp_path)
    with pytest.raises(InputError, match="no finished run"):
        trained_by_demo(tmp_path, tmp_path)
    assert newest_demo(tmp_path) is None


def test_without_held_out_works_there_is_no_verdict(recordings: list[Recording], tiny_tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="nothing to compare"):
        compare([], Trained("x", Path(), {"a": tuple(recordings)}, {"b": ()}), tiny_tokenizer)
    with pytest.raises(InputError, match="held-out"):
        compare([], Trained("x", Path(), {"a": tuple(recordings)}, {"a": ()}), tiny_tokenizer)
