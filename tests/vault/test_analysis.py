from pathlib import Path

import numpy as np
import pytest
import soundfile
from symusic import Score

from partbook.errors import NoNotesFound, SilentAudio
from partbook.music.mel import log_mel
from partbook.music.rendering import synthesise
from partbook.music.tokens import Tokenizer
from partbook.music.windows import spans
from partbook.vault.analysis import analyse, log_mel_in_blocks
from partbook.vault.transcription import Transcriber

pytestmark = pytest.mark.timeout(300)  # whoever hears audio first compiles librosa's kernels

RATE = 44_100


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory, tunes: list[Path]) -> Path:
    """A tune on the harpsichord, with half a second of silence in front."""
    score = Score(tunes[0])
    for track in score.tracks:
        track.program = 6
    sound = synthesise(score)
    path = tmp_path_factory.mktemp("clips") / "Tune in C.flac"
    soundfile.write(path, np.concatenate([np.zeros((RATE // 2, 2), np.float32), sound]), RATE)
    return path


def test_a_clip_becomes_a_recording_that_training_can_use(clip: Path, tiny_tokenizer: Tokenizer) -> None:
    found = analyse(clip, tiny_tokenizer, Transcriber(), program=6)
    recording = found.recording
    assert recording.title == "Tune in C"
    assert recording.seconds == pytest.approx(soundfile.info(clip).duration)
    assert len(found.audio_sha256) == 64
    assert recording.ids.dtype == np.int16
    assert recording.bar_starts.dtype == np.int64
    assert recording.bar_seconds.dtype == np.float32
    assert recording.mel.dtype == np.float16
    assert recording.mel.shape == (1 + int(recording.seconds * RATE) // 512, 128)
    assert len(recording.bar_starts) == len(recording.bar_seconds) >= 2
    assert recording.bar_seconds[0] == pytest.approx(0.5, abs=0.06)
    assert np.all(np.diff(recording.bar_seconds) > 0.5)
    assert spans(recording, tiny_tokenizer, 64)[-1].last
    score = tiny_tokenizer.decode(recording.ids)
    assert {track.program for track in score.tracks} == {6}
    assert sum(len(track.notes) for track in score.tracks) == pytest.approx(len(recording.notes), abs=4)
    again = analyse(clip, tiny_tokenizer, Transcriber(), program=6)
    assert again.recording.to_bytes() == recording.to_bytes()


def test_bars_begin_when_their_first_notes_sound(clip: Path, tiny_tokenizer: Tokenizer) -> None:
    recording = analyse(clip, tiny_tokenizer, Transcriber()).recording
    score = tiny_tokenizer.decode(recording.ids)
    starts = {note.time for track in score.tracks for note in track.notes}
    heard = recording.notes.onset
    on_bar = [k for k in range(len(recording.bar_seconds)) if k * 4 * 480 in starts]
    assert on_bar
    for bar in on_bar:
        assert np.abs(heard - recording.bar_seconds[bar]).min() < 0.06


def test_sound_without_notes_is_refused_by_name(tmp_path: Path, tiny_tokenizer: Tokenizer) -> None:
    whistle = 0.1 * np.sin(2 * np.pi * 9000 * np.arange(5 * RATE) / RATE)  # an octave above the piano's last key
    soundfile.write(tmp_path / "whistle.wav", whistle.astype(np.float32), RATE)
    with pytest.raises(NoNotesFound, match=r"whistle\.wav"):
        analyse(tmp_path / "whistle.wav", tiny_tokenizer, Transcriber())


def test_silence_is_refused_by_name(tmp_path: Path, tiny_tokenizer: Tokenizer) -> None:
    soundfile.write(tmp_path / "hush.wav", np.zeros(5 * RATE, np.float32), RATE)
    with pytest.raises(SilentAudio, match=r"hush\.wav"):
        analyse(tmp_path / "hush.wav", tiny_tokenizer, Transcriber())


@pytest.mark.parametrize("samples", [RATE, 59 * RATE, 5120 * 512 - 1, 5120 * 512, 61 * RATE + 77, 125 * RATE])
def test_mel_in_blocks_is_the_mel_of_the_whole(samples: int) -> None:
    audio = np.random.default_rng(0).standard_normal(samples).astype(np.float32) * 0.1
    blocks, whole = log_mel_in_blocks(audio), log_mel(audio)
    # A product of another shape may add in another order: once in a while a number lands on the float16 beside its own.
    assert np.mean(blocks != whole) < 1e-5
    np.testing.assert_allclose(blocks.astype(np.float32), whole.astype(np.float32), rtol=2**-10, atol=2**-24)
