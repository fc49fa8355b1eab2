"""A set of pieces held against a set of human works: measure by measure, and as a whole."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from partbook.errors import InputError
from partbook.evaluation import two_sample
from partbook.evaluation.estimates import Estimate, bootstrap, median, share
from partbook.evaluation.measures import NAMES, as_rows, measure
from partbook.evaluation.ngrams import References
from partbook.evaluation.originality import Catalogue
from partbook.evaluation.overlap import overlapping_area
from partbook.evaluation.reading import Reading

WINDOW: Final = 64.0  # quarters: what is compared of each piece is its opening of sixteen common bars
BAND: Final = (0.1, 0.9)  # quantiles of the human works between which a piece counts as inside


@dataclass(frozen=True, slots=True)
class MeasuredSet:
    """Pieces and their measures.

    Attributes:
        name: what the set is called.
        pieces: whole.
        openings: their first 64 quarters.
        rows: the measures, (pieces, measures), in the order of `measures.NAMES`; NaN where a piece has none.
    """

    name: str
    pieces: tuple[Reading, ...]
    openings: tuple[Reading, ...]
    rows: NDArray[np.float64]

    @classmethod
    def of(cls, name: str, pieces: Sequence[Reading], on_piece: Callable[[str], None] = lambda _: None) -> MeasuredSet:
        """Measure pieces; `on_piece` is told each title when it is done."""
        openings = [piece.opening(WINDOW) for piece in pieces]
        measured = []
        for piece, opening in zip(pieces, openings, strict=True):
            measured.append(measure(piece, opening))
            on_piece(piece.title)
        return cls(name, tuple(pieces), tuple(openings), as_rows(measured))

    def __len__(self) -> int:
        return len(self.pieces)

    def column(self, name: str) -> NDArray[np.float64]:
        """One measure of all pieces, (pieces,)."""
        column: NDArray[np.float64] = self.rows[:, NAMES.index(name)]
        return column

    def chosen(self, indices: Sequence[int]) -> MeasuredSet:
        """Some of the pieces as a set of their own, under the same name."""
        return MeasuredSet(
            self.name,
            tuple(self.pieces[i] for i in indices),
            tuple(self.openings[i] for i in indices),
            self.rows[list(indices)],
        )


@dataclass(frozen=True, slots=True)
class Spread:
    """One measure over a set.

    Attributes:
        median: with its interval over pieces.
        low, high: 10 % and 90 % quantile.
        inside: share of pieces between those quantiles of the reference.
        overlap: MGEval's overlapping area with the reference, 0 to 1.
        undefined: pieces that have none.
    """

    median: Estimate
    low: float
    high: float
    inside: Estimate
    overlap: float
    undefined: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """A set against the reference.

    Attributes:
        pieces: in the set; `reference`: in the reference.
        measures: by name.
        features, tokens: AUC of the two-sample tests; NaN where there are too few pieces.
        precision: mean n-gram precision of the melodies against the reference, 0 to 1.
        heldout_run, training_run: notes of the longest run shared with a reference work and with a work that trained
            the model: median over pieces, with interval; `heldout_longest`, `training_longest`: of all pieces.
        suspicion: of each piece, how sure the feature classifier is that it is none of the reference's; empty where
            there are too few pieces.
    """

    pieces: int
    reference: int
    measures: Mapping[str, Spread]
    features: Estimate
    tokens: Estimate
    precision: Estimate
    heldout_run: Estimate
    heldout_longest: int
    training_run: Estimate
    training_longest: int
    suspicion: tuple[float, ...]


class Reference:
    """Human works, and what is computed of them once for all sets that are held against them."""

    def __init__(self, works: MeasuredSet, training: Sequence[Reading] = ()) -> None:
        """`training`: works that trained the models, to look for copies in; may be none."""
        self.works: Final = works
        self._grams = References(works.pieces)
        self._heldout = Catalogue(works.pieces)
        self._training = Catalogue(training) if training else None

    def compare(self, candidate: MeasuredSet, *, seed: int = 1) -> Comparison:
        """Hold a set against the works. Deterministic given the seed, which cuts pieces to length and draws folds."""
        features = tokens = None
        if min(len(candidate), len(self.works)) >= two_sample.FEWEST:
            with contextlib.suppress(InputError):  # pieces of too few works
                features, tokens = self._tell_apart(candidate, seed)
        pieces = candidate.pieces
        near = self._heldout.longest_runs(pieces).astype(np.float64)
        copied = self._training.longest_runs(pieces).astype(np.float64) if self._training else np.zeros(0)
        precision = np.array([self._grams.precision(piece) for piece in candidate.openings])
        return Comparison(
            pieces=len(candidate),
            reference=len(self.works),
            measures={name: self._spread(candidate, name, seed) for name in NAMES},
            features=features.auc if features else Estimate.nothing(),
            tokens=tokens.auc if tokens else Estimate.nothing(),
            precision=bootstrap([precision[~np.isnan(precision)]], np.mean, seed=seed),
            heldout_run=median(near, seed=seed),
            heldout_longest=int(near.max(initial=0)),
            training_run=median(copied, seed=seed),
            training_longest=int(copied.max(initial=0)),
            suspicion=tuple(features.suspicion.tolist()) if features else (),
        )

    def band(self, name: str) -> tuple[float, float]:
        """The 10 % and 90 % quantile of a measure over the reference; NaN where no work has it."""
        return _quantiles(self.works.column(name))

    def quantiles(self, name: str) -> tuple[float, float, float]:
        """The 10 %, 50 % and 90 % quantile of a measure over the reference; NaN where no work has it."""
        low, high = self.band(name)
        column = self.works.column(name)
        defined = column[~np.isnan(column)]
        return low, float(np.median(defined)) if len(defined) else float("nan"), high

    def _tell_apart(self, candidate: MeasuredSet, seed: int) -> tuple[two_sample.TwoSample, two_sample.TwoSample]:
        # Whole pieces may end where openings are cut, so both sides are judged by openings of like length.
        cut = two_sample.like_lengths(candidate.openings, self.works.openings, seed)
        works = [piece.work for piece in (*self.works.openings, *cut)]
        rows = as_rows([measure(piece, piece) for piece in cut])
        features = two_sample.by_features(_compared(self.works.rows), _compared(rows), works, seed=seed)
        return features, two_sample.by_tokens(self.works.openings, cut, seed=seed)

    def _spread(self, candidate: MeasuredSet, name: str, seed: int) -> Spread:
        column = candidate.column(name)
        defined = column[~np.isnan(column)]
        low, high = self.band(name)
        tolerance = 1e-9
        inside = int(((defined >= low - tolerance) & (defined <= high + tolerance)).sum())
        return Spread(
            median=median(defined, seed=seed),
            low=_quantiles(defined)[0],
            high=_quantiles(defined)[1],
            inside=share(inside, len(defined)),
            overlap=overlapping_area(defined, self.works.column(name)),
            undefined=len(column) - len(defined),
        )


def _quantiles(column: NDArray[np.float64]) -> tuple[float, float]:
    defined = column[~np.isnan(column)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, BAND)
    return float(low), float(high)


def _compared(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    kept = [index for index, name in enumerate(NAMES) if name not in two_sample.NOT_COMPARED]
    chosen: NDArray[np.float64] = rows[:, kept]
    return chosen
