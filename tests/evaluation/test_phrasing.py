from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from pieces import RISE, line, piece, pieces

from partbook.evaluation.melody import Melody, melody
from partbook.evaluation.phrasing import (
    boundaries,
    boundary_strengths,
    cadences,
    ending,
    phrase_length,
    phrase_lengths,
    phrase_regularity,
)
from partbook.evaluation.reading import Reading

_SUNG = [1, 1, 1, 1, 1, 1, 1, 4]


def test_strengths_are_those_of_the_definition_on_paper() -> None:
    # Intervals 2, 2, 5: changes 0 and 3/7, so 0, 2 · 3/7, 5 · 3/7; over the greatest: 0, .4, 1.
    # Waits 1, 1, 3: changes 0 and 2/4, so 0, .5, 1.5: 0, 1/3, 1. Rests 0, 0, 2: changes 0 and 1: 0, 0, 1.
    read = piece((0, 1, 60), (1, 1, 62), (2, 1, 64), (5, 1, 69))
    wanted = [0.0, 0.25 * 0.4 + 0.5 / 3, 1.0]
    assert boundary_strengths(melody(read)) == pytest.approx(wanted)


def test_short_or_steady_melodies_have_one_phrase() -> None:
    for read in (line([60]), line([60, 64]), line([60, 60, 60]), line([60] * 30), line(range(40, 70), 1 / 3)):
        assert boundaries(melody(read)).tolist() == [len(read) - 1]
        assert len(phrase_lengths(read)) == 1
        assert math.isnan(phrase_length(read))
        assert math.isnan(cadences(read))
        assert math.isnan(phrase_regularity(read))


@given(pieces())
@settings(max_examples=40)
def test_phrases_end_four_notes_apart_and_last_as_long_as_the_melody(read: Reading) -> None:
    found = melody(read)
    ends = boundaries(found)
    assert ends[-1] == len(found) - 1
    assert (np.diff(ends) >= 4).all()
    strength = boundary_strengths(found)
    assert ((strength >= 0) & (strength <= 1 + 1e-12)).all()
    total = found.onset[-1] + found.duration[-1] - found.onset[0]
    assert phrase_lengths(read).sum() * 12 == pytest.approx(total)


@given(pieces())
@settings(max_examples=30)
def test_boundaries_stay_where_they_are_at_half_the_tempo_and_in_another_key(read: Reading) -> None:
    found = melody(read)
    slow = Melody(found.onset * 2, found.duration * 2, found.pitch + 7)
    assert boundaries(slow).tolist() == boundaries(found).tolist()


def test_a_phrase_ends_at_a_rest_as_at_a_long_note() -> None:
    notes = [(12 * phrase + q, 1, 60) for phrase in range(3) for q in range(8)]
    assert phrase_lengths(piece(*notes)).tolist() == [12, 12, 8]
    assert phrase_length(piece(*notes)) == 12
    assert phrase_regularity(piece(*notes)) == 1.0
    assert phrase_regularity(piece(*notes, bar=5)) == 0.0


def test_whole_bars_are_whole_to_within_a_sixteenth() -> None:
    for longer, share in ((0.25, 1.0), (0.5, 0.5)):
        waits = [*_SUNG[:7], 5, *_SUNG[:7], 5 + longer, *_SUNG]
        assert phrase_regularity(line([60] * 24, waits)) == share


def test_a_phrase_closes_on_the_whole_chord_that_sounds() -> None:
    # Below the second phrase's end, on C, lies F: no triad of C major has both.
    waits = _SUNG * 3
    onsets = np.cumsum([0, *waits[:-1]]).tolist()
    notes = list(zip(onsets, waits, [72] * 24, strict=True))
    under = [(float(onsets[i]), 4.0, p) for i, p in ((7, 60), (15, 53), (23, 48))]
    assert cadences(piece(*notes, *under)) == pytest.approx(2 / 3)
    assert cadences(piece(*notes, *under[::2])) == 1.0


def test_a_phrase_whose_last_note_is_no_longer_than_others_does_not_close() -> None:
    # A leap to another octave ends phrases here, and every note is a quarter.
    read = line([*[60] * 8, *[84] * 8, *[60] * 8])
    assert len(phrase_lengths(read)) == 3
    assert cadences(read) == 0.0


def test_the_lowest_note_that_sounds_at_the_last_attack_ends_the_piece() -> None:
    scale = [(float(i), 1.0, p) for i, p in enumerate(RISE)]
    assert ending(piece(*scale, (8, 4, 48), (8, 4, 67))) == 1.0
    assert ending(piece(*scale, (8, 4, 43), (8, 4, 60))) == 0.5
    # The bass was struck before and still sounds.
    assert ending(piece(*scale, (7, 5, 48), (8, 1, 67))) == 0.5
    assert ending(line([60])) == 0.5
