from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from pieces import RISE, line, piece, pieces

from partbook.evaluation.melody import attacks, first_seen, melody, runs
from partbook.evaluation.reading import GRID, Reading


def test_one_voice_is_its_own_melody() -> None:
    read = line(RISE)
    assert melody(read).pitch.tolist() == list(RISE)
    assert melody(read).intervals.tolist() == [2, 2, 1, 2, 2, 2, 1]
    assert melody(read).waits.tolist() == [GRID] * 7
    assert len(melody(read)) == 8
    assert len(melody(line([60])).waits) == 0


def test_of_notes_that_begin_together_the_highest_counts() -> None:
    assert melody(piece((0, 1, 60), (0, 1, 72), (1, 1, 71), (1, 1, 59))).pitch.tolist() == [72, 71]


def test_a_note_under_the_melodys_last_one_while_that_sounds_does_not_count() -> None:
    # Under 72 the 60 begins and ends; 74 is above it; after both, 60 counts.
    read = piece((0, 4, 72), (1, 1, 60), (2, 1, 74), (4, 1, 60))
    assert melody(read).pitch.tolist() == [72, 74, 60]
    # A note that begins as the last one ends is not under it, and neither is one on the same pitch.
    assert melody(piece((0, 1, 72), (1, 1, 60))).pitch.tolist() == [72, 60]
    assert melody(piece((0, 2, 72), (1, 1, 72))).pitch.tolist() == [72, 72]


def test_a_note_under_a_higher_one_that_is_not_the_last_counts() -> None:
    assert melody(piece((0, 4, 72), (1, 1, 74), (2, 1, 60))).pitch.tolist() == [72, 74, 60]


@given(pieces())
def test_a_melody_is_notes_of_the_piece_one_at_a_time(read: Reading) -> None:
    found = melody(read)
    assert (found.waits > 0).all()
    notes = set(zip(read.onset.tolist(), read.duration.tolist(), read.pitch.tolist(), strict=True))
    assert set(zip(found.onset.tolist(), found.duration.tolist(), found.pitch.tolist(), strict=True)) <= notes
    assert found.onset[0] == read.onset[0]
    assert found.pitch[0] == read.pitch[read.onset == read.onset[0]].max()


def test_attacks_are_counted_once() -> None:
    assert attacks(piece((0, 1, 60), (0, 2, 64), (1, 1, 67))).tolist() == [0, 12]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=12), st.integers(1, 5))
def test_runs_and_their_first_places_are_those_of_slices(rows: list[tuple[int, int]], length: int) -> None:
    values = np.array(rows, np.int64).reshape(-1, 2)
    slices = [rows[i : i + length] for i in range(len(rows) - length + 1)]
    found = runs(values, length)
    assert found.shape == (len(slices), 2 * length)
    assert [row.reshape(-1, 2).tolist() for row in found] == [[list(pair) for pair in s] for s in slices]
    assert first_seen(found).tolist() == [slices.index(s) for s in slices]
    single = runs(values[:, 0], length)
    assert single.tolist() == [[a for a, _ in s] for s in slices]
