"""The short form: what is held against what, what is said of it, and pieces that come out silent."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from evaluated import tuneful
from numpy.typing import NDArray
from pieces import line, same
from symusic.core import ScoreTick

from partbook.errors import GenerationError, InputError
from partbook.evaluation import two_sample
from partbook.evaluation.brief import HEADLINES, Brief, as_heard, brief, freely
from partbook.evaluation.measures import NAMES
from partbook.evaluation.noise import random_notes, readings, shuffled_bars
from partbook.evaluation.reading import read
from partbook.music.recording import Recording

HUMAN = [tuneful(seed, bars=8) for seed in range(12)]
WRITTEN = [tuneful(100 + seed, bars=8) for seed in range(10)]


@pytest.fixture(scope="module")
def found() -> Brief:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(two_sample, "_TREES", 40)  # enough for tunes of one kind
        return brief([("Ours", "generator", WRITTEN), ("Few", "human", WRITTEN[:3])], HUMAN, reference="a dozen tunes")


# ---------------------------------------------------------------------- brief


def test_the_sets_come_first_and_noise_of_the_human_works_after_them(found: Brief) -> None:
    assert [(row.title, row.kind, row.comparison.pieces) for row in found.rows] == [
        ("Ours", "generator", 10),
        ("Few", "human", 3),
        ("Their bars shuffled", "noise", 12),
        ("Random notes", "noise", 12),
    ]
    assert (found.reference, found.works, found.seed) == ("a dozen tunes", 12, 1)


def test_every_measure_has_a_band_of_the_human_works(found: Brief) -> None:
    assert set(found.bands) == set(NAMES) >= set(HEADLINES)
    low, middle, high = found.bands["density"]
    notes = [len(piece.opening(64)) / piece.opening(64).seconds for piece in HUMAN]
    assert (low, middle, high) == pytest.approx(np.quantile(notes, (0.1, 0.5, 0.9)).tolist())


def test_random_notes_are_told_from_human_works_and_other_tunes_are_not(found: Brief) -> None:
    auc = {row.title: row.comparison.features.value for row in found.rows}
    assert auc["Random notes"] > 0.95
    assert auc["Ours"] < 0.8
    assert np.isnan(auc["Few"])  # too few to say


def test_a_release_says_it_in_json_without_nan(found: Brief) -> None:
    about = json.loads(json.dumps(found.about(), allow_nan=False))
    assert list(about["sets"]) == [row.title for row in found.rows]
    assert about["sets"]["Few"]["auc_features"] == [None, None, None]
    assert set(about["human_10_50_90"]) == set(about["sets"]["Ours"]["median"]) == set(HEADLINES)
    value, low, high = about["sets"]["Ours"]["auc_features"]
    assert 0 <= low <= value <= high <= 1
    assert value == pytest.approx(found.rows[0].comparison.features.value, rel=1e-3)


def test_steps_are_told_of_the_reference_and_of_each_set_and_two_runs_agree() -> None:
    told: list[str] = []
    few = [("Ours", "generator", WRITTEN[:4])]
    first = brief(few, HUMAN[:5], reference="tunes", seed=3, on_step=told.append)  # type: ignore[arg-type]
    again = brief(few, HUMAN[:5], reference="tunes", seed=3)  # type: ignore[arg-type]
    assert told == ["tunes", "Ours", "Their bars shuffled", "Random notes"]
    assert first.about() == again.about()
    assert first.about() != brief(few, HUMAN[:5], reference="tunes", seed=4).about()  # type: ignore[arg-type]


def test_a_set_of_no_pieces_has_no_numbers() -> None:
    about = brief([("Silence", "human", [])], HUMAN[:3], reference="tunes").about()
    assert about["sets"]["Silence"]["pieces"] == 0
    assert about["sets"]["Silence"]["median"]["density"] == [None, None, None]


def test_without_human_works_nothing_is_measured() -> None:
    with pytest.raises(InputError, match="no human works"):
        brief([("Ours", "generator", WRITTEN)], [], reference="none")


# ---------------------------------------------------------------------- noise


def test_noise_keeps_the_pace_and_the_name_of_its_work() -> None:
    slow = replace(HUMAN[0], seconds=3 * HUMAN[0].seconds)
    for make in (shuffled_bars, random_notes):
        (made,) = readings([slow], make, 1)
        assert (made.title, made.work) == (slow.title, slow.work)
        assert made.seconds / made.end == pytest.approx(slow.seconds / slow.end)
        assert not same(made, slow)
    (shuffled,) = readings([slow], shuffled_bars, 1)
    assert sorted(shuffled.pitch) == sorted(slow.pitch)


def test_the_same_work_twice_is_shuffled_in_two_ways() -> None:
    first, second = readings([HUMAN[0], HUMAN[0]], random_notes, 1)
    assert not same(first, second)


# ---------------------------------------------------------------------- freely


class Tokens:
    """Writes a piece's seed; what has a seed of `silent` has no notes."""

    def __init__(self, silent: Callable[[int], bool]) -> None:
        self.silent = silent

    def decode(self, ids: NDArray[np.int64]) -> ScoreTick:
        seed = int(ids[0])
        return ScoreTick(480) if self.silent(seed) else line([60 + seed % 12, 62, 64]).score()


class Model:
    """A model that writes down which seeds it was asked for."""

    name, bound = "Model", False

    def __init__(self, silent: Callable[[int], bool] = lambda _: False) -> None:
        self.tokenizer = Tokens(silent)
        self.asked: list[list[int]] = []

    def sample_many(
        self, seeds: Sequence[int], quarters: float, prompts: None = None, *, on_piece: Callable[[int], None] = print
    ) -> list[NDArray[np.int64]]:
        self.asked.append(list(seeds))
        for number in range(len(seeds)):
            on_piece(number + 1)
        return [np.array([seed]) for seed in seeds]


def test_pieces_are_named_by_their_seeds_and_are_works_of_their_own() -> None:
    told: list[int] = []
    pieces = freely(Model(), 3, seed=2, on_piece=told.append)  # type: ignore[arg-type]
    assert [piece.title for piece in pieces] == ["seed 200000", "seed 200001", "seed 200002"]
    assert len({piece.work for piece in pieces}) == 3
    assert told == [1, 2, 3]


def test_a_silent_seed_is_followed_by_others_in_its_place() -> None:
    model = Model(silent=lambda seed: seed in {100_001, 110_001, 100_003})
    pieces = freely(model, 4, seed=1)  # type: ignore[arg-type]
    assert [piece.title for piece in pieces] == ["seed 100000", "seed 120001", "seed 100002", "seed 110003"]
    assert model.asked == [[100_000, 100_001, 100_002, 100_003], [110_001, 110_003], [120_001]]


def test_a_model_that_writes_silence_is_refused_after_five_tries() -> None:
    model = Model(silent=lambda seed: seed % 2 == 1)
    with pytest.raises(GenerationError, match="2 of 4 seeds led to no note, five times over"):
        freely(model, 4)  # type: ignore[arg-type]
    assert len(model.asked) == 5


def test_the_same_seed_leads_to_the_same_pieces() -> None:
    def silent(seed: int) -> bool:
        return seed == 100_000

    first, again = (freely(Model(silent), 5) for _ in range(2))  # type: ignore[arg-type]
    assert all(same(a, b) for a, b in zip(first, again, strict=True))


# ---------------------------------------------------------------------- as_heard


def test_recordings_are_read_as_they_were_written_down(tiny_tokenizer, recordings: list[Recording]) -> None:
    heard = as_heard(recordings, tiny_tokenizer, {recordings[1].title: "family"})
    assert [piece.title for piece in heard] == [recording.title for recording in recordings]
    assert [piece.work for piece in heard] == [recordings[0].title, "family", recordings[2].title]
    assert same(heard[0], read(tiny_tokenizer.decode(recordings[0].ids)))


def test_a_recording_without_notes_is_left_out(tiny_tokenizer, recordings: list[Recording]) -> None:
    empty = replace(recordings[0], ids=recordings[0].ids[:0])
    assert [piece.title for piece in as_heard([empty, recordings[1]], tiny_tokenizer)] == [recordings[1].title]


def test_noise_is_no_tune(found: Brief) -> None:
    """What the measures are for: random notes lie outside more bands than other tunes do."""

    def outside(row: int) -> int:
        measures = found.rows[row].comparison.measures
        return sum(not found.bands[n][0] <= measures[n].median.value <= found.bands[n][2] for n in HEADLINES)

    assert outside(3) > outside(0) + 3
