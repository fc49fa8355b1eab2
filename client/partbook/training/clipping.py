"""The one place where a vector is made no longer than a bound, which is what every guarantee's sensitivity rests on."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def clip(update: NDArray[np.float32], bound: float) -> tuple[NDArray[np.float32], float]:
    """Scale a vector so that its L2 norm is at most `bound`; returns it and the norm it had. See `clip_rows`."""
    clipped, norms = clip_rows(torch.from_numpy(np.asarray(update, np.float32))[None], bound)
    return clipped[0].numpy(), float(norms[0])


def clip_rows(updates: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """Scale each row so that its L2 norm is at most `bound`; the result's norm in float64 is never above it.

    Args:
        updates: float32 (rows, d), on any device.
        bound: > 0.

    Returns:
        The rows, float32, and the norms they had, float64 (rows,). A row that is not finite has no direction: it
        becomes zeros, and its norm comes back as infinity or NaN.
    """
    norms = torch.linalg.vector_norm(updates, dim=1, dtype=torch.float64)
    # A few float32 steps below the exact factor, so that rounding cannot lift the norm above the bound.
    factors = torch.where(norms <= bound, 1.0, bound / norms * (1.0 - 2.0**-20))
    scaled = (updates.double() * factors[:, None]).float()
    return torch.where(norms.isfinite()[:, None], scaled, 0.0), norms
