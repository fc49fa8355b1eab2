"""The figures that tell music from noise, on pieces whose figures are known."""

from __future__ import annotations

import numpy as np
import pytest

from partbook.errors import ScoreError
from partbook.music.metrics import copied_span, figures, overlap, pitch_class_histogram, typical
from partbook.music.notes import Notes

MAJOR = (0, 2, 4, 5, 7, 9, 11)


def tune(pitches, step=0.25, duration=0.25, start=0.0):
    return Notes.from_rows([(start + i * step, duration, p, 80) for i, p in enumerate(pitches)])


def noise(count=400, seed=1):
    draw = np.random.default_rng(seed)
    onset = np.cumsum(draw.exponential(0.25, count))
    return Notes.from_rows(
        [(float(t), float(draw.exponential(0.3)) + 0.02, int(draw.integers(36, 96)), 80) for t in onset]
    )


def test_a_scale_has_the_figures_of_a_scale():
    f = figures(tune([60 + step for step in MAJOR]))
    assert (f.notes, f.lowest, f.highest, f.pitch_range) == (7, 60, 71, 11)
    assert f.seconds == pytest.approx(1.75)
    assert f.density == pytest.approx(4.0)
    assert f.in_scale == pytest.approx(1.0)
    assert f.pitch_class_entropy == pytest.approx(np.log2(7))
    assert f.inter_onset == pytest.approx(0.25)
    assert f.polyphony == pytest.approx(1.0)
    assert f.duration_mean == f.duration_median == 0.25
    assert f.pulse == pytest.approx(1.0)


def test_noise_is_told_from_music():
    music, random = figures(tune([60 + MAJOR[(3 * i) % 7] for i in range(200)])), figures(noise())
    assert random.in_scale < 0.75 < music.in_scale
    assert random.pitch_class_entropy > 3.4 > music.pitch_class_entropy
    assert random.pulse < 0.6 < music.pulse


def test_polyphony_counts_only_the_time_in_which_something_sounds():
    chord = Notes.from_rows([(0.0, 1.0, p, 80) for p in (60, 64, 67)] + [(5.0, 1.0, 72, 80)])
    assert figures(chord).polyphony == pytest.approx(2.0)
    nested = Notes.from_rows([(0.0, 4.0, 48, 80), (1.0, 1.0, 60, 80), (3.0, 2.0, 62, 80)])
    assert figures(nested).polyphony == pytest.approx(7.0 / 5.0)


def test_the_notes_of_a_chord_are_one_attack():
    rows = [(beat + jitter, 0.4, pitch, 80) for beat in (0.0, 0.5, 1.0) for jitter, pitch in ((0.0, 60), (0.02, 64))]
    assert figures(Notes.from_rows(rows)).inter_onset == pytest.approx(0.5)


def test_a_single_note_can_be_measured_and_nothing_cannot():
    f = figures(tune([60]))
    assert (f.inter_onset, f.pulse, f.pitch_class_entropy, f.in_scale) == (0.0, 0.0, 0.0, 1.0)
    with pytest.raises(ScoreError):
        figures(tune([]))


def test_the_typical_piece_is_the_mean():
    mean = typical([figures(tune([60, 62])), figures(tune([60, 62, 64, 65]))])
    assert mean.notes == 3.0
    assert sum(mean.pitch_classes) == pytest.approx(1.0)
    with pytest.raises(ScoreError):
        typical([])


def test_histograms_overlap_wholly_partly_or_not_at_all():
    c, d = pitch_class_histogram(tune([60, 72])), pitch_class_histogram(tune([62]))
    both = pitch_class_histogram(tune([60, 62]))
    assert (overlap(c, c), overlap(c, d), overlap(c, both)) == (1.0, 0.0, 0.5)
    assert overlap([2, 2], [5, 5]) == 1.0
    for wrong in ([1.0], [0.0, 0.0], [2.0, -1.0]):
        with pytest.raises(ScoreError):
            overlap([1.0, 1.0], wrong)


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
