"""The comparison without noise and the scores, worked on by several threads: the same to the last bit."""

from __future__ import annotations

import os

import pytest
from trio import MEMBERS, Trio

from partbook.coordinator.validation import ValidationSet
from partbook.model.adapter import attach
from partbook.model.checkpoint import load_model, load_tokenizer
from partbook.music.recording import Recording
from partbook.plan.rounds import ServerStep
from partbook.plan.training import DistributedDp, LocalDp
from partbook.simulation import scoring

TRAININGS = {
    "distributed": DistributedDp(noise_multiplier=1.0, sampling=1.0, batch=6.0, clip=0.5, windows=2),
    "local": LocalDp(
        noise_multiplier=1.0, sampling=1.0, batch=2.0, steps=2, learning_rate=0.5, clip=0.5, bound=1.0, windows=1
    ),
}


@pytest.mark.parametrize("kind", TRAININGS)
def test_one_replica_and_three_lead_to_the_same_model(
    kind: str, trio: Trio, recordings: list[Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    validation = ValidationSet({"one": tuple(recordings[:2]), "other": tuple(recordings[2:])})
    monkeypatch.setattr(scoring, "TOKENS", {"cpu": 96})  # several micro-batches, though everything is tiny
    vaults = [trio.folder / member / "vault" for member in MEMBERS]
    found = []
    for cores in (1, 3):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        told: list[int] = []
        scores = scoring.without_noise(
            validation, trio.base, vaults, TRAININGS[kind], "all", ServerStep(learning_rate=1.0), 2, seed=5,
            on_round=told.append,
        )  # fmt: skip
        assert told == [1, 2]
        found.append(scores)
    assert found[0] == found[1]
    model = attach(load_model(trio.base))
    base = validation.score(model, load_tokenizer(trio.base))
    assert all(found[0][label] != likelihood.per_token for label, likelihood in base.items())
