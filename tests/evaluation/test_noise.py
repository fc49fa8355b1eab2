from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from symusic.core import NoteTick, ScoreTick, TempoTick, TimeSignatureTick, TrackTick
from tunes import tune

from partbook.errors import ScoreError
from partbook.evaluation.noise import random_notes, shuffled_bars


def notes_of(score: ScoreTick) -> list[tuple[int, int, int, int]]:
    return sorted((n.time, n.duration, n.pitch, n.velocity) for t in score.tracks for n in t.notes)


def bars_of(score: ScoreTick, length: int) -> Counter[tuple[tuple[int, int, int], ...]]:
    bars: dict[int, list[tuple[int, int, int]]] = {}
    for time, duration, pitch, _ in notes_of(score):
        bars.setdefault(time // length, []).append((time % length, duration, pitch))
    return Counter(tuple(sorted(bar)) for bar in bars.values())


@settings(max_examples=20)
@given(st.integers(0, 2), st.integers(0, 1000))
def test_random_notes_keep_number_register_and_span(which: int, seed: int) -> None:
    work = tune(which)
    noise = random_notes(work, seed)
    before, after = notes_of(work), notes_of(noise)
    assert len(after) == len(before)
    assert (
        min(n[2] for n in before) <= min(n[2] for n in after) <= max(n[2] for n in after) <= max(n[2] for n in before)
    )
    assert before[0][0] // 40 * 40 <= after[0][0]
    assert after[-1][0] <= before[-1][0]
    assert all(time % 40 == 0 and duration % 40 == 0 and duration > 0 for time, duration, _, _ in after)
    assert len({(time, pitch) for time, _, pitch, _ in after}) == len(after)
    assert notes_of(random_notes(work, seed)) == after
    assert notes_of(random_notes(work, seed + 1)) != after


def test_random_notes_last_as_long_on_average() -> None:
    work = tune(0)
    mean = sum(n[1] for n in notes_of(work)) / len(notes_of(work))
    drawn = [n[1] for seed in range(40) for n in notes_of(random_notes(work, seed))]
    assert sum(drawn) / len(drawn) == pytest.approx(mean, rel=0.1)


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_shuffled_bars_are_the_same_bars(seed: int) -> None:
    work = tune(0)  # 4/4, no note over a bar line
    shuffled = shuffled_bars(work, seed)
    assert bars_of(shuffled, 1920) == bars_of(work, 1920)
    assert notes_of(shuffled_bars(work, seed)) == notes_of(shuffled)


def test_some_seed_moves_bars() -> None:
    assert any(notes_of(shuffled_bars(tune(0), seed)) != notes_of(tune(0)) for seed in range(5))


def crossing() -> ScoreTick:
    """A bar of 2/4 at 60 with a note into the next, one of 3/4 at 90."""
    score, track = ScoreTick(480), TrackTick()
    track.notes.append(NoteTick(480, 960, 60, 80))
    track.notes.append(NoteTick(960, 480, 64, 80))
    track.notes.append(NoteTick(1920, 480, 67, 80))
    score.tracks.append(track)
    score.time_signatures.extend([TimeSignatureTick(0, 2, 4), TimeSignatureTick(960, 3, 4)])
    score.tempos.extend([TempoTick(0, 60.0), TempoTick(960, 90.0)])
    return score


def test_a_note_is_cut_at_its_bars_end_and_metre_and_tempo_move_along() -> None:
    swapped = next(s for seed in range(20) if (s := shuffled_bars(crossing(), seed)).time_signatures[0].numerator == 3)
    assert notes_of(swapped) == [(0, 480, 64, 80), (960, 480, 67, 80), (1920, 480, 60, 80)]
    assert [(m.time, m.numerator) for m in swapped.time_signatures] == [(0, 3), (1440, 2)]
    assert [(t.time, round(t.qpm)) for t in swapped.tempos] == [(0, 90), (1440, 60)]


def test_a_score_without_notes_cannot_be_drawn_anew() -> None:
    with pytest.raises(ScoreError, match="no notes"):
        random_notes(ScoreTick(480), 1)
    assert notes_of(shuffled_bars(ScoreTick(480), 1)) == []
