"""The demo's three pieces: one out of nothing, one after a held-out opening, one after a held-out audio clip.

The first is asked for as a score of at most `BARS` bars, and of nothing else: it may end itself before. The others go
on as what they are given was written down, by a node's ears. Seeds follow from the run's; nobody chooses among them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from symusic.core import ScoreTick

from partbook.coordinator.validation import ValidationSet
from partbook.errors import GenerationError
from partbook.generator.asking import MOST_BARS, PieceRequest, seconds_of
from partbook.generator.composing import Generator, Piece, compose
from partbook.generator.pieces import write_piece
from partbook.generator.release import Release, load_generator, of_base
from partbook.music.mel import MEMORY_SECONDS, memory_before
from partbook.music.metrics import copied_span
from partbook.music.notes import Notes
from partbook.music.recording import Recording
from partbook.music.tokens import Tokenizer, notes_of
from partbook.simulation.collections import COLLECTIONS
from partbook.simulation.pictures import piano_roll
from partbook.simulation.report import PieceReport
from partbook.threads import one_thread_within
from partbook.vault.analysis import BEATS_PER_BAR

PIECES: Final = 3
BARS: Final = 32  # of the free piece, at most


def three_pieces(
    release: Release,
    validation: ValidationSet,
    tokenizer: Tokenizer,
    folder: Path,
    *,
    base: Path,
    seed: int,
    seconds: float,
    on_piece: Callable[[str], None] = lambda _: None,
) -> list[PieceReport]:
    """Write the pieces as WAV, MIDI and picture.

    Args:
        release: writes them.
        validation: whose recordings are continued, and searched for copied passages.
        tokenizer: the release's.
        folder: for the files.
        base: the base model, which writes the free piece too, for comparison.
        seed: of the run; each piece has its own by it.
        seconds: how much music the two others gain, at most.
        on_piece: told each title when it is done.

    Raises:
        GenerationError: ten seeds in a row wrote no note of their own.
    """
    chorale = validation.by_label[COLLECTIONS[0].label][0]
    dance = validation.by_label[COLLECTIONS[1].label][0]
    wanted = [
        (
            "free",
            "A free piece",
            f"Nothing was given: the generator began in silence, asked for a score of at most {BARS} bars.",
            None,
            None,
        ),
        (
            "continuation",
            "Continuing a held-out opening",
            f"Given the first bars of “{_work(chorale)}” as transcribed from a recording that no label has, "
            "and that trained nothing.",
            _opening(chorale, tokenizer),
            None,
        ),
        (
            "from-audio",
            "After a held-out audio clip",
            f"Given a clip of “{_work(dance)}”, a recording that no label has: the model hears eight seconds of "
            "its sound, and goes on from the notes that were transcribed from the five seconds after them.",
            *heard_clip(dance, tokenizer),
        ),
    ]
    assert len(wanted) == PIECES, "whoever watches was told how many there are"
    generator = load_generator(release)
    before = of_base(base)
    recordings = [r for many in validation.by_label.values() for r in many]
    made = []
    for number, (name, title, how, prompt, memory) in enumerate(wanted):
        request = (
            _free(seed * 1000 + number)
            if prompt is None
            else _after_what_was_heard(seed * 1000 + number, seconds, prompt, memory)
        )
        with one_thread_within():
            piece = _written_by(generator, request)
            other = _written_by(before, piece.request) if prompt is None else None
        made.append(_kept(piece, folder, name, title, how, release, recordings, other))
        on_piece(title)
    return made


def _free(seed: int) -> PieceRequest:
    return PieceRequest(seed, seconds_of(None, BARS), bars=BARS)


def _after_what_was_heard(
    seed: int, seconds: float, prompt: ScoreTick, memory: NDArray[np.float16] | None
) -> PieceRequest:
    """As many bars of 4/4, in which a node writes whatever it hears, as fill so many seconds at the prompt's tempo."""
    bar = 60.0 / prompt.tempos[-1].qpm * BEATS_PER_BAR
    bars = min(max(math.ceil(seconds / bar), 1), MOST_BARS)
    return PieceRequest(seed, seconds, prompt=prompt, memory=memory, bars=bars, hand="heard")


def _kept(
    piece: Piece,
    folder: Path,
    name: str,
    title: str,
    how: str,
    release: Release,
    recordings: Sequence[Recording],
    other: Piece | None,
) -> PieceReport:
    import soundfile

    midi, wav, _ = write_piece(folder, name, piece, {"signer": release.signer.fingerprint})
    notes = notes_of(piece.score)
    own = _after(notes, piece.continues_at)
    roll = folder / f"{name}.png"
    piano_roll(notes, roll, title=title, split_at=piece.continues_at)
    other_roll = None
    if other is not None:
        other_roll = folder / f"{name}-base.png"
        said = f"{title}, by the base model alone"
        piano_roll(notes_of(other.score), other_roll, title=said, subtitle=f"Seed {other.request.seed}")
    samples, rate = soundfile.read(wav, always_2d=True)
    return PieceReport(
        name=title,
        how=how,
        seed=piece.request.seed,
        wav=wav,
        midi=midi,
        roll=roll,
        seconds=len(samples) / rate,
        peak_dbfs=float(20 * np.log10(max(float(np.abs(samples).max()), 1e-9))),
        notes=len(own),
        lowest=int(own.pitch.min()),
        highest=int(own.pitch.max()),
        copied_notes=max(copied_span(own, r.notes).notes for r in recordings),
        compared_with=len(recordings),
        base_roll=other_roll,
    )


def _written_by(generator: Generator, request: PieceRequest) -> Piece:
    """The piece for a request; where the generator stays silent, for the next seed that makes it play."""
    for attempt in range(10):
        *_, piece = compose(generator, dataclasses.replace(request, seed=request.seed + 100 * attempt))
        assert isinstance(piece, Piece), "compose ends with the piece"
        if len(_after(notes_of(piece.score), piece.continues_at)):
            return piece
    raise GenerationError(f"Seed {request.seed} and nine more wrote no notes; train for more rounds.")


def _work(recording: Recording) -> str:
    return recording.title.partition(" ")[2] or recording.title


def _opening(recording: Recording, tokenizer: Tokenizer, seconds: float = 8.0) -> ScoreTick:
    """The bars of a recording that begin in its first seconds, as a score."""
    bars = int(np.searchsorted(recording.bar_seconds, seconds))
    stop = int(recording.bar_starts[bars]) if bars < len(recording.bar_starts) else len(recording.ids)
    return tokenizer.decode(recording.ids[:stop])


def heard_clip(
    recording: Recording, tokenizer: Tokenizer, seconds: float = 5.0
) -> tuple[ScoreTick, NDArray[np.float16] | None]:
    """A clip from inside a recording, as training windows are: the notes from a bar on, and the sound before it.

    Args:
        recording: at least `MEMORY_SECONDS` and `seconds` long.
        tokenizer: the one it was written with.
        seconds: how much is given as notes.

    Returns:
        The transcribed bars that begin in those seconds, at the recording's tempo, and the log-mel (688, 128) of
        the eight seconds before them.
    """
    bars = recording.bar_seconds
    first = min(int(np.searchsorted(bars, MEMORY_SECONDS)), len(bars) - 1)
    last = max(int(np.searchsorted(bars, bars[first] + seconds)), first + 1)
    whole = tokenizer.decode(recording.ids)
    begin, end = (bar * BEATS_PER_BAR * whole.ticks_per_quarter for bar in (first, last))
    cut: ScoreTick = whole.clip(begin, end, clip_end=True).shift_time(-begin)
    cut.tempos, cut.time_signatures = whole.tempos, whole.time_signatures
    return cut, memory_before(recording.mel, float(bars[first]))


def _after(notes: Notes, second: float | None) -> Notes:
    if second is None:
        return notes
    kept = notes.onset >= second - 1e-6
    return Notes(notes.onset[kept], notes.duration[kept], notes.pitch[kept], notes.velocity[kept])
