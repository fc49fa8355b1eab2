from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pieces import RISE, in_bars, line, piece, pieces

from partbook.evaluation.reading import Reading
from partbook.evaluation.repetition import (
    bar_ids,
    bar_likeness,
    bar_repeats,
    beat_similarity,
    fitness,
    form,
    melodic_repeats,
    passage_repeats,
    structureness_long,
    structureness_short,
)


def every_path(matrix: np.ndarray, start: int, length: int, row: int) -> list[tuple[float, int, int]]:
    """Score, last row and cells of every path that begins in `row` and leads through the columns of a segment."""
    found: list[tuple[float, int, int]] = []

    def go(row: int, column: int, score: float, cells: int) -> None:
        if row >= len(matrix) or column >= length:
            return
        score, cells = score + matrix[row, start + column], cells + 1
        if column == length - 1:
            found.append((score, row, cells))
        for down, right in ((1, 1), (1, 2), (2, 1)):
            go(row + down, column + right, score, cells)

    go(row, 0, 0.0, 0)
    return found


def fitness_by_definition(matrix: np.ndarray, start: int, length: int) -> float:
    """Müller, Jiang & Grohganz 2011, §3, word for word: of all families of paths whose rows do not overlap the best."""
    paths = [every_path(matrix, start, length, row) for row in range(len(matrix))]

    def best(row: int) -> tuple[float, int, int]:
        if row >= len(matrix):
            return 0.0, 0, 0
        found = best(row + 1)
        for score, last, cells in paths[row]:
            later = best(last + 1)
            found = max(found, (score + later[0], last + 1 - row + later[1], cells + later[2]))
        return found

    score, covered, cells = best(0)
    if not cells:
        return 0.0
    gain = max((score - length) / cells, 0.0)
    reach = max((covered - length) / len(matrix), 0.0)
    return 2 * gain * reach / (gain + reach) if gain + reach > 0 else 0.0


@given(st.integers(0, 2**32 - 1), st.integers(2, 8), st.floats(0.0, 0.8))
@settings(max_examples=40)
def test_fitness_is_that_of_the_best_path_family_found_by_trying_all(seed: int, frames: int, low: float) -> None:
    random = np.random.default_rng(seed)
    matrix = random.uniform(-0.3, 1, (frames, frames))  # any two families differ in score
    matrix = np.where(matrix > low, matrix, -2 * random.uniform(0.5, 1, matrix.shape))
    np.fill_diagonal(matrix, 1.0)
    segments = [(start, n) for n in range(1, frames + 1) for start in range(frames - n + 1)]
    found = fitness(matrix, np.array(segments))
    wanted = [fitness_by_definition(matrix, start, n) for start, n in segments]
    np.testing.assert_allclose(found, wanted, atol=1e-9)


def test_a_segment_has_the_same_fitness_alone_and_among_others() -> None:
    matrix = beat_similarity(line([60, 62, 64, 65] * 6 + [67, 69] * 6))
    segments = np.array([(start, n) for n in (1, 2, 5, 12) for start in range(0, 20, 3)])
    alone = [float(fitness(matrix, segment[None])[0]) for segment in segments]
    assert fitness(matrix, segments).tolist() == alone


def test_a_segment_that_comes_twice_slower_is_found_by_steps_of_two() -> None:
    # Four frames, then each again with another between: the second path has four cells and covers seven rows.
    order = [0, 1, 2, 3, 0, 9, 1, 8, 2, 7, 3]
    matrix = np.where(np.equal.outer(order, order), 1.0, -2.0)
    gain, reach = (8 - 4) / 8, (4 + 7 - 4) / 11
    assert fitness(matrix, np.array([[0, 4]]))[0] == pytest.approx(2 * gain * reach / (gain + reach))


def test_a_piece_that_never_repeats_has_no_fitness_and_one_that_always_does_the_most() -> None:
    assert structureness_short(line(range(40, 80))) == 0.0
    # One pitch: a segment of 4 comes 16 times in 64 quarters: (64 - 4) / 64 twice.
    assert structureness_short(line([60] * 64)) == pytest.approx(60 / 64)
    assert structureness_long(line([60] * 64)) == pytest.approx(48 / 64)


def test_structureness_looks_at_64_quarters_and_asks_for_24_or_40() -> None:
    assert math.isnan(structureness_short(line([60] * 23)))
    assert not math.isnan(structureness_short(line([60] * 24)))
    assert math.isnan(structureness_long(line([60] * 39)))
    assert not math.isnan(structureness_long(line([60] * 40)))
    longer = line([60, 62, 64, 65] * 16 + [*range(20, 100)])
    assert len(beat_similarity(longer)) == 64
    assert structureness_short(longer) == structureness_short(line([60, 62, 64, 65] * 16))


def test_self_similarity_is_the_cosine_of_onsets_and_what_rings_on() -> None:
    # A quarter of one note: onset 2, three sixteenths of 0.5. Two quarters: the second has four of 0.5.
    # Cosine of (2, .5, .5, .5) and (.5, .5, .5, .5): 1.75 / sqrt(4.75); of unlike pitches: 0.
    matrix = beat_similarity(line([60, 61, 60, 62], [1, 1, 2, 20]))
    cosine = 1.75 / math.sqrt(4.75)
    raw = np.array([[1, 0, 1, cosine], [0, 1, 0, 0], [1, 0, 1, cosine], [cosine, 0, cosine, 1]])
    assert matrix[:4, :4][raw == 0].max() == -2.0
    assert matrix[0, 2] == pytest.approx(1.0)
    assert matrix[0, 3] == pytest.approx(matrix[2, 3])


def test_silent_quarters_are_like_nothing_but_themselves() -> None:
    matrix = beat_similarity(piece((0, 1, 60), (3, 1, 60)))
    assert np.diagonal(matrix).tolist() == [1.0] * 4
    assert matrix[1, 2] == matrix[0, 1] == -2.0
    assert matrix[0, 3] == pytest.approx(1.0)


def test_equal_bars_share_a_number_and_silent_ones_have_none() -> None:
    assert bar_ids(in_bars("ABA.CB", A=RISE, B=(60,), C=(60, 60))).tolist() == [0, 1, 0, -1, 2, 1]


def test_bars_that_differ_in_length_pitch_or_onset_are_not_equal() -> None:
    short = piece((0, 1, 60), (4, 2, 60), (8, 1, 62), (13, 1, 60))
    assert bar_ids(short).tolist() == [0, 1, 2, 3]
    metre = piece((0, 1, 60), (4, 1, 60))
    assert bar_ids(metre).tolist() == [0, 0]
    assert bar_ids(replace(metre, bars=np.array([0, 48, 84]))).tolist() == [0, 1]


def test_a_note_over_the_bar_line_belongs_to_its_first_bar() -> None:
    # Its bars are equal by what begins in them.
    assert bar_ids(piece((3, 2, 60), (7, 2, 60), (11, 1, 60))).tolist() == [0, 0, 1]


@given(pieces(most=20))
@settings(max_examples=40)
def test_bars_are_equal_as_lists_of_notes_are(read: Reading) -> None:
    bars = []
    for number, (first, last) in enumerate(zip(read.bars[:-1], read.bars[1:], strict=True)):
        inside = read.bar == number
        notes = sorted(zip(read.onset[inside] - first, read.duration[inside], read.pitch[inside], strict=True))
        bars.append((last - first, notes))
    ids = bar_ids(read)
    for i, a in enumerate(bars):
        assert (ids[i] < 0) == (not a[1])
        for j, b in enumerate(bars[:i]):
            if a[1] and b[1]:
                assert (ids[i] == ids[j]) == (a == b)


def test_bars_without_end_repeat_all_but_one() -> None:
    same = in_bars("AAAAAAAA", A=RISE)
    assert bar_repeats(same) == passage_repeats(same) == 7 / 8
    assert form(same) == 0.0


@given(st.text("ABC.", min_size=4, max_size=14))
@settings(max_examples=60)
def test_passages_are_pairs_of_bars_that_came_before(order: str) -> None:
    read = in_bars(order, A=RISE, B=(60,), C=(62, 64)) if order.strip(".") else in_bars("A" + order[1:], A=RISE)
    order = order if order.strip(".") else "A" + order[1:]
    again: set[int] = set()
    for i in range(len(order) - 1):
        pair = order[i : i + 2]
        if "." not in pair and any(order[j : j + 2] == pair for j in range(i)):
            again |= {i, i + 1}
    heard = len(order) - order.count(".")
    wanted = len(again) / heard if heard >= 4 else math.nan
    assert passage_repeats(read) == pytest.approx(wanted, nan_ok=True)
    letters = set(order) - {"."}
    assert bar_repeats(read) == pytest.approx(1 - len(letters) / heard if heard > 1 else math.nan, nan_ok=True)


def test_melodic_repeats_hear_a_turn_in_another_key_and_not_in_another_rhythm() -> None:
    turn = [60, 61, 63, 66, 70, 69, 67]
    moved = [p + 5 for p in turn]
    assert melodic_repeats(line(turn + moved)) == 2 / 8
    assert melodic_repeats(line(turn + moved, [*[1.0] * 7, *[0.5] * 7])) == 0.0


def test_likeness_of_bars_is_what_they_share_over_what_they_have() -> None:
    # By place and pitch class: A and B share one of three; octaves are alike; silence is like nothing.
    like = bar_likeness(in_bars("ABC..", A=(60, 62), B=(60, 64), C=(72, 74)))
    assert like[0, 1] == pytest.approx(1 / 3)
    assert like[0, 2] == 1.0
    assert like[3].tolist() == [0.0] * 5
    assert (like == like.T).all()


def test_form_is_never_less_than_none() -> None:
    """Neighbours are alike here, and no bars further apart."""
    read = in_bars("AABBCCDDEEFF", **{letter: (60 + i,) for i, letter in enumerate("ABCDEF")})
    assert form(read) == 0.0


def test_form_finds_a_strain_of_eight_bars() -> None:
    # Of 120 pairs 8 are alike, and at distance 8 all.
    strain = {letter: (60 + i,) for i, letter in enumerate("ABCDEFGH")}
    assert form(in_bars("ABCDEFGH" * 2, **strain)) == pytest.approx(1 - 8 / 120)
