import numpy as np
import pytest
from symusic.core import NoteTick, ScoreTick, TimeSignatureTick, TrackTick
from works import TuneLibrary

from partbook.baselines.scoring import (
    CONTEXT,
    bootstrap_ratio,
    heldout_works,
    notes_in,
    repeated_bars,
    score_model,
    score_table_rows,
    written_works,
)
from partbook.corpus.scores import written
from partbook.model.config import small
from partbook.music.recording import Recording
from partbook.music.tokens import Tokenizer


class Constant:
    """A model to which every token costs two nats."""

    name, bound = "two", True

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def nats(self, recording: Recording) -> np.ndarray:
        return np.full(len(recording.ids) + 1, 2.0)


def bars(*pitches: int) -> ScoreTick:
    """Bars of 4/4 with two notes each, louder and louder; 0 is a bar of rest."""
    score, track = ScoreTick(480), TrackTick()
    for number, pitch in enumerate(pitches):
        if pitch:
            for beat in (0, 2):
                track.notes.append(NoteTick(1920 * number + 480 * beat, 480, pitch + beat, 40 + 12 * number))
    score.tracks.append(track)
    score.time_signatures.append(TimeSignatureTick(0, 4, 4))
    return score


def by_bar(score: ScoreTick, tokenizer: Tokenizer, context: int = CONTEXT) -> list[int]:
    recording = written(score, tokenizer)
    marks = repeated_bars(recording, tokenizer, context)
    return [int(marks[start]) for start in recording.bar_starts]


def test_a_bar_repeats_an_earlier_one_whatever_its_loudness(tiny_tokenizer: Tokenizer) -> None:
    assert by_bar(bars(60, 62, 60, 64, 62, 60), tiny_tokenizer) == [0, 0, 1, 0, 1, 1]


def test_rests_are_neither_repeated_nor_new(tiny_tokenizer: Tokenizer) -> None:
    assert by_bar(bars(60, 0, 0, 60), tiny_tokenizer) == [0, -1, -1, 1]


def test_what_a_window_does_not_hold_is_not_repeated_in_it(tiny_tokenizer: Tokenizer) -> None:
    recording = written(bars(60, 62, 64, 60), tiny_tokenizer)
    header = int(recording.bar_starts[0])
    longest = int(np.diff([*recording.bar_starts, len(recording.ids)]).max())
    assert by_bar(bars(60, 62, 64, 60), tiny_tokenizer, header + 2 * longest + 1)[-1] == 0
    assert small(2000).context == CONTEXT


def test_notes_are_counted_in_tokens(tiny_tokenizer: Tokenizer) -> None:
    recording = written(bars(60, 62, 0, 64), tiny_tokenizer)
    assert notes_in(recording.ids, tiny_tokenizer).sum() == 6


def test_figures_of_a_model_that_pays_two_nats_a_token(tiny_tokenizer: Tokenizer) -> None:
    recording = written(bars(60, 62, 60), tiny_tokenizer)
    found = score_model(Constant(tiny_tokenizer), {"bars": [recording] * 5}).collections["bars"]
    tokens = len(recording.ids) + 1
    assert (found.works, found.notes, found.tokens) == (5, 30, 5 * tokens)
    assert found.per_token.value == found.per_token.low == found.per_token.high == 2.0
    assert found.perplexity.value == pytest.approx(np.e**2)
    assert found.per_note.value == pytest.approx(2 * tokens / 6)
    ends = np.append(recording.bar_starts, len(recording.ids))
    assert found.repeated.value == pytest.approx(2 * (ends[3] - ends[2]) / 2)
    assert found.fresh.value == pytest.approx(2 * (ends[2] - ends[0]) / 4)
    assert found.repeated_notes == pytest.approx(1 / 3)


def test_a_bound_is_shown_as_one(tiny_tokenizer: Tokenizer) -> None:
    works = {"bars": [written(bars(60, 62), tiny_tokenizer)]}
    (row,) = score_table_rows([score_model(Constant(tiny_tokenizer), works)], "bars")
    assert row[0] == "two"
    assert row[2] == "≤ 2.00 (2.00–2.00)"
    assert row[4] == row[5] == "–"  # too few for an interval


def test_the_bootstrap_covers_and_repeats_itself() -> None:
    random = np.random.default_rng(1)
    notes = random.integers(50, 200, 40).astype(float)
    nats = notes * 5.0 + random.normal(0, 40, 40)
    found = bootstrap_ratio(nats, notes)
    assert found == bootstrap_ratio(nats, notes)
    assert found.low < found.value < found.high
    assert found.value == pytest.approx(nats.sum() / notes.sum())
    # The delta method's standard error.
    residual = nats - found.value * notes
    error = np.sqrt(40 * residual.var(ddof=1)) / notes.sum()
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_held_out_works_are_written_as_scores(tiny_tokenizer: Tokenizer) -> None:
    works = heldout_works(TuneLibrary(), "monteverdi")
    found = written_works(TuneLibrary(), works, tiny_tokenizer)
    assert len(found) == 3
    for recording in found:
        names = tiny_tokenizer.names(recording.ids.tolist())
        assert names[0] == "Hand_score"
        assert not any(name.startswith("Level") for name in names)  # how loud is nothing that a score says


def test_fewer_held_out_works_are_always_the_same_few() -> None:
    few = heldout_works(TuneLibrary(), "bach", 2)
    assert len(few) == 2
    assert few == heldout_works(TuneLibrary(), "bach", 2)
    assert set(heldout_works(TuneLibrary(), "bach", 1)) < set(few) < set(heldout_works(TuneLibrary(), "bach"))
