"""Fréchet distance between two sets of clips: how far apart what a network hears in them lies. No unit; 0 is equal.

Features of all patches of a set are summed up as a Gaussian, and the distance is that of Dowson & Landau 1982, "The
Fréchet distance between multivariate normal distributions" (J. Multivariate Analysis 12), eq. 4, squared:

    |mean_a - mean_b|² + tr(cov_a + cov_b - 2 (cov_a cov_b)^½)

With a network's features of music it is the Fréchet audio distance (Kilgour et al. 2019, Interspeech); here the
network is `musicnn`, so values compare with each other and not with those of another network. It sees timbre, register,
density and level more than form, so the reference has to be of the style that is meant: on one piano, random notes lie
nearer to Bach's chorales (12) than O'Neill's tunes do (46), and are told from them because other chorales lie at 0.4.

It is biased: estimated from fewer patches it is larger, and for two halves of one set it is not 0. Compare numbers
from as many clips, read the distance between two human sets beside them, or take `unbiased`, which draws the line
through the distances of smaller and smaller sets to that of an infinite one (Chong & Forsyth 2020, "Effectively
unbiased FID and inception score", CVPR; Gui et al. 2024, "Adapting Fréchet audio distance for generative music
evaluation", ICASSP).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from partbook.errors import InputError
from partbook.evaluation import clipwise
from partbook.evaluation.clipwise import Indices
from partbook.evaluation.estimates import Estimate

Covariance = Literal["sample", "ledoit-wolf"]
Features = Sequence[NDArray[np.floating[Any]]]
_SIZES: Final = 6  # of smaller sets, from half of the clips to all
_DRAWS: Final = 5  # of each size


@dataclass(frozen=True, slots=True)
class Gaussian:
    """Mean and covariance of features.

    Attributes:
        mean: float64 (d,).
        covariance: float64 (d, d), symmetric, no eigenvalue below 0.
        root: float64 (d, d), root @ root.T = covariance.
    """

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    root: NDArray[np.float64]

    @classmethod
    def of(cls, mean: NDArray[np.float64], covariance: NDArray[np.float64]) -> Gaussian:
        """The Gaussian with these moments."""
        values, vectors = np.linalg.eigh(covariance)
        return cls(mean, covariance, vectors * np.sqrt(np.maximum(values, 0.0)))

    @classmethod
    def fitted(cls, features: NDArray[np.floating[Any]], covariance: Covariance = "sample") -> Gaussian:
        """The Gaussian of features (n, d).

        Args:
            features: one row a patch.
            covariance: `sample` divides by n - 1; `ledoit-wolf` shrinks it towards a multiple of the identity as far as
                few rows ask for (Ledoit & Wolf 2004, "A well-conditioned estimator for large-dimensional covariance
                matrices"), for which n may be below d.

        Raises:
            InputError: features that are not numbers, or too few rows: at most d, or one to shrink with.
        """
        rows = np.asarray(features, dtype=np.float64)
        if rows.ndim != 2 or not np.isfinite(rows).all():
            raise InputError(f"A Gaussian is fitted to finite features (n, d); these are {rows.shape}.")
        count, dimensions = rows.shape
        if covariance == "sample" and count <= dimensions:
            raise InputError(
                f"The covariance of {dimensions} features needs more than {dimensions} patches, and there are {count}; "
                "give more or longer clips, or have it shrunk (ledoit-wolf)."
            )
        if count < 2:
            raise InputError("One patch has no covariance; give more or longer clips.")
        return cls.of(rows.mean(0), _covariance(rows, covariance))


def distance(first: Gaussian, second: Gaussian) -> float:
    """The squared Fréchet distance between two Gaussians, ≥ 0.

    The trace of the product's root is the sum of the singular values of root_aᵀ root_b, which are the roots of the
    symmetric product's eigenvalues: no complex numbers, and nothing is squared that has to be rooted again.

    Raises:
        InputError: they differ in dimension.
    """
    if first.mean.shape != second.mean.shape:
        raise InputError(f"Features of {first.mean.size} and {second.mean.size} dimensions have no distance.")
    step = first.mean - second.mean
    shared = np.linalg.svd(first.root.T @ second.root, compute_uv=False).sum()
    spread = np.trace(first.covariance) + np.trace(second.covariance) - 2.0 * shared
    return max(0.0, float(step @ step + spread))


def frechet(
    first: Features,
    second: Features,
    *,
    covariance: Covariance = "sample",
    seed: int = 1,
    resamples: int = clipwise.RESAMPLES,
) -> Estimate:
    """The distance between two sets of clips, with a bootstrap interval by clip.

    Args:
        first, second: features of each clip, (patches, d).
        covariance: as in `Gaussian.fitted`.
        seed: of the bootstrap.
        resamples: of the bootstrap; about 20 ms each for 500 patches of 200 features.

    Raises:
        InputError: fewer than two clips on a side, too few patches, or features that are not numbers.
    """
    between = _Between(first, second, covariance)
    return clipwise.bootstrap(between.counts, between, seed=seed, resamples=resamples, least=0.0)


def unbiased(first: Features, second: Features, *, covariance: Covariance = "sample", seed: int = 1) -> Estimate:
    """The distance that sets of infinitely many such clips would have, with a jackknife interval by clip.

    Both sets are made smaller together, by the same shares, which are even steps of the inverse; the least-squares line
    of distance against 1/share is read where the inverse is 0. What falls below 0 by chance is 0.

    Raises:
        InputError: fewer than four clips on a side, or half of them have too few patches.
    """
    between = _Between(first, second, covariance, halved=True)
    inverse = np.linspace(2.0, 1.0, _SIZES)

    def at_infinity(*indices: Indices) -> float:
        random = np.random.Generator(np.random.Philox(seed))
        found = np.empty((_SIZES, _DRAWS))
        for size, times in enumerate(inverse):
            for draw in range(_DRAWS):
                found[size, draw] = between(
                    *(random.permutation(index)[: round(len(index) / times)] for index in indices)
                )
        return float(np.polyfit(inverse, found.mean(1), 1)[1])

    return clipwise.jackknife(between.counts, at_infinity, seed=seed, least=0.0)


class _Between:
    """The distance between subsets of two sets of clips, given by indices."""

    def __init__(self, first: Features, second: Features, covariance: Covariance, *, halved: bool = False) -> None:
        self._sets = [[np.asarray(clip, dtype=np.float64) for clip in clips] for clips in (first, second)]
        self._covariance: Covariance = covariance
        self.counts = [len(clips) for clips in self._sets]
        least = 4 if halved else 2
        if min(self.counts) < least:
            raise InputError(f"Sets of {self.counts[0]} and {self.counts[1]} clips are too few; give {least} or more.")
        for clips in self._sets:
            rows = np.concatenate(clips)
            Gaussian.fitted(rows[: len(rows) // 2] if halved else rows, covariance)

    def __call__(self, *indices: Indices) -> float:
        # A resample of short clips may have no more patches than features; its sample covariance is as good as any.
        fitted = []
        for clips, chosen in zip(self._sets, indices, strict=True):
            rows = np.concatenate([clips[index] for index in chosen])
            fitted.append(Gaussian.of(rows.mean(0), _covariance(rows, self._covariance)))
        return distance(*fitted)


def _covariance(rows: NDArray[np.float64], how: Covariance) -> NDArray[np.float64]:
    if how == "ledoit-wolf":
        from sklearn.covariance import ledoit_wolf

        shrunk: NDArray[np.float64] = ledoit_wolf(rows)[0]
        return shrunk
    centred = rows - rows.mean(0)
    covariance: NDArray[np.float64] = centred.T @ centred / (len(rows) - 1)
    return covariance
