"""The demo's control: recordings of a public style that no label plays and no base has seen.

One transcriber writes down every recording of a run, so part of what rounds gain on any of them is its hand, which all
share. What they gain on the control can be nothing else that a label taught; what they gain on a label's own kind of
music beyond that is style.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from partbook.coordinator.checkpoints import RoundRecord
from partbook.corpus.library import Library
from partbook.music.recording import Recording
from partbook.music.tokens import Tokenizer
from partbook.simulation.collections import CONTROL, Work

WORKS: Final = 8


def control_works(library: Library, count: int = WORKS) -> list[Work]:
    """`count` held-out works of `CONTROL`, always the same, no two of one tune family."""
    pool = library.pool(CONTROL.name, "heldout")
    works = sorted(pool, key=lambda work: hashlib.sha256(f"public/{work.key}".encode()).digest())
    first = {work.family: work for work in reversed(works)}
    chosen = [work for work in works if first[work.family] is work]
    return [Work(work.collection, work.key, work.title) for work in chosen[:count]]


@dataclass(frozen=True, slots=True)
class Size:
    """How much there is to foretell: tokens, ends included, and the notes that they spell."""

    recordings: int
    tokens: int
    notes: int

    @classmethod
    def of(cls, recordings: Sequence[Recording], tokenizer: Tokenizer) -> Self:
        """Of held-out recordings."""
        names = [name for one in recordings for name in tokenizer.names(one.ids.tolist())]
        notes = sum(name.startswith("Pitch_") for name in names)
        return cls(len(recordings), sum(len(one.ids) + 1 for one in recordings), notes)

    def per_note(self, nats_per_token: float) -> float:
        """The same nats, over the notes."""
        return nats_per_token * self.tokens / max(self.notes, 1)


@dataclass(frozen=True, slots=True)
class Gain:
    """What rounds changed on held-out recordings of a label's kind, and how much of it is style. All in nats.

    Attributes:
        base, release: losses of the base model and after the rounds.
        gain: by how much the loss fell.
        hand: by how much it fell on the control.
        style: by how much more it fell here than there.
    """

    base: float
    release: float
    gain: float
    hand: float
    style: float

    @classmethod
    def of(cls, base: float, release: float, hand: float) -> Self:
        """From two losses, and the gain on the control."""
        return cls(base, release, base - release, hand, base - release - hand)


@dataclass(frozen=True, slots=True)
class ControlReport:
    """What the rounds did for music that no label plays.

    Attributes:
        about: what it is, such as "Aird's airs".
        instrument: on what it is played.
        recordings, tokens, notes: held-out ones, on which losses are measured.
        nll_before, nll_after, nll_without_noise: nats per token for the base model, after the last round, and had the
            same rounds had no noise; None where they had none.
        note_before, note_after, note_without_noise: the same per note.
    """

    about: str
    instrument: str
    recordings: int
    tokens: int
    notes: int
    nll_before: float
    nll_after: float
    note_before: float
    note_after: float
    nll_without_noise: float | None = None
    note_without_noise: float | None = None


def control_report(size: Size, history: Sequence[RoundRecord], noiseless: float | None) -> ControlReport:
    """What changed on the control.

    Args:
        size: of its recordings.
        history: with scores.
        noiseless: its loss had there been no noise, in nats per token; None where there was none.
    """
    before, after = (record.validation[CONTROL.label] for record in (history[0], history[-1]))
    return ControlReport(
        about=CONTROL.about,
        instrument=CONTROL.instrument,
        recordings=size.recordings,
        tokens=size.tokens,
        notes=size.notes,
        nll_before=before,
        nll_after=after,
        note_before=size.per_note(before),
        note_after=size.per_note(after),
        nll_without_noise=noiseless,
        note_without_noise=None if noiseless is None else size.per_note(noiseless),
    )
