"""Whether heard notes are written where they were written: held-out works with their true beats, against rounding.

A work is played and heard by a node's ears (kept in the corpus cache), each heard note is matched with the written one
of its pitch within 70 ms, and what `partbook.music.notation` makes of the heard onset and end is compared with the
score's, position for position. Rounding to the nearest position is what it is held against.

    python -m benchmarks.notation                 fourteen works of each of four withheld styles
    python -m benchmarks.notation --data ../shared/data
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from symusic.core import ScoreTick

from benchmarks.claims import Claim, report
from partbook.corpus.heard import Heard, Hearing, hear, kept
from partbook.corpus.library import Library, default_cache
from partbook.corpus.withheld import STYLES
from partbook.music.notation import in_positions, lengths, onsets
from partbook.music.tokens import seconds_at
from partbook.music.vocabulary import POSITIONS_PER_BEAT
from partbook.pretraining.pieces import pooled

WORKS: Final = 14
SECONDS: Final = 30.0
WITHIN: Final = 0.07  # seconds

Reals = NDArray[np.float64]
Writing = Callable[[Reals, Reals], tuple[NDArray[np.int64], NDArray[np.int64]]]


def written(begin: Reals, lasting: Reals) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """As a node writes it."""
    onset = onsets(begin)
    return onset, lengths(onset, lasting)


def rounded(begin: Reals, lasting: Reals) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """To the nearest position."""
    return np.round(begin).astype(np.int64), np.maximum(np.round(lasting).astype(np.int64), 1)


def right(take: Heard, score: ScoreTick, writing: Writing) -> tuple[float, float]:
    """Shares of matched notes whose onset, and whose length, are the score's."""
    tpq = score.ticks_per_quarter
    rows = np.array(sorted((n.time, n.end, n.pitch) for track in score.tracks for n in track.notes), dtype=np.float64)
    begins = seconds_at(score, rows[:, 0])
    beat_seconds = seconds_at(score, np.arange(score.end() / tpq + 2) * tpq).astype(np.float64)
    begin = in_positions(take.notes.onset, beat_seconds)
    end = in_positions(take.notes.onset + take.notes.duration, beat_seconds)
    onset, length = writing(begin, end - begin)
    used: set[int] = set()
    hits = []
    for i, (second, pitch) in enumerate(zip(take.notes.onset, take.notes.pitch, strict=True)):
        alike = np.flatnonzero((rows[:, 2] == pitch) & (np.abs(begins - second) < WITHIN)).tolist()
        near = [j for j in alike if j not in used]
        if near:
            j = min(near, key=lambda j: float(abs(begins[j] - second)))
            used.add(j)
            true = rows[j, :2] * POSITIONS_PER_BEAT / tpq
            hits.append((abs(onset[i] - true[0]) < 0.51, abs(length[i] - (true[1] - true[0])) < 0.51))
    onsets_right, lengths_right = np.mean(hits, axis=0).tolist() if hits else (math.nan, math.nan)
    return onsets_right, lengths_right


def main(arguments: Sequence[str] | None = None) -> int:
    """Hear, compare, claim."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, action="append", default=[])
    options = parser.parse_args(arguments)
    library = Library.open(options.data)
    names = [name for name in STYLES if name in library.collections]
    claims = []
    for name in names:
        works = pooled(library, [name], "heldout", WORKS)
        paths = hear([Hearing(work, None, SECONDS) for work in works], default_cache() / "heard", scores=library.parsed)
        pairs = [(kept(path), library.parsed.score(work)) for path, work in zip(paths, works, strict=True)]
        found = {
            writing.__name__: np.nanmean(
                [right(take, score, writing) for take, score in pairs if isinstance(take, Heard) and score], axis=0
            )
            for writing in (written, rounded)
        }
        for place, what in enumerate(("onsets", "lengths")):
            ours, peer = (float(found[name][place]) for name in ("written", "rounded"))
            claims.append(Claim(f"{what} as in the score, {name}", "share of notes", ours, peer, "rounding", 0.97))
            print(f"{name}, {what}: {ours:.3f}, rounded {peer:.3f}", flush=True)
    return 0 if report("notation", claims) else 1


if __name__ == "__main__":
    raise SystemExit(main())
