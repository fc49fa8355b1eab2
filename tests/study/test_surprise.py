"""How surprised a model is by held-out works: which are asked about, and what is left out."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from symusic.core import ScoreTick
from tunes import tune

from partbook.corpus.library import PublicWork
from partbook.errors import ConfigError
from partbook.model.checkpoint import load_tokenizer
from partbook.music.recording import Recording
from partbook.study import surprise
from partbook.study.surprise import HeldOut


class Tunes:
    """Three held-out tunes in one collection, of which one cannot be read, and in another none that can."""

    collections = ("reels", "lost")

    def pool(self, collection: str, pool: str) -> tuple[PublicWork, ...]:
        assert pool == "heldout"
        count = {"reels": 3, "lost": 1}[collection]
        return tuple(PublicWork(collection, f"{collection}/{n}", f"{collection} {n}", "") for n in range(count))

    def each_score(
        self, works: Sequence[PublicWork], on_work: Callable[[str], None] = lambda _: None
    ) -> list[ScoreTick | None]:
        found = []
        for work in works:
            number = int(work.key.split("/")[1])
            found.append(None if work.collection == "lost" or number == 2 else tune(number))
            on_work(work.title)
        return found


class Coin:
    """A nat a token."""

    name, bound = "Coin", True

    def __init__(self) -> None:
        self.tokenizer = load_tokenizer()

    def nats(self, recording: Recording) -> NDArray[np.float64]:
        return np.ones(len(recording.ids) + 1)


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def held_out(told: list[str]) -> HeldOut:
    return HeldOut(Tunes(), load_tokenizer(), heard=False, on_work=told.append)  # type: ignore[arg-type]


def test_each_work_is_read_once_and_told(held_out: HeldOut, told: list[str]) -> None:
    assert told == ["reels 0", "reels 1", "reels 2", "lost 0"]
    assert HeldOut.total(Tunes(), heard=False) == len(told)  # type: ignore[arg-type]
    assert HeldOut.total(Tunes(), heard=True) == 2 * len(told)  # type: ignore[arg-type]
    assert len(held_out) == 2


def test_a_model_is_scored_on_what_can_be_read(held_out: HeldOut) -> None:
    asked: list[str] = []
    found = held_out.surprise(Coin(), asked.append)  # type: ignore[arg-type]
    assert asked == ["reels", "reels"]
    assert {name: set(hands) for name, hands in found.items()} == {"reels": {"score"}}
    reels = found["reels"]["score"]
    assert (reels.works, reels.bound) == (2, True)
    assert (reels.per_token.value, reels.per_token.low, reels.per_token.high) == (1.0, 1.0, 1.0)
    assert reels.perplexity.value == pytest.approx(np.e)
    assert 1 < reels.per_note.low <= reels.per_note.value <= reels.per_note.high < 5
    assert np.isnan(reels.repeated.value)  # of two works there is no interval


def test_a_baseline_that_knows_a_work_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"counted": frozenset({"reels/1", "reels/2", "jigs/9"}), "fresh": frozenset({"jigs/9"})}
    monkeypatch.setattr(surprise, "learnt_from", known.__getitem__)
    HeldOut.refuse_known(Tunes(), "fresh")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"counted has learnt from 2 of the held-out.*reels/1 is one.*--data"):
        HeldOut.refuse_known(Tunes(), "counted")  # type: ignore[arg-type]
