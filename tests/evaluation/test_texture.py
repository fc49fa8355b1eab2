from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pieces import line, piece, pieces

from partbook.evaluation.reading import Reading
from partbook.evaluation.texture import consonance, entropy, polyphony, silence, sounding


def test_what_sounds_is_counted_step_by_step() -> None:
    # Two steps of one note, one of two, one of none, one of one.
    read = piece((0, 3 / 12, 60), (2 / 12, 1 / 12, 64), (4 / 12, 1 / 12, 60))
    assert sounding(read).tolist() == [1, 1, 2, 0, 1]
    assert silence(read) == 1 / 5
    assert polyphony(read) == 5 / 4


@given(pieces(most=20))
@settings(max_examples=60)
def test_consonance_is_that_of_every_pair_in_every_step(read: Reading) -> None:
    good = total = 0
    end = read.onset + read.duration
    for i in range(len(read)):
        for j in range(i):
            together = max(0, int(min(end[i], end[j]) - max(read.onset[i], read.onset[j])))
            total += together
            good += together * (abs(int(read.pitch[i] - read.pitch[j])) % 12 in {0, 3, 4, 5, 7, 8, 9})
    assert consonance(read) == pytest.approx(good / total if total else math.nan, nan_ok=True)


@pytest.mark.parametrize(
    ("interval", "value"),
    [*((i, 1.0) for i in (0, 3, 4, 5, 7, 8, 9, 12, 15)), *((i, 0.0) for i in (1, 2, 6, 10, 11, 13))],
)
def test_each_interval_is_consonant_or_not(interval: int, value: float) -> None:
    # A unison needs two beginnings: a pitch struck twice at once is one note.
    read = piece((0, 2, 60), (1, 1, 60 + interval))
    assert consonance(read) == value


def test_a_line_that_touches_itself_has_no_consonance() -> None:
    assert math.isnan(consonance(line([60, 61, 62])))


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8))
def test_entropy_is_that_of_the_shares(counts: list[int]) -> None:
    from scipy.stats import entropy as oracle

    assert entropy(np.array(counts)) == pytest.approx(oracle(counts, base=2), abs=1e-12)
    assert entropy(np.array([*counts, 0, 0])) == entropy(np.array(counts))


def test_entropy_of_one_class_is_plain_zero() -> None:
    assert str(entropy(np.array([7]))) == "0.0"
    assert entropy(np.array([1, 1, 1, 1])) == 2.0
