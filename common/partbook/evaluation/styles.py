"""Whose style is a piece in? A classifier that has learnt the styles from human works is asked about others.

The share of conditioned pieces that it hears in the style they were asked for, held against chance and against what it
reaches on human works that it has not seen.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from partbook.errors import InputError
from partbook.evaluation.estimates import Estimate, share

_FOLDS: Final = 5
_TREES: Final = 400


class Styles:
    """A classifier of styles: 400 extremely randomised trees on the measures of a piece."""

    def __init__(
        self, rows: NDArray[np.float64], styles: Sequence[str], works: Sequence[str], *, seed: int = 1
    ) -> None:
        """Learn from human works.

        Args:
            rows: measures, (pieces, measures), NaN where a piece has none.
            styles: of each piece.
            works: pieces of one work are judged together when human works are.
            seed: of trees and folds.

        Raises:
            InputError: there are fewer than two styles, or one has under five works.
        """
        counted = {style: len({w for s, w in zip(styles, works, strict=True) if s == style}) for style in styles}
        if len(counted) < 2 or min(counted.values()) < _FOLDS:
            raise InputError(
                f"Style classification needs two styles or more with {_FOLDS} works each; there are "
                f"{', '.join(f'{name} ({count})' for name, count in counted.items()) or 'none'}."
            )
        self._rows, self._styles, self._works, self._seed = rows, np.array(styles), list(works), seed
        self._model = self._new().fit(rows, self._styles)
        self.names: Final = tuple(sorted(counted))

    @functools.cached_property
    def human(self) -> Estimate:
        """Share of the human works that are heard in their own style by a classifier that has not seen them."""
        from sklearn.model_selection import StratifiedGroupKFold

        right = 0
        folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=self._seed)
        for train, test in folds.split(self._rows, self._styles, self._works):
            model = self._new().fit(self._rows[train], self._styles[train])
            right += int((model.predict(self._rows[test]) == self._styles[test]).sum())
        return share(right, len(self._rows))

    def heard_as(self, rows: NDArray[np.float64]) -> list[str]:
        """The style in which each piece is heard."""
        if not len(rows):
            return []
        return [str(style) for style in self._model.predict(rows)]

    def right(self, rows: NDArray[np.float64], wanted: Sequence[str]) -> Estimate:
        """Share of pieces heard in the style that was wanted."""
        return share(sum(a == b for a, b in zip(self.heard_as(rows), wanted, strict=True)), len(wanted))

    def _new(self) -> Any:
        from sklearn.ensemble import ExtraTreesClassifier
        from sklearn.impute import SimpleImputer
        from sklearn.pipeline import make_pipeline

        trees = ExtraTreesClassifier(
            _TREES, min_samples_leaf=2, max_features=0.4, class_weight="balanced", random_state=self._seed, n_jobs=1
        )
        return make_pipeline(SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True), trees)
