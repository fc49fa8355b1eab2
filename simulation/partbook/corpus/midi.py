"""A MIDI file as the tokeniser wants it: pitched tracks, one instrument, metres that it can say."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Final

from symusic.core import ScoreTick, TempoTick, TimeSignatureTick, TrackTick

from partbook.errors import ScoreError
from partbook.music.tokens import TICKS_PER_QUARTER
from partbook.simulation.collections import METRES

_MIDI_TEMPO: Final = 120.0  # quarters a minute where a file gives none (Standard MIDI Files 1.0)


def score_of_midi(path: Path, program: int) -> ScoreTick:
    """A MIDI file's pitched tracks at 480 ticks a quarter, all on one instrument; drums are left out.

    A metre that the tokeniser lacks becomes one with bars as long, such as 2/4 for 4/8, or, where there is none, the
    one that was valid before it. Odd metres before the first usable one are a pick-up: they get rests in front, so
    that the first full bar begins where a bar does. No note is dropped, and none is moved against another.

    Args:
        path: the file.
        program: General MIDI program to write.

    Raises:
        ScoreError: the file cannot be read, or has no pitched notes.
    """
    try:
        read = ScoreTick(path).resample(TICKS_PER_QUARTER, min_dur=1)
    except Exception as error:
        raise ScoreError(f"{path} cannot be read as a MIDI file ({error}).") from error
    kept = ScoreTick(TICKS_PER_QUARTER)
    for track in read.tracks:
        if len(track.notes) and not track.is_drum:
            line = TrackTick(track.name, program)
            line.notes.extend(track.notes)
            kept.tracks.append(line)
    if not kept.tracks:
        raise ScoreError(f"{path} has no pitched notes.")
    metres, pickup = usable_metres([(m.time, m.numerator, m.denominator) for m in read.time_signatures])
    for note in (note for track in kept.tracks for note in track.notes if pickup):
        note.time += pickup
    last = None
    for tempo in sorted(read.tempos, key=lambda tempo: tempo.time) or [TempoTick(0, _MIDI_TEMPO)]:
        at = tempo.time + pickup if last is not None else 0
        if tempo.mspq != last:
            kept.tempos.append(TempoTick(at, mspq=tempo.mspq))
        last = tempo.mspq
    for time, numerator, denominator in metres:
        kept.time_signatures.append(TimeSignatureTick(time, numerator, denominator))
    return kept.sort()


def usable_metres(metres: list[tuple[int, int, int]]) -> tuple[list[tuple[int, int, int]], int]:
    """Metres that the tokeniser can say, and how many ticks of rest go in front of the score.

    Args:
        metres: (tick, numerator, denominator), of a score at 480 ticks a quarter.

    Returns:
        The same for the score with its rest, the first at tick 0 and no two alike in a row; and the rest's ticks.
    """
    said: list[tuple[int, tuple[int, int]]] = []
    for time, numerator, denominator in sorted(metres, key=lambda metre: metre[0]):
        if (fitting := _fitting(numerator, denominator)) is not None:
            said.append((time, fitting))
    if not said:
        return [(0, 4, 4)], 0
    first, metre = said[0]
    bar = TICKS_PER_QUARTER * 4 * metre[0] // metre[1]
    rest = -first % bar
    result: list[tuple[int, int, int]] = [(0, *metre)]
    for time, metre in said:
        if metre != result[-1][1:]:
            result.append((time + rest, *metre))
    return result, rest


def _fitting(numerator: int, denominator: int) -> tuple[int, int] | None:
    """The metre itself, or the tokeniser's metre with bars as long; the one with the most like beat, or None."""
    if (numerator, denominator) in METRES:
        return numerator, denominator
    alike = [(n, d) for n, d in METRES if denominator and Fraction(n, d) == Fraction(numerator, denominator)]
    return min(alike, key=lambda metre: abs(metre[1] - denominator), default=None)
