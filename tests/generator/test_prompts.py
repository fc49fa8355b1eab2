from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from symusic.core import NoteTick, ScoreTick, TimeSignatureTick, TrackTick
from walks import tune

from partbook.errors import AudioTooLong, PartbookError, ScoreError, SilentAudio, UnreadableAudio
from partbook.generator.composing import Bar, PieceRequest, compose
from partbook.generator.prompts import MEL_BYTES, memory_of_clip, memory_of_mel, prompt_of_midi

pytestmark = pytest.mark.timeout(300)  # whoever hears audio first compiles librosa's kernels


def test_random_corruption_of_a_midi_file_ends_in_a_score_or_a_named_error():
    # In a process of its own: the parser this replaces died of a segmentation fault here.
    code = """
import random, sys
from partbook.errors import ScoreError
from partbook.generator.prompts import prompt_of_midi
good, draw, refused = bytes.fromhex(sys.argv[1]), random.Random(0), 0
for _ in range(2000):
    bad = bytearray(good)
    for _ in range(draw.randint(1, 6)):
        bad[draw.randrange(len(bad))] = draw.randrange(256)
    try:
        prompt_of_midi(bytes(bad))
    except ScoreError:
        refused += 1
print(refused)
"""
    midi = tune(0, bars=2).dumps_midi().hex()
    done = subprocess.run([sys.executable, "-c", code, midi], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100


def test_hostile_prompts_end_in_a_named_error_or_a_bar(generator):
    draw = np.random.default_rng(0)
    good = tune(0, bars=2).dumps_midi()
    for _ in range(150):
        bad = bytearray(good)
        for index in draw.integers(0, len(bad), 3):
            bad[index] = draw.integers(0, 256)
        try:
            request = PieceRequest(seed=0, seconds=1.0, max_tokens=1, prompt=prompt_of_midi(bytes(bad)))
            assert isinstance(next(compose(generator, request)), Bar)
        except PartbookError:
            continue


@pytest.mark.parametrize("metre", [(7, 8), (1, 32), (5, 4), (255, 1)])
def test_a_prompt_in_an_unusual_metre_is_written_down_or_refused(generator, metre):
    score = tune(1, bars=2)
    score.time_signatures[0] = TimeSignatureTick(0, *metre)
    request = PieceRequest(seed=0, seconds=1.0, max_tokens=1, prompt=score)
    try:
        opening = next(compose(generator, request))
        assert isinstance(opening, Bar)
        assert opening.notes
    except ScoreError:
        pass


@pytest.mark.parametrize("blob", [b"", b"MThd", b"RIFF" + bytes(200), bytes(300_000)])
def test_what_is_not_midi_is_refused(blob):
    with pytest.raises(ScoreError):
        prompt_of_midi(blob)


def test_a_midi_file_without_notes_is_refused():
    score = ScoreTick(480)
    score.tracks.append(TrackTick(program=0, is_drum=False, name=""))
    with pytest.raises(ScoreError, match="no notes"):
        prompt_of_midi(score.dumps_midi())


def test_an_endless_midi_file_is_refused():
    score = tune(0, bars=1)
    score.tracks[0].notes.append(NoteTick(480 * 20_000, 480, 60, 80))
    with pytest.raises(ScoreError, match="quarter notes"):
        prompt_of_midi(score.dumps_midi())


def test_too_many_notes_are_refused():
    score, track = ScoreTick(480), TrackTick(program=0, is_drum=False, name="")
    for index in range(10_001):
        track.notes.append(NoteTick(index * 60, 60, 60 + index % 12, 80))
    score.tracks.append(track)
    with pytest.raises(ScoreError, match="10001 notes"):
        prompt_of_midi(score.dumps_midi())


def test_a_mel_of_the_wrong_size_or_scale_is_refused():
    good = np.zeros((688, 128), dtype="<f2").tobytes()
    assert len(good) == MEL_BYTES == 176_128
    assert memory_of_mel(good).shape == (688, 128)
    with pytest.raises(UnreadableAudio, match="log_mel"):
        memory_of_mel(good[:-2])
    with pytest.raises(UnreadableAudio, match="log_mel"):
        memory_of_mel(np.full((688, 128), np.nan, dtype="<f2").tobytes())


def clip(seconds: float, kind: str = "FLAC", *, rate: int = 44_100, channels: int = 1, level: float = 0.1) -> bytes:
    """A 440 Hz tone as a file."""
    tone = level * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate).astype(np.float32)
    file = io.BytesIO()
    soundfile.write(file, np.repeat(tone[:, None], channels, axis=1), rate, format=kind)
    return file.getvalue()


def test_a_clip_sounds_the_same_in_wav_and_flac_and_its_end_is_what_counts():
    memory = memory_of_clip(clip(10))
    assert memory.shape == (688, 128)
    assert memory.dtype == np.float16
    assert memory[:, 5:30].max() > memory[:, 60:].max()  # the tone is low
    np.testing.assert_allclose(memory, memory_of_clip(clip(10, "WAV")), atol=0.01)  # other 16-bit rounding
    short = memory_of_clip(clip(4))
    assert (short[:300] == -1).all()
    assert (short[-300:] > -1).any()


@pytest.mark.parametrize(
    ("blob", "error"),
    [
        (b"", UnreadableAudio),
        (b"RIFF\x24\0\0\0WAVEfmt garbage" + bytes(99), UnreadableAudio),
        (b"OggS" + bytes(200), UnreadableAudio),
        (clip(4, "OGG"), UnreadableAudio),
        (bytes(3 * 2**20 + 1), UnreadableAudio),
        (clip(130, level=0.0), AudioTooLong),
        (clip(20, rate=96_000, channels=8, level=0.0), AudioTooLong),
        (clip(5, level=0.0), SilentAudio),
    ],
    ids=["empty", "broken WAV", "broken Ogg", "Ogg", "large", "long", "unfolding", "silent"],
)
def test_a_clip_that_cannot_be_heard_is_refused_without_naming_our_folders(blob, error):
    with pytest.raises(error) as refusal:
        memory_of_clip(blob)
    assert "/tmp" not in str(refusal.value)  # noqa: S108
