"""Pieces written note by note, drawn by hypothesis, shuffled and random, for the tests of measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from hypothesis import strategies as st
from symusic.core import NoteTick, ScoreTick, TempoTick, TimeSignatureTick, TrackTick

from partbook.evaluation.reading import GRID, Reading

Note = tuple[float, float, int]  # onset and length in quarters, pitch
RISE: Final = (60, 62, 64, 65, 67, 69, 71, 72)


def piece(*notes: Note, bar: float = 4, title: str = "", work: str = "") -> Reading:
    """Notes in bars of `bar` quarters, at 120 quarters a minute."""
    steps = sorted({(round(onset * GRID), pitch): round(length * GRID) for onset, length, pitch in notes}.items())
    onset, pitch = np.array([key for key, _ in steps], np.int64).T
    duration = np.array([length for _, length in steps], np.int64)
    end, whole = int((onset + duration).max()), round(bar * GRID)
    bars = np.arange(-(-end // whole) + 1, dtype=np.int64) * whole
    return Reading(title, onset, duration, pitch, bars, end / GRID / 2, work or title)


def line(pitches: Sequence[int], waits: Sequence[float] | float = 1.0, **said: object) -> Reading:
    """One voice, each note as long as it is to the next."""
    lengths = [waits] * len(pitches) if isinstance(waits, int | float) else list(waits)
    onsets = np.cumsum([0.0, *lengths[:-1]])
    return piece(*zip(onsets.tolist(), lengths, pitches, strict=True), **said)  # type: ignore[arg-type]


def in_bars(bars: str, **of: Sequence[int]) -> Reading:
    """Bars of 4/4 by their letters, each of as many equal notes as its letter has; a dot is a silent bar."""
    notes: list[Note] = []
    for number, letter in enumerate(bars):
        pitches = of.get(letter, ())
        notes += [(4 * number + 4 * i / len(pitches), 4 / len(pitches), p) for i, p in enumerate(pitches)]
    read = piece(*notes)
    return replace(read, bars=np.arange(len(bars) + 1, dtype=np.int64) * 4 * GRID)


def score(
    *notes: tuple[int, int, int],
    ticks: int = 480,
    metres: Sequence[tuple[int, int, int]] = (),
    qpm: float | None = None,
    drums: bool = False,
) -> ScoreTick:
    """A score of (tick, length, pitch) in one track; metres are (tick, numerator, denominator)."""
    made, track = ScoreTick(ticks), TrackTick("", 0, drums)
    for time, length, pitch in notes:
        track.notes.append(NoteTick(time, length, pitch, 80))
    made.tracks.append(track)
    for time, numerator, denominator in metres:
        made.time_signatures.append(TimeSignatureTick(time, numerator, denominator))
    if qpm:
        made.tempos.append(TempoTick(0, qpm))
    return made


def same(a: Reading, b: Reading) -> bool:
    """Whether two readings have the same notes and bars."""
    names = ("onset", "duration", "pitch", "bars")
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)


@st.composite
def pieces(draw: st.DrawFn, low: int = 0, high: int = 127, most: int = 40) -> Reading:
    """Any pieces of up to `most` notes: chords, rests, bars of any length, notes over bar lines."""
    count = draw(st.integers(1, most))
    few = draw(st.integers(low, high - 12)), draw(st.integers(1, 12))
    quarter = draw(st.sampled_from((1, 2, 3, 4, 6, 12)))
    notes = draw(
        st.lists(
            st.tuples(st.integers(0, 8 * count // quarter + 1), st.integers(1, 4 * 12 // quarter), st.integers(0, 127)),
            min_size=count,
            max_size=count,
        )
    )
    wide = draw(st.booleans())
    steps = {
        (o * quarter, low + p % (high - low + 1) if wide else few[0] + p % few[1]): d * quarter for o, d, p in notes
    }
    onset, pitch = np.array(sorted(steps), np.int64).T
    duration = np.array([steps[key] for key in sorted(steps)], np.int64)
    end = int((onset + duration).max())
    bars = [0]
    lengths = draw(st.lists(st.sampled_from((48, 36, 24, 18, 12, 6, 5)), min_size=1, max_size=3))
    while bars[-1] < end:
        bars.append(bars[-1] + lengths[len(bars) % len(lengths)])
    return Reading("drawn", onset, duration, pitch, np.array(bars, np.int64), end / GRID / 2, "drawn")


def shuffled(read: Reading, random: np.random.Generator) -> Reading:
    """A piece's bars in another order; what rings over a bar line is cut at it."""
    order = random.permutation(len(read.bars) - 1)
    lines = np.r_[0, np.cumsum(np.diff(read.bars)[order])]
    begin = np.empty(len(order), np.int64)
    begin[order] = lines[:-1]
    onset = begin[read.bar] + read.onset - read.bars[read.bar]
    duration = np.minimum(read.duration, read.bars[read.bar + 1] - read.onset)
    by = np.lexsort((read.pitch, onset))
    return replace(read, onset=onset[by], duration=duration[by], pitch=read.pitch[by], bars=lines)


def scattered(read: Reading, random: np.random.Generator) -> Reading:
    """As many notes as a piece has, anywhere in its time and range."""
    count = len(read)
    onset = random.integers(0, read.end, count)
    pitch = random.integers(read.pitch.min(), read.pitch.max() + 1, count)
    by = np.lexsort((pitch, onset))
    return replace(read, onset=onset[by], duration=random.choice([3, 6, 12, 24], count), pitch=pitch[by])
