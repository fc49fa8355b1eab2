"""The symbols that music is written in: what each says, its number, and what it does to musical time.

A piece is a header and bars; one grammar holds for training windows, prompts and what is generated
(`partbook.music.grammar`):

    window  = (BOS | CUT) header bar* gap-filling* [EOS]
    header  = HAND [GENRE] [STYLE] [KEY] METRE TEMPO [DENSITY] [POLYPHONY] [BARS] PROGRAM+
    bar     = [METRE] [TEMPO] BAR [DYNAMICS] moment*          METRE and TEMPO only where they change
    moment  = STEP* [CHORD] ([PROGRAM] PITCH+ DURATION)*      notes of one length that begin together say it once
    gap     = GAP_n                                           n bars are left out here …
    filling = FILL bar*                                       … and the k-th FILL writes the k-th gap

BOS begins a piece, CUT a window inside one, EOS ends a piece. STEP moves on inside a bar, in positions of a twelfth of
a quarter note; a bar begins at its BAR, so a pick-up is a first bar that begins with a STEP. Dynamics are said once a
bar, for transcribed music; tempo marks are logarithmic, and exact tempi stand beside the stream
(`partbook.music.tokens.exact_tempi`). The family is REMI's (Huang & Yang 2020, arXiv 2002.00212); sentinels for gaps as
in T5 (Raffel et al. 2020, arXiv 1910.10683 §3.1.4) and MMM (Ens & Pasquier 2020, arXiv 2008.06048 §3); controls in
front of the music as in CTRL (Keskar et al. 2019, arXiv 1909.05858).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Literal

import numpy as np

VERSION: Final = 1  # changes whenever a symbol's meaning or number does

LOWEST_PITCH: Final = 21  # A0, the piano's lowest key
HIGHEST_PITCH: Final = 108  # C8, its highest
POSITIONS_PER_BEAT: Final = 12  # of a quarter note: sixteenths and triplets both fall on it
WHOLE: Final = 4 * POSITIONS_PER_BEAT  # positions of a whole note

Hand = Literal["score", "heard"]
"""How notes came to be: written by a composer or editor, or transcribed from sound."""

HANDS: Final[tuple[Hand, ...]] = ("score", "heard")
GENRES: Final = ("chorale", "dance", "madrigal", "pop", "quartet", "song", "piano", "other")
"""What public music is, where it is known."""

STYLES: Final = 16  # labels that opt in
NOTE_NAMES: Final = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
KEYS: Final = tuple(f"{name}{mode}" for mode in ("", "m") for name in NOTE_NAMES)
METRES: Final[tuple[tuple[int, int], ...]] = (
    *((n, 2) for n in (2, 3, 4)),
    *((n, 4) for n in range(1, 10)),
    *((n, 8) for n in (2, 3, 4, 5, 6, 7, 9, 10, 12)),
    *((n, 16) for n in (3, 6, 9, 12)),
)
LONGEST_BAR: Final = max(n * WHOLE // d for n, d in METRES)  # positions
SLOWEST: Final = 30.0  # quarter notes a minute
TEMPI: Final = tuple(SLOWEST * 2.0 ** (k / 12) for k in range(40))  # 5.9 % apart, up to 285
DENSITIES: Final = (0.5, 0.8, 1.25, 2.0, 3.2, 5.0, 8.0)  # notes a quarter note: edges of eight classes
POLYPHONIES: Final = (1.1, 1.8, 2.8, 4.2)  # notes sounding at once where any sounds: edges of five classes
BARS_LEFT: Final = (*range(1, 17), 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 128, 192)
LONGEST_GAP: Final = 16  # bars
MOST_GAPS: Final = 16  # in a window
CHORD_KINDS: Final = ("", "m", "7", "maj7", "m7", "dim")
CHORDS: Final = (*(f"{root}{kind}" for kind in CHORD_KINDS for root in NOTE_NAMES), "none")
LEVELS: Final = (36, 46, 56, 66, 76, 86, 96, 108)  # MIDI velocities
STEPS: Final = (*range(1, 49), 72, 96)  # positions
DURATIONS: Final[tuple[int, ...]] = (
    *range(1, 25),
    *sorted({*range(27, 49, 3), *range(28, 49, 4)}),
    *range(54, 97, 6),
    *range(108, 193, 12),
)


def _symbols() -> tuple[str, ...]:
    return (
        *("Pad", "Begin", "Cut", "End", "Fill"),
        *(f"Hand_{hand}" for hand in HANDS),
        *(f"Genre_{genre}" for genre in GENRES),
        *(f"Style_{n}" for n in range(STYLES)),
        *(f"Key_{key}" for key in KEYS),
        *(f"Metre_{n}/{d}" for n, d in METRES),
        *(f"Tempo_{k}" for k in range(len(TEMPI))),
        *(f"Density_{n}" for n in range(len(DENSITIES) + 1)),
        *(f"Polyphony_{n}" for n in range(len(POLYPHONIES) + 1)),
        *(f"Bars_{n}" for n in BARS_LEFT),
        *(f"Program_{n}" for n in range(128)),
        *(f"Gap_{n}" for n in range(1, LONGEST_GAP + 1)),
        *(f"Chord_{chord}" for chord in CHORDS),
        "Bar",
        *(f"Level_{n}" for n in range(len(LEVELS))),
        *(f"Step_{n}" for n in STEPS),
        *(f"Pitch_{n}" for n in range(LOWEST_PITCH, HIGHEST_PITCH + 1)),
        *(f"Length_{n}" for n in DURATIONS),
    )


SYMBOLS: Final = _symbols()
"""Every symbol by its number; merged tokens have higher numbers."""

NUMBER: Final = {symbol: number for number, symbol in enumerate(SYMBOLS)}
KINDS: Final = tuple(symbol.partition("_")[0] for symbol in SYMBOLS)
"""What family each symbol is of: the part before the underscore."""

FIRST_MERGEABLE: Final = NUMBER["Step_1"]  # steps, pitches and lengths, and no others, are merged


def metre_number(numerator: int, denominator: int) -> int:
    """The symbol of a metre; KeyError where there is none."""
    return NUMBER[f"Metre_{numerator}/{denominator}"]


def bar_positions(numerator: int, denominator: int) -> int:
    """How long a bar is, in positions."""
    return numerator * WHOLE // denominator


def tempo_number(quarters_per_minute: float) -> int:
    """The symbol of the nearest tempo, on a logarithmic scale."""
    step = round(12 * math.log2(max(quarters_per_minute, 1e-3) / SLOWEST))
    return NUMBER[f"Tempo_{min(max(step, 0), len(TEMPI) - 1)}"]


def class_of(value: float, edges: Sequence[float]) -> int:
    """Which class of a scale with these edges a value is in, from 0."""
    return int(np.searchsorted(edges, value, side="right"))


def bars_left_number(bars: int) -> int:
    """The symbol that says about how many bars are left, this one included: the largest step not above it."""
    return NUMBER[f"Bars_{max(step for step in BARS_LEFT if step <= max(bars, 1))}"]


def nearest_length(positions: int) -> int:
    """The nearest length that can be said; of two as near the shorter."""
    nearest: int = min(DURATIONS, key=lambda known: (abs(known - positions), known))
    return nearest


def steps_of(positions: int) -> list[int]:
    """Symbols that move on by so many positions: the largest steps first."""
    result = []
    while positions:
        step = max(known for known in STEPS if known <= positions)
        result.append(NUMBER[f"Step_{step}"])
        positions -= step
    return result
