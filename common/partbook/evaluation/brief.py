"""The short form of an evaluation: a minute's work, for the page of a demo and the description of a release.

A generator writes two dozen pieces out of nothing. They are held against human works, and so are those works' bars in
random order and random notes in their likeness: numbers say little without what a failure would look like.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from partbook.errors import GenerationError, InputError, ScoreError
from partbook.evaluation import noise
from partbook.evaluation.comparison import Comparison, MeasuredSet, Reference
from partbook.evaluation.estimates import Estimate
from partbook.evaluation.language_model import LanguageModel
from partbook.evaluation.reading import Reading, read
from partbook.evaluation.results import Kind
from partbook.music.recording import Recording
from partbook.music.tokens import Tokenizer

PIECES: Final = 24  # that a generator writes
QUARTERS: Final = 64.0  # of each
HEADLINES: Final = (
    "silence", "density", "polyphony", "note_length", "rhythm_entropy", "groove", "pitch_class_entropy", "in_scale",
    "melodic_repeats", "bar_repeats", "form", "ending",
)  # fmt: skip
"""The measures that the short form shows; the long form has all."""
_ATTEMPTS: Final = 5  # seeds tried for a piece that came out without notes


@dataclass(frozen=True, slots=True)
class BriefRow:
    """One set of pieces.

    Attributes:
        title: what it is called; `kind`: what it is.
        comparison: with the human works.
    """

    title: str
    kind: Kind
    comparison: Comparison


@dataclass(frozen=True, slots=True)
class Brief:
    """A short evaluation.

    Attributes:
        reference: what the human works are, in words.
        works: how many.
        bands: for each measure the 10 %, 50 % and 90 % quantile of the human works.
        rows: the generator first.
        seed: of everything that was drawn.
    """

    reference: str
    works: int
    bands: Mapping[str, tuple[float, float, float]]
    rows: tuple[BriefRow, ...]
    seed: int

    def about(self) -> dict[str, Any]:
        """What a release says of itself: numbers to four digits, None where there is none."""

        def plain(estimate: Estimate) -> list[float | None]:
            return [_rounded(estimate.value), _rounded(estimate.low), _rounded(estimate.high)]

        return {
            "reference": self.reference,
            "works": self.works,
            "seed": self.seed,
            "human_10_50_90": {name: [_rounded(x) for x in self.bands[name]] for name in HEADLINES},
            "sets": {
                row.title: {
                    "pieces": row.comparison.pieces,
                    "auc_features": plain(row.comparison.features),
                    "auc_tokens": plain(row.comparison.tokens),
                    "median": {name: plain(row.comparison.measures[name].median) for name in HEADLINES},
                }
                for row in self.rows
            },
        }


def brief(
    sets: Sequence[tuple[str, Kind, Sequence[Reading]]],
    human: Sequence[Reading],
    *,
    reference: str,
    seed: int = 1,
    on_step: Callable[[str], None] = lambda _: None,
) -> Brief:
    """Hold sets of pieces, and two noises made from the human works, against the human works.

    Args:
        sets: (title, kind, pieces); the generator's first.
        human: works to hold them against.
        reference: what they are, in words.
        seed: of the noises, and of everything that is drawn.
        on_step: told what is done: each set, and the reference before them.

    Raises:
        InputError: there are no human works.
    """
    if not human:
        raise InputError("There are no human works to hold the pieces against; give some.")
    measured = MeasuredSet.of("human works", human)
    on_step(reference)
    against = Reference(measured)
    noises: list[tuple[str, Kind, Sequence[Reading]]] = [
        ("Their bars shuffled", "noise", noise.readings(human, noise.shuffled_bars, seed)),
        ("Random notes", "noise", noise.readings(human, noise.random_notes, seed)),
    ]
    rows = []
    for title, kind, pieces in (*sets, *noises):
        rows.append(BriefRow(title, kind, against.compare(MeasuredSet.of(title, pieces), seed=seed)))
        on_step(title)
    bands = {name: against.quantiles(name) for name in rows[0].comparison.measures}
    return Brief(reference, len(measured), bands, tuple(rows), seed)


def freely(
    model: LanguageModel,
    count: int = PIECES,
    *,
    seed: int = 1,
    quarters: float = QUARTERS,
    prompts: Sequence[NDArray[np.int16]] | None = None,
    on_piece: Callable[[int], None] = lambda _: None,
) -> list[Reading]:
    """Pieces that a model writes out of nothing, one a seed; a seed that leads to no note is followed by others.

    Args:
        model: that writes.
        count: pieces.
        seed: of the first; the others follow.
        quarters: that a piece has at most, but for its last bar.
        prompts: what each piece begins with, such as a header that asks for a genre; nothing where None.
        on_piece: told how many are finished.

    Raises:
        GenerationError: a seed and four after it led to no note.
    """
    seeds = [seed * 100_000 + number for number in range(count)]
    pieces = _read_all(model.tokenizer, model.sample_many(seeds, quarters, prompts, on_piece=on_piece), seeds)
    for attempt in range(1, _ATTEMPTS):
        silent = [index for index, piece in enumerate(pieces) if piece is None]
        if not silent:
            break
        again = [seeds[index] + 10_000 * attempt for index in silent]
        begun = None if prompts is None else [prompts[index] for index in silent]
        written = _read_all(model.tokenizer, model.sample_many(again, quarters, begun), again)
        for index, piece in zip(silent, written, strict=True):
            pieces[index] = piece
    found = [piece for piece in pieces if piece is not None]
    if len(found) < count:
        raise GenerationError(f"{count - len(found)} of {count} seeds led to no note, five times over; train it more.")
    return found


def as_heard(
    recordings: Sequence[Recording], tokenizer: Tokenizer, works: Mapping[str, str] = MappingProxyType({})
) -> list[Reading]:
    """Recordings as a node wrote them down; those without a note that can be measured are left out.

    Args:
        recordings: of public works.
        tokenizer: that they are written with.
        works: by a recording's title the work that it is of, as `Reading.work` names it; its title where not given.
    """
    found = []
    for recording in recordings:
        try:
            title = recording.title
            found.append(read(tokenizer.decode(recording.ids), title, works.get(title, "")))
        except ScoreError:
            continue
    return found


def _read_all(tokenizer: Tokenizer, written: Sequence[Any], seeds: Sequence[int]) -> list[Reading | None]:
    found: list[Reading | None] = []
    for ids, seed in zip(written, seeds, strict=True):
        try:
            found.append(read(tokenizer.decode(ids), f"seed {seed}"))
        except ScoreError:
            found.append(None)
    return found


def _rounded(value: float) -> float | None:
    return float(f"{value:.4g}") if np.isfinite(value) else None
