"""What comes back: bars, passages, melodic turns, and the form that they make.

Self-similarity is that of bars: the share of what two bars have (onset in the bar and pitch class, a note each) that
both have. Structureness follows Wu & Yang 2020 ("The Jazz Transformer on the front line", ISMIR, arXiv 2008.01307):
the fitness of the best repeating segment (Müller, Jiang & Grohganz 2011, "A segment-based fitness measure for capturing
repetitive structures of music recordings", ISMIR), here over beats of a symbolic piece.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from partbook.evaluation.melody import first_seen, melody, runs
from partbook.evaluation.reading import GRID, Reading

STEPS: Final = 6  # melodic steps that make a turn
_FRAMES: Final = 64  # quarters that structureness looks at
_NEVER: Final = -1e9  # the score of a path that cannot be
_PENALTY: Final = -2.0  # of likeness under the threshold; Müller et al. §3
_ROW: Final = 2.0**20  # a row covered, next to cells counted
_KEPT: Final = 0.2  # share of the self-similarity matrix above the threshold


def bar_ids(reading: Reading) -> NDArray[np.int64]:
    """A number for each bar such that equal bars share it: length, onsets, durations and pitches; empty bars -1."""
    seen: dict[bytes, int] = {}
    bar = reading.bar
    edges = np.searchsorted(bar, np.arange(len(reading.bars)))
    found = []
    for number in range(len(reading.bars) - 1):
        inside = slice(int(edges[number]), int(edges[number + 1]))
        if inside.start == inside.stop:
            found.append(-1)
            continue
        onset = reading.onset[inside] - reading.bars[number]
        content = np.stack([onset, reading.duration[inside], reading.pitch[inside]])
        length = int(reading.bars[number + 1] - reading.bars[number])
        found.append(seen.setdefault(length.to_bytes(8, "little") + content.tobytes(), len(seen)))
    return np.array(found, dtype=np.int64)


def bar_repeats(reading: Reading) -> float:
    """Share of the bars with notes that are equal to an earlier one: onsets, lengths and pitches; NaN under two
    bars with notes.

    Order does not count here: a piece's bars in any order have as many.

    Source: defined here.
    """
    ids = bar_ids(reading)
    ids = ids[ids >= 0]
    return 1.0 - len(np.unique(ids)) / len(ids) if len(ids) > 1 else float("nan")


def passage_repeats(reading: Reading) -> float:
    """Share of the bars with notes that lie in a passage of two bars or more heard before, note by note; NaN under four
    bars with notes.

    Source: defined here.
    """
    ids = bar_ids(reading)
    if (ids >= 0).sum() < 4:
        return float("nan")
    pairs = runs(ids, 2)
    again = (first_seen(pairs) < np.arange(len(pairs))) & (pairs >= 0).all(axis=1)
    inside = np.zeros(len(ids), np.bool_)
    inside[:-1] |= again
    inside[1:] |= again
    return float(inside[ids >= 0].mean())


def melodic_repeats(reading: Reading) -> float:
    """Share of melodic turns that occur more than once in the piece, in any key; NaN under two turns.

    A turn is six successive steps of the melody: for each the interval in semitones and the time to the next onset.

    Source: defined here.
    """
    line = melody(reading)
    turns = runs(np.stack([line.intervals, line.waits], axis=1), STEPS)
    if len(turns) < 2:
        return float("nan")
    _, number, count = np.unique(turns, axis=0, return_inverse=True, return_counts=True)
    return float((count[number.ravel()] > 1).mean())


def bar_likeness(reading: Reading) -> NDArray[np.float64]:
    """Likeness of every two bars, (bars, bars): shared over all (onset in the bar, pitch class); 0 if one is empty."""
    bar = reading.bar
    place = (reading.onset - reading.bars[bar]) * 12 + reading.pitch % 12
    count = len(reading.bars) - 1
    held = np.zeros((count, int(place.max()) + 1), np.float64)
    held[bar, place] = 1.0
    shared = held @ held.T
    size = held.sum(axis=1)
    either = size[:, None] + size[None, :] - shared
    likeness: NDArray[np.float64] = np.divide(shared, either, out=np.zeros_like(shared), where=either > 0)
    return likeness


def form(reading: Reading) -> float:
    """How much more alike bars are at the best distance of 2 to 16 bars than at all distances, 0 if less.

    Strophes and repeated strains show as one distance at which a piece resembles itself; NaN under eight bars. Bars
    in random order resemble each other at no distance in particular.

    Source: defined here, on the means along diagonals of a self-similarity matrix that Foote & Uchihashi 2001 ("The
    beat spectrum", ICME) take of beats.
    """
    like = bar_likeness(reading)
    count = len(like)
    if count < 8:
        return float("nan")
    everywhere = float(like[np.triu_indices(count, 1)].mean())
    best = max(float(np.diagonal(like, lag).mean()) for lag in range(2, min(16, count - 4) + 1))
    return max(best - everywhere, 0.0)


def structureness_short(reading: Reading) -> float:
    """Fitness of the best repeating segment of 4, 8 or 12 quarters, 0 to 1; NaN under 24 quarters.

    Source: structureness indicator of Wu & Yang 2020, on the fitness of Müller, Jiang & Grohganz 2011, in quarters
    instead of seconds.
    """
    return _structureness(reading, (4, 8, 12))


def structureness_long(reading: Reading) -> float:
    """Fitness of the best repeating segment of 16, 24 or 32 quarters, 0 to 1; NaN under 40 quarters.

    Source: structureness indicator of Wu & Yang 2020, on the fitness of Müller, Jiang & Grohganz 2011, in quarters
    instead of seconds.
    """
    return _structureness(reading, (16, 24, 32))


def _structureness(reading: Reading, lengths: Sequence[int]) -> float:
    if reading.end // GRID < (24 if lengths[0] < 16 else 40):
        return float("nan")
    matrix = beat_similarity(reading)
    segments = [(start, n) for n in lengths for start in range(len(matrix) - n + 1) if 2 * n <= len(matrix)]
    return float(fitness(matrix, np.array(segments)).max())


def beat_similarity(reading: Reading) -> NDArray[np.float64]:
    """The self-similarity matrix that structureness looks at, (quarters, quarters), 1 on its diagonal.

    Cosine of what sounds in each two of the first 64 quarters (pitches, by sixteenth, onsets weighing four times as
    much as what rings on), thresholded to its highest fifth and scaled to 0 … 1 above the threshold, -2 below.
    """
    frames = min(max(reading.end // GRID, 1), _FRAMES)
    slots = 4  # sixteenths a quarter
    unit = GRID // slots
    start = reading.onset // unit
    length = np.maximum(-(-(reading.onset + reading.duration) // unit) - start, 1)  # in slots, those begun included
    note = np.repeat(np.arange(len(reading)), length)
    since = np.arange(len(note)) - np.repeat(np.cumsum(length) - length, length)
    slot = start[note] + since
    inside = slot < frames * slots
    cell = slot[inside] * 128 + reading.pitch[note[inside]]
    weight = np.where(since[inside] == 0, 2.0, 0.5)
    heard: NDArray[np.float64] = np.bincount(cell, weights=weight, minlength=frames * slots * 128).astype(np.float64)
    heard = heard.reshape(frames, -1)
    norm = np.linalg.norm(heard, axis=1)
    heard = heard / np.where(norm > 0, norm, 1.0)[:, None]
    matrix = np.round(heard @ heard.T, 9)  # so that what is alike is equal, however a machine adds up
    limit = min(max(float(np.quantile(matrix, 1 - _KEPT)), 0.05), 0.95)
    scaled = np.where(matrix >= limit, (matrix - limit) / (1 - limit), _PENALTY)
    np.fill_diagonal(scaled, 1.0)
    return scaled


def fitness(matrix: NDArray[np.float64], segments: NDArray[np.int64]) -> NDArray[np.float64]:
    """How well repetitions of each segment explain the piece, (segments,), 0 to 1.

    The optimal path family of each segment by dynamic programming over the rows of its columns (Müller et al. §3.2:
    steps (1,1), (1,2) and (2,1); a path begins at any row and ends in the last column), all segments at once. Fitness
    is the harmonic mean of normalised score and coverage, each less what the segment trivially explains of itself.

    Args:
        matrix: self-similarity, (frames, frames).
        segments: first frame and length of each, (segments, 2).
    """
    frames, count, longest = len(matrix), len(segments), int(segments[:, 1].max())
    start, length = segments[:, 0], segments[:, 1]
    column = np.minimum(start + np.arange(longest)[:, None], frames - 1)  # padded ones are never a path's last
    last = (length, np.arange(count))
    # Of the best path that ends in (row, column): its score, and as one number the rows that it covers and its cells.
    # The first column stands for "between two paths". (columns + 1, segments)
    never = np.full((longest + 1, count), _NEVER)
    score, extent, above, wide = never.copy(), np.zeros_like(never), never, np.zeros_like(never)
    score[0] = 0.0
    for row in range(frames):
        best, size = score[:-1].copy(), extent[:-1] + (_ROW + 1)  # (1,1), and into the first column from between paths
        _take(best[2:], size[2:], score[1:-2], extent[1:-2] + (_ROW + 1))  # (1,2)
        _take(best[1:], size[1:], above[1:-1], wide[1:-1] + (2 * _ROW + 1))  # (2,1)
        best += matrix[row][column]
        above, wide = score, extent
        score, extent = np.concatenate([score[:1], best]), np.concatenate([extent[:1], size])
        _take(score[0], extent[0], score[last], extent[last])
    covered, cells = np.divmod(extent[0], _ROW)
    gain = np.clip((score[0] - length) / np.maximum(cells, 1), 0.0, None)
    reach = np.clip((covered - length) / frames, 0.0, None)
    both: NDArray[np.float64] = np.divide(2 * gain * reach, gain + reach, out=np.zeros(count), where=gain + reach > 0)
    return both


def _take(
    score: NDArray[np.float64],
    extent: NDArray[np.float64],
    other: NDArray[np.float64],
    its_extent: NDArray[np.float64],
) -> None:
    better = other > score
    np.copyto(score, other, where=better)
    np.copyto(extent, its_extent, where=better)
