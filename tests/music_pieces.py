"""Scores of several instruments, metres and tempi, drawn by hypothesis, for the tests of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hypothesis import strategies as st
from symusic.core import NoteTick, ScoreTick, TempoTick, TimeSignatureTick, TrackTick

from partbook.music.quantised import TICKS_PER_POSITION, TICKS_PER_QUARTER, Quantised, quantised
from partbook.music.vocabulary import METRES, bar_positions

Row = tuple[int, int, int, int]
"""Onset and length in positions, pitch, velocity."""

_USUAL: Final = ((4, 4), (3, 4), (6, 8), (2, 2), (5, 8), (9, 16))


def score_in(
    tracks: dict[int, list[Row]],
    metres: Sequence[tuple[int, tuple[int, int]]] = (),
    tempi: Sequence[tuple[int, float]] = (),
) -> ScoreTick:
    """A score on the grid: rows by program; metres and tempi where they begin, in positions."""
    score = ScoreTick(TICKS_PER_QUARTER)
    for program, rows in tracks.items():
        track = TrackTick(program=program, is_drum=False, name="")
        for onset, length, pitch, velocity in rows:
            track.notes.append(NoteTick(onset * TICKS_PER_POSITION, length * TICKS_PER_POSITION, pitch, velocity))
        score.tracks.append(track)
    for at, (numerator, denominator) in metres:
        score.time_signatures.append(TimeSignatureTick(at * TICKS_PER_POSITION, numerator, denominator))
    for at, tempo in tempi:
        score.tempos.append(TempoTick(at * TICKS_PER_POSITION, tempo))
    return score


@st.composite
def scores(draw: st.DrawFn) -> ScoreTick:
    """Up to three instruments in up to eight bars of up to three metres, with tempi of their own."""
    metres = draw(st.lists(st.sampled_from((*_USUAL, *METRES)), min_size=1, max_size=3))
    bars = [metre for metre in metres for _ in range(draw(st.integers(1, 3)))]
    lines, marks, tempi = [0], [], []
    for metre in bars:
        marks.append((lines[-1], metre))
        if draw(st.booleans()):
            tempi.append((lines[-1], draw(st.floats(30.0, 285.0))))
        lines.append(lines[-1] + bar_positions(*metre))
    note = st.tuples(st.integers(0, lines[-1] - 1), st.integers(1, 200), st.integers(21, 108), st.integers(1, 127))
    programs = draw(st.lists(st.integers(0, 127), min_size=1, max_size=3, unique=True))
    tracks = {program: draw(st.lists(note, min_size=1, max_size=25)) for program in programs}
    return score_in(tracks, marks, tempi or [(0, 120.0)])


def music() -> st.SearchStrategy[Quantised]:
    """Such scores on the grid."""
    return scores().map(quantised)
