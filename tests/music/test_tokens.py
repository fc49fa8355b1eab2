import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from symusic import Note, Score, Tempo, TimeSignature, Track

from partbook.errors import ScoreError
from partbook.model.checkpoint import BASE
from partbook.music.notes import Notes
from partbook.music.tokens import TICKS_PER_QUARTER, Tokenizer, bar_seconds, notes_of, score_of, seconds_at

GRID = TICKS_PER_QUARTER // 12


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.load(BASE / "tokenizer.json")


note = st.tuples(st.integers(0, 400), st.integers(1, 36), st.integers(21, 108), st.integers(1, 127))


def make_score(rows: list[tuple[int, int, int, int]], program: int = 0) -> Score:
    score, track = Score(TICKS_PER_QUARTER), Track(program=program)
    taken: set[tuple[int, int]] = set()
    for start, length, pitch, velocity in sorted(rows):
        if (start, pitch) not in taken:
            taken.add((start, pitch))
            track.notes.append(Note(start * GRID, length * GRID, pitch, velocity))
    score.tracks.append(track)
    score.tempos.append(Tempo(0, 120))
    score.time_signatures.append(TimeSignature(0, 4, 4))
    return score


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(note, min_size=1, max_size=60), program=st.integers(0, 127))
def test_decoding_gives_back_what_was_encoded(tokenizer: Tokenizer, rows, program: int) -> None:
    score = make_score(rows, program)
    again = tokenizer.decode(tokenizer.encode(score))
    assert [t.program for t in again.tracks] == [program]
    written = sorted((n.time, n.pitch) for n in score.tracks[0].notes)
    read = sorted((n.time, n.pitch) for n in again.tracks[0].notes)
    assert read == written


def test_bars_are_found_where_they_begin(tokenizer: Tokenizer) -> None:
    score = make_score([(48 * bar + 12 * beat, 12, 60 + beat, 80) for bar in range(5) for beat in range(4)])
    ids = tokenizer.encode(score)
    starts = tokenizer.bar_starts(ids)
    assert len(starts) == 5
    for begin, end in zip(starts, [*starts[1:], len(ids)], strict=True):
        names = tokenizer.names(list(ids[begin:end]))
        assert names[0] == "Bar_None"
        assert names.count("Bar_None") == 1
    assert bar_seconds(score, 5).tolist() == pytest.approx([0, 2, 4, 6, 8])


def test_seconds_follow_tempo_changes() -> None:
    score = Score(TICKS_PER_QUARTER)
    score.tempos.append(Tempo(0, 60))
    score.tempos.append(Tempo(2 * TICKS_PER_QUARTER, 120))
    ticks = np.array([0, 1, 2, 3, 4], dtype=np.float64) * TICKS_PER_QUARTER
    assert seconds_at(score, ticks).tolist() == pytest.approx([0, 1, 2, 2.5, 3])


def test_performed_notes_are_written_on_the_beat_they_were_played_near() -> None:
    notes = Notes.from_rows([(0.02, 0.4, 60, 80), (0.51, 0.2, 64, 80), (1.49, 0.5, 67, 80)])
    score = score_of(notes, np.array([0.0, 0.5, 1.0, 1.5, 2.0]), 24, beats_per_minute=120)
    played = score.tracks[0].notes
    assert [(n.time / TICKS_PER_QUARTER, n.pitch) for n in played] == [(0, 60), (1, 64), (3, 67)]
    assert score.tracks[0].program == 24


def test_notes_outside_the_beats_follow_the_nearest_beat_length() -> None:
    notes = Notes.from_rows([(2.0, 0.5, 60, 80)])
    score = score_of(notes, np.array([0.0, 0.5, 1.0]), 0, beats_per_minute=120)
    assert score.tracks[0].notes[0].time == 4 * TICKS_PER_QUARTER


def test_a_score_without_pitched_notes_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(ScoreError, match="no pitched notes"):
        tokenizer.encode(Score(TICKS_PER_QUARTER))


def test_notes_beyond_the_piano_are_left_out(tokenizer: Tokenizer) -> None:
    score = make_score([(0, 12, 60, 80)])
    score.tracks[0].notes.append(Note(0, 480, 5, 80))
    assert [n.pitch for n in tokenizer.decode(tokenizer.encode(score)).tracks[0].notes] == [60]


def test_a_broken_tokeniser_file_is_named(tmp_path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text("{}")
    with pytest.raises(ScoreError, match=r"tokenizer\.json"):
        Tokenizer.load(path)


def test_seconds_and_ticks_agree_with_symusic(tokenizer: Tokenizer) -> None:
    score = make_score([(0, 12, 60, 80), (30, 6, 62, 80)])
    assert notes_of(score).onset.tolist() == pytest.approx([0.0, 30 / 24])
