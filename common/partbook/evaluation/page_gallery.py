"""The gallery of `evaluation.html`: a roll and a player for each piece that is shown."""

from __future__ import annotations

import math
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import numpy as np

from partbook.errors import PartbookError, ScoreError
from partbook.evaluation.comparison import WINDOW
from partbook.evaluation.drawing import colour, roll
from partbook.evaluation.reading import read
from partbook.evaluation.results import Evaluation, Shown, Subject
from partbook.evaluation.wording import counted, number
from partbook.music.encoding import data_address, mp3
from partbook.music.rendering import render
from partbook.music.tokens import seconds_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from symusic.core import ScoreTick

HEARD: Final = 20.0  # seconds of a piece that its player holds
_RING: Final = 1.5  # seconds in which what then sounds fades
_BUDGET: Final = 6_000_000  # bytes of all players together
_RATES: Final = (80, 64, 56, 48, 40, 32)  # kbit a second, mono
_RATE: Final = 32_000  # Hz: all that so few bits carry, and encoded in two thirds of the time
_WHY: Final = {
    "worst": ("Worst", "The piece that the classifier on the measures is surest about."),
    "median": ("Median", "Half of the pieces look more human to the classifier, half less."),
    "best": ("Best", "The piece that looks most human to the classifier on the measures."),
    "drawn": ("", ""),
}


def gallery(evaluation: Evaluation, folder: Path, on_piece: Callable[[str], None]) -> str:
    """Rolls and players of every subject that shows pieces.

    Args:
        evaluation: what to show.
        folder: in which the pieces' MIDI files lie.
        on_piece: told each title when it is played.

    Raises:
        ScoreError: a MIDI file is missing or cannot be read.
    """
    kbps = rate(len(_all(evaluation)))
    scores = {piece.midi.name: _score(folder / piece.midi.name, piece.title) for piece in _all(evaluation)}
    parts = []
    for index, subject in enumerate(evaluation.subjects):
        if not subject.gallery:
            continue
        cards = []
        for piece in subject.gallery:
            cards.append(_card(piece, scores[piece.midi.name], colour(index), kbps))
            on_piece(piece.title)
        parts.append(
            f'<h3 id="pieces-{index}" class="who {colour(index)}"><span class="dot"></span>{escape(subject.title)}</h3>'
            f'<p class="note">{escape(_chosen(subject, evaluation))}</p><div class="pieces">{"".join(cards)}</div>'
        )
    return "".join(parts)


def rate(pieces: int) -> int:
    """The highest bit rate, in kbit a second, at which so many players fit their budget; 0 where none does."""
    for kbps in _RATES:
        if pieces * kbps * 1000 / 8 * (HEARD + _RING) * 4 / 3 <= _BUDGET:
            return kbps
    return 0


def _chosen(subject: Subject, evaluation: Evaluation) -> str:
    total = subject.comparison.pieces if subject.comparison else len(subject.gallery)
    drawn = sum(piece.why == "drawn" for piece in subject.gallery)
    others = [_WHY[piece.why][0].lower() for piece in subject.gallery if piece.why != "drawn"]
    parts = [f"{drawn} drawn by seed {evaluation.seed}"] * bool(drawn)
    parts += [f"the {' and the '.join(others)}, by the classifier on the measures"] * bool(others)
    return f"{len(subject.gallery)} of {counted(total, 'piece')}: {'; '.join(parts)}. {subject.about}"


def _all(evaluation: Evaluation) -> list[Shown]:
    return [piece for subject in evaluation.subjects for piece in subject.gallery]


def _card(piece: Shown, score: ScoreTick, colours: str, kbps: int) -> str:
    reading = read(score, piece.title)
    opening = reading.opening(WINDOW)
    bars, of = len(opening.bars) - 1, len(reading.bars) - 1
    seen = f"{counted(of, 'bar')}" if bars == of else f"the first {bars} of {counted(of, 'bar')}"
    tag, why = _WHY[piece.why]
    label = f' <span class="tag {piece.why}" title="{escape(why)}">{tag}</span>' if tag else ""
    suspicion = "" if math.isnan(piece.suspicion) else f" suspicion {number(piece.suspicion)} ·"
    return (
        f'<article class="piece"><h4>{escape(piece.title)}{label}</h4>'
        f"<p>{seen} ·{suspicion} {_length(reading.seconds)} · "
        f'<a href="{escape(quote(piece.midi.name))}">MIDI</a></p>'
        f"{roll(opening, colours)}{_player(score, piece.title, kbps)}</article>"
    )


def _length(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds // 60:.0f} min {seconds % 60:02.0f} s"


def _score(path: Path, title: str) -> ScoreTick:
    from symusic.core import ScoreTick

    try:
        score: ScoreTick = ScoreTick.from_midi(path.read_bytes())
    except Exception as error:  # symusic raises what its C++ does
        raise ScoreError(
            f"{path}, which the page shows as {title!r}, cannot be read ({error}); write the pieces again."
        ) from error
    return score


def _player(score: ScoreTick, title: str, kbps: int) -> str:
    if not kbps:
        return "<p>No player: so many pieces would make the page too heavy.</p>"
    try:
        sound = data_address(excerpt(score, kbps))
    except PartbookError as error:
        return f"<p>No player: {escape(str(error))}</p>"
    return f'<audio controls preload="metadata" src="{sound}" aria-label="{escape(title)}, first 20 seconds"></audio>'


def excerpt(score: ScoreTick, kbps: int) -> bytes:
    """The first 20 seconds of a score as an MP3 in mono; what sounds at their end fades.

    Raises:
        ScoreError: nothing sounds in them.
        ConfigError: there is no SoundFont to play it with.
    """
    import soxr

    sound = render(_beginning(score))
    samples = sound.samples.mean(axis=1, dtype=np.float32)
    end, ring = round(HEARD * sound.sample_rate), round(_RING * sound.sample_rate)
    samples = samples[: end + ring].copy()
    tail = samples[end:]
    tail *= np.linspace(1.0, 0.0, ring, dtype=np.float32)[: len(tail)]
    if sound.sample_rate != _RATE:
        samples = soxr.resample(samples, sound.sample_rate, _RATE)
    peak = float(np.abs(samples).max(initial=0.0))
    if peak > 1.0:
        samples = samples / peak
    return mp3(np.ascontiguousarray(samples[:, None], dtype=np.float32), _RATE, kbps=kbps)


def _beginning(score: ScoreTick) -> ScoreTick:
    """The notes that begin in the first 20 seconds, none longer than to their end."""
    ticks = np.arange(0, score.end() + 1, max(score.ticks_per_quarter // 24, 1), dtype=np.float64)
    until = int(ticks[max(int(np.searchsorted(seconds_at(score, ticks), HEARD, side="right")) - 1, 0)])
    short = score.copy()
    for track in short.tracks:
        kept = [note for note in track.notes if note.time < until]
        for note in kept:
            note.duration = min(note.duration, until - note.time)
        track.notes = type(track.notes)(kept)
    if not any(len(track.notes) for track in short.tracks):
        raise ScoreError("Nothing sounds in the first 20 seconds.")
    return short
