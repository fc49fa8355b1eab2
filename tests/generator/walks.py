"""Random walks as tunes, and the real server as a process, for the generator's tests."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from symusic.core import NoteTick, ScoreTick, TempoTick, TimeSignatureTick, TrackTick

PARTBOOK = [sys.executable, "-c", "from partbook.cli import main; main()"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "200"}


def tune(seed: int, bars: int = 8) -> ScoreTick:
    """A walk through C major in quarters and eighths, 4/4, 120 beats a minute."""
    draw = np.random.default_rng(seed)
    score, track, step = ScoreTick(480), TrackTick(program=0, is_drum=False, name=""), 7
    scale = [36 + 12 * octave + degree for octave in range(4) for degree in (0, 2, 4, 5, 7, 9, 11)]
    tick = 0
    while tick < bars * 1920:
        length = int(draw.choice([240, 480]))
        step = int(np.clip(step + draw.integers(-2, 3), 0, len(scale) - 1))
        track.notes.append(NoteTick(tick, length, scale[step], 80))
        tick += length
    score.tracks.append(track)
    score.tempos.append(TempoTick(0, 120.0))
    score.time_signatures.append(TimeSignatureTick(0, 4, 4))
    return score


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """`partbook serve` as a process of its own, and what it announces."""
    command = [*PARTBOOK, "serve", str(folder), "--address", "127.0.0.1:0", "--json"]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        yield process, json.loads(line)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
