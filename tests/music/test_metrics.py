"""The longest shared passage, against its definition tried at every pair of places."""

from __future__ import annotations

import numpy as np
import pytest

from partbook.music.metrics import copied_span
from partbook.music.notes import Notes


def tune(pitches, step=0.25, duration=0.25, start=0.0):
    return Notes.from_rows([(start + i * step, duration, p, 80) for i, p in enumerate(pitches)])


def noise(count=400, seed=1):
    draw = np.random.default_rng(seed)
    onset = np.cumsum(draw.exponential(0.25, count))
    return Notes.from_rows(
        [(float(t), float(draw.exponential(0.3)) + 0.02, int(draw.integers(36, 96)), 80) for t in onset]
    )


def slow_copied_notes(a, b, tolerance=0.06):
    """The definition, tried at every pair of starts."""
    best = 1 if len(a) and len(b) else 0
    for i in range(len(a)):
        for j in range(len(b)):
            n = 1
            while i + n < len(a) and j + n < len(b):
                interval = int(a.pitch[i + n]) - int(a.pitch[i + n - 1]) == int(b.pitch[j + n]) - int(
                    b.pitch[j + n - 1]
                )
                wait = abs((a.onset[i + n] - a.onset[i + n - 1]) - (b.onset[j + n] - b.onset[j + n - 1])) <= tolerance
                if not (interval and wait):
                    break
                n += 1
            best = max(best, n)
    return best


def test_a_transposed_copy_inside_another_piece_is_found_where_it_is():
    draw = np.random.default_rng(3)
    theme = [int(p) for p in draw.integers(55, 75, 12)]
    first = tune([40, 41, 90, *theme, 33])
    second = tune([80, 30, *[p + 5 for p in theme], 100, 20, 60], start=2.0)
    span = copied_span(first, second)
    assert (span.notes, span.first, span.second) == (12, 3, 2)


def test_rhythm_counts_as_well_as_pitch():
    same, slower = tune([60, 64, 62, 67]), tune([60, 64, 62, 67], step=0.5)
    assert copied_span(same, same).notes == 4
    assert copied_span(same, slower).notes == 1


@pytest.mark.parametrize("seed", range(8))
def test_the_fast_search_agrees_with_the_definition(seed):
    draw = np.random.default_rng(seed)
    a, b = (tune([int(p) for p in draw.integers(60, 63, n)]) for n in (int(draw.integers(0, 40)), 30))
    span = copied_span(a, b)
    assert span.notes == slow_copied_notes(a, b)
    if span.notes > 1:
        i, j, n = span.first, span.second, span.notes
        np.testing.assert_array_equal(np.diff(a.pitch[i : i + n].astype(int)), np.diff(b.pitch[j : j + n].astype(int)))


def test_an_hour_of_notes_is_searched_in_a_moment():
    assert copied_span(noise(500), noise(20_000, seed=2)).notes < 8
