"""What an evaluation found, as data: the one source of every number in its table, page and JSON file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

from partbook.evaluation.comparison import Comparison
from partbook.evaluation.estimates import Estimate

Kind = Literal["human", "generator", "baseline", "noise", "folder"]
Hand = Literal["score", "heard"]


@dataclass(frozen=True, slots=True)
class Surprise:
    """How surprised a model is by the held-out works of one collection, in one hand.

    Attributes:
        works: how many.
        per_note, per_token: nats, with intervals over works; for a variational model an upper bound.
        repeated, new: nats a note on bars that repeat an earlier bar of the model's own window verbatim, and on others.
        bound: whether the numbers are upper bounds and not exact.
    """

    works: int
    per_note: Estimate
    per_token: Estimate
    repeated: Estimate
    new: Estimate
    bound: bool = False

    @property
    def perplexity(self) -> Estimate:
        """e to the nats a token."""
        token = self.per_token
        return Estimate(math.exp(token.value), math.exp(token.low), math.exp(token.high))


@dataclass(frozen=True, slots=True)
class Listening:
    """What the embedder makes of a set's sound.

    Attributes:
        distance: Fréchet audio distance to the reference's sound.
        score: inception-style score on its tags.
        clips: how many.
    """

    distance: Estimate
    score: Estimate
    clips: int


@dataclass(frozen=True, slots=True)
class StyleTest:
    """Whether conditioned pieces are heard in the style they were asked for.

    Attributes:
        right: share of them.
        human: the same of human works that the classifier has not seen.
        chance: of as many styles.
        pieces: conditioned pieces.
    """

    right: Estimate
    human: Estimate
    chance: float
    pieces: int


@dataclass(frozen=True, slots=True)
class Shown:
    """One piece of the gallery.

    Attributes:
        title: of the piece.
        why: `worst`, `median`, `best` by the feature classifier, or `drawn` by the seed.
        suspicion: how sure that classifier is that no human wrote it, 0 to 1; NaN where it had too few pieces.
        midi: file beside the page.
    """

    title: str
    why: Literal["worst", "median", "best", "drawn"]
    suspicion: float
    midi: Path


@dataclass(frozen=True, slots=True)
class Subject:
    """One row of the table.

    Attributes:
        name: identifier; `title`: as in the table.
        kind: what it is.
        about: one sentence: where its pieces come from.
        comparison: of its pieces with the reference; None if it has none.
        values: every measure of every piece, by name, for the drawings.
        surprise: by collection, then hand; empty where there is no model.
        listening, style: None where not asked for.
        gallery: pieces to look at and play.
        seconds: that it took.
    """

    name: str
    title: str
    kind: Kind
    about: str
    comparison: Comparison | None
    values: Mapping[str, tuple[float, ...]]
    surprise: Mapping[str, Mapping[Hand, Surprise]] = field(default_factory=dict)
    listening: Listening | None = None
    style: StyleTest | None = None
    gallery: tuple[Shown, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All rows, and what they were held against.

    Attributes:
        command: that makes it again.
        seed: of everything that was drawn.
        reference: what the human works are, in words.
        works: how many of them.
        bands: for each measure the 10 %, 50 % and 90 % quantile of the reference.
        reference_values: every measure of every reference work, by name.
        subjects: in the order in which they are shown.
        machine: (what, value) about the machine and the software.
        notes: what a reader must know, in sentences.
    """

    command: str
    seed: int
    reference: str
    works: int
    bands: Mapping[str, tuple[float, float, float]]
    reference_values: Mapping[str, tuple[float, ...]]
    subjects: tuple[Subject, ...]
    machine: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """As JSON: numbers to nine digits, what is not a number as null, paths as file names.

        Times are left out, so that two runs with one seed write the same bytes.
        """
        return json.dumps(_plain(self), indent=1, ensure_ascii=False, allow_nan=False, sort_keys=True) + "\n"


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value) if f.name not in {"seconds", "machine"}}
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if isinstance(value, Path):
        return value.name
    if isinstance(value, float):
        return float(f"{value:.9g}") if math.isfinite(value) else None
    return value
