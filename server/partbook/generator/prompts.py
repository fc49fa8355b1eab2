"""What a piece may start from: a MIDI file to go on with, and a sound to have heard just before.

Both may come from strangers through the service, so both are bounded before they are read. MIDI files are
parsed with mido: symusic's parser is far faster, but a malformed file can end the process (0.5.9 did, within
a hundred random corruptions of a small file).
"""

from __future__ import annotations

import io
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from symusic.core import NoteTick, ScoreTick, TempoTick, TimeSignatureTick, TrackTick

from partbook.errors import AudioError, AudioTooLong, AudioTooShort, ScoreError, UnreadableAudio
from partbook.music.mel import BANDS, FRAMES_PER_SECOND, MEMORY_FRAMES, SAMPLE_RATE, log_mel, memory_before

MOST_MIDI_BYTES: Final = 256 * 2**10
MOST_NOTES: Final = 10_000
LONGEST_PROMPT: Final = 30 * 60  # seconds
LONGEST_QUARTERS: Final = 10_000
MOST_CLIP_BYTES: Final = 3 * 2**20
LONGEST_CLIP: Final = 120.0  # seconds
MOST_CLIP_SAMPLES: Final = 120 * 48_000 * 2
MEL_BYTES: Final = MEMORY_FRAMES * BANDS * 2  # 176,128, as generator.proto says


def prompt_of_midi(blob: bytes) -> ScoreTick:
    """A stranger's MIDI file as a score to go on from.

    Raises:
        ScoreError: it is too large, is not MIDI, or holds no notes.
    """
    if len(blob) > MOST_MIDI_BYTES:
        raise ScoreError(f"The MIDI file has {len(blob)} bytes; at most {MOST_MIDI_BYTES} can be continued.")
    score = score_of_midi(blob)
    count = sum(len(track.notes) for track in score.tracks)
    if not count:
        raise ScoreError("The MIDI file has no notes to go on from.")
    if count > MOST_NOTES:
        raise ScoreError(f"The MIDI file has {count} notes; at most {MOST_NOTES} can be continued: keep its end.")
    timed: Any = score.to("second")
    seconds = float(timed.end())
    if not seconds <= LONGEST_PROMPT:
        raise ScoreError(
            f"The MIDI file lasts {seconds:.0f} s; at most {LONGEST_PROMPT} can be continued: keep its end."
        )
    return score


def score_of_midi(blob: bytes) -> ScoreTick:
    """The pitched notes, tempi and metres of a standard MIDI file, one track a program.

    Raises:
        ScoreError: it is not MIDI, or is longer than 10,000 quarter notes.
    """
    import mido  # type: ignore[import-untyped]

    try:
        file = mido.MidiFile(file=io.BytesIO(blob), clip=True)
        ticks = int(file.ticks_per_beat)
    except Exception as error:  # whatever a hostile file makes the parser trip over
        raise ScoreError(f"These bytes are not a standard MIDI file ({error or type(error).__name__}).") from error
    if not 1 <= ticks <= 0x7FFF:
        raise ScoreError("The MIDI file counts time in SMPTE frames; save it with ticks per quarter note.")
    score = ScoreTick(ticks)
    notes: dict[int, list[tuple[int, int, int, int]]] = defaultdict(list)
    for events in file.tracks:
        _read_track(events, score, notes)
    for program, rows in sorted(notes.items()):
        track = TrackTick(program=program, is_drum=False, name="")
        for row in sorted(rows):
            track.notes.append(NoteTick(*row))
        score.tracks.append(track)
    score.tempos.sort()
    score.time_signatures.sort()
    return score


def _read_track(events: Any, score: ScoreTick, notes: dict[int, list[tuple[int, int, int, int]]]) -> None:
    now = 0
    program: dict[int, int] = defaultdict(int)
    sounding: dict[tuple[int, int], tuple[int, int, int]] = {}
    for event in events:
        now += int(event.time)
        if now > LONGEST_QUARTERS * score.ticks_per_quarter:
            raise ScoreError(f"The MIDI file is longer than {LONGEST_QUARTERS} quarter notes: keep its end.")
        if event.type == "set_tempo" and event.tempo > 0:
            score.tempos.append(TempoTick(now, 6e7 / event.tempo))
        elif event.type == "time_signature" and 0 < event.numerator <= 64 and 0 < event.denominator <= 64:
            score.time_signatures.append(TimeSignatureTick(now, event.numerator, event.denominator))
        elif event.type == "program_change":
            program[event.channel] = event.program
        elif event.type in ("note_on", "note_off") and event.channel != 9:  # channel 10 is for drums
            key = event.channel, event.note
            if key in sounding:
                start, velocity, voice = sounding.pop(key)
                if now > start:
                    notes[voice].append((start, now - start, event.note, velocity))
            if event.type == "note_on" and event.velocity:
                sounding[key] = now, event.velocity, program[event.channel]


def memory_of_audio(path: Path, *, longest: float = 3600.0) -> NDArray[np.float16]:
    """The log-mel of a recording's last eight seconds, as the model hears it: (688, 128).

    Raises:
        AudioError: the file cannot be heard; the subclass says why.
    """
    from partbook.music.decode import normalised_mono, read_audio

    try:
        audio = normalised_mono(read_audio(path, max_seconds=longest))
    except AudioError as error:
        if str(path) in str(error):
            raise
        raise type(error)(f"{path}: {error}") from error
    mel = log_mel(audio[-SAMPLE_RATE * 12 :])  # what lies before cannot reach the last eight seconds
    memory = memory_before(mel, len(mel) / FRAMES_PER_SECOND)
    if memory is None:
        raise AudioTooShort(f"{path} is shorter than a second; give one of eight seconds or more.")
    return memory


def memory_of_clip(blob: bytes) -> NDArray[np.float16]:
    """The log-mel of a stranger's WAV or FLAC file, as `memory_of_audio` makes it: (688, 128).

    Raises:
        AudioError: it is too large, of another format, or cannot be heard.
    """
    import soundfile

    if len(blob) > MOST_CLIP_BYTES:
        raise UnreadableAudio(f"It has {len(blob)} bytes; at most {MOST_CLIP_BYTES} are heard: send its end.")
    # What libsndfile does not know as one of these two must not reach `read_audio`, which would ask ffmpeg.
    try:
        about = soundfile.info(io.BytesIO(blob))
    except soundfile.LibsndfileError as error:
        raise UnreadableAudio("It is neither a WAV nor a FLAC file; convert it first.") from error
    if about.format not in ("WAV", "WAVEX", "FLAC"):
        raise UnreadableAudio(f"It is {about.format}, neither WAV nor FLAC; convert it first.")
    # A few bytes of FLAC can unfold to gigabytes of silence.
    if about.frames * about.channels > MOST_CLIP_SAMPLES:
        raise AudioTooLong(
            f"It holds {about.frames} frames of {about.channels} channels; send at most {LONGEST_CLIP:g} s of stereo."
        )
    with tempfile.TemporaryDirectory(prefix="partbook-") as folder:
        path = Path(folder) / "clip"
        path.write_bytes(blob)
        try:
            return memory_of_audio(path, longest=LONGEST_CLIP)
        except AudioError as error:
            # Where this machine keeps its temporary files is nobody's business.
            raise type(error)(str(error).replace(str(path), "The clip")) from error


def memory_of_mel(blob: bytes) -> NDArray[np.float16]:
    """The log-mel that a client sent as bytes: (688, 128).

    Raises:
        UnreadableAudio: it is of another size, or its values are outside [-1, 1].
    """
    if len(blob) != MEL_BYTES:
        raise UnreadableAudio(f"log_mel has {len(blob)} bytes; 688 frames of 128 float16 are {MEL_BYTES}.")
    mel = np.frombuffer(blob, dtype="<f2").reshape(MEMORY_FRAMES, BANDS).astype(np.float16)
    if not bool(np.all(np.abs(mel) <= 1.0)):
        raise UnreadableAudio("log_mel holds values outside [-1, 1]; scale it as generator.proto says.")
    return mel
