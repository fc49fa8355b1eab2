"""What performed notes are written down as: divisions of the beat, chords, ends, and what rounding would have made."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from partbook.errors import ScoreError
from partbook.music.notation import DIVISIONS, LENGTHS, TOGETHER, lengths, onsets, score_of
from partbook.music.notes import Notes
from partbook.music.tokens import TICKS_PER_QUARTER

BEATS = np.arange(0.0, 4.5, 0.5)
MIXED = ((0, 4, 6, 8), (0, 3, 4, 6, 8, 9))
jitter = st.lists(st.floats(-0.3, 0.3), min_size=12, max_size=12)


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


def test_one_beat_is_no_grid() -> None:
    with pytest.raises(ScoreError, match="two beats"):
        score_of(Notes.from_rows([(0.0, 0.4, 60, 80)]), np.array([0.0]), 0, beats_per_minute=120)


@pytest.mark.parametrize("places", [places for places, _ in DIVISIONS])
@given(off=jitter)
def test_a_division_played_a_little_off_is_written_as_it_is(places: tuple[int, ...], off: list[float]) -> None:
    exact = np.array([12 * beat + place for beat in range(4) for place in places], dtype=float)
    played = np.maximum(exact + np.resize(off, len(exact)), 0.0)
    written = onsets(played)
    if len(places) > 6 or places in MIXED:  # so close that rounding errs as well
        assert np.abs(written - exact).max() <= 1
    else:
        assert written.tolist() == exact.tolist()


@pytest.mark.parametrize("places", MIXED)
def test_two_against_three_is_written_where_it_is_played_well(places: tuple[int, ...]) -> None:
    assert onsets(np.array(places, dtype=float)).tolist() == list(places)


def test_triplets_beside_sixteenths_are_told_apart() -> None:
    played = np.array([0.2, 3.9, 8.2, 12.1, 14.8, 18.2, 20.9, 24.0, 28.1, 32.0])
    assert onsets(played).tolist() == [0, 4, 8, 12, 15, 18, 21, 24, 28, 32]


def test_a_spread_chord_begins_at_once_and_a_grace_note_does_not() -> None:
    assert onsets(np.array([5.7, 6.1, 6.6])).tolist() == [6, 6, 6]
    assert onsets(np.array([11.7, 12.2])).tolist() == [12, 12]  # across a beat
    grace, note = onsets(np.array([4.2, 6.0]))
    assert grace < note


@given(st.lists(st.floats(0, 200), min_size=1, max_size=60))
def test_nothing_changes_places_and_nothing_moves_far(at: list[float]) -> None:
    heard = np.sort(np.array(at))
    written = onsets(heard)
    assert (np.diff(written) >= 0).all()
    assert np.abs(written - heard).max() <= 6 + TOGETHER * len(at)
    assert (onsets(heard[::-1])[::-1] == written).all()


def test_notes_of_a_melody_last_until_the_next_one() -> None:
    onset = np.array([0, 6, 12, 24, 30])
    assert lengths(onset, np.array([4.1, 11.2, 9.5, 2.2, 20.0])).tolist() == [6, 6, 12, 6, 18]


def test_a_chords_notes_end_together() -> None:
    onset = np.array([0, 0, 0, 12, 24])
    assert lengths(onset, np.array([11.0, 12.6, 13.4, 12.0, 12.0]))[:3].tolist() == [12, 12, 12]


def test_a_held_note_ends_with_what_ends_there_and_a_short_one_stays_short() -> None:
    onset = np.array([0, 0, 12, 24, 36, 48])
    assert lengths(onset, np.array([44.0, 12.0, 2.0, 12.0, 12.0, 12.0])).tolist()[:3] == [48, 12, 2]


@given(st.lists(st.tuples(st.integers(0, 96), st.floats(0.01, 400)), max_size=30))
def test_every_length_can_be_said(rows: list[tuple[int, float]]) -> None:
    onset = np.array(sorted(row[0] for row in rows), dtype=np.int64)
    found = lengths(onset, np.array([row[1] for row in rows]))
    assert (found >= 1).all()
    ends = set((onset + found).tolist())
    assert all(
        end in set(onset.tolist()) or length in LENGTHS for end, length in zip(onset + found, found, strict=True)
    )
    assert len(ends) <= len(rows)


def test_a_files_notes_are_rounded() -> None:
    notes = Notes.from_rows([(0.04, 0.21, 60, 80), (0.33, 0.1, 62, 80)])  # 0.96 and 7.92 positions
    score = score_of(notes, BEATS, 0, beats_per_minute=120, heard=False)
    unit = TICKS_PER_QUARTER // 12
    assert [(n.time // unit, n.duration // unit) for n in score.tracks[0].notes] == [(1, 5), (8, 2)]
