"""A copy told from a new piece: the longest passage that two pieces share.

Computed on performed notes (seconds), so a transcription and a generated score are compared alike. Over many works at
once, and at any tempo, `partbook.evaluation.originality` looks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from partbook.music.notes import Notes


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
