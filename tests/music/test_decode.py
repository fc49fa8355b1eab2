import io
import stat
from pathlib import Path

import numpy as np
import pytest
import soundfile

from partbook.errors import (
    AudioError,
    AudioTooLong,
    AudioTooShort,
    SilentAudio,
    TruncatedAudio,
    UnreadableAudio,
)
from partbook.music.decode import Audio, loudness, normalised_mono, read_audio, to_mono_44k

RATE = 44_100


def hum(seconds: float = 4.0, channels: int = 2, rate: int = RATE, level: float = 0.2) -> np.ndarray:
    """A chord that pulses, with a little noise, already on the 16-bit grid."""
    time = np.arange(int(seconds * rate)) / rate
    chord = sum(np.sin(2 * np.pi * f * time) for f in (220.0, 277.2, 329.6)) / 3
    noise = np.random.default_rng(0).standard_normal(len(time)) * 0.05
    sound = level * (chord * (1 + np.sin(2 * np.pi * 2 * time)) / 2 + noise)
    pan = np.linspace(1.0, 0.7, channels)
    return (np.round(sound[:, None] * pan * 32_768) / 32_768).astype(np.float32)


def write(path: Path, samples: np.ndarray, rate: int = RATE, **options: str) -> Path:
    soundfile.write(path, samples, rate, **options)
    return path


def cut(path: Path, share: float) -> Path:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path


def audio(samples: np.ndarray, rate: int = RATE) -> Audio:
    return Audio(samples, rate, "")


def test_the_same_audio_in_wav_and_flac_has_one_hash(tmp_path: Path) -> None:
    wav = read_audio(write(tmp_path / "a.wav", hum()))
    flac = read_audio(write(tmp_path / "b.flac", hum()))
    aiff = read_audio(write(tmp_path / "c.aiff", hum()))
    other = read_audio(write(tmp_path / "d.wav", hum(level=0.19)))
    assert wav.sha256 == flac.sha256 == aiff.sha256 != other.sha256
    assert wav.samples.shape == (4 * RATE, 2)
    assert wav.samples.dtype == np.float32
    np.testing.assert_array_equal(wav.samples, hum())


def test_rate_and_channels_are_part_of_the_hash(tmp_path: Path) -> None:
    mono = hum(channels=1)
    slow = read_audio(write(tmp_path / "slow.wav", mono, 22_050))
    fast = read_audio(write(tmp_path / "fast.wav", mono, 44_100))
    assert slow.sha256 != fast.sha256


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "ogg", "aiff", "w64", "au", "rf64", "caf"])
def test_whole_files_are_read_whole(tmp_path: Path, suffix: str) -> None:
    options = {"format": "RF64"} if suffix == "rf64" else {}
    read = read_audio(write(tmp_path / f"whole.{suffix}", hum(), **options))
    assert read.seconds == pytest.approx(4.0, abs=0.1)


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "ogg", "aiff", "w64", "au", "rf64"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_truncated_files_are_told_apart(tmp_path: Path, suffix: str, share: float) -> None:
    options = {"format": "RF64"} if suffix == "rf64" else {}
    path = cut(write(tmp_path / f"cut.{suffix}", hum(12.0), **options), share)
    with pytest.raises(TruncatedAudio, match=r"cut\."):
        read_audio(path)


def test_a_flac_that_lacks_only_its_last_bytes_is_truncated(tmp_path: Path) -> None:
    path = write(tmp_path / "cut.flac", hum())
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(TruncatedAudio):
        read_audio(path)


def test_a_flac_damaged_in_the_middle_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "hurt.flac", hum())
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    data[len(data) // 2 + 1] ^= 0x55
    path.write_bytes(data)
    with pytest.raises(TruncatedAudio):
        read_audio(path)


def test_an_mp3_without_a_length_header_is_not_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "plain.mp3", hum(12.0))
    data = path.read_bytes()
    assert b"Xing" in data[:200] or b"Info" in data[:200]
    path.write_bytes(data[data.index(b"\xff\xfb", 64) :])
    assert read_audio(path).seconds > 3


def test_a_wav_written_to_a_pipe_declares_no_length_and_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "piped.wav", hum())
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = b"\xff" * 4
    path.write_bytes(data)
    assert read_audio(path).seconds == pytest.approx(4.0)


def test_what_is_no_audio_is_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no ffmpeg
    (tmp_path / "text.wav").write_text("Dear all,\nplease find attached\n" * 40)
    (tmp_path / "empty.wav").touch()
    (tmp_path / "header.wav").write_bytes(write(tmp_path / "x.wav", hum()).read_bytes()[:30])
    for name in ("text.wav", "empty.wav", "header.wav", "missing.wav"):
        with pytest.raises(AudioError, match=name) as caught:
            read_audio(tmp_path / name)
        assert isinstance(caught.value, UnreadableAudio | TruncatedAudio)


def test_samples_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    samples = hum()
    samples[1000, 0] = np.nan
    with pytest.raises(UnreadableAudio, match="NaN"):
        read_audio(write(tmp_path / "nan.wav", samples, subtype="FLOAT"))


def test_length_limits_hold(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", hum(2.0))
    with pytest.raises(AudioTooShort, match=r"2\.00 s"):
        read_audio(path)
    with pytest.raises(AudioTooLong):
        read_audio(path, min_seconds=1.0, max_seconds=1.5)


def test_a_programme_is_brought_to_minus_23_lufs_whatever_its_level(tmp_path: Path) -> None:
    loud, quiet = (normalised_mono(audio(hum(level=level))) for level in (0.5, 0.01))
    np.testing.assert_allclose(loud, quiet, atol=1e-3)
    twice = np.repeat(loud[:, None], 2, axis=1)
    assert loudness(audio(twice)) == pytest.approx(-23.0, abs=0.4)


def test_a_mono_file_is_as_loud_as_its_two_channel_copy() -> None:
    mono = hum(channels=1)
    assert loudness(audio(mono)) == pytest.approx(loudness(audio(np.repeat(mono, 2, axis=1))), abs=1e-6)


def test_a_click_track_is_left_quieter_rather_than_clipped() -> None:
    clicks = np.zeros((5 * RATE, 1), dtype=np.float32)
    clicks[:: RATE // 2] = 0.9
    clicks += np.random.default_rng(0).standard_normal(clicks.shape).astype(np.float32) * 1e-4
    assert np.abs(normalised_mono(audio(clicks))).max() <= 0.981


def test_silence_is_told_apart_from_quiet_music() -> None:
    with pytest.raises(SilentAudio):
        normalised_mono(audio(np.zeros((10 * RATE, 2), dtype=np.float32)))
    with pytest.raises(SilentAudio):
        normalised_mono(audio(hum(level=1e-4)))
    assert np.abs(normalised_mono(audio(hum(level=5e-3)))).max() > 0.1


def test_channels_that_cancel_in_mono_are_refused_with_the_reason() -> None:
    sound = hum(channels=1)
    with pytest.raises(SilentAudio, match="cancel"):
        normalised_mono(audio(np.concatenate([sound, -sound], axis=1)))


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 6, 8])
def test_any_number_of_channels_becomes_one(channels: int) -> None:
    mono = to_mono_44k(audio(np.repeat(hum(channels=1), channels, axis=1)))
    np.testing.assert_allclose(mono, hum(channels=1)[:, 0], atol=1e-5)
    assert normalised_mono(audio(hum(channels=channels))).shape == (4 * RATE,)


def test_the_low_frequency_channel_is_not_mixed_in() -> None:
    only_lfe = np.zeros((RATE, 6), dtype=np.float32)
    only_lfe[:, 3] = 0.5
    assert np.abs(to_mono_44k(audio(only_lfe))).max() == 0


def test_other_rates_are_resampled_to_44100() -> None:
    mono = to_mono_44k(audio(hum(rate=48_000), 48_000))
    assert mono.shape == (4 * RATE,)
    spectrum = np.abs(np.fft.rfft(mono[:RATE]))
    assert int(np.argmax(spectrum)) == pytest.approx(220, abs=1)


def test_an_unknown_format_is_offered_to_the_ffmpeg_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A stand-in that keeps to the part of ffmpeg's interface used here: WAV of unknown length on stdout.
    buffer = io.BytesIO()
    soundfile.write(buffer, hum(), RATE, format="WAV", subtype="FLOAT")
    data = bytearray(buffer.getvalue())
    at = data.index(b"data") + 4
    data[4:8] = data[at : at + 4] = b"\xff" * 4
    (tmp_path / "decoded").write_bytes(data)
    program = tmp_path / "ffmpeg"
    program.write_text(
        f'#!/bin/sh\ncase "$*" in *strange.xyz*pipe:1) exec /bin/cat {tmp_path}/decoded;; esac\n'
        "echo 'no audio stream' >&2; exit 1\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "strange.xyz").write_bytes(b"a format of the future")
    (tmp_path / "picture.xyz").write_bytes(b"not sound at all")
    np.testing.assert_array_equal(read_audio(tmp_path / "strange.xyz").samples, hum())
    with pytest.raises(UnreadableAudio, match="no audio stream"):
        read_audio(tmp_path / "picture.xyz")
