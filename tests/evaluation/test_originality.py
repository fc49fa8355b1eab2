from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pieces import RISE, line, piece

from partbook.evaluation.melody import melody
from partbook.evaluation.originality import Catalogue
from partbook.evaluation.reading import Reading


def longest_run(read: Reading, works: list[Reading]) -> int:
    """Every run of a piece against every run of every work."""
    best = 0
    a = melody(read)
    for work in works:
        if work.work and work.work == read.work:
            continue
        b = melody(work)
        for i in range(len(a)):
            for j in range(len(b)):
                n = 1
                while i + n < len(a) and j + n < len(b) and a.intervals[i + n - 1] == b.intervals[j + n - 1]:
                    if n > 1:
                        mine, theirs = (
                            24 * np.log2(x.waits[k - 1] / x.waits[k - 2]) for x, k in ((a, i + n), (b, j + n))
                        )
                        if round(mine) != round(theirs):
                            break
                    n += 1
                best = max(best, n)
    return best if best >= 4 else 0


_LINES = st.builds(
    lambda pitches, name, waits: line(pitches, waits[: len(pitches)], work=name),
    st.lists(st.sampled_from([60, 62, 64]), min_size=1, max_size=14),
    st.sampled_from(["", "a", "b", "c"]),
    st.lists(st.sampled_from([0.25, 0.5, 0.75, 1.0]), min_size=14, max_size=14),
)


@given(st.lists(_LINES, max_size=4), st.lists(_LINES, max_size=5))
@settings(max_examples=100)
def test_runs_are_those_found_by_trying_all(candidates: list[Reading], works: list[Reading]) -> None:
    found = Catalogue(works).longest_runs(candidates)
    assert found.dtype == np.int64
    assert found.tolist() == [longest_run(read, works) for read in candidates]


@pytest.mark.parametrize("shift", [-12, 0, 7])
@pytest.mark.parametrize("tempo", [0.5, 1.0, 3.0])
def test_a_whole_copy_is_as_long_as_the_work_in_any_key_and_at_any_tempo(shift: int, tempo: float) -> None:
    waits = np.array([1, 0.5, 0.5, 1, 2, 1, 1, 4])
    known = Catalogue([line([60] * 20), line(RISE, waits, work="known")])
    copy = line([p + shift for p in RISE], (waits * tempo).tolist())
    assert known.longest_runs([copy]).tolist() == [8]


def test_another_rhythm_or_melody_ends_a_run() -> None:
    known = Catalogue([line(RISE, work="known")])
    # The seventh note comes late: the wait before it is another, the interval is not.
    assert known.longest_runs([line(RISE, [1, 1, 1, 1, 1, 2, 1, 1])]).tolist() == [6]
    assert known.longest_runs([line([*RISE[:5], 70, 71, 72])]).tolist() == [5]


def test_runs_of_three_notes_count_as_none() -> None:
    known = Catalogue([line(RISE, work="known")])
    assert known.longest_runs([line([60, 62, 64, 69, 60, 62, 64])]).tolist() == [0]
    assert known.longest_runs([line([60, 62, 64, 65])]).tolist() == [4]


def test_a_work_is_not_looked_up_in_itself_but_its_copies_are() -> None:
    works = [line(RISE, work="a"), line(RISE[:5], work="b")]
    assert Catalogue(works).longest_runs([line(RISE, work="a")]).tolist() == [5]
    assert Catalogue(works).longest_runs([line(RISE, work="b"), line(RISE)]).tolist() == [8, 8]
    assert Catalogue(works[:1]).longest_runs(works[:1]).tolist() == [0]


def test_pieces_and_works_of_few_notes_or_none_at_all_share_nothing() -> None:
    short = [line([60]), line([60, 62]), line([60, 62, 64]), piece((0, 1, 60), (0, 1, 64))]
    assert Catalogue(short).longest_runs([*short, line(RISE)]).tolist() == [0] * 5
    assert Catalogue([]).longest_runs([line(RISE)]).tolist() == [0]
    assert Catalogue([line(RISE)]).longest_runs([]).tolist() == []


def test_runs_do_not_lead_from_one_work_into_the_next() -> None:
    works = [line(RISE[:4], work="a"), line(RISE[4:], work="b")]
    assert Catalogue(works).longest_runs([line(RISE)]).tolist() == [4]
