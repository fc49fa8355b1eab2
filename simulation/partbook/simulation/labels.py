"""The demo's labels: scores become recordings once, and from then on only audio files exist.

Each label plays excerpts of works from its collection's `label` pool into FLAC files of its own; the public
validation set is played from the `heldout` pool in the same way. Which work went where is written to a manifest.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from symusic.core import ScoreTick

from partbook.errors import ScoreError
from partbook.simulation.collections import Collection, Pool, Work, split

if TYPE_CHECKING:
    from partbook.music.mastering import Sound

SHORTEST: Final = 12.0  # seconds; shorter works are passed over
RECIPE: Final = "4"  # changes whenever the same work would sound different


@dataclass(frozen=True, slots=True)
class Take:
    """One recording to be made.

    Attributes:
        work: what is played.
        program: on which General MIDI instrument.
        seconds: how much of it, from the beginning, cut at the end of a bar's beat.
        path: the FLAC file.
    """

    work: Work
    program: int
    seconds: float
    path: Path


def choose(collection: Collection, pool: Pool, count: int, seed: int) -> list[Work]:
    """`count` works of a pool, by a seeded order; held-out works always come in the same order."""
    works = split(collection.name)[pool]
    key = f"{seed}" if pool == "label" else "public"
    ordered = sorted(works, key=lambda work: hashlib.sha256(f"{key}/{work.key}".encode()).digest())
    return ordered[:count]


def takes(works: Sequence[Work], collection: Collection, seconds: float, folder: Path) -> list[Take]:
    """One take a work, in `folder`, under names that a person can read."""
    result = []
    for number, work in enumerate(works, start=1):
        title = "".join(c if c.isalnum() or c in " '-." else " " for c in work.printed)
        name = f"{number:02d} {' '.join(title.split())[:60]}.flac"
        result.append(Take(work, collection.program, seconds, folder / name))
    return result


def record(
    planned: Sequence[Take], on_take: Callable[[Take], None] = lambda _: None, *, workers: int | None = None
) -> list[Take]:
    """Play what is not on disk yet; returns the takes that could be made.

    Works that are too short or unreadable are passed over. Each folder keeps a note of what its files were made
    from, so that a changed recipe plays them again.
    """
    missing = [take for take in planned if not _is_done(take)]
    failed: set[Path] = set()
    for take in planned:
        if take not in missing:
            on_take(take)
    if missing:
        with ProcessPoolExecutor(workers or os.cpu_count(), mp_context=get_context("spawn")) as pool:
            jobs = {pool.submit(_play, take): take for take in missing}
            for job in as_completed(jobs):
                if not job.result():
                    failed.add(jobs[job].path)
                on_take(jobs[job])
    return [take for take in planned if take.path not in failed]


def _stamp(take: Take) -> str:
    fields = [RECIPE, take.work.key, take.program, take.seconds]
    return hashlib.sha256(json.dumps(fields).encode()).hexdigest()


def _is_done(take: Take) -> bool:
    stamp = take.path.with_suffix(".take")
    return take.path.exists() and stamp.exists() and stamp.read_text() == _stamp(take)


def _play(take: Take) -> bool:
    from partbook.music.rendering import write_flac

    try:
        sound = played(take.work.score(take.program), take.work.key, take.seconds)
    except ScoreError:
        return False
    if sound is None:
        return False
    take.path.parent.mkdir(parents=True, exist_ok=True)
    write_flac(take.path, sound)
    take.path.with_suffix(".take").write_text(_stamp(take))
    return True


def played(score: ScoreTick, key: str, seconds: float, *, soundfont: Path | None = None) -> Sound | None:
    """The beginning of a score as a person might play it, levelled; None where it is shorter than `SHORTEST`.

    Args:
        score: in ticks, on the instrument that it is played on.
        key: the work's identifier; the same work is always played alike.
        seconds: how much of it, from the beginning, cut at the end of a beat.
        soundfont: what plays it; `partbook.music.rendering.default_soundfont` where None.
    """
    from partbook.music.mastering import Sound
    from partbook.music.rendering import SAMPLE_RATE, synthesise
    from partbook.music.tokens import notes_of
    from partbook.simulation.performance import perform

    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
    score = perform(excerpt(score, seconds), np.random.Generator(np.random.Philox(seed)))
    if notes_of(score).onset.max(initial=0.0) < SHORTEST:
        return None
    sound = synthesise(score, soundfont=soundfont)
    peak = float(np.abs(sound).max(initial=0.0))
    return Sound((sound * (0.7 / max(peak, 1e-6))).astype(np.float32), SAMPLE_RATE)


def excerpt(score: ScoreTick, seconds: float) -> ScoreTick:
    """The beginning of a score: whole notes that start within `seconds`, ringing at most a beat longer."""
    from partbook.music.tokens import seconds_at

    beat = score.ticks_per_quarter
    end = int(score.end())
    beats = np.arange(0, end + beat, beat, dtype=np.float64)
    fitting = beats[seconds_at(score, beats) <= seconds]
    limit = int(fitting[-1]) if len(fitting) else beat
    if limit >= end:
        return score
    cut = score.clip(0, limit, clip_end=False)
    for track in cut.tracks:
        for note in track.notes:
            note.duration = min(note.duration, limit + beat - note.time)
    return cut


def write_split(
    path: Path, members: dict[str, dict[str, Sequence[Work]]], seed: int, control: Sequence[Work] = ()
) -> None:
    """Write who got which work: {label: {pool: works}}, with the seed and what no label has, as JSON."""
    content = {
        "seed": seed,
        "labels": {label: {pool: _listed(works) for pool, works in pools.items()} for label, pools in members.items()},
        "control": _listed(control),
    }
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _listed(works: Sequence[Work]) -> list[dict[str, str]]:
    return [{"key": work.key, "title": work.printed} for work in works]
