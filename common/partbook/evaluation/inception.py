"""An inception-style score on a tagger's tags: are clips each plainly of some kind, and of many kinds together?

Salimans et al. 2016, "Improved techniques for training GANs" (NeurIPS), sec. 4: exp of the mean Kullback–Leibler
divergence from what a classifier says of a clip, p(y|x), to what it says of all, p(y). From 1 (every clip is tagged
alike, or every clip undecidedly) to the number of clips or of tags, whichever is less (each clip has tags of its own).

The original's classes exclude each other and its probabilities sum to 1. Each tag has a probability for itself, and
several hold at once. p(y|x) is therefore the mean of a clip's tags over its patches, divided by their sum: how the
tagger's attention is shared out. So:

- values lie far below those of images, and compare only with those of the same tagger on as many clips;
- the tagger's synonyms (`vocal`, `vocals`, `voice`) count as agreement, not as kinds;
- a set played on one instrument differs in little that tags name, and a high score may come from noise that is tagged
  at random: it says nothing of quality, nor of whether a human set is like it (Barratt & Sharma 2018, "A note on
  the inception score"). Read it beside the human set's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partbook.errors import InputError
from partbook.evaluation import clipwise
from partbook.evaluation.estimates import Estimate


def inception(
    clips: Sequence[NDArray[np.floating[Any]]], *, seed: int = 1, resamples: int = clipwise.RESAMPLES
) -> Estimate:
    """The score of a set of clips, ≥ 1, with a bootstrap interval by clip.

    Args:
        clips: tags of each clip, (patches, tags), none below 0.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Raises:
        InputError: no clips, or a clip without patches or whose tags are all 0, below 0 or not numbers.
    """
    given = np.stack([tag_shares(clip) for clip in clips]) if len(clips) else np.zeros((0, 0))
    if not len(given):
        raise InputError("No clips have no inception score; give two or more.")
    return clipwise.bootstrap(
        [len(given)], lambda chosen: _score(given[chosen]), seed=seed, resamples=resamples, least=1.0
    )


def tag_shares(tags: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """p(y|x) of a clip whose tags are (patches, tags): the mean over patches, scaled to sum to 1.

    Raises:
        InputError: there is no patch, or the tags are all 0, below 0 or not numbers.
    """
    rows = np.asarray(tags, dtype=np.float64)
    if rows.ndim != 2 or not rows.size or not np.isfinite(rows).all() or rows.min() < 0 or not rows.any():
        raise InputError(f"Tags of shape {rows.shape} are no probabilities of tags in patches; embed the clip again.")
    mean = rows.mean(0)
    shares: NDArray[np.float64] = mean / mean.sum()
    return shares


def _score(given: NDArray[np.float64]) -> float:
    """exp of the mean divergence of rows (clips, tags) from their mean."""
    overall = given.mean(0)
    # Where a clip's share is 0 it adds nothing, and where it is not, neither is the mean's.
    ratio = np.divide(given, overall, out=np.ones_like(given), where=given > 0)
    return max(1.0, float(np.exp((given * np.log(ratio)).sum(1).mean())))
