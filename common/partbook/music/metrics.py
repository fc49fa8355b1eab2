"""Figures that tell music from noise, and a copy from a new piece.

All are computed on performed notes (seconds), so a transcription and a generated score are measured alike.
Definitions follow Yang & Lerch 2018, "On the evaluation of generative models in music" (Neural Computing and
Applications 32) and MusPy (Dong et al. 2020, arXiv 2008.01951), adapted from grids to seconds where need be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
from numpy.typing import NDArray

from partbook.errors import ScoreError
from partbook.music.notes import Notes

CHORD_SECONDS: Final = 0.03  # onsets closer than this are one attack; transcription and hands are no more exact
_MAJOR: Final = (0, 2, 4, 5, 7, 9, 11)
_HARMONIC_MINOR: Final = (0, 2, 3, 5, 7, 8, 11)
_NATURAL_MINOR: Final = (0, 2, 3, 5, 7, 8, 10)
_PULSES: Final = np.arange(0.10, 0.501, 0.005)  # seconds a subdivision of the beat may last
_PULSE_WINDOW: Final = 8.0  # seconds over which a player's tempo is taken to be steady


@dataclass(frozen=True, slots=True)
class MusicFigures:
    """What a piece's notes are like.

    Attributes:
        notes: how many.
        seconds: from the first onset to the last note's end.
        density: notes per second.
        lowest, highest: MIDI note numbers.
        pitch_range: semitones from lowest to highest.
        pitch_classes: share of notes on C, C♯ … B; sums to 1.
        pitch_class_entropy: bits, 0 to log2(12) = 3.58.
        in_scale: share of notes in the best-fitting of 24 keys (major and natural or harmonic minor), 0 to 1.
            Notes drawn at random reach 0.6 to 0.7, the fewer the higher.
        inter_onset: mean seconds between successive attacks.
        polyphony: mean number of notes sounding, over the time in which any does.
        duration_mean, duration_median: of notes, seconds.
        pulse: how well attacks fall on an even grid, 0 to 1, mean over windows of eight seconds; few notes
            in a window fit some grid by chance, so compare it only between pieces of like density.
    """

    notes: float
    seconds: float
    density: float
    lowest: float
    highest: float
    pitch_range: float
    pitch_classes: tuple[float, ...]
    pitch_class_entropy: float
    in_scale: float
    inter_onset: float
    polyphony: float
    duration_mean: float
    duration_median: float
    pulse: float


def figures(notes: Notes) -> MusicFigures:
    """Measure a piece.

    Raises:
        ScoreError: there are no notes to measure.
    """
    if not len(notes):
        raise ScoreError("There are no notes to measure; give a piece with at least one.")
    end = notes.onset + notes.duration
    seconds = float(end.max() - notes.onset.min())
    histogram = pitch_class_histogram(notes)
    attacks = _attacks(notes.onset)
    lowest, highest = int(notes.pitch.min()), int(notes.pitch.max())
    return MusicFigures(
        notes=float(len(notes)),
        seconds=seconds,
        density=len(notes) / seconds,
        lowest=float(lowest),
        highest=float(highest),
        pitch_range=float(highest - lowest),
        pitch_classes=tuple(float(share) for share in histogram),
        pitch_class_entropy=_entropy(histogram),
        in_scale=_in_scale(histogram),
        inter_onset=float(np.diff(attacks).mean()) if len(attacks) > 1 else 0.0,
        polyphony=float(notes.duration.sum()) / _sounding(notes.onset, end),
        duration_mean=float(notes.duration.mean()),
        duration_median=float(np.median(notes.duration)),
        pulse=_pulse(attacks),
    )


def typical(pieces: Sequence[MusicFigures]) -> MusicFigures:
    """The mean of each figure over pieces of equal weight.

    Raises:
        ScoreError: there are none.
    """
    if not pieces:
        raise ScoreError("There are no pieces to take the mean of; measure at least one.")
    means: dict[str, float] = {
        f.name: float(np.mean([getattr(piece, f.name) for piece in pieces]))
        for f in fields(MusicFigures)
        if f.name != "pitch_classes"
    }
    classes = np.mean([piece.pitch_classes for piece in pieces], axis=0)
    return MusicFigures(pitch_classes=tuple(float(share) for share in classes), **means)


def pitch_class_histogram(notes: Notes) -> NDArray[np.float64]:
    """Share of notes on each pitch class, C first, (12,); zeros where there are no notes."""
    counts = np.bincount(notes.pitch % 12, minlength=12).astype(np.float64)
    return counts / max(1.0, float(counts.sum()))


def overlap(first: Sequence[float], second: Sequence[float]) -> float:
    """Overlapping area of two histograms, each scaled to sum to 1: 1 if they agree, 0 if they share nothing.

    Yang & Lerch's OA, on the bins rather than on a smoothed density; 1 minus the total variation distance.

    Raises:
        ScoreError: the histograms differ in length, or one is empty or negative.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape:
        raise ScoreError(f"The histograms have {a.size} and {b.size} bins; compare equals.")
    if min(a.sum(), b.sum()) <= 0 or min(a.min(), b.min()) < 0:
        raise ScoreError("A histogram without counts, or with negative ones, overlaps with nothing; check the notes.")
    return float(np.minimum(a / a.sum(), b / b.sum()).sum())


@dataclass(frozen=True, slots=True)
class CopiedSpan:
    """The longest passage two pieces share: how many notes, and the index of its first note in each."""

    notes: int
    first: int
    second: int


def copied_span(first: Notes, second: Notes, *, tolerance: float = 0.06) -> CopiedSpan:
    """The longest run of notes that both pieces have, in any key, at the same tempo.

    Notes are compared in order of onset, then pitch, by the step from the one before: the same interval in
    semitones, and inter-onset times that differ by at most `tolerance` seconds. A changed note ends a run,
    a change of tempo beyond the tolerance hides one: this finds copying, and cannot rule out likeness.

    One row of the classical longest-common-substring table at a time: O(N·M) time, O(M) memory.
    """
    if not len(first) or not len(second):
        return CopiedSpan(0, 0, 0)
    step_a, step_b = np.diff(first.pitch.astype(np.int16)), np.diff(second.pitch.astype(np.int16))
    wait_a, wait_b = np.diff(first.onset), np.diff(second.onset)
    best = CopiedSpan(1, 0, 0)
    runs = np.zeros(len(step_b) + 1, dtype=np.int64)  # runs[j + 1]: steps of the run that ends at b's step j
    for i in range(len(step_a)):
        same = (step_b == step_a[i]) & (np.abs(wait_b - wait_a[i]) <= tolerance)
        runs[1:] = np.where(same, runs[:-1] + 1, 0)
        j = int(runs.argmax())
        if runs[j] + 1 > best.notes:
            length = int(runs[j])
            best = CopiedSpan(length + 1, i + 1 - length, j - length)
    return best


def _attacks(onset: NDArray[np.float64]) -> NDArray[np.float64]:
    """Onsets with those of one chord counted once: the times at which something new is struck."""
    attacks: list[float] = []
    for time in np.sort(onset):
        if not attacks or time - attacks[-1] > CHORD_SECONDS:
            attacks.append(float(time))
    return np.asarray(attacks)


def _sounding(onset: NDArray[np.float64], end: NDArray[np.float64]) -> float:
    """Seconds in which at least one note sounds."""
    order = np.argsort(onset)
    start, stop = onset[order], np.maximum.accumulate(end[order])
    before = np.concatenate([[-np.inf], stop[:-1]])
    return float(np.sum(stop - np.maximum(start, np.minimum(before, stop))))


def _entropy(histogram: NDArray[np.float64]) -> float:
    present = histogram[histogram > 0]
    return float(-(present * np.log2(present)).sum()) + 0.0


def _in_scale(histogram: NDArray[np.float64]) -> float:
    modes = [np.isin(np.arange(12), mode) for mode in (_MAJOR, _NATURAL_MINOR, _HARMONIC_MINOR)]
    return max(float(histogram[np.roll(mode, tonic)].sum()) for mode in modes for tonic in range(12))


def _pulse(attacks: NDArray[np.float64]) -> float:
    """Mean over windows of the best grid's resultant length |mean exp(2πi·attack/period)|."""
    if len(attacks) < 4:
        return 0.0
    strengths, weights = [], []
    for start in np.arange(attacks[0], attacks[-1] + 1e-9, _PULSE_WINDOW):
        window = attacks[(attacks >= start) & (attacks < start + _PULSE_WINDOW)]
        if len(window) >= 4:
            phases = np.exp(2j * np.pi * window[:, None] / _PULSES[None, :])
            strengths.append(float(np.abs(phases.mean(axis=0)).max()))
            weights.append(len(window))
    return float(np.average(strengths, weights=weights)) if weights else 0.0
