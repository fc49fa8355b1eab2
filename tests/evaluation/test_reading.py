from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pieces import RISE, in_bars, line, piece, pieces, same, score
from symusic.core import ScoreTick, TempoTick

from partbook.errors import ScoreError
from partbook.evaluation.reading import GRID, read


def test_notes_are_read_onto_twelfths_of_a_quarter_by_onset_then_pitch() -> None:
    # At 480 ticks a quarter a step is 40: ticks 160 and 320 are the triplet's 4th and 8th step.
    found = read(score((320, 160, 64), (0, 160, 60), (160, 160, 62), (0, 480, 48)))
    assert found.onset.tolist() == [0, 0, 4, 8]
    assert found.pitch.tolist() == [48, 60, 62, 64]
    assert found.duration.tolist() == [12, 4, 4, 4]
    assert len(found) == 4
    assert found.end == 12
    assert found.quarters == 1.0


def test_a_pitch_struck_twice_at_once_counts_once_and_as_long_as_the_longer() -> None:
    found = read(score((0, 480, 60), (0, 960, 60), (0, 240, 60)))
    assert found.duration.tolist() == [24]


def test_a_note_without_length_lasts_a_step() -> None:
    assert read(score((0, 0, 60))).duration.tolist() == [1]


def test_notes_that_follow_each_other_neither_overlap_nor_leave_gaps_on_the_grid() -> None:
    """Thirty-seconds (60 ticks, 1.5 steps) and quintuplets (96 ticks, 2.4 steps) lie beside it."""
    for length in (60, 96):
        found = read(score(*((length * i, length, 60 + i) for i in range(10))))
        assert (found.onset[1:] == (found.onset + found.duration)[:-1]).all()


def test_equal_bars_read_alike_even_off_the_grid() -> None:
    """Bars of 3/16 have nine steps: rounding half to even would read every other one otherwise."""
    notes = [(360 * bar + 60 * i, 60, 60 + i) for bar in range(4) for i in range(6)]
    found = read(score(*notes, metres=[(0, 3, 16)]))
    assert found.bars.tolist() == [0, 9, 18, 27, 36]
    places = (found.onset - found.bars[found.bar]).reshape(4, 6)
    assert (places == places[0]).all()


@pytest.mark.parametrize("ticks", [24, 96, 100, 120, 220, 384, 1000, 1024])
def test_any_resolution_reads_as_the_same_piece(ticks: int) -> None:
    """Quarters, at resolutions of which twelve divides some."""
    found = read(score(*((ticks * i, ticks, 60 + i) for i in range(9)), ticks=ticks, metres=[(0, 3, 4)]))
    assert found.onset.tolist() == [GRID * i for i in range(9)]
    assert set(found.duration.tolist()) == {GRID}
    assert found.bars.tolist() == [0, 36, 72, 108]


def test_drums_are_left_out_and_alone_are_nothing_to_measure() -> None:
    both = score((0, 480, 60))
    both.tracks.append(score((0, 480, 36), drums=True).tracks[0])
    assert read(both).pitch.tolist() == [60]
    with pytest.raises(ScoreError, match="Beat has no pitched notes"):
        read(score((0, 480, 36), drums=True), "Beat")
    with pytest.raises(ScoreError, match="The score has no pitched notes"):
        read(ScoreTick(480))


def test_seconds_follow_the_tempo_marks() -> None:
    plain = score((0, 960, 60), (960, 960, 62))
    assert read(plain).seconds == pytest.approx(2.0)  # 120 quarters a minute where none is said
    plain.tempos.append(TempoTick(0, 60.0))
    plain.tempos.append(TempoTick(960, 240.0))
    assert read(plain).seconds == pytest.approx(2.5)


def test_a_score_that_names_no_metre_is_in_four_four_until_it_does() -> None:
    note = (0, 480 * 12, 60)
    assert read(score(note)).bars.tolist() == [0, 48, 96, 144]
    assert read(score(note, metres=[(480 * 8, 2, 4)])).bars.tolist() == [0, 48, 96, 120, 144]


def test_a_change_of_metre_begins_a_bar_even_inside_one() -> None:
    # 3/4 from 0; 4/4 from quarter 4, inside the second bar; 6/8 from quarter 8.
    metres = [(0, 3, 4), (480 * 4, 4, 4), (480 * 8, 6, 8)]
    assert read(score((0, 480 * 13, 60), metres=metres)).bars.tolist() == [0, 36, 48, 96, 132, 168]


def test_of_two_metres_at_one_place_the_last_counts_and_of_late_or_empty_ones_none() -> None:
    note = (0, 480 * 6, 60)
    assert read(score(note, metres=[(0, 4, 4), (0, 3, 4)])).bars.tolist() == [0, 36, 72]
    assert read(score(note, metres=[(0, 3, 4), (480 * 9, 2, 4)])).bars.tolist() == [0, 36, 72]
    assert read(score(note, metres=[(0, 3, 4), (480 * 3, 0, 4)])).bars.tolist() == [0, 36, 72]


def test_bar_lines_between_steps_do_not_drift() -> None:
    """3/32 is four and a half steps: two bars are nine, forty are 180."""
    bars = read(score((0, 480 * 15, 60), metres=[(0, 3, 32)])).bars
    assert bars[:5].tolist() == [0, 5, 9, 14, 18]
    assert bars[40] == 180 == bars[-1]


def test_a_note_belongs_to_the_bar_in_which_it_begins() -> None:
    read_ = piece((0, 6, 60), (3.5, 1, 62), (4, 1, 64), (11.5, 1, 65))
    assert read_.bar.tolist() == [0, 0, 1, 2]
    assert read_.bars.tolist() == [0, 48, 96, 144, 192]  # to the bar in which the last note ends


def test_an_opening_is_the_bars_that_begin_in_it_and_cuts_what_rings_on() -> None:
    long = in_bars("ABCD", A=RISE, B=(60,), C=(62,), D=(64,))
    assert same(long.opening(8), in_bars("AB", A=RISE, B=(60,)))
    assert same(long.opening(8.1), in_bars("ABC", A=RISE, B=(60,), C=(62,)))
    assert long.opening(16) is long
    assert same(long.opening(0), in_bars("A", A=RISE))
    ringing = piece((0, 6, 60), (7, 1, 62))
    assert ringing.opening(4).duration.tolist() == [48]
    assert ringing.opening(4).seconds == pytest.approx(2.0)


def test_an_opening_without_a_note_begins_with_the_bar_of_the_first() -> None:
    late = in_bars("...ABC", A=RISE, B=(60,), C=(62,))
    assert same(late.opening(8), in_bars("AB", A=RISE, B=(60,)))
    assert len(late.opening(13).bars) == 5


def test_bars_without_notes_are_no_piece() -> None:
    late = in_bars("..A", A=RISE)
    for first, last in ((0, 2), (3, 9), (7, 9)):
        with pytest.raises(ScoreError, match="has no note in bars"):
            late.between(first, last)
    assert same(late.between(2, 99), in_bars("A", A=RISE))


@given(pieces())
@settings(max_examples=60)
def test_a_piece_written_and_read_again_is_the_same(drawn) -> None:
    again = read(drawn.score(), "drawn")
    assert np.array_equal(again.onset, drawn.onset)
    assert np.array_equal(again.duration, drawn.duration)
    assert np.array_equal(again.pitch, drawn.pitch)
    # The last bar line alone may lie further on: where no metre has that bar's length.
    assert again.bars[:-1].tolist() == drawn.bars[:-1].tolist()
    assert again.seconds == pytest.approx(drawn.seconds)


@given(pieces(), st.integers(-140, 140))
@settings(max_examples=40)
def test_a_shift_keeps_pitch_classes_and_the_range(drawn, shift: int) -> None:
    pitches = [note.pitch for note in drawn.score(shift=shift).tracks[0].notes]
    assert all(0 <= pitch <= 127 for pitch in pitches)
    assert [p % 12 for p in pitches] == ((drawn.pitch + shift) % 12).tolist()
    inside = [int(p) + shift for p in drawn.pitch if 0 <= p + shift <= 127]
    assert set(inside) <= set(pitches)


def test_a_written_piece_sounds_on_the_program_that_is_asked_for() -> None:
    written = line(RISE).score(program=73)
    assert [track.program for track in written.tracks] == [73]
    assert [(m.numerator, m.denominator) for m in written.time_signatures] == [(4, 4)]


@given(pieces(), st.randoms())
@settings(max_examples=30)
def test_tracks_their_order_loudness_and_instruments_make_no_difference(drawn, random) -> None:
    whole = drawn.score()
    parts = [score(ticks=480) for _ in range(3)]
    notes = list(whole.tracks[0].notes)
    random.shuffle(notes)
    for index, note in enumerate(notes):
        note.velocity = 1 + index % 127
        parts[index % 3].tracks[0].notes.append(note)
        parts[index % 3].tracks[0].program = index % 128
    mixed = drawn.score()
    mixed.tracks.clear()
    for part in parts:
        mixed.tracks.append(part.tracks[0])
    assert same(read(mixed), read(whole))


def test_a_work_is_called_by_its_title_where_nothing_else_is_said() -> None:
    assert read(score((0, 480, 60)), "A jig").work == "A jig"
    assert read(score((0, 480, 60)), "A jig", "jigs/1").work == "jigs/1"
    assert read(score((0, 480, 60))).work == ""
