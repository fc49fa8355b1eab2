"""How well a model foretells held-out works: nats a note and a token, perplexity, and what repetition is worth to it.

A note's nats are all a piece's nats over its notes, the piece's end included: unlike nats a token they would also
compare with models of another tokeniser. A bar is repeated where it has the notes (onset in the bar, pitch, length;
loudness aside, since no two performances agree) of an earlier bar of the same window, the window being that of the
base (`partbook.music.windows.spans` of 1,024 positions) for every model. A model that has noticed pays less for it.

Estimates are percentile bootstraps over works (Efron & Tibshirani 1993, §13.3): works are drawn again with
replacement, and their sums divided.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from partbook.corpus.library import Library, PublicWork, default_cache
from partbook.corpus.scores import written
from partbook.errors import ConfigError, ScoreError
from partbook.evaluation.estimates import Estimate
from partbook.evaluation.language_model import LanguageModel
from partbook.model.checkpoint import BASE
from partbook.music.recording import Recording
from partbook.music.tokens import Tokenizer
from partbook.music.windows import spans

CONTEXT: Final = 1024  # positions of the base's window
RESAMPLES: Final = 2000
_FEWEST: Final = 5  # works
_PLAYED: Final = ("Step_", "Pitch_", "Length_")


@dataclass(frozen=True, slots=True)
class CollectionScore:
    """A model on the held-out works of one collection.

    Attributes:
        works, notes, tokens: how many; tokens with each piece's end.
        per_note, per_token: nats.
        perplexity: e to the nats per token.
        repeated, fresh: nats a note in bars that repeat an earlier one of their window, and in those that do not; None
            where fewer than five works have such bars, too few for an interval.
        repeated_notes: share of the notes of whole bars that are in repeated ones.
    """

    works: int
    notes: int
    tokens: int
    per_note: Estimate
    per_token: Estimate
    perplexity: Estimate
    repeated: Estimate | None
    fresh: Estimate | None
    repeated_notes: float

    def about(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "works": self.works,
            "notes": self.notes,
            "tokens": self.tokens,
            "nats_per_note": _about(self.per_note),
            "nats_per_token": _about(self.per_token),
            "perplexity": _about(self.perplexity),
            "nats_per_note_in_repeated_bars": _about(self.repeated) if self.repeated else None,
            "nats_per_note_in_other_bars": _about(self.fresh) if self.fresh else None,
            "share_of_notes_in_repeated_bars": round(self.repeated_notes, 4),
        }


@dataclass(frozen=True, slots=True)
class ModelScore:
    """A model on several collections; `bound` where its figures are upper bounds."""

    name: str
    bound: bool
    collections: dict[str, CollectionScore]

    def about(self) -> dict[str, Any]:
        """As JSON."""
        found = {name: score.about() for name, score in self.collections.items()}
        return {"model": self.name, "upper_bound": self.bound, "collections": found}


def _about(figure: Estimate) -> dict[str, float]:
    return {"value": round(figure.value, 4), "low": round(figure.low, 4), "high": round(figure.high, 4)}


def heldout_works(library: Library, collection: str, most: int | None = None) -> tuple[PublicWork, ...]:
    """The held-out works of a collection; at most so many, by a hash of their keys, where all would take too long."""
    works = library.pool(collection, "heldout")
    if most is None or len(works) <= most:
        return works
    chosen = sorted(works, key=lambda work: hashlib.sha256(work.key.encode()).digest())[:most]
    return tuple(work for work in works if work in chosen)


def written_works(
    library: Library,
    works: Sequence[PublicWork],
    tokenizer: Tokenizer,
    on_work: Callable[[str], None] = lambda _: None,
) -> list[Recording]:
    """Works as scores, without sound; unreadable ones are left out."""
    result = []
    for score in library.each_score(works, on_work):
        if score is None:
            continue
        try:
            result.append(written(score, tokenizer))
        except ScoreError:
            continue  # nothing on the piano's range
    return result


def heard_works(
    works: Sequence[PublicWork], cache: Path | None, on_work: Callable[[str], None] = lambda _: None
) -> list[Recording]:
    """Works played and heard through a node's ears, their first 45 seconds; each is heard once and kept."""
    from partbook.corpus.heard import heard  # its transcription is nothing to those who score scores

    return heard(works, BASE / "tokenizer.json", (cache or default_cache()) / "heard", on_work=on_work)


def score_model(
    model: LanguageModel,
    works: dict[str, list[Recording]],
    on_work: Callable[[str], None] = lambda _: None,
) -> ModelScore:
    """A model on held-out works by collection.

    Raises:
        ConfigError: a collection has no works.
    """
    found = {}
    for name, recordings in works.items():
        if not recordings:
            raise ConfigError(f"The collection {name} has no held-out works to score on; leave it out.")
        rows = []
        for recording in recordings:
            rows.append(_work(model, recording))
            on_work(name)
        found[name] = _collection(np.array(rows))
    return ModelScore(model.name, model.bound, found)


def bootstrap_ratio(
    numerators: NDArray[np.float64], denominators: NDArray[np.float64], *, resamples: int = RESAMPLES, seed: int = 1
) -> Estimate:
    """Σ numerators / Σ denominators, over works, with its 95 % interval."""
    random = np.random.Generator(np.random.Philox(seed))
    drawn = random.integers(len(numerators), size=(resamples, len(numerators)))
    below = denominators[drawn].sum(axis=1)
    ratios = numerators[drawn].sum(axis=1)[below > 0] / below[below > 0]
    low, high = np.percentile(ratios, [2.5, 97.5])
    return Estimate(float(numerators.sum() / denominators.sum()), float(low), float(high))


def notes_in(ids: NDArray[np.int16], tokenizer: Tokenizer) -> NDArray[np.int64]:
    """How many notes each token writes, (tokens,)."""
    return _notes_by_token(tokenizer)[ids]


def repeated_bars(recording: Recording, tokenizer: Tokenizer, context: int = CONTEXT) -> NDArray[np.int8]:
    """Of each token: 1 in a bar that repeats an earlier bar of its window, 0 in a bar that does not, (tokens,).

    -1 where a token is in no whole bar of one window, or in a bar without notes.
    """
    played, notes = _played_by_token(tokenizer), _notes_by_token(tokenizer)
    marks = np.full(len(recording.ids), -1, dtype=np.int8)
    starts = np.asarray(recording.bar_starts)
    ends = np.append(starts[1:], len(recording.ids))
    for span in spans(recording, tokenizer, context):
        seen: set[tuple[str, ...]] = set()
        for start, end in zip(starts, ends, strict=True):
            if start < span.start or end > span.stop or not notes[recording.ids[start:end]].sum():
                continue
            content = tuple(name for token in recording.ids[start:end] for name in played[token])
            marks[start:end] = content in seen
            seen.add(content)
    return marks


@lru_cache(maxsize=2)
def _notes_by_token(tokenizer: Tokenizer) -> NDArray[np.int64]:
    return np.array([sum(n.startswith("Pitch_") for n in names) for names in _names(tokenizer)], dtype=np.int64)


@lru_cache(maxsize=2)
def _played_by_token(tokenizer: Tokenizer) -> list[tuple[str, ...]]:
    return [tuple(n for n in names if n.startswith(_PLAYED)) for names in _names(tokenizer)]


@lru_cache(maxsize=2)
def _names(tokenizer: Tokenizer) -> list[list[str]]:
    return [tokenizer.names([token]) for token in range(len(tokenizer))]


def _work(model: LanguageModel, recording: Recording) -> list[float]:
    nats, tokenizer = model.nats(recording), model.tokenizer
    notes, marks = notes_in(recording.ids, tokenizer), repeated_bars(recording, tokenizer)
    row = [float(nats.sum()), float(notes.sum()), float(len(nats))]
    for mark in (1, 0):
        row += [float(nats[:-1][marks == mark].sum()), float(notes[marks == mark].sum())]
    return row


def _collection(rows: NDArray[np.float64]) -> CollectionScore:
    nats, notes, tokens, nats_again, notes_again, nats_new, notes_new = rows.T
    if not notes.sum():
        raise ConfigError("The held-out works have no notes; name other collections.")
    per_token = bootstrap_ratio(nats, tokens)
    return CollectionScore(
        works=len(rows),
        notes=int(notes.sum()),
        tokens=int(tokens.sum()),
        per_note=bootstrap_ratio(nats, notes),
        per_token=per_token,
        perplexity=Estimate(*(float(np.exp(v)) for v in (per_token.value, per_token.low, per_token.high))),
        repeated=bootstrap_ratio(nats_again, notes_again) if np.count_nonzero(notes_again) >= _FEWEST else None,
        fresh=bootstrap_ratio(nats_new, notes_new) if np.count_nonzero(notes_new) >= _FEWEST else None,
        repeated_notes=float(notes_again.sum() / max(1.0, notes_again.sum() + notes_new.sum())),
    )


def score_table_rows(scores: Sequence[ModelScore], collection: str) -> list[tuple[str, ...]]:
    """One row a model on one collection: name, nats a note with interval, a token, perplexity, repeated, other bars."""
    rows = []
    for score in scores:
        at, sign = score.collections[collection], "≤ " if score.bound else ""

        def shown(interval: Estimate | None, sign: str = sign) -> str:
            return "–" if interval is None else f"{sign}{interval.value:.2f} ({interval.low:.2f}–{interval.high:.2f})"

        rows.append((score.name, *map(shown, (at.per_note, at.per_token, at.perplexity, at.repeated, at.fresh))))
    return rows
