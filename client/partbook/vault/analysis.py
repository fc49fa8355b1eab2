"""One audio file → one `Recording`: the whole of what is learnt from it, before it is put away.

Measured on a 2-core machine busy with other work, a 45 s stereo clip takes 2.8 s of one core (16x real time): the
transcription network 2.1, loudness 0.17, decoding and hashing 0.17, mel 0.14, beats 0.10, note creation 0.06. A worker
starts in 4 s, most of it imports; it needs 0.45 GB for a recording of three minutes and 1.0 GB for one of ten.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from partbook.errors import AudioError, NoNotesFound, ScoreError, SilentAudio
from partbook.music.decode import MAX_SECONDS, MIN_SECONDS, normalised_mono, read_audio
from partbook.music.mel import HOP, N_FFT, log_mel
from partbook.music.notes import Notes
from partbook.music.recording import Recording
from partbook.vault.beats import find_beats
from partbook.vault.transcription import Transcriber

if TYPE_CHECKING:
    from partbook.music.tokens import Tokenizer

BEATS_PER_BAR: Final = 4  # whatever the music, it is written down in 4/4
_MEL_BLOCK: Final = 5120  # frames at a time (a minute): an hour's STFT at once would take 5 GB
_MARGIN: Final = N_FFT // HOP + 1  # frames: more than a window reaches over the edge of a block


@dataclass(frozen=True, slots=True)
class Analysis:
    """A recording, and the hash of the audio it was made from (`Audio.sha256`)."""

    recording: Recording
    audio_sha256: str


def analyse(
    path: Path,
    tokenizer: Tokenizer,
    transcriber: Transcriber,
    *,
    program: int = 0,
    min_seconds: float = MIN_SECONDS,
    max_seconds: float = MAX_SECONDS,
) -> Analysis:
    """Decode, level, transcribe, write down and picture one audio file.

    Args:
        path: any audio file; its name without suffix becomes the title.
        tokenizer: the federation's.
        transcriber: reused between files.
        program: General MIDI program (0–127) that the label states for its recordings; the tokens say it.
        min_seconds: shortest recording taken.
        max_seconds: longest recording taken.

    Raises:
        AudioError: the file cannot be used; the class and the message say why.
    """
    audio = read_audio(path, min_seconds=min_seconds, max_seconds=max_seconds)
    seconds, sha256 = audio.seconds, audio.sha256
    try:
        mono = normalised_mono(audio)
    except SilentAudio as error:
        raise SilentAudio(f"{path}: {error}") from error
    del audio
    notes = transcriber.transcribe(mono)
    if not len(notes):
        raise NoNotesFound(f"{path} is audible, but no notes were heard in it; leave out speech and noise.")
    try:
        return Analysis(written_down(path.stem, notes, seconds, log_mel_in_blocks(mono), tokenizer, program), sha256)
    except AudioError as error:
        raise type(error)(f"{path}: {error}") from error


def written_down(
    title: str, notes: Notes, seconds: float, mel: NDArray[np.float16], tokenizer: Tokenizer, program: int = 0
) -> Recording:
    """Transcribed notes as a recording: on a grid of beats that is found in them, and in tokens.

    Args:
        title: the recording's.
        notes: at least one.
        seconds: length of the audio.
        mel: its log-mel, (frames, 128).
        tokenizer: what the tokens are of.
        program: General MIDI program that the tokens say.

    Raises:
        NoNotesFound: none of the notes can be written down.
        AudioError: they cannot be written as tokens.
    """
    from partbook.music.notation import score_of

    beats = find_beats(notes, seconds)
    score = score_of(notes, beats.seconds, program, beats_per_minute=beats.beats_per_minute)
    try:
        ids = tokenizer.encode(score, hand="heard")
    except ScoreError as error:
        raise NoNotesFound(f"no note heard in it can be written down ({error})") from error
    except (ValueError, IndexError, KeyError) as error:
        raise AudioError(f"its transcription cannot be written as tokens ({error}).") from error
    bar_starts = tokenizer.bar_starts(ids)
    bar_seconds = beats.second_of(np.arange(len(bar_starts), dtype=np.float64) * BEATS_PER_BAR)
    return Recording(
        title=title,
        seconds=seconds,
        notes=notes,
        ids=ids,
        bar_starts=bar_starts,
        bar_seconds=bar_seconds.astype(np.float32),
        mel=mel,
    )


def log_mel_in_blocks(mono44k: NDArray[np.float32]) -> NDArray[np.float16]:
    """`log_mel` of the whole, a minute at a time: the same frames, (frames, 128), in bounded memory."""
    frames = 1 + len(mono44k) // HOP
    blocks = []
    for begin in range(0, frames, _MEL_BLOCK):
        lead = min(begin, _MARGIN)
        stop = min(begin + _MEL_BLOCK, frames)
        part = log_mel(mono44k[(begin - lead) * HOP : (stop + _MARGIN) * HOP])
        blocks.append(part[lead : lead + stop - begin])
    return np.concatenate(blocks)
