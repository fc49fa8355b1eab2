"""What of a score is played for a clip, and how."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from symusic import ControlChange, Note, Score, Tempo, Track

from partbook.evaluation.listening.scores import Playing, prepared


def score_of(onsets: list[int], length: int = 230, tempos: list[tuple[int, float]] | None = None) -> Score:
    score, track = Score(480), Track(program=40, is_drum=False, name="violin")
    for place, tick in enumerate(onsets):
        track.notes.append(Note(tick, length, 60 + place % 12, 90))
    score.tracks.append(track)
    for tick, pace in tempos or [(0, 120.0)]:
        score.tempos.append(Tempo(tick, pace))
    return score


def seconds_of(score: Score) -> np.ndarray:
    return np.array([(note.time, note.end) for track in score.to("Second").tracks for note in track.notes])


def test_all_is_played_on_one_instrument_without_drums_unless_as_written() -> None:
    score = score_of([240 * i for i in range(20)])
    drums = Track(program=0, is_drum=True, name="")
    drums.notes.append(Note(0, 100, 36, 100))
    score.tracks.append(drums)
    one, _ = prepared(score, Playing(0, even=True), 4.0)
    assert [track.program for track in one.tracks] == [0]
    assert {note.velocity for note in one.tracks[0].notes} == {80}
    as_written, _ = prepared(score, Playing(None), 4.0)
    assert [track.program for track in as_written.tracks] == [40, 0]
    assert as_written.tracks[0].notes[0].velocity == 90
    assert [note.velocity for note in score.tracks[0].notes] == [90] * 20, "the score itself stays as it was"


def test_no_more_is_played_than_is_heard_and_a_second() -> None:
    clip, begins = prepared(score_of([960 + 240 * i for i in range(200)]), Playing(), 4.0)
    (track,) = clip.tracks
    assert begins == 0.0
    assert [note.time for note in track.notes] == [240 * i for i in range(21)], (
        "5 s at 120 a minute, from its first note"
    )


def test_a_note_that_lasts_for_hours_is_cut() -> None:
    clip, _ = prepared(score_of([0, 480], length=480 * 10_000), Playing(), 4.0)
    assert seconds_of(clip).max() == pytest.approx(5.0, abs=0.01)


def test_tempi_and_pedal_set_before_a_clip_hold_in_it() -> None:
    score = score_of([240 * i for i in range(100)], tempos=[(0, 120), (960, 60), (18_000, 240)])
    score.tracks[0].controls.append(ControlChange(100, 64, 127))
    score.tracks[0].controls.append(ControlChange(200, 7, 90))
    clip, begins = prepared(score, Playing(), 4.0, share=0.5)
    assert begins > 0
    assert [(tempo.time, round(tempo.qpm)) for tempo in clip.tempos] == [(0, 60)]
    assert sorted((each.time, each.number, each.value) for each in clip.tracks[0].controls) == [
        (0, 7, 90),
        (0, 64, 127),
    ]


@given(
    st.lists(st.integers(0, 20_000), min_size=1, max_size=40),
    st.lists(st.tuples(st.integers(0, 20_000), st.sampled_from([30.0, 60.0, 120.0, 200.0])), max_size=4),
    st.floats(0.0, 1.0),
)
def test_a_clip_begins_with_a_note_and_leaves_room_for_itself(onsets, tempos, share: float) -> None:
    score = score_of(sorted(onsets), tempos=sorted(tempos, key=lambda change: change[0]) or None)
    whole = seconds_of(score)
    clip, begins = prepared(score, Playing(None), 3.0, share)
    found = seconds_of(clip)
    assert found.min() == 0.0
    first = whole[:, 0].min()
    assert np.abs(whole[:, 0] - first - begins).min() < 2e-3, "the same clock as symusic's"
    assert begins == 0.0 or whole[:, 1].max() - first - begins >= 3.0 - 2e-3
    assert found[:, 0].max() <= 4.0 + 2e-3
    expected = whole[:, 0] - first - begins
    expected = expected[(expected > -2e-3) & (expected < 4.0 - 2e-3)]
    assert len(found) >= len(expected)


def test_a_score_without_notes_stays_empty() -> None:
    clip, begins = prepared(Score(480), Playing(), 4.0)
    assert begins == 0.0
    assert not clip.tracks
