from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from pieces import RISE, in_bars, line

from partbook.evaluation import comparison, two_sample
from partbook.evaluation.comparison import MeasuredSet, Reference
from partbook.evaluation.measures import NAMES
from partbook.evaluation.overlap import overlapping_area
from partbook.evaluation.reading import Reading

_STEPS = (-2, -1, 1, 2)


@pytest.fixture(autouse=True)
def _few_trees_and_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_sample, "_TREES", 20)
    monkeypatch.setattr(two_sample, "_BUCKETS", 2**10)
    monkeypatch.setattr(comparison, "bootstrap", partial(comparison.bootstrap, resamples=40))


def tunes(count: int, seed: int, name: str = "tune") -> list[Reading]:
    """Two strains of four bars, each twice, in steps."""
    random = np.random.Generator(np.random.Philox(seed))
    made = []
    for index in range(count):
        bars = {letter: (67 + np.cumsum(random.choice(_STEPS, 8))).tolist() for letter in "ABCD"}
        made.append(replace(in_bars("ABACABACBDBDBDBDAA", **bars), title=f"{name} {index}", work=f"{name} {index}"))
    return made


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference(MeasuredSet.of("works", tunes(14, 1)), tunes(5, 2, "trained"))


def test_a_set_has_its_pieces_openings_and_a_row_for_each() -> None:
    told: list[str] = []
    works = tunes(3, 1)
    found = MeasuredSet.of("works", works, told.append)
    assert told == ["tune 0", "tune 1", "tune 2"]
    assert len(found) == 3
    assert found.rows.shape == (3, len(NAMES))
    assert [opening.quarters for opening in found.openings] == [64.0] * 3
    assert [piece.quarters for piece in found.pieces] == [72.0] * 3
    assert found.column("density_per_quarter").tolist() == [2.0] * 3
    assert found.chosen([2, 0]).pieces == (works[2], works[0])
    np.testing.assert_array_equal(found.chosen([2]).rows, found.rows[2:])
    assert MeasuredSet.of("none", []).rows.shape == (0, len(NAMES))
    assert len(found.chosen([])) == 0


def test_a_set_held_against_itself_is_alike_and_copies_only_others(reference: Reference) -> None:
    """Human works against human works of the same names: none is held against itself."""
    found = reference.compare(reference.works)
    assert (found.pieces, found.reference) == (14, 14)
    leap = found.measures["leap"]
    column = reference.works.column("leap")
    assert leap.median.value == np.median(column)
    assert (leap.low, leap.high) == pytest.approx(tuple(np.quantile(column, (0.1, 0.9))))
    assert reference.band("leap") == (leap.low, leap.high)
    assert leap.inside.value == pytest.approx(10 / 14)
    assert leap.overlap == overlapping_area(column, column)
    assert leap.undefined == 0
    assert found.heldout_longest < 20
    assert 0 < found.precision.value < 1
    assert len(found.suspicion) == 14


def test_copies_of_works_are_found_whole(reference: Reference) -> None:
    works = reference.works.pieces
    copies = [replace(work, title=f"mine {i}", work=f"mine {i}", pitch=work.pitch + 2) for i, work in enumerate(works)]
    found = reference.compare(MeasuredSet.of("copies", copies[:6]))
    assert found.heldout_longest == len(works[0]) == 144
    assert found.heldout_run.value == 144
    assert found.precision.value == pytest.approx(1.0)
    assert found.training_longest < 30
    trained = [replace(work, work="mine") for work in tunes(5, 2)]
    assert reference.compare(MeasuredSet.of("trained", trained)).training_longest == 144


def test_few_pieces_are_measured_and_not_told_apart(reference: Reference) -> None:
    found = reference.compare(MeasuredSet.of("few", tunes(3, 9, "new")))
    assert math.isnan(found.features.value)
    assert math.isnan(found.tokens.value)
    assert found.suspicion == ()
    assert found.measures["leap"].median.value > 0


def test_what_no_piece_has_is_counted_and_not_guessed(reference: Reference) -> None:
    found = reference.compare(MeasuredSet.of("short", [line(RISE, title=f"short {i}") for i in range(3)]))
    form = found.measures["form"]
    assert form.undefined == 3
    assert math.isnan(form.median.value)
    assert math.isnan(form.inside.value)
    assert math.isnan(form.overlap)
    assert math.isnan(form.low)


def test_without_training_works_no_copies_of_them_are_looked_for() -> None:
    works = MeasuredSet.of("works", tunes(3, 1))
    found = Reference(works).compare(works)
    assert found.training_longest == 0
    assert math.isnan(found.training_run.value)


def test_pieces_of_other_bars_are_told_apart_and_the_same_twice(reference: Reference) -> None:
    random = np.random.Generator(np.random.Philox(5))
    noise = [line(random.integers(50, 90, 120).tolist(), 0.5, title=f"noise {i}") for i in range(14)]
    measured = MeasuredSet.of("noise", noise)
    found, again = reference.compare(measured, seed=3), reference.compare(measured, seed=3)
    assert found.features.value > 0.95
    assert found.tokens.value > 0.95
    assert found.measures["leap"].inside.value == 0.0
    assert found.features == again.features
    assert found.suspicion == again.suspicion
    assert found.tokens == again.tokens


def test_a_piece_that_begins_late_is_measured_like_any(reference: Reference) -> None:
    late = in_bars("." * 20 + "ABABABAB", A=RISE, B=RISE[::-1])
    found = reference.compare(
        MeasuredSet.of(
            "late",
            [replace(late, title=f"{i}") for i in range(10)],
        )
    )
    assert found.pieces == 10
