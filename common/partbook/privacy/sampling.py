"""Poisson sampling: which recordings a node trains on in a round, each decided by itself.

How many there are in the sample is random too, and nobody is told: amplification by sampling (Mironov, Talwar and
Zhang 2019, arXiv 1908.10530) is for this and not for a fixed number.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

_WORD_BYTES = 8


def poisson_sample(count: int, probability: float, words: Callable[[int], bytes] = os.urandom) -> NDArray[np.int64]:
    """The indices of those that were drawn out of `count`, each with the given probability and by itself.

    Args:
        count: how many there are to draw from.
        probability: q in [0, 1]. What is taken is q rounded down to a multiple of 2^-64, so never more than q.
        words: draws that many random bytes. Anything but the default is for simulations, which must be repeatable.

    Returns:
        (drawn,) indices, rising; often none at all, which is as good a sample as any.
    """
    if count < 0:
        raise ValueError(f"Nobody draws from {count} recordings.")
    if not 0 <= probability <= 1:
        raise ValueError(f"A sampling probability lies between 0 and 1: {probability}.")
    if probability == 1:
        return np.arange(count, dtype=np.int64)
    # A float is a fraction, and its product with 2^64 loses nothing.
    threshold = np.uint64(int(Fraction(probability) * 2**64))
    drawn = np.frombuffer(words(_WORD_BYTES * count), np.dtype("<u8")) < threshold
    return np.flatnonzero(drawn).astype(np.int64)
