"""Telling members by loss: the statistics against slow ones and closed forms, and two real federations."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunes import recording_of, tune

from partbook.coordinator.validation import write_validation
from partbook.errors import InputError
from partbook.generator.release import pack_release
from partbook.identity.keys import IdentityKey
from partbook.model.adapter import adapter_state, attach, save_adapter
from partbook.model.checkpoint import base_manifest, load_model
from partbook.music.tokens import Tokenizer
from partbook.simulation.audit import membership
from partbook.simulation.audit.membership import Told, allowed, area, centred, curve, excerpts, most_area
from partbook.vault.store import Vault

pytestmark = pytest.mark.timeout(300)  # whole audits

SCORES = st.lists(st.integers(-3, 3), min_size=1, max_size=12).map(lambda values: np.array(values, float))


@given(SCORES, SCORES)
def test_the_area_is_the_chance_that_a_member_scores_above_another(members: np.ndarray, others: np.ndarray) -> None:
    pairs = [(a > b) + 0.5 * (a == b) for a in members for b in others]
    assert area(members, others) == pytest.approx(np.mean(pairs))
    false, true = curve(members, others)
    assert np.trapezoid(true, false) == pytest.approx(np.mean(pairs))
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 4.0])
def test_the_largest_area_without_delta_is_that_of_randomised_response(epsilon: float) -> None:
    assert most_area(epsilon, 0.0) == pytest.approx(math.exp(epsilon) / (1 + math.exp(epsilon)), abs=1e-6)


def test_what_is_allowed_begins_at_delta_and_grows_with_epsilon() -> None:
    at = np.array([0.0, 0.1, 1.0])
    assert allowed(at, 1.0, 1e-3) == pytest.approx([1e-3, 0.1 * math.e + 1e-3, 1.0])
    assert allowed(at, math.inf, 0.0) == pytest.approx([1.0, 1.0, 1.0])


def test_members_told_perfectly_are_beyond_a_claim_and_members_like_others_are_not() -> None:
    random = np.random.default_rng(1)
    others = random.normal(size=60)
    assert not Told(random.normal(5, 1, 60), others, claim=1.0).within
    assert Told(random.normal(5, 1, 60), others).within, "where nothing is claimed nothing can be broken"
    alike = Told(random.normal(size=60), others, claim=1.0)
    low, high = alike.interval
    assert low < 0.5 < high
    assert alike.within


def test_true_positives_are_counted_where_few_others_are_taken() -> None:
    told = Told(np.array([9.0, 8.0, 3.0, 2.0]), np.arange(10.0) / 2 + 3.5)
    assert told.tpr(0.0) == 0.25
    assert told.tpr(0.1) == 0.5


def test_scores_are_set_against_their_own_kind() -> None:
    assert centred(np.array([1.0, 3.0, 10.0, 14.0]), ["a", "a", "b", "b"]) == pytest.approx([-1, 1, -2, 2])


def test_excerpts_are_one_window_of_each_work(tiny_tokenizer: Tokenizer) -> None:
    found = excerpts(3, tiny_tokenizer, 64, ("oneills1850", "ryansMammoth"), 1)
    assert len(found) == 6
    assert all(0 < len(recording.ids) <= 63 for recording in found)
    assert all((recording.bar_starts < len(recording.ids)).all() for recording in found)


def test_small_federations_are_attacked_with_noise_and_without(tiny_base: Path, tmp_path: Path) -> None:
    result = membership.run(tmp_path, quick=True, seed=1, on_progress=lambda _: None, base=tiny_base)
    assert set(result.figures) == {"with noise", "without noise"}
    assert result.figures["with noise"]["claimed_epsilon"] == pytest.approx(1.0, abs=0.01)
    assert result.figures["without noise"]["claimed_epsilon"] is None
    assert all(figures["members"] + figures["others"] == 18 for figures in result.figures.values())
    assert result.within
    assert result.plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("claim", [None, 1.5])
def test_a_finished_demo_is_attacked_by_its_release_and_its_own_claim(
    tiny_base: Path, tiny_tokenizer: Tokenizer, tmp_path: Path, claim: float | None
) -> None:
    demo, home = tmp_path / "run", tmp_path / "home"
    vaults = home / f"base-{base_manifest(tiny_base)['files']['model.safetensors'][:8]}"
    labels = ("Alto", "Bass")
    for index, label in enumerate(labels):
        with Vault.create(vaults / "seed-7-1x20s" / label.lower() / "vault") as vault:
            vault.add(recording_of(tune(index), tiny_tokenizer, index), f"{index:064x}")
        write_validation(vaults / "public-1x20s" / "validation", label, [recording_of(tune(2), tiny_tokenizer, 2)])
    demo.mkdir()
    pools = {label: {"label": [{}], "heldout": [{}]} for label in labels}
    (demo / "split.json").write_text(json.dumps({"seed": 7, "labels": pools}))
    adapter = tmp_path / "adapter.safetensors"
    save_adapter(adapter, adapter_state(attach(load_model(tiny_base))), {})
    about = {"name": "tiny", "privacy": {"epsilon_outsiders": claim, "epsilon_colluders": claim, "delta": 1e-4}}
    pack_release(tiny_base, adapter, demo / "release", IdentityKey.generate(), about)
    result = membership.run(tmp_path, quick=True, seed=1, on_progress=lambda _: None, finished=demo, home=home)
    (figures,) = result.figures.values()
    assert (figures["members"], figures["others"], figures["claimed_epsilon"]) == (2, 2, claim)
    # This model has learnt nothing, so every recording scores 0 and everybody ties.
    assert figures["auc"] == 0.5
    assert "not by a coin" in dict(result.facts)["Drawn"]
    assert result.within
    with pytest.raises(InputError, match="--home"):
        membership.run(tmp_path, quick=True, seed=1, on_progress=lambda _: None, finished=demo, home=tmp_path)
