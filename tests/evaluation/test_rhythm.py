from __future__ import annotations

import math

import numpy as np
import pytest
from pieces import RISE, in_bars, line, piece

from partbook.evaluation.reading import GRID
from partbook.evaluation.rhythm import groove, on_beat, on_half_beat, onset_patterns, rhythm_entropy


def test_patterns_have_a_row_for_each_bar_as_wide_as_the_longest() -> None:
    read = piece((0, 1, 60), (1, 1, 60), (1, 1, 64), (4, 8, 60))
    found = onset_patterns(read)
    assert found.shape == (3, 48)
    assert [np.flatnonzero(row).tolist() for row in found] == [[0, 12], [0], []]


def test_groove_is_1_where_all_bars_are_attacked_alike_whatever_the_pitches() -> None:
    assert groove(in_bars("ABAB", A=RISE, B=RISE[::-1])) == 1.0


def test_a_note_held_over_a_silent_bar_makes_no_groove() -> None:
    assert math.isnan(groove(piece((0, 12, 60), (1, 1, 62))))


def test_groove_over_a_change_of_metre_compares_steps_from_the_bar_line() -> None:
    # Attacks on 1, 2, 3 of three and on 1, 2, 3, 4 of four: three of four.
    read = piece(*((q, 1, 60) for q in range(7)), bar=3)
    changed = type(read)("", read.onset, read.duration, read.pitch, np.array([0, 36, 84]), 3.5)
    assert groove(changed) == 0.75


def test_silent_bars_on_both_sides_say_nothing_and_on_one_side_nothing_in_common() -> None:
    # A.: 0, ..: left out, .A: 0, AA: 1.
    assert groove(in_bars("A..AA", A=RISE)) == pytest.approx(1 / 3)


def test_beats_are_counted_from_the_bar_line() -> None:
    # In bars of an eighth more than a quarter, beats fall off the quarters of the whole.
    read = line([60] * 4, 1.5, bar=1.5)
    assert on_beat(read) == 1.0
    assert on_beat(line([60] * 4, 1.5)) == 0.5
    assert on_half_beat(line([60] * 4, 1.5)) == 1.0
    assert on_half_beat(line([60] * 3, 1 / 3)) == pytest.approx(1 / 3)


def test_chords_are_one_attack() -> None:
    chords = piece(*((q, 1, p) for q in (0, 1, 3) for p in (60, 64, 67)))
    assert rhythm_entropy(chords) == 1.0
    assert on_beat(chords) == 1.0
    assert GRID == 12
