import pytest
from hypothesis import given
from hypothesis import strategies as st

from partbook.music.vocabulary import (
    BARS_LEFT,
    DENSITIES,
    DURATIONS,
    FIRST_MERGEABLE,
    KEYS,
    KINDS,
    LONGEST_BAR,
    METRES,
    NUMBER,
    SLOWEST,
    SYMBOLS,
    TEMPI,
    bar_positions,
    bars_left_number,
    class_of,
    metre_number,
    nearest_length,
    steps_of,
    tempo_number,
)


def test_every_symbol_has_one_number_and_what_may_be_merged_stands_last() -> None:
    assert len(set(SYMBOLS)) == len(SYMBOLS) == len(NUMBER)
    assert set(KINDS[FIRST_MERGEABLE:]) == {"Step", "Pitch", "Length"}
    assert not {"Step", "Pitch", "Length"} & set(KINDS[:FIRST_MERGEABLE])
    assert SYMBOLS[:4] == ("Pad", "Begin", "Cut", "End")
    assert len(set(KEYS)) == 24


@given(positions=st.integers(0, LONGEST_BAR))
def test_steps_add_up_with_the_largest_first(positions: int) -> None:
    steps = [int(SYMBOLS[symbol].partition("_")[2]) for symbol in steps_of(positions)]
    assert sum(steps) == positions
    assert steps == sorted(steps, reverse=True)


@given(tempo=st.floats(SLOWEST, TEMPI[-1]))
def test_a_tempos_symbol_is_within_three_per_cent(tempo: float) -> None:
    said = TEMPI[int(SYMBOLS[tempo_number(tempo)].partition("_")[2])]
    assert abs(said / tempo - 1) < 0.03


def test_tempi_off_the_scale_are_said_as_its_ends() -> None:
    assert SYMBOLS[tempo_number(0.0)] == "Tempo_0"
    assert SYMBOLS[tempo_number(5000.0)] == f"Tempo_{len(TEMPI) - 1}"


@given(positions=st.integers(1, 400))
def test_a_length_is_the_nearest_that_can_be_said(positions: int) -> None:
    found = nearest_length(positions)
    assert all(abs(found - positions) <= abs(known - positions) for known in DURATIONS)
    assert nearest_length(found) == found


def test_of_two_lengths_as_near_the_shorter_is_said() -> None:
    assert nearest_length(57) == 54
    assert nearest_length(29) == 28


@given(bars=st.integers(-3, 500))
def test_bars_left_are_the_largest_step_not_above(bars: int) -> None:
    said = int(SYMBOLS[bars_left_number(bars)].partition("_")[2])
    assert said in BARS_LEFT
    assert said <= max(bars, 1)
    assert not any(said < step <= bars for step in BARS_LEFT)


def test_metres_have_the_length_of_their_bars_and_unknown_ones_no_symbol() -> None:
    assert [bar_positions(*metre) for metre in ((4, 4), (6, 8), (3, 16), (3, 2))] == [48, 36, 9, 72]
    assert all(bar_positions(*metre) * metre[1] == 48 * metre[0] for metre in METRES)
    assert SYMBOLS[metre_number(6, 8)] == "Metre_6/8"
    with pytest.raises(KeyError):
        metre_number(13, 4)


def test_an_edge_belongs_to_the_class_above_it() -> None:
    assert [class_of(value, DENSITIES) for value in (0.0, 0.5, 1.0, 8.0, 99.0)] == [0, 1, 2, 7, 7]
