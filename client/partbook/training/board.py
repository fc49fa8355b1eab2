"""Curves, piano rolls and sound of a training, for TensorBoard: `tensorboard --logdir FOLDER` shows them as they come.

    training/loss           nats a token; also training/auxiliary, rate, norm and tokens_per_second
    heldout/<collection>    what is measured on works that are not learnt from
    samples/<name>          a piece as a picture, and as sound; samples/<name>/notes counts its notes

Points are numbered by step. A training that is resumed opens the board at the step it goes on from; TensorBoard then
leaves out what an earlier process drew past it, so that no step is there twice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from partbook.evaluation.reading import GRID, Reading, read
from partbook.music.rendering import synthesise

if TYPE_CHECKING:
    from symusic.core import ScoreTick

    from partbook.training.run import Step

SOUND_RATE: Final = 22_050  # Hz, one channel: a third of a megabyte for eight seconds
LONGEST: Final = 60.0  # seconds of a piece that are kept as sound
_ACROSS, _DOWN = 2, 4  # pixels a grid step and a semitone
_WIDEST: Final = 3840  # pixels; 40 bars of 4/4
_MARGIN: Final = 2  # semitones above and below
_PAPER, _OCTAVE, _BAR, _NOTE, _ONSET = (255, 255, 255), (226, 221, 210), (207, 200, 186), (179, 38, 30), (74, 13, 24)


class Board:
    """One event file of a training; a context manager that closes it."""

    def __init__(self, folder: Path, step: int = 0) -> None:
        """Begin the file, beside those of earlier processes.

        Args:
            folder: made where missing.
            step: that are done; what was drawn of later ones is left out from now on.

        Raises:
            ImportError: tensorboardX is not installed.
            OSError: the folder cannot be written in.
        """
        from tensorboardX import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder), purge_step=step + 1)

    def __enter__(self) -> Board:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write what is not on the disk yet."""
        self._writer.close()

    def step(self, step: Step) -> None:
        """Add a step to the curves."""
        points = {
            "loss": step.loss,
            "auxiliary": step.auxiliary,
            "rate": step.rate,
            "norm": step.norm,
            "tokens_per_second": step.tokens_per_second,
        }
        for name, value in points.items():
            if value is not None:
                self._writer.add_scalar(f"training/{name}", value, step.number)

    def heldout(self, nats: Mapping[str, float], number: int) -> None:
        """Add what was measured after a step, by collection; what is not finite has no point."""
        for name, value in nats.items():
            if math.isfinite(value):
                self._writer.add_scalar(f"heldout/{name}", value, number)
        self._writer.flush()

    def piece(self, score: ScoreTick, number: int, name: str = "piece") -> None:
        """Add a piece that was written after a step: its roll and its sound; of one without notes, that it has none.

        Raises:
            ScoreError: it cannot be played.
            ConfigError: the SoundFont cannot be used.
        """
        notes = sum(len(track.notes) for track in score.tracks)
        self._writer.add_scalar(f"samples/{name}/notes", notes, number)
        if notes:
            self._writer.add_image(f"samples/{name}", roll(read(score)), number, dataformats="HWC")
            sound = synthesise(score, sample_rate=SOUND_RATE)[: int(LONGEST * SOUND_RATE)].mean(1)
            self._writer.add_audio(f"samples/{name}", sound, number, sample_rate=SOUND_RATE)
        self._writer.flush()


def roll(piece: Reading) -> NDArray[np.uint8]:
    """A piano roll, pitch upwards over time: uint8 (height, width, 3), at most 3,840 wide.

    A grid step is two pixels wide, a semitone four high; a note's first pixels are darker, so that a repeated note is
    two. A line stands at each bar, and lies under each C.
    """
    low, high = int(piece.pitch.min()) - _MARGIN, int(piece.pitch.max()) + _MARGIN
    steps = min(max(piece.end, int(piece.bars[-1])), _WIDEST // _ACROSS)
    picture = np.full(((high - low + 1) * _DOWN, steps * _ACROSS, 3), _PAPER, np.uint8)
    for pitch in range(low, high + 1):
        if pitch % 12 == 0:
            picture[(high - pitch + 1) * _DOWN - 1] = _OCTAVE
    bars = piece.bars[piece.bars < steps]
    picture[:, bars * _ACROSS] = _BAR
    for onset, duration, pitch in zip(piece.onset, piece.duration, piece.pitch, strict=True):
        rows = slice((high - pitch) * _DOWN, (high - pitch + 1) * _DOWN - 1)
        left, right = onset * _ACROSS, (onset + duration) * _ACROSS
        picture[rows, left:right] = _NOTE
        picture[rows, left : left + _ACROSS] = _ONSET
    return picture


assert _WIDEST == 40 * 4 * GRID * _ACROSS, "40 bars of 4/4"
