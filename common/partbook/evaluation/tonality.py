"""Which notes: pitch classes, scale, key and its stability, how the melody moves.

Key: the best correlation of the duration-weighted pitch classes with the 24 profiles of Krumhansl & Kessler (1982;
Krumhansl 1990, "Cognitive foundations of musical pitch", ch. 4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from partbook.evaluation.melody import Melody, melody
from partbook.evaluation.reading import GRID, Reading
from partbook.evaluation.texture import entropy

MAJOR_PROFILE: Final = np.array([6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88])
MINOR_PROFILE: Final = np.array([6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17])
_SCALES: Final = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 3, 5, 7, 8, 11))
_WINDOW: Final = 16 * GRID  # steps over which a key is looked for
_MASKS: Final = np.array([np.roll(np.isin(np.arange(12), s), t) for s in _SCALES for t in range(12)])


def _profiles() -> NDArray[np.float64]:
    rows = np.array([np.roll(p, t) for p in (MAJOR_PROFILE, MINOR_PROFILE) for t in range(12)])
    rows -= rows.mean(axis=1, keepdims=True)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows, dtype=np.float64)


_PROFILES: Final = _profiles()  # of the major keys, then the minor ones, from C: mean 0, norm 1


@dataclass(frozen=True, slots=True)
class Key:
    """A key: pitch class of the tonic, 0 (C) to 11, and whether it is minor."""

    tonic: int
    minor: bool

    def near(self, other: Key) -> bool:
        """Whether two keys are the same, relatives, parallels, or a fifth apart in one mode."""
        if self.minor == other.minor:
            return (self.tonic - other.tonic) % 12 in (0, 5, 7)
        minor, major = (self, other) if self.minor else (other, self)
        return (major.tonic - minor.tonic) % 12 in (0, 3)


def pitch_classes(reading: Reading) -> NDArray[np.float64]:
    """Share of notes on each pitch class, C first, (12,)."""
    counts = np.bincount(reading.pitch % 12, minlength=12)
    return np.asarray(counts / counts.sum(), dtype=np.float64)


def pitch_class_entropy(reading: Reading) -> float:
    """Entropy of the notes' pitch classes in bits, 0 to log2 12 = 3.58.

    Source: MusPy's pitch-class entropy (Dong et al. 2020), after Wu & Yang 2020 ("The Jazz Transformer on the front
    line", ISMIR), here of all notes at once.
    """
    return entropy(pitch_classes(reading))


def in_scale(reading: Reading) -> float:
    """Share of notes in the best of 36 scales: major, natural minor and harmonic minor on each tonic.

    Notes drawn at random reach .6 to .7, the fewer the more.

    Source: MusPy's scale consistency (Dong et al. 2020, after Mogren 2016, arXiv 1611.09904), with the harmonic minor.
    """
    counts = np.bincount(reading.pitch % 12, minlength=12)
    return float((_MASKS @ counts).max()) / len(reading)


def key_of(weights: NDArray[np.float64]) -> Key:
    """The key that fits best to how long each pitch class sounds, (12,); C major where nothing tells."""
    if np.ptp(weights) == 0:
        return Key(0, minor=False)
    weights = weights - weights.mean()
    fit = (_PROFILES * (weights / np.linalg.norm(weights))).sum(axis=1)
    best = int(np.round(fit, 9).argmax())  # keys that fit alike but for the last digits: the first of them
    return Key(best % 12, minor=best >= 12)


def weighted_classes(reading: Reading) -> NDArray[np.float64]:
    """Steps for which each pitch class sounds, (12,)."""
    return np.bincount(reading.pitch % 12, weights=reading.duration, minlength=12).astype(np.float64)


def key(reading: Reading) -> Key:
    """The key of a whole piece."""
    return key_of(weighted_classes(reading))


def key_stability(reading: Reading) -> float:
    """Share of stretches of 16 quarters (every eight) whose key is near that of the piece: the same, its relative, its
    parallel, or a fifth from it in the same mode.

    Of keys drawn at random, 5 of 24 are near (0.21). The last stretch may be cut to eight quarters; stretches in which
    under four notes begin are left out; NaN where fewer than two are left, as in a piece of 16 quarters.

    Source: defined here, on the keys of Krumhansl & Kessler 1982.
    """
    home, end = key(reading), reading.end
    near = []
    for start in range(0, max(end - _WINDOW // 2, 0), _WINDOW // 2):
        inside = (reading.onset >= start) & (reading.onset < start + _WINDOW)
        if inside.sum() >= 4:
            weights = np.bincount(reading.pitch[inside] % 12, weights=reading.duration[inside], minlength=12)
            near.append(key_of(weights.astype(np.float64)).near(home))
    return float(np.mean(near)) if len(near) > 1 else float("nan")


def conjunct_motion(reading: Reading) -> float:
    """Share of melodic intervals of at most two semitones; NaN under two notes of melody.

    Source: defined here.
    """
    steps = np.abs(melody(reading).intervals)
    return float((steps <= 2).mean()) if len(steps) else float("nan")


def leap(reading: Reading) -> float:
    """Mean melodic interval, in semitones; NaN under two notes of melody.

    Source: MGEval's average pitch interval (Yang & Lerch 2020), of the melody.
    """
    steps = np.abs(melody(reading).intervals)
    return float(steps.mean()) if len(steps) else float("nan")


def bar_line_leap(reading: Reading) -> float:
    """Mean melodic interval over bar lines, less that inside bars, in semitones; NaN where there are not five of each.

    Music flows over its bar lines: near 0. Where bars are strung together at random it is large.

    Source: defined here.
    """
    line = melody(reading)
    steps = np.abs(line.intervals)
    over = _crosses(line, reading)
    if over.sum() < 5 or (~over).sum() < 5:
        return float("nan")
    return float(steps[over].mean() - steps[~over].mean())


def bar_line_step(reading: Reading) -> float:
    """Share of melodic intervals over bar lines of at most two semitones; NaN where there are not three.

    Source: defined here.
    """
    line = melody(reading)
    over = _crosses(line, reading)
    return float((np.abs(line.intervals[over]) <= 2).mean()) if over.sum() >= 3 else float("nan")


def _crosses(line: Melody, reading: Reading) -> NDArray[np.bool_]:
    bar = np.searchsorted(reading.bars, line.onset, side="right") - 1
    crossed: NDArray[np.bool_] = np.diff(bar) > 0
    return crossed
