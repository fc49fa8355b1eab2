"""What only looks like music: whatever judges pieces must rank these below the works that they are made of.

Both keep what a histogram sees first. `random_notes` keeps how many notes there are, where they lie and how long they
last on average, and nothing else; `shuffled_bars` keeps every bar, and loses their order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from symusic.core import NoteTick, ScoreTick, TempoTick, TimeSignatureTick, TrackTick

from partbook.errors import ScoreError
from partbook.evaluation.reading import Reading, read
from partbook.music.tokens import POSITIONS_PER_BEAT


def random_notes(score: ScoreTick, seed: int) -> ScoreTick:
    """As many notes as a work has in each part, drawn anew.

    Each part's pitches are uniform between its lowest and its highest, onsets uniform over the positions of the
    tokeniser's grid (twelve a quarter) from the part's first to its last, durations uniform from one position to as
    many as make the mean the part's own. No two notes of a part begin at once on one pitch. Velocities, metres, tempi
    and instruments stay.

    Raises:
        ScoreError: the work has no notes.
    """
    random = np.random.Generator(np.random.Philox(seed))
    step = score.ticks_per_quarter // POSITIONS_PER_BEAT
    result = score.copy()
    result.tracks = type(score.tracks)([])
    for track in score.tracks:
        if not len(track.notes):
            continue
        notes = list(track.notes)
        pitches, onsets = [n.pitch for n in notes], [n.time // step for n in notes]
        lowest, first = min(pitches), min(onsets)
        register, positions = max(pitches) - lowest + 1, max(onsets) - first + 1
        # A part may sound more pitches at once than its register has (parts in unison): then as many as there are.
        count = min(len(notes), register * positions)
        cells = random.choice(register * positions, count, replace=False)
        mean = max(1, round(sum(n.duration for n in notes) / step / len(notes)))
        lengths = random.integers(1, 2 * mean, count)  # 1 … 2·mean - 1
        drawn = TrackTick(track.name, track.program, track.is_drum)
        for cell, length, note in zip(np.sort(cells), lengths, notes, strict=False):
            onset, pitch = divmod(int(cell), register)
            drawn.notes.append(NoteTick((first + onset) * step, int(length) * step, lowest + pitch, note.velocity))
        result.tracks.append(drawn)
    if not len(result.tracks):
        raise ScoreError("The score has no notes to draw anew; give one with at least one.")
    return result


def readings(works: Sequence[Reading], make: Callable[[ScoreTick, int], ScoreTick], seed: int) -> list[Reading]:
    """What one of the two noises makes of each work, at the work's pace and under its name."""
    found = []
    for number, work in enumerate(works):
        made = read(make(work.score(), seed * 100_000 + number), work.title, work.work)
        found.append(replace(made, seconds=work.seconds / work.end * made.end))
    return found


@dataclass(frozen=True, slots=True)
class _Bar:
    start: int  # ticks
    length: int
    metre: tuple[int, int]
    tempo: float  # quarter notes a minute where it begins; 120 where nothing is said


def shuffled_bars(score: ScoreTick, seed: int) -> ScoreTick:
    """A work's bars in random order, each with its metre and tempo; a note is cut at the end of the bar it begins in.

    Works of fewer than two bars come back as they are.
    """
    random = np.random.Generator(np.random.Philox(seed))
    bars = list(_bars(score))
    order = random.permutation(len(bars))
    starts = np.zeros(len(bars), dtype=np.int64)  # where each bar begins in the new order
    starts[order] = np.cumsum([0, *(bars[i].length for i in order)])[:-1]
    begins = np.array([bar.start for bar in bars])
    result = score.copy()
    result.tempos, result.time_signatures = type(score.tempos)([]), type(score.time_signatures)([])
    for old, new in zip(score.tracks, result.tracks, strict=True):
        new.notes = type(old.notes)([])
        for note in old.notes:
            at = int(np.searchsorted(begins, note.time, side="right")) - 1
            bar = bars[at]
            inside = note.time - bar.start
            length = min(note.duration, bar.length - inside)
            new.notes.append(NoteTick(int(starts[at]) + inside, length, note.pitch, note.velocity))
        new.notes.sort()
    metre, tempo = None, None
    for index in order:
        bar, start = bars[index], int(starts[index])
        if bar.metre != metre:
            result.time_signatures.append(TimeSignatureTick(start, *bar.metre))
        if bar.tempo != tempo:
            result.tempos.append(TempoTick(start, bar.tempo))
        metre, tempo = bar.metre, bar.tempo
        for mark in score.tempos:
            if bar.start < mark.time < bar.start + bar.length:
                result.tempos.append(TempoTick(start + mark.time - bar.start, mark.qpm))
                tempo = mark.qpm
    return result


def _bars(score: ScoreTick) -> Iterator[_Bar]:
    """A score's bars, by its metres (4/4 where there is none), until its last note has begun."""
    last = max((note.time for track in score.tracks for note in track.notes), default=-1)
    start = 0
    while start <= last:
        metre = next(((m.numerator, m.denominator) for m in reversed(score.time_signatures) if m.time <= start), (4, 4))
        length = 4 * score.ticks_per_quarter * metre[0] // metre[1]
        tempo = next((t.qpm for t in reversed(score.tempos) if t.time <= start), 120.0)
        yield _Bar(start, length, metre, tempo)
        start += length
