from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pieces import RISE, line

from partbook.evaluation.melody import melody
from partbook.evaluation.ngrams import References
from partbook.evaluation.reading import Reading


def bleu(piece: Reading, works: list[Reading]) -> float:
    """Modified n-gram precision as Papineni et al. 2002 write it, without the brevity penalty."""
    logs = []
    for n in range(1, 5):

        def grams(read: Reading, n: int = n) -> Counter[tuple[tuple[int, int], ...]]:
            found = melody(read)
            steps = list(zip(found.intervals.tolist(), found.waits.tolist(), strict=True))
            return Counter(tuple(steps[i : i + n]) for i in range(len(steps) - n + 1))

        own = grams(piece)
        if not own:
            return math.nan
        others = [grams(work) for work in works if not work.work or work.work != piece.work]
        clipped = sum(min(count, max((o[gram] for o in others), default=0)) for gram, count in own.items())
        logs.append(math.log(clipped / own.total()) if clipped else -math.inf)
    return math.exp(sum(logs) / 4)


_LINES = st.builds(
    lambda pitches, name, half: line(pitches, [0.5 if h else 1.0 for h in half[: len(pitches)]], work=name),
    st.lists(st.sampled_from([60, 62, 64]), min_size=1, max_size=12),
    st.sampled_from(["", "a", "b", "c"]),
    st.lists(st.booleans(), min_size=12, max_size=12),
)


@given(_LINES, st.lists(_LINES, max_size=6))
@settings(max_examples=100)
def test_precision_is_bleus(piece: Reading, works: list[Reading]) -> None:
    assert References(works).precision(piece) == pytest.approx(bleu(piece, works), nan_ok=True)


def test_a_copy_is_made_of_nothing_else_in_any_key() -> None:
    references = References([line(RISE, work="scale")])
    assert references.precision(line([p + 5 for p in RISE])) == pytest.approx(1.0)
    assert references.precision(line(RISE, 0.5)) == 0.0  # tempo counts: a work's rhythm is written


def test_precision_on_paper() -> None:
    # Steps up a scale: 2 2 1 2 2 2 1; the piece's are 2 2 1 2 5: of 5, 4, 3 and 2 runs all but one are there.
    found = References([line(RISE)]).precision(line([60, 62, 64, 65, 67, 72]))
    assert found == pytest.approx((4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)


def test_a_run_counts_no_oftener_than_in_any_one_reference() -> None:
    # Fifteen steps of 0; a reference has 5, so of 15, 14, 13 and 12 runs 5, 4, 3 and 2 count, from one or from two.
    wanted = (5 / 15 * 4 / 14 * 3 / 13 * 2 / 12) ** 0.25
    for works in ([line([60] * 6)], [line([60] * 6, work="a"), line([64] * 6, work="b")]):
        assert References(works).precision(line([70] * 16)) == pytest.approx(wanted)


def test_a_work_is_not_held_against_itself() -> None:
    both = References([line(RISE, work="scale"), line([60] * 9, work="drone")])
    assert both.precision(line(RISE, work="scale")) == 0.0
    assert both.precision(line(RISE, work="another")) == pytest.approx(1.0)
    assert both.precision(line(RISE)) == pytest.approx(1.0)  # without a name it is its own work, as a reference is
    assert References([line(RISE)]).precision(line(RISE)) == pytest.approx(1.0)


def test_under_five_notes_of_melody_nothing_is_said() -> None:
    assert math.isnan(References([line(RISE)]).precision(line(RISE[:4])))
    assert math.isnan(References([line(RISE)]).precision(line([60])))
    assert References([]).precision(line(RISE)) == 0.0
