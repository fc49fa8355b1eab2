"""How a set sounds beside human works: which clips are heard, and when there are too few to say."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from evaluated import scattered, tuneful
from symusic.core import ScoreTick

from partbook.evaluation.clips import Heard
from partbook.evaluation.musicnn import Embedded
from partbook.study import sound
from partbook.study.sound import CLIPS, Ears


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many scores were heard each time, by ears that hear noise and take no time."""
    counts: list[int] = []

    def hear(scores: Sequence[ScoreTick], *, seconds: float, on_clip: Callable[[int], None]) -> Heard:
        counts.append(len(scores))
        random = np.random.default_rng(len(scores))
        clips = []
        for number, score in enumerate(scores, start=1):
            tags = random.dirichlet(np.ones(50), 6).astype(np.float32)
            shift = np.mean([note.pitch for note in score.tracks[0].notes]) / 12
            clips.append(Embedded((random.normal(size=(6, 8)) + shift).astype(np.float32), tags))
            on_clip(number)
        return Heard(tuple(clips), tuple(range(len(clips))), ())

    monkeypatch.setattr(sound, "hear", hear)
    return counts


def test_at_most_fifty_clips_are_heard_and_told(asked: list[int]) -> None:
    told: list[str] = []
    ears = Ears([tuneful(seed, bars=8) for seed in range(60)], seed=1, on_clip=told.append)
    assert told[-1] == f"clip {CLIPS}"
    found = ears.hear([tuneful(seed, bars=8) for seed in range(100, 110)], on_clip=told.append)
    assert asked == [CLIPS, 10]
    assert len(told) == CLIPS + ears.clips_of(10) == 60
    assert found.clips == 10
    assert 0 <= found.distance.low <= found.distance.value <= found.distance.high
    assert 1 <= found.score.value <= 50


def test_few_clips_have_no_distance(asked: list[int]) -> None:
    ears = Ears([tuneful(seed, bars=8) for seed in range(8)], seed=1, on_clip=lambda _: None)
    for count in (0, 3):
        found = ears.hear([tuneful(seed, bars=8) for seed in range(count)], on_clip=lambda _: None)
        assert found.clips == count
        assert np.isnan(found.distance.value)
        assert np.isnan(found.score.value)


def test_the_seed_draws_the_clips_and_two_runs_agree(asked: list[int]) -> None:
    pieces = [tuneful(seed, bars=8) for seed in range(60)]
    others = [scattered(seed) for seed in range(12)]
    first, again = (Ears(pieces, seed=1, on_clip=lambda _: None).hear(others, on_clip=lambda _: None) for _ in range(2))
    assert first == again
    assert first != Ears(pieces, seed=2, on_clip=lambda _: None).hear(others, on_clip=lambda _: None)
