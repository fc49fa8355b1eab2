"""Can a small classifier tell two sets of pieces apart? If it cannot, they are alike in all that it looks at.

Classifier two-sample tests after Lopez-Paz & Oquab 2017 ("Revisiting classifier two-sample tests", ICLR, arXiv
1610.06545), with the area under the ROC curve instead of accuracy, so that sets may differ in size: 0.5 where nothing
tells them apart, 1 where every piece gives itself away. Two classifiers: one on the measures of `measures`, one on
tokens. Both judge every piece by a model that saw neither it nor another piece of the same work, and both see pieces
of like length, in one key and at one tempo and loudness: how long, how high and how loud is not what is asked.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from partbook.errors import InputError
from partbook.evaluation.estimates import Estimate, bootstrap
from partbook.evaluation.melody import melody
from partbook.evaluation.reading import GRID, Reading
from partbook.evaluation.tonality import key

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

FOLDS: Final = 5
FEWEST: Final = 10  # pieces a side
NOT_COMPARED: Final = {"mean_pitch", "density", "ending"}
"""Measures that a test leaves out: which instrument, how fast, and the ending of what may be an opening."""
_WORDS: Final = (1, 5)  # tokens in a row that the token classifier looks at
_BUCKETS: Final = 2**16
_TREES: Final = 400


@dataclass(frozen=True, slots=True)
class TwoSample:
    """The result of a two-sample test.

    Attributes:
        auc: area under the ROC curve with its 95 % interval over pieces.
        pieces: (of the first set, of the second).
        suspicion: for each piece of the second set how sure the classifier is that it is of that set, 0 to 1.
    """

    auc: Estimate
    pieces: tuple[int, int]
    suspicion: NDArray[np.float64]


def like_lengths(pieces: Sequence[Reading], examples: Sequence[Reading], seed: int) -> list[Reading]:
    """Each piece cut to the length of an example drawn at random, so that length tells nothing.

    A piece that is shorter than its example stays as it is.
    """
    random = np.random.Generator(np.random.Philox(seed))
    lengths = np.resize(random.permutation([example.quarters for example in examples]), len(pieces))
    return [p if p.quarters <= length else p.opening(float(length)) for p, length in zip(pieces, lengths, strict=True)]


def by_features(
    first: NDArray[np.float64], second: NDArray[np.float64], works: Sequence[str], *, seed: int = 1
) -> TwoSample:
    """The test on numbers of a piece.

    Half the vote has a forest of 400 extremely randomised trees (Geurts, Ernst & Wehenkel 2006), half a logistic
    regression; what a piece lacks is the median of the others, and that it lacks it is a number of its own.

    Args:
        first, second: (pieces, numbers), NaN where a piece has none.
        works: of all pieces, the first set's first; pieces of one work are judged together.
        seed: of folds and trees.

    Raises:
        InputError: a set has under ten pieces, or pieces of under five works.
    """
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def models() -> list[Any]:
        def filled() -> Any:
            return SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)

        trees = ExtraTreesClassifier(_TREES, min_samples_leaf=2, max_features=0.4, random_state=seed, n_jobs=1)
        line = LogisticRegression(C=0.3, max_iter=2000)
        return [make_pipeline(filled(), trees), make_pipeline(filled(), StandardScaler(), line)]

    return _test(np.concatenate([first, second]), len(first), works, models, seed)


def by_tokens(first: Sequence[Reading], second: Sequence[Reading], *, seed: int = 1) -> TwoSample:
    """The test on tokens: a logistic regression on which runs of one to five tokens a piece has.

    Raises:
        InputError: a set has under ten pieces, or pieces of under five works.
    """
    from sklearn.linear_model import LogisticRegression

    def models() -> list[Any]:
        return [LogisticRegression(C=30.0, max_iter=500)]

    pieces = [*first, *second]
    return _test(_counts(pieces), len(first), [piece.work for piece in pieces], models, seed)


def words(piece: Reading) -> list[str]:
    """A piece as tokens: bars, places in the bar, pitches over the tonic, lengths, and the melody's steps."""
    tonic, line = key(piece).tonic, melody(piece)
    step = dict(zip(line.onset[1:].tolist(), line.intervals.tolist(), strict=True))
    found: list[str] = []
    last_bar, last_onset = -1, -1
    for onset, duration, pitch, bar in zip(piece.onset, piece.duration, piece.pitch, piece.bar, strict=True):
        if bar != last_bar:
            found.append("|")
            last_bar = int(bar)
        if onset != last_onset:
            found.append(f"@{int(onset - piece.bars[bar])}")
            if int(onset) in step:
                found.append(f"^{step[int(onset)]}")
            last_onset = int(onset)
        found.append(f"{(int(pitch) - tonic) % 12}:{min(int(duration), 4 * GRID)}")
    return found


def _counts(pieces: Sequence[Reading]) -> csr_matrix:
    from sklearn.feature_extraction.text import HashingVectorizer

    def analyse(piece: Reading) -> list[str]:
        sequence = words(piece)
        melodic = [w for w in sequence if w[0] in "^|"]
        runs = []
        for mark, source in (("", sequence), ("~", melodic)):
            for n in range(_WORDS[0], _WORDS[1] + 1):
                runs += [mark + " ".join(source[i : i + n]) for i in range(len(source) - n + 1)]
        return runs

    vectorizer = HashingVectorizer(n_features=_BUCKETS, analyzer=analyse, binary=True, norm="l2", alternate_sign=False)
    found: csr_matrix = vectorizer.transform(pieces)
    return found


def _test(features: Any, count: int, works: Sequence[str], models: Callable[[], list[Any]], seed: int) -> TwoSample:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import StratifiedGroupKFold

    total = features.shape[0]
    if min(count, total - count) < FEWEST:
        raise InputError(
            f"A two-sample test needs {FEWEST} pieces a side; there are {count} and {total - count}. Give more."
        )
    # A piece without a name is a work of its own.
    groups = np.unique([work or f"\0{index}" for index, work in enumerate(works)], return_inverse=True)[1]
    fewest = min(len(np.unique(groups[:count])), len(np.unique(groups[count:])))
    if fewest < FOLDS:
        raise InputError(
            f"A two-sample test needs pieces of {FOLDS} works a side, so that each is judged by others; a side has "
            f"{fewest}. Give more works."
        )
    truth = np.r_[np.zeros(count, np.int64), np.ones(total - count, np.int64)]
    score = np.zeros(total)
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", UserWarning)  # a fold may lack a class where few works have many pieces
        for train, test in folds.split(features, truth, groups):
            fitted = [model.fit(features[train], truth[train]) for model in models()]
            score[test] = np.mean([model.predict_proba(features[test])[:, 1] for model in fitted], axis=0)
    auc = bootstrap([score[:count], score[count:]], area, seed=seed)
    return TwoSample(auc, (count, total - count), score[count:])


def area(low: NDArray[np.float64], high: NDArray[np.float64]) -> float:
    """Chance that a random number of `high` exceeds one of `low`, ties counting half: the area under the ROC curve.

    Mann & Whitney 1947; Hanley & McNeil 1982.
    """
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate([low, high]))
    return float((ranks[len(low) :].sum() - len(high) * (len(high) + 1) / 2) / (len(low) * len(high)))
