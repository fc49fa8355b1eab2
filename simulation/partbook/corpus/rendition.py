"""How a work is played for a node's ears: on what, how fast, from where, in which room, and with which SoundFont.

A work's plain rendition is the demo's: its own instrument, as written, dry, from the beginning. Takes vary, because a
label's recordings do: half of them are on another instrument, half at another pace, two in five are in a room, and of
long works three in five begin somewhere else. A take's number says all of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from symusic.core import ScoreTick, TempoTick

from partbook.errors import ScoreError
from partbook.music.tokens import seconds_at
from partbook.simulation import labels
from partbook.simulation.performance import INSTRUMENTS

if TYPE_CHECKING:
    from partbook.music.mastering import Sound

OTHER_INSTRUMENT: Final = 0.5  # share of takes
OTHER_PACE: Final = 0.5
PACES: Final = (0.85, 1.18)  # the slowest and the fastest; between them every ratio is as likely
IN_A_ROOM: Final = 0.4
STARTS_ELSEWHERE: Final = 0.6  # of works that are longer than …
LONG: Final = 70.0  # … so many seconds
STARTS: Final = 4  # quarters from one place where a take may begin to the next
INSTALLED_SOUNDFONTS: Final = (Path("/usr/share/sounds/sf2"), Path("/usr/share/soundfonts"))
_TEMPO: Final = 120.0  # quarters a minute where a score gives none (Standard MIDI Files 1.0)


@dataclass(frozen=True, slots=True)
class Rendition:
    """One way to play a work.

    Attributes:
        program: General MIDI program.
        pace: its tempi are multiplied by this.
        start: quarters from the work's beginning at which it starts.
        room: whether it is played in `partbook.music.mastering`'s room, and dry otherwise.
        soundfont: what plays it; the default where None.
        take: which of its performances; None is the one that the demo's labels give.
    """

    program: int
    pace: float = 1.0
    start: int = 0
    room: bool = False
    soundfont: Path | None = None
    take: int | None = None


def drawn(
    score: ScoreTick, key: str, program: int, take: int, seconds: float, soundfonts: Sequence[Path] = ()
) -> Rendition:
    """A take's rendition; the same whenever it is drawn.

    Args:
        score: the work at its own tempo.
        key: the work's.
        program: the instrument that it is written for.
        take: which one.
        seconds: how much of the work is played, so much must be left after where it starts.
        soundfonts: to choose among; the default where there are none.
    """
    random = np.random.Generator(np.random.Philox(_seed(f"{key}/{take}/rendition")))
    # All is drawn whether it is used or not, so that one thing does not depend on another's chance.
    other, paced, room, elsewhere = random.random(4) < (OTHER_INSTRUMENT, OTHER_PACE, IN_A_ROOM, STARTS_ELSEWHERE)
    instrument = int(random.choice(INSTRUMENTS))
    pace = float(np.exp(random.uniform(*np.log(PACES)))) if paced else 1.0
    font = int(random.integers(max(1, len(soundfonts))))
    starts = np.arange(0, int(score.end()), STARTS * score.ticks_per_quarter, dtype=np.float64)
    at = seconds_at(score, np.append(starts, score.end())) / pace
    possible = starts[at[:-1] < at[-1] - seconds]
    start = 0
    if elsewhere and at[-1] > LONG and len(possible):
        start = int(random.choice(possible)) // score.ticks_per_quarter
    return Rendition(
        instrument if other else program, pace, start, bool(room), soundfonts[font] if soundfonts else None, take
    )


def played(score: ScoreTick, key: str, rendition: Rendition, seconds: float) -> Sound | None:
    """A work in a rendition, levelled; None where it is shorter than `partbook.simulation.labels.SHORTEST`.

    Args:
        score: the work; it is left as it is.
        key: the work's.
        rendition: how.
        seconds: how much of it, from where the rendition starts.

    Raises:
        ScoreError: it has no notes from there on, or they cannot be played.
        ConfigError: the SoundFont cannot be used.
    """
    from partbook.music.mastering import polish

    score = score.copy()
    for track in score.tracks:
        track.program = rendition.program
    if rendition.pace != 1.0:
        tempos = [TempoTick(t.time, t.qpm * rendition.pace) for t in score.tempos]
        score.tempos = type(score.tempos)(tempos or [TempoTick(0, _TEMPO * rendition.pace)])
    if start := rendition.start * score.ticks_per_quarter:
        score = score.clip(start, score.end(), clip_end=False).shift_time(-start)
        if not score.note_num():
            raise ScoreError(f"{key} has no notes from quarter {rendition.start} on.")
    called = key if rendition.take is None else f"{key}/{rendition.take}"
    sound = labels.played(score, called, seconds, soundfont=rendition.soundfont)
    return polish(sound) if sound is not None and rendition.room else sound


def installed_soundfonts() -> tuple[Path, ...]:
    """SoundFonts where systems keep them."""
    return tuple(path for folder in INSTALLED_SOUNDFONTS for path in sorted(folder.glob("*.sf2")))


def _seed(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
