"""How much two sets of pieces have in common in one measure: MGEval's overlapping area.

Yang & Lerch 2020, "On the evaluation of generative models in music" (Neural Computing and Applications 32, §3.3):
the distances between pieces of the reference (intra-set) and those between the two sets (inter-set), each smoothed to
a density; the area that both densities cover is 1 where the candidate is spread about the reference as the reference
is about itself, and near 0 where it lies elsewhere. It does not tell that pieces are all the same: where these lie in
the middle of a normal reference it is 0.83.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

_BINS: Final = 1024
_SAME: Final = 1e-9  # numbers that differ by less differ in how they were rounded


def overlapping_area(candidate: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    """Area under both densities of distances, 0 to 1; NaN where a set has under two numbers.

    Densities: Gaussian kernels of Scott's bandwidth (1992), reflected at both ends, on a grid of 1,024 places and at
    least one place wide: a reference whose numbers are all equal has that. 1 where all numbers of both sets are equal.

    Args:
        candidate, reference: a measure of each piece, (pieces,); NaN is left out.
    """
    candidate, reference = candidate[~np.isnan(candidate)], reference[~np.isnan(reference)]
    if min(len(candidate), len(reference)) < 2:
        return float("nan")
    within = np.abs(reference[:, None] - reference[None, :])[np.triu_indices(len(reference), 1)]
    between = np.abs(candidate[:, None] - reference[None, :]).ravel()
    top = max(float(within.max()), float(between.max()))
    if top < _SAME:
        return 1.0
    return float(np.minimum(_density(within, top), _density(between, top)).sum())


def _density(distances: NDArray[np.float64], top: float) -> NDArray[np.float64]:
    from scipy.ndimage import gaussian_filter1d

    counts, _ = np.histogram(distances, bins=_BINS, range=(0.0, top))
    scott = float(distances.std()) * len(distances) ** -0.2 / top * _BINS
    smooth = gaussian_filter1d(counts.astype(np.float64), max(scott, 1.0), mode="reflect")  # no mass below 0
    return np.asarray(smooth / smooth.sum(), dtype=np.float64)
