"""When things begin: rhythm entropy, groove, attacks on the beat."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from partbook.evaluation.melody import attacks
from partbook.evaluation.reading import GRID, Reading
from partbook.evaluation.texture import entropy


def rhythm_entropy(reading: Reading) -> float:
    """Entropy, in bits, of the time from each attack to the next, in twelfths of a quarter; NaN under two attacks.

    An attack is a step at which any note begins. The histogram is MGEval's note-length histogram's counterpart for
    onsets (Yang & Lerch 2020, §3.2.2), on this grid instead of twelve classes.
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

    Likeness of two bars: attacks that both have over attacks that either has (Jaccard). The grooving pattern
    similarity of Wu & Yang 2020 ("The Jazz Transformer on the front line", ISMIR, §4.3), which counts equal silence
    too, lies near 1 for anything sparse on a fine grid; neighbours only, as in MusPy's `groove_consistency`.
    """
    pattern = onset_patterns(reading)
    both = (pattern[1:] & pattern[:-1]).sum(axis=1)
    either = (pattern[1:] | pattern[:-1]).sum(axis=1)
    heard = either > 0
    return float((both[heard] / either[heard]).mean()) if heard.any() else float("nan")


def on_beat(reading: Reading) -> float:
    """Share of attacks that fall on a whole quarter from their bar line."""
    steps = attacks(reading)
    bar = np.searchsorted(reading.bars, steps, side="right") - 1
    return float(((steps - reading.bars[bar]) % GRID == 0).mean())


def on_half_beat(reading: Reading) -> float:
    """Share of attacks that fall on a whole eighth from their bar line."""
    steps = attacks(reading)
    bar = np.searchsorted(reading.bars, steps, side="right") - 1
    return float(((steps - reading.bars[bar]) % (GRID // 2) == 0).mean())
