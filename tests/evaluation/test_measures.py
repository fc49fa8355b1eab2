"""Every measure: that it says what it is, a value worked out on paper, and what it promises not to look at."""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pieces import RISE, in_bars, line, piece, pieces, shuffled

from partbook.evaluation.measures import MEASURES, NAMES, Measure, as_rows, by_name, measure
from partbook.evaluation.reading import GRID, Reading

_MAJOR = [(float(q), 1.0, p) for q in range(32) for p in (60, 64, 67)]
_FAR = [(32.0 + q, 0.25, (66, 70, 73)[q % 3]) for q in range(16)]
_SUNG = [1, 1, 1, 1, 1, 1, 1, 4]  # a phrase of eight notes, the last of them long

# One value at least for each measure, and how it comes about.
KNOWN: dict[str, list[tuple[Reading, float]]] = {
    # A quarter, a quarter's rest, a quarter: one of three is silent.
    "silence": [(piece((0, 1, 60), (2, 1, 60)), 1 / 3), (line(RISE), 0.0), (piece((3, 1, 60)), 0.75)],
    # Eight quarters at 120 a minute last four seconds.
    "density": [(line(RISE), 2.0)],
    "density_per_quarter": [(line(RISE), 1.0), (line(RISE, 0.5), 2.0)],
    # One note for a quarter, two for the next; silence does not count.
    "polyphony": [(piece((0, 2, 60), (1, 1, 64), (3, 1, 60)), 4 / 3), (piece((0, 2, 60), (1, 1, 64)), 1.5)],
    "mean_pitch": [(line([60, 64]), 62.0), (line([0, 127]), 63.5)],
    "pitch_range": [(line([60, 64]), 4.0), (line([0, 127]), 127.0), (line([60]), 0.0)],
    "note_length": [(line([60, 60, 60], [0.5, 1, 2]), 1.0)],
    # Two lengths, each as often: one bit. One length: none.
    "note_length_entropy": [(line([60] * 4, [1, 2, 1, 2]), 1.0), (line(RISE), 0.0)],
    # C with E for two quarters, C with D for one; E and D do not meet.
    "consonance": [
        (piece((0, 3, 60), (0, 2, 64), (2, 1, 62)), 2 / 3),
        (piece((0, 1, 60), (0, 1, 72)), 1.0),
        (piece((0, 1, 60), (0, 1, 66)), 0.0),
        (line(RISE), math.nan),
    ],
    # Waits of 1, 1, 2 and 2 quarters; the last note's length is none.
    "rhythm_entropy": [(line([60] * 5, [1, 1, 2, 2, 3]), 1.0), (piece((0, 1, 60), (0, 1, 64)), math.nan)],
    # Attacks on 1, 2, 3 and on 1, 3, 4: two in both, four in either. A silent bar is like none.
    "groove": [
        (piece((0, 1, 60), (1, 1, 60), (2, 1, 60), (4, 1, 60), (6, 1, 60), (7, 1, 60)), 0.5),
        (in_bars("AA.A", A=RISE), 1 / 3),
        (line([60], 8), math.nan),
    ],
    # Of attacks on 0, 1/2, 1 and 5/4 two are on a quarter and three on an eighth.
    "on_beat": [(line([60] * 4, [0.5, 0.5, 0.25, 1]), 0.5)],
    "on_half_beat": [(line([60] * 4, [0.5, 0.5, 0.25, 1]), 0.75)],
    # C and G, each twice, in whatever octave.
    "pitch_class_entropy": [(line([60, 72, 67, 55]), 1.0), (line(range(60, 72)), math.log2(12)), (line([60]), 0.0)],
    # Seven of eight classes fit into a scale of seven; A minor with a raised leading note fits wholly.
    "in_scale": [(line([*RISE[:7], 61]), 7 / 8), (line([57, 59, 60, 62, 64, 65, 68]), 1.0)],
    # Stretches from quarter 0, 8, 16, 24 and 32: the last alone is in F sharp, a tritone away; the one before it has
    # twelve times as much C as F sharp.
    "key_stability": [(piece(*_MAJOR, *_FAR), 4 / 5), (line([60] * 16), math.nan)],
    # Intervals of 2, 5 and 1 semitones.
    "conjunct_motion": [(line([60, 62, 67, 66]), 2 / 3), (line([60]), math.nan)],
    "leap": [(line([60, 62, 67, 66]), 8 / 3), (line([60]), math.nan)],
    # Over bar lines 4, 6, 4, 6, 4 semitones; inside bars always 1. Under five of each there is none.
    "bar_line_leap": [
        (in_bars("ABABAB", A=(60, 61), B=(65, 66)), 3.8),
        (in_bars("ABABA", A=(60, 61), B=(65, 66)), math.nan),
    ],
    # Bars of one note: 2, 5 and 2 semitones; of three there must be.
    "bar_line_step": [(line([60, 62, 67, 69], 4), 2 / 3), (line([60, 62, 67], 4), math.nan)],
    # One of four bars has been there before; silent bars do not count.
    "bar_repeats": [
        (in_bars("ABAC", A=(60, 62), B=(64,), C=(65,)), 1 / 4),
        (in_bars("A..A", A=(60,)), 1 / 2),
        (in_bars("A...", A=(60,)), math.nan),
    ],
    # The second AB, two of six bars. One bar alone is no passage, and silence does not join.
    "passage_repeats": [
        (in_bars("ABCABD", A=(60,), B=(62,), C=(64,), D=(65,)), 1 / 3),
        (in_bars("ABAC", A=(60,), B=(62,), C=(64,)), 0.0),
        (in_bars("A.BA.B", A=(60,), B=(62,)), 0.0),
        (in_bars("ABA", A=(60,), B=(62,)), math.nan),
    ],
    # Seven notes and the same a fourth higher make 13 steps and eight turns; the first and the last are alike.
    "melodic_repeats": [
        (line([60, 61, 63, 66, 70, 69, 67, 72, 73, 75, 78, 82, 81, 79]), 2 / 8),
        (line(range(60, 69)), 1.0),
        (line(range(60, 67)), math.nan),
    ],
    # Every second bar is alike, none is like its neighbour: 1 at distance 2, and 12 of all 28 pairs.
    "form": [(in_bars("ABABABAB", A=(60,), B=(62,)), 1 - 12 / 28), (in_bars("ABABABA", A=(60,), B=(62,)), math.nan)],
    # Twelve notes and the same again: the path family of the first twelve quarters has two paths of 12 cells, so the
    # normalised score is (24 - 12) / 24 and the coverage (24 - 12) / 24. A shorter segment covers less.
    "structureness_short": [(line([*range(60, 72)] * 2), 0.5), (line([*range(60, 83)]), math.nan)],
    # The same of 24 notes; under 40 quarters there is none.
    "structureness_long": [(line([*range(60, 84)] * 2), 0.5), (line([*range(60, 99)]), math.nan)],
    # The long notes end phrases of 7 + 4 quarters. A steady beat has no phrases.
    "phrase_length": [(line([60] * 24, _SUNG * 3), 11.0), (line([60] * 24), math.nan)],
    # Of phrases of 12 and 11 quarters, the last left out, the first is three bars long.
    "phrase_regularity": [
        (line([60] * 24, [*_SUNG[:7], 5, *_SUNG[:7], 4, *_SUNG]), 0.5),
        (line([60] * 16, _SUNG * 2), math.nan),
    ],
    # Three phrases in C end on C, F and C: F is in neither triad. On D, in the dominant's, all close.
    "cadences": [
        (line([*[60] * 15, 65, *[60] * 8], _SUNG * 3), 2 / 3),
        (line([*[60] * 15, 62, *[60] * 8], _SUNG * 3), 1.0),
        (line([60] * 24), math.nan),
    ],
    # In C, at the end: C held; C not held; D held; D not held.
    "ending": [
        (line([*RISE, 60], [*[1] * 8, 4]), 1.0),
        (line([*RISE, 60]), 0.5),
        (line([*RISE, 60, 62], [*[1] * 9, 1.5]), 0.5),
        (line([*RISE, 60, 62]), 0.0),
    ],
}


@pytest.mark.parametrize("each", MEASURES, ids=NAMES)
def test_every_measure_has_a_value_worked_out_on_paper(each: Measure) -> None:
    answers = KNOWN[each.name]
    assert any(not math.isnan(value) for _, value in answers)
    for read, value in answers:
        assert each.of(read) == pytest.approx(value, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("each", MEASURES, ids=NAMES)
def test_every_measure_says_what_it_is_and_where_it_comes_from(each: Measure) -> None:
    assert each.definition.endswith(".")
    assert "Source" not in each.definition
    assert each.title
    assert re.search(r"[A-Z]\w+ (et al\. )?(19|20)\d\d|[Dd]efined here", each.source), each.source
    assert each.of.__name__ == each.name
    if each.structural:
        assert each.sense


def test_names_are_each_ones_own_and_find_their_measures() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert [by_name(name) for name in NAMES] == list(MEASURES)
    with pytest.raises(KeyError):
        by_name("beauty")


@given(pieces())
@settings(max_examples=80)
def test_any_piece_can_be_measured_and_shares_lie_between_0_and_1(read: Reading) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = measure(read, read.opening(64))
    for each in MEASURES:
        value = found[each.name]
        assert type(value) is float
        if not math.isnan(value):
            assert math.isfinite(value)
            assert each.name == "bar_line_leap" or value >= 0
            assert each.unit or value <= 1


@pytest.mark.parametrize(
    "read",
    [
        line([60]),
        line([0]),
        line([127], 0.25),
        line([60] * 200, 0.5),
        piece((0, 400, 60)),
        piece((300, 1, 60)),
        piece(*[(0, 4, p) for p in range(128)]),
        in_bars("." * 40 + "A", A=RISE),
    ],
    ids=["one note", "the lowest", "the highest", "one pitch", "one long note", "late", "a cluster", "after silence"],
)
def test_odd_pieces_are_measured_without_a_warning(read: Reading) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = measure(read, read.opening(64))
    assert set(found) == set(NAMES)


# In these a tie between keys may be broken otherwise.
_KEYED = {"key_stability", "cadences", "ending"}


@given(pieces(low=12, high=115), st.integers(-12, 12))
@settings(max_examples=40)
def test_only_the_mean_pitch_hears_a_transposition(read: Reading, shift: int) -> None:
    moved = replace(read, pitch=read.pitch + shift)
    for each in MEASURES:
        if each.name not in _KEYED | {"mean_pitch"}:
            assert each.of(moved) == pytest.approx(each.of(read), abs=1e-9, nan_ok=True), each.name
    assert by_name("mean_pitch").of(moved) == pytest.approx(by_name("mean_pitch").of(read) + shift)


@pytest.mark.parametrize("shift", range(12))
def test_measures_that_ask_for_the_key_hear_no_transposition_where_it_is_clear(shift: int) -> None:
    for name in _KEYED:
        for read, value in KNOWN[name]:
            moved = replace(read, pitch=read.pitch + shift)
            assert by_name(name).of(moved) == pytest.approx(value, nan_ok=True)


@given(pieces())
@settings(max_examples=15)
def test_only_the_density_hears_the_tempo(read: Reading) -> None:
    fast = replace(read, seconds=read.seconds / 2)
    for each in MEASURES:
        factor = 2.0 if each.name == "density" else 1.0
        assert each.of(fast) == pytest.approx(factor * each.of(read), nan_ok=True)


_AFTER_A_REST = {
    *("polyphony", "mean_pitch", "pitch_range", "note_length", "note_length_entropy", "consonance", "rhythm_entropy"),
    *("on_beat", "on_half_beat", "pitch_class_entropy", "in_scale", "conjunct_motion", "leap", "bar_line_leap"),
    *("bar_line_step", "bar_repeats", "passage_repeats", "melodic_repeats", "phrase_length", "cadences", "ending"),
}


@given(pieces())
@settings(max_examples=40)
def test_a_silent_bar_before_the_piece_adds_silence_and_no_more(read: Reading) -> None:
    late = replace(read, onset=read.onset + 48, bars=np.r_[0, read.bars + 48], seconds=read.seconds + 2)
    assert by_name("silence").of(late) == pytest.approx((by_name("silence").of(read) * read.end + 48) / (read.end + 48))
    for name in _AFTER_A_REST:
        assert by_name(name).of(late) == pytest.approx(by_name(name).of(read), abs=1e-9, nan_ok=True), name


_OF_BARS_IN_ANY_ORDER = (
    *("density_per_quarter", "mean_pitch", "pitch_range", "note_length", "note_length_entropy", "consonance"),
    *("on_beat", "on_half_beat", "pitch_class_entropy", "in_scale", "bar_repeats"),
)


@given(st.lists(st.sampled_from("ABCD"), min_size=1, max_size=12), st.integers(0, 99))
def test_what_does_not_claim_to_hear_the_order_of_bars_does_not(order: list[str], seed: int) -> None:
    read = in_bars("".join(order), A=RISE, B=(60, 64, 67, 72), C=(71, 67), D=(60,))
    other = shuffled(read, np.random.default_rng(seed))
    for name in _OF_BARS_IN_ANY_ORDER:
        assert not by_name(name).structural
        assert by_name(name).of(other) == pytest.approx(by_name(name).of(read), abs=1e-9, nan_ok=True), name


def test_endings_are_heard_on_the_whole_piece_and_all_else_on_its_opening() -> None:
    read = line([*RISE] * 5 + [60], [*[1.0] * 40, 4])
    found = measure(read, read.opening(16))
    assert found["ending"] == 1.0
    assert found["pitch_range"] == 12.0
    assert found["density_per_quarter"] == 1.0
    assert read.opening(16).quarters * GRID == 192


def test_measures_become_rows_with_gaps() -> None:
    rows = as_rows([{"leap": 1.0, "form": math.nan}, {"leap": 2.0, "form": 0.5}], ["form", "leap"])
    np.testing.assert_array_equal(rows, [[math.nan, 1.0], [0.5, 2.0]])
    assert as_rows([]).shape == (0, len(NAMES))
