"""Performed notes written down: on which part of its beat each began, and when it ended, as a person would write it.

Ears find onsets within 11 ms (standard deviation) and ends hardly at all: a note rings on, or fades before it is let
go. Rounded to the nearest position they are noise, which a model then learns to foretell and a federation pays ε for.
So:

- The onsets of a beat are put on one division of it: whole, halves, quarters, thirds, sixths, eighths, or two of these
  at once. The likeliest is taken: normal deviations of `SPREAD` positions, `DIVISIONS` before any are seen, and every
  place of a division as likely (a Bayesian reading of quantisation: Cemgil, Desain & Kappen 2000, Computer Music
  Journal 24(2)). Notes that begin within `TOGETHER` positions begin together, and two that do not are kept apart.
- A note that lasts about as long as it is to the next onset ends there. One that ends near some onset ends with it. Any
  other has the nearest of the `LENGTHS` that are common.

On 56 public works of four styles, played and heard by a node's ears, with their true beats: .86 of onsets are where
they were written by rounding, .96 so (of Aird's airs .54, .95), and lengths .32 and .62 (`make bench-notation`).
"""

from __future__ import annotations

import itertools
from typing import Final

import numpy as np
from numpy.typing import NDArray
from symusic.core import NoteTick, ScoreTick, TempoTick, TimeSignatureTick, TrackTick

from partbook.errors import ScoreError
from partbook.music.notes import Notes
from partbook.music.quantised import TICKS_PER_POSITION, TICKS_PER_QUARTER
from partbook.music.vocabulary import POSITIONS_PER_BEAT

DIVISIONS: Final[tuple[tuple[tuple[int, ...], float], ...]] = (
    ((0,), 0.30),
    ((0, 6), 0.32),
    ((0, 3, 6, 9), 0.20),
    ((0, 4, 8), 0.06),
    ((0, 2, 4, 6, 8, 10), 0.04),
    ((0, 2, 3, 5, 6, 8, 9, 11), 0.04),  # eighths fall between positions
    ((0, 4, 6, 8), 0.02),
    ((0, 3, 4, 6, 8, 9), 0.02),
)
"""Places of a beat that are used together, in positions, and how often."""

SPREAD: Final = 0.65  # positions; standard deviation of an onset
SURE: Final = 0.8  # weight of what is known before, beside the deviations
TOGETHER: Final = 0.9  # positions; a spread chord's
APART: Final = 8.0  # nats that it costs to write two onsets as one
SHORT: Final = 0.3  # of the way to the next onset: what lasts so much, and no more than …
LONG: Final = 2.5  # … so much, ends there
NEAR: Final = 0.5  # of a note's length: an onset so near its end is its end
LENGTHS: Final = (1, 2, 3, 4, 6, 8, 9, 12, 16, 18, 24, 30, 36, 48, 60, 72, 84, 96, 108, 120, 144, 168, 192)

_Reals = NDArray[np.float64]
_Positions = NDArray[np.int64]


def score_of(
    notes: Notes,
    beat_seconds: NDArray[np.float64],
    program: int,
    *,
    beats_per_minute: float,
    time_signature: tuple[int, int] = (4, 4),
    heard: bool = True,
) -> ScoreTick:
    """Write performed notes down on a grid of beats.

    Args:
        notes: in seconds.
        beat_seconds: the time of beat 0, 1, 2 …, increasing, at least two; beyond both ends the first and last
            beat lengths go on.
        program: General MIDI program, 0–127.
        beats_per_minute: the one tempo mark to write.
        time_signature: the one metre to write.
        heard: whether ears found the notes; of others, such as those of a file, onsets and ends are rounded.

    Returns:
        A one-track score at 480 ticks a quarter; no note starts before tick 0 or is shorter than a position.

    Raises:
        ScoreError: there are fewer than two beats.
    """
    if len(beat_seconds) < 2:
        raise ScoreError("At least two beats are needed to place notes in time; give the beat times in seconds.")
    begin = np.maximum(in_positions(notes.onset, beat_seconds), 0.0)
    end = in_positions(notes.onset + notes.duration, beat_seconds)
    onset = onsets(begin) if heard else np.round(begin).astype(np.int64)
    length = lengths(onset, end - begin) if heard else np.maximum(np.round(end).astype(np.int64) - onset, 1)
    score = ScoreTick(TICKS_PER_QUARTER)
    track = TrackTick(program=program, is_drum=False, name="")
    for time, long, pitch, velocity in zip(
        (onset * TICKS_PER_POSITION).tolist(),
        (length * TICKS_PER_POSITION).tolist(),
        notes.pitch.tolist(),
        notes.velocity.tolist(),
        strict=True,
    ):
        track.notes.append(NoteTick(time, long, pitch, velocity))
    score.tracks.append(track)
    score.tempos.append(TempoTick(0, beats_per_minute))
    score.time_signatures.append(TimeSignatureTick(0, *time_signature))
    return score


def onsets(at: _Reals) -> _Positions:
    """Where notes that were heard to begin at `at`, positions from 0 (N,), are written: positions, (N,)."""
    written = np.zeros(len(at), np.int64)
    order = np.argsort(at, kind="stable")
    beats = np.floor(at[order] / POSITIONS_PER_BEAT).astype(np.int64)
    edges = np.flatnonzero(np.diff(beats, prepend=-1, append=-1)).tolist()
    for first, last in itertools.pairwise(edges):
        own = order[first:last]
        start = int(beats[first]) * POSITIONS_PER_BEAT
        written[own] = start + _divided(at[own] - start)
    return written


def lengths(onset: _Positions, lasting: _Reals) -> _Positions:
    """How long notes at `onset` that were heard to last so many positions are written, (N,) each."""
    if not len(onset):
        return onset
    begins = np.unique(onset)
    lasting = np.maximum(lasting, 0.5)
    following = np.searchsorted(begins, onset, side="right")
    coming = np.where(following < len(begins), begins[np.minimum(following, len(begins) - 1)], onset + LENGTHS[-1])
    known = np.array(LENGTHS)
    length = known[np.abs(np.log(lasting[:, None] / known)).argmin(1)]
    if len(begins) > 1:
        end = onset + lasting
        after = np.clip(np.searchsorted(begins, end), 1, len(begins) - 1)
        nearest = np.where(end - begins[after - 1] <= begins[after] - end, begins[after - 1], begins[after])
        nearest = np.where(nearest > onset, nearest, coming)
        length = np.where(np.abs(nearest - end) <= np.maximum(1.0, NEAR * lasting), nearest - onset, length)
    legato = (lasting >= SHORT * (coming - onset)) & (lasting <= LONG * (coming - onset)) & (following < len(begins))
    written: _Positions = np.maximum(np.where(legato, coming - onset, length), 1).astype(np.int64)
    return written


def _divided(at: _Reals) -> _Positions:
    """Ascending onsets of one beat, 0 to 12, on the likeliest division of it; 12 is the next beat's 0."""
    chord = np.cumsum(np.diff(at, prepend=at[0]) > TOGETHER)
    centres = np.bincount(chord, weights=at) / np.bincount(chord)
    best, written = np.inf, np.zeros(len(centres), np.int64)
    for places, often in DIVISIONS:
        grid = np.array([*places, POSITIONS_PER_BEAT])
        nearest = grid[np.abs(centres[:, None] - grid).argmin(1)]
        deviation = float(((centres - nearest) ** 2).sum()) / (2 * SPREAD**2)
        said = SURE * (len(centres) * np.log(len(places)) - np.log(often))
        cost = deviation + said + APART * int((np.diff(nearest) == 0).sum())
        if cost < best:
            best, written = cost, nearest
    return written[chord]


def in_positions(seconds: NDArray[np.floating], beat_seconds: _Reals) -> _Reals:
    """Seconds as positions from beat 0, (N,); beyond the beats, two at least, the first and last lengths go on."""
    first, last = beat_seconds[1] - beat_seconds[0], beat_seconds[-1] - beat_seconds[-2]
    beats = np.interp(seconds, beat_seconds, np.arange(len(beat_seconds)))
    beats = np.where(seconds < beat_seconds[0], (seconds - beat_seconds[0]) / first, beats)
    after = len(beat_seconds) - 1 + (seconds - beat_seconds[-1]) / last
    found: _Reals = np.where(seconds > beat_seconds[-1], after, beats) * POSITIONS_PER_BEAT
    return found
