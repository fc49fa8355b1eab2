import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from music_pieces import music, score_in
from symusic.core import NoteTick, ScoreTick, TrackTick

from partbook.errors import ScoreError
from partbook.music.quantised import Quantised, quantised, scored

METRE = [(0, (4, 4))]


def notes(q: Quantised) -> list[tuple[int, int, int, int]]:
    return list(zip(q.onset.tolist(), q.length.tolist(), q.pitch.tolist(), q.program.tolist(), strict=True))


@given(q=music())
def test_the_grid_survives_a_score(q: Quantised) -> None:
    again = quantised(scored(q))
    assert notes(again) == notes(q)
    assert again.bars.tolist() == q.bars.tolist()
    assert again.metres == q.metres
    assert again.tempi == pytest.approx(q.tempi, rel=1e-4)  # MIDI keeps whole microseconds


def test_a_pick_up_before_a_change_of_metre_is_a_bar_as_short() -> None:
    score = score_in({0: [(0, 12, 60, 80), (12, 36, 62, 80)]}, [(0, (1, 4)), (12, (3, 4))])
    q = quantised(score)
    assert q.metres == ((1, 4), (3, 4))
    assert q.bars.tolist() == [0, 12, 48]
    # The same pick-up where the score counts a whole bar that the next mark breaks off.
    broken = quantised(score_in({0: [(0, 12, 60, 80), (12, 36, 62, 80)]}, [(0, (4, 4)), (12, (3, 4))]))
    assert broken.metres == q.metres
    assert notes(broken) == notes(q)


def test_a_pick_up_in_a_first_bar_of_rests_stays_where_it_is() -> None:
    q = quantised(score_in({0: [(36, 12, 60, 80), (48, 12, 62, 80)]}, METRE))
    assert q.onset.tolist() == [36, 48]
    assert q.bars.tolist() == [0, 48, 96]


def test_a_broken_bar_that_no_metre_measures_is_filled_up_and_what_follows_moves() -> None:
    # 13 positions are no metre; 18, three eighths, are the shortest that hold them.
    q = quantised(score_in({0: [(0, 6, 60, 80), (13, 12, 62, 80)]}, [(0, (4, 4)), (13, (3, 4))]))
    assert q.metres[1] == (3, 4)
    said = q.bars[1]
    assert said >= 13
    assert q.onset.tolist() == [0, said]


def test_a_metre_that_cannot_be_said_is_the_one_before_it() -> None:
    q = quantised(score_in({0: [(0, 12, 60, 80), (100, 12, 60, 80)]}, [(0, (3, 4)), (36, (31, 32))]))
    assert set(q.metres) == {(3, 4)}


def test_the_longest_of_doubles_is_kept() -> None:
    q = quantised(score_in({0: [(0, 12, 60, 80), (0, 24, 60, 70)], 5: [(0, 6, 60, 80)]}, METRE))
    assert notes(q) == [(0, 24, 60, 0), (0, 6, 60, 5)]
    assert notes(q.on(0)) == [(0, 24, 60, 0)]


@given(q=music(), semitones=st.integers(-12, 12))
def test_transposed_notes_stay_on_the_piano_and_keep_their_pitch_class(q: Quantised, semitones: int) -> None:
    moved = q.transposed(semitones)
    assert moved.pitch.min() >= 21
    assert moved.pitch.max() <= 108
    assert len(moved.pitch) <= len(q.pitch)
    assert set(moved.pitch % 12) == set((q.pitch + semitones) % 12)


def test_a_note_over_the_ranges_edge_comes_back_an_octave_inside_and_doubles_nothing() -> None:
    q = quantised(score_in({0: [(0, 12, 108, 80), (0, 24, 98, 80), (12, 12, 21, 80)]}, METRE))
    up = q.transposed(2)
    assert notes(up) == [(0, 12, 98, 0), (0, 24, 100, 0), (12, 12, 23, 0)]
    assert notes(q.transposed(-3)) == [(0, 24, 95, 0), (0, 12, 105, 0), (12, 12, 30, 0)]
    folded = quantised(score_in({0: [(0, 12, 108, 80), (0, 24, 96, 80)]}, METRE)).transposed(12)
    assert notes(folded) == [(0, 24, 108, 0)]


@given(q=music(), data=st.data())
def test_bars_that_are_cut_out_hold_their_notes_and_nothing_else(q: Quantised, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(q) - 1))
    last = data.draw(st.integers(first + 1, len(q)))
    part = q.cut(first, last)
    assert part.metres == q.metres[first:last]
    assert part.tempi == q.tempi[first:last]
    assert part.bars.tolist() == (q.bars[first : last + 1] - q.bars[first]).tolist()
    inside = (q.onset >= q.bars[first]) & (q.onset < q.bars[last])
    assert part.onset.tolist() == (q.onset[inside] - q.bars[first]).tolist()
    assert part.pitch.tolist() == q.pitch[inside].tolist()


def test_notes_off_the_grid_go_to_the_nearest_position_and_none_is_shorter_than_one() -> None:
    score, track = ScoreTick(960), TrackTick(program=0, is_drum=False, name="")
    track.notes.append(NoteTick(959, 3, 60, 80))
    score.tracks.append(track)
    q = quantised(score)
    assert notes(q) == [(12, 1, 60, 0)]
    assert q.tempi == (120.0,)
    assert q.metres == ((4, 4),)


def test_drums_and_notes_beyond_the_piano_are_no_music() -> None:
    score = score_in({0: [(0, 12, 5, 80), (0, 12, 110, 80)]})
    drums = TrackTick(program=0, is_drum=True, name="")
    drums.notes.append(NoteTick(0, 480, 60, 80))
    score.tracks.append(drums)
    with pytest.raises(ScoreError, match="no pitched notes"):
        quantised(score)


def test_onsets_ascend_and_then_programs_and_pitches() -> None:
    q = quantised(score_in({9: [(12, 12, 60, 80), (0, 12, 50, 80)], 2: [(0, 12, 70, 80), (0, 12, 40, 80)]}, METRE))
    assert [(o, p, n) for o, _, n, p in notes(q)] == [(0, 2, 40), (0, 2, 70), (0, 9, 50), (12, 9, 60)]
    assert q.velocity.dtype == np.int64
