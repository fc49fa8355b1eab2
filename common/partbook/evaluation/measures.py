"""The measures of a piece: each with its name, unit, definition and source, in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from partbook.evaluation import phrasing, repetition, rhythm, texture, tonality
from partbook.evaluation.reading import Reading


@dataclass(frozen=True, slots=True)
class Measure:
    """One number of a piece.

    Attributes:
        name: identifier, as in JSON.
        title: as in a table.
        unit: of the number; empty for a share.
        group: the heading under which it is shown.
        of: computes it; NaN where the piece is too short for it, or has nothing of the kind.
        sense: +1 (-1) where more (less) of it is more like music: human works lie above (below) random notes. 0
            where it describes and does not judge.
        structural: it claims to measure how bars follow one another, so human works with their bars shuffled lie
            between the two.
        whole: measured on the whole piece and not on its opening.
    """

    name: str
    title: str
    unit: str
    group: Literal["Texture", "Rhythm", "Tonality", "Repetition", "Phrases"]
    of: Callable[[Reading], float]
    sense: Literal[-1, 0, 1] = 0
    structural: bool = False
    whole: bool = False

    @property
    def definition(self) -> str:
        """What exactly is measured, in a sentence or two."""
        return self._doc()[0]

    @property
    def source(self) -> str:
        """Where the definition comes from: author and year, or that it is defined here."""
        return self._doc()[1]

    def _doc(self) -> tuple[str, str]:
        definition, _, source = " ".join((self.of.__doc__ or "").split()).partition(" Source: ")
        return definition, source[:1].upper() + source[1:]


MEASURES: Final = (
    Measure("silence", "Silence", "", "Texture", texture.silence, -1),
    Measure("density", "Density", "notes/s", "Texture", texture.density),
    Measure("density_per_quarter", "Density", "notes/quarter", "Texture", texture.density_per_quarter),
    Measure("polyphony", "Polyphony", "notes", "Texture", texture.polyphony),
    Measure("mean_pitch", "Register, mean", "MIDI", "Texture", texture.mean_pitch),
    Measure("pitch_range", "Register, range", "semitones", "Texture", texture.pitch_range),
    Measure("note_length", "Note length, median", "quarters", "Texture", texture.note_length),
    Measure("note_length_entropy", "Note lengths, entropy", "bits", "Texture", texture.note_length_entropy),
    Measure("consonance", "Consonance", "", "Texture", texture.consonance, 1),
    Measure("rhythm_entropy", "Rhythm entropy", "bits", "Rhythm", rhythm.rhythm_entropy, -1),
    Measure("groove", "Groove", "", "Rhythm", rhythm.groove, 1),
    Measure("on_beat", "Attacks on the beat", "", "Rhythm", rhythm.on_beat, 1),
    Measure("on_half_beat", "Attacks on the half beat", "", "Rhythm", rhythm.on_half_beat, 1),
    Measure("pitch_class_entropy", "Pitch-class entropy", "bits", "Tonality", tonality.pitch_class_entropy, -1),
    Measure("in_scale", "Notes in scale", "", "Tonality", tonality.in_scale, 1),
    Measure("key_stability", "Key stability", "", "Tonality", tonality.key_stability, 1),
    Measure("conjunct_motion", "Melodic steps", "", "Tonality", tonality.conjunct_motion, 1, structural=True),
    Measure("leap", "Melodic interval, mean", "semitones", "Tonality", tonality.leap, -1, structural=True),
    Measure("bar_line_leap", "Leap over bar lines", "semitones", "Tonality", tonality.bar_line_leap),
    Measure("bar_line_step", "Steps over bar lines", "", "Tonality", tonality.bar_line_step, 1),
    Measure("bar_repeats", "Exact bar repeats", "", "Repetition", repetition.bar_repeats, 1),
    Measure("passage_repeats", "Passage repeats", "", "Repetition", repetition.passage_repeats, 1, structural=True),
    Measure("melodic_repeats", "Melodic repeats", "", "Repetition", repetition.melodic_repeats, 1, structural=True),
    Measure("form", "Form", "", "Repetition", repetition.form, 1, structural=True),
    Measure(
        "structureness_short",
        "Structureness, short",
        "",
        "Repetition",
        repetition.structureness_short,
        1,
        structural=True,
    ),
    Measure(
        "structureness_long", "Structureness, long", "", "Repetition", repetition.structureness_long, 1, structural=True
    ),
    Measure("phrase_length", "Phrase length, median", "quarters", "Phrases", phrasing.phrase_length),
    Measure("phrase_regularity", "Phrases of whole bars", "", "Phrases", phrasing.phrase_regularity, 1),
    Measure("cadences", "Cadence rate", "", "Phrases", phrasing.cadences, 1),
    Measure("ending", "Ending", "", "Phrases", phrasing.ending, 1, whole=True),
)
"""All measures. Structural ones say in which direction human works lie; see `Measure.sense`."""

NAMES: Final = tuple(measure.name for measure in MEASURES)


def by_name(name: str) -> Measure:
    """The measure called `name`; KeyError where there is none."""
    return {measure.name: measure for measure in MEASURES}[name]


def measure(piece: Reading, opening: Reading) -> dict[str, float]:
    """Every measure of one piece, by name.

    Args:
        piece: the whole.
        opening: the window that is compared, such as its first 64 quarters.
    """
    return {m.name: float(m.of(piece if m.whole else opening)) for m in MEASURES}


def as_rows(measured: Sequence[Mapping[str, float]], names: Sequence[str] = NAMES) -> NDArray[np.float64]:
    """Measures as an array, (pieces, measures), NaN where a measure is undefined."""
    return np.array([[row[name] for name in names] for row in measured], dtype=np.float64).reshape(-1, len(names))
