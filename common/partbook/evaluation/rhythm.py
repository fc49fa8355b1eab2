"""When things begin: rhythm entropy, groove, attacks on the beat. An attack is a step at which any note begins.

Yang & Lerch 2020, "On the evaluation of generative models in music" (Neural Computing and Applications 32), MGEval;
Wu & Yang 2020, "The Jazz Transformer on the front line" (ISMIR, arXiv 2008.01307).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from partbook.evaluation.melody import attacks
from partbook.evaluation.reading import GRID, Reading
from partbook.evaluation.texture import entropy


def rhythm_entropy(reading: Reading) -> float:
    """Entropy, in bits, of the time from each attack to the next, in twelfths of a quarter; NaN under two attacks.

    Source: of the histogram whose mean is MGEval's inter-onset interval (Yang & Lerch 2020).
    """
    waits = np.diff(attacks(reading))
    return entropy(np.unique(waits, return_counts=True)[1]) if len(waits) else float("nan")


def onset_patterns(reading: Reading) -> NDArray[np.bool_]:
    """Whether something begins at each step of each bar, (bars, longest bar)."""
    lengths = np.diff(reading.bars)
    pattern = np.zeros((len(lengths), int(lengths.max())), np.bool_)
    bar = reading.bar
    pattern[bar, reading.onset - reading.bars[bar]] = True
    return pattern


def groove(reading: Reading) -> float:
    """Mean likeness of the onset patterns of neighbouring bars, 0 to 1; NaN under two bars with notes.

    Likeness of two bars: attacks that both have over attacks that either has (Jaccard).

    Source: after the grooving pattern similarity of Wu & Yang 2020, which counts equal silence too and so lies near 1
    for anything sparse on a fine grid; of neighbours only, as MusPy's groove consistency (Dong et al. 2020).
    """
    pattern = onset_patterns(reading)
    both = (pattern[1:] & pattern[:-1]).sum(axis=1)
    either = (pattern[1:] | pattern[:-1]).sum(axis=1)
    heard = either > 0  # of two silent bars nothing is said
    if pattern.any(axis=1).sum() < 2:
        return float("nan")
    return float((both[heard] / either[heard]).mean())


def on_beat(reading: Reading) -> float:
    """Share of attacks that fall on a whole quarter from their bar line.

    Source: defined here.
    """
    steps = attacks(reading)
    bar = np.searchsorted(reading.bars, steps, side="right") - 1
    return float(((steps - reading.bars[bar]) % GRID == 0).mean())


def on_half_beat(reading: Reading) -> float:
    """Share of attacks that fall on a whole eighth from their bar line.

    Source: defined here.
    """
    steps = attacks(reading)
    bar = np.searchsorted(reading.bars, steps, side="right") - 1
    return float(((steps - reading.bars[bar]) % (GRID // 2) == 0).mean())
