"""Audio files → samples, with every way a file can be bad told apart, and samples → what the network hears.

libsndfile reads the file (WAV, FLAC, MP3, Ogg, AIFF and more); what it does not know is offered to an
`ffmpeg` on PATH, through a pipe, if there is one. Loudness is ITU-R BS.1770-4 (pyloudnorm).
"""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from partbook.errors import AudioTooLong, AudioTooShort, SilentAudio, TruncatedAudio, UnreadableAudio
from partbook.music.mel import SAMPLE_RATE

TARGET_LUFS: Final = -23.0  # EBU R 128's programme loudness
PEAK_CEILING: Final = 0.98  # full scale is 1; quieter than -23 LUFS rather than clipped
MIN_SECONDS: Final = 3.0
MAX_SECONDS: Final = 3600.0
_BLOCK: Final = 65_536  # frames decoded at a time
_UNKNOWN_FRAMES: Final = 1 << 62  # libsndfile's "the header does not say" is near 2^63
_UNKNOWN_BYTES: Final = 0x7FFF_0000  # data sizes that a piped encoder leaves behind: 2^31 - 1, 2^32 - 1
_GATING_SECONDS: Final = 0.4  # BS.1770's block
# BS.775-3, table 2, mono from L R C Ls Rs; scaled to a sum of 1 so that it cannot clip. Libsndfile's 5.1 has
# LFE 4th.
_TO_MONO: Final = {5: (0.7071, 0.7071, 1.0, 0.5, 0.5), 6: (0.7071, 0.7071, 1.0, 0.0, 0.5, 0.5)}


@dataclass(frozen=True, slots=True)
class Audio:
    """Decoded audio.

    Attributes:
        samples: float32 (frames, channels), finite, full scale 1.
        sample_rate: Hz.
        sha256: hex digest of rate, channels and 16-bit samples: the same for one sound in WAV and in FLAC.
    """

    samples: NDArray[np.float32]
    sample_rate: int
    sha256: str

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.sample_rate


def read_audio(path: Path, *, min_seconds: float = MIN_SECONDS, max_seconds: float = MAX_SECONDS) -> Audio:
    """Decode a file whole, or say what is wrong with it.

    A file counts as truncated if it holds less than its header declares, or if decoding breaks off. Two
    formats leave room: an MP3 may fall half a second and 3 % short of its (often estimated) length, and a WAV
    written to a pipe declares none.

    Raises:
        UnreadableAudio: missing, empty, no audio, of an unknown format, or with samples that are not numbers.
        TruncatedAudio: it ends early, or is damaged inside.
        AudioTooShort, AudioTooLong: outside the limits.
    """
    import soundfile

    try:
        size = path.stat().st_size
        source: Any = path.open("rb")
    except OSError as error:
        raise UnreadableAudio(f"{path} cannot be opened ({error.strerror}); check the path and its rights.") from error
    with source:
        if size == 0:
            raise UnreadableAudio(f"{path} is empty (0 bytes); copy it again from its source.")
        try:
            file = soundfile.SoundFile(source)
        except soundfile.LibsndfileError as error:
            source = io.BytesIO(_ffmpeg(path, max_seconds, str(error)))
            file = soundfile.SoundFile(source)
        with file:
            samples = _decode(path, file, max_seconds)
            rate = int(file.samplerate)
    seconds = len(samples) / rate
    if seconds < min_seconds:
        raise AudioTooShort(
            f"{path} lasts {seconds:.2f} s, less than the minimum of {min_seconds:g} s; leave it out, "
            "or lower the limit."
        )
    if not np.isfinite(samples).all():
        raise UnreadableAudio(f"{path} holds samples that are not numbers (NaN or infinity); export it again.")
    return Audio(samples, rate, _digest(samples, rate))


def to_mono_44k(audio: Audio) -> NDArray[np.float32]:
    """One channel at 44.1 kHz, (samples,): BS.775 downmix of 5.0 and 5.1, else the mean; soxr resampling."""
    import soxr

    mono = _downmix(audio.samples)
    if audio.sample_rate != SAMPLE_RATE:
        mono = soxr.resample(mono, audio.sample_rate, SAMPLE_RATE)
    return np.ascontiguousarray(mono, dtype=np.float32)


def loudness(audio: Audio) -> float:
    """Integrated loudness in LUFS, over all channels up to five (L R C Ls Rs); more are mixed to mono first.

    One channel counts as heard from two loudspeakers (+3 LU), so a mono file and its two-channel copy agree.

    Raises:
        SilentAudio: nothing reaches BS.1770's gate of -70 LUFS.
        AudioTooShort: under the 400 ms the measure needs.
    """
    import pyloudnorm

    if audio.seconds <= _GATING_SECONDS:
        raise AudioTooShort(f"Loudness needs more than 0.4 s of audio; this has {audio.seconds:.2f} s.")
    samples = audio.samples
    if samples.shape[1] > 5:
        samples = _downmix(samples)[:, None]
    dual_mono = 10.0 * np.log10(2.0) if samples.shape[1] == 1 else 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        lufs = float(pyloudnorm.Meter(audio.sample_rate).integrated_loudness(samples)) + dual_mono
    if not np.isfinite(lufs):
        raise SilentAudio("Nothing in it is louder than -70 LUFS: it is silent; leave it out, or find a better copy.")
    return lufs


def normalised_mono(audio: Audio) -> NDArray[np.float32]:
    """What the networks hear: mono at 44.1 kHz of a programme at -23 LUFS, never clipping, (samples,).

    Raises:
        SilentAudio: silent, or its channels cancel each other in mono.
    """
    gain = 10.0 ** ((TARGET_LUFS - loudness(audio)) / 20.0)
    mono = to_mono_44k(audio)
    peak = float(np.abs(mono).max())
    if peak * gain < 1e-3:  # -60 dBFS where the whole is at -23 LUFS
        raise SilentAudio("Its channels cancel each other when mixed to mono; swap the polarity of one of them.")
    return mono * np.float32(min(gain, PEAK_CEILING / peak))


def _downmix(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    channels = samples.shape[1]
    weights = np.asarray(_TO_MONO.get(channels, np.ones(channels)), dtype=np.float32)
    mono: NDArray[np.float32] = samples @ (weights / weights.sum())
    return mono


def _decode(path: Path, file: Any, max_seconds: float) -> NDArray[np.float32]:
    import soundfile

    limit = max_seconds * file.samplerate
    declared = int(file.frames)
    known = declared < _UNKNOWN_FRAMES
    if known and declared > limit:
        raise AudioTooLong(_too_long(path, declared / file.samplerate, max_seconds))
    _check_header(path, file)
    blocks: list[NDArray[np.float32]] = []
    decoded = 0
    try:
        while len(block := file.read(_BLOCK, dtype="float32", always_2d=True)):
            blocks.append(block)
            decoded += len(block)
            if decoded > limit:
                raise AudioTooLong(_too_long(path, decoded / file.samplerate, max_seconds))
    except soundfile.LibsndfileError as error:
        if not known:
            raise UnreadableAudio(
                f"{path} does not say how long it is and cannot be decoded to its end; encode it again "
                "to a file rather than to a pipe."
            ) from error
        raise TruncatedAudio(_truncated(path, decoded, declared, file.samplerate)) from error
    slack = max(0.5 * file.samplerate, 0.03 * declared) if file.format == "MP3" else 0
    if known and decoded < declared - slack:
        raise TruncatedAudio(_truncated(path, decoded, declared, file.samplerate))
    if not blocks:
        raise UnreadableAudio(f"{path} has an audio header but no audio behind it; copy it again from its source.")
    return np.concatenate(blocks)


def _check_header(path: Path, file: Any) -> None:
    """Libsndfile quietly shortens WAV, AIFF, AU, W64 and Ogg files that end early; its log tells."""
    log = str(file.extra_info)
    for chunk, size, actual in re.findall(r"(?m)^\s*([\w ]+?)\s*: (\d+) \(should be (\d+)\)", log):
        # Only the chunk of samples counts: editors often leave the outer RIFF size one byte off.
        if chunk in {"data", "SSND", "Data Size"} and int(actual) < int(size) < _UNKNOWN_BYTES:
            raise TruncatedAudio(
                f"{path} is cut off: its header declares {int(size):,} bytes of sound, "
                f"{int(actual):,} are there; copy it again from its source."
            )
    lost = re.search(r"Calculated frame count \d+ does not match|^\s*riff : \d+ \(should be \d+\)", log, re.MULTILINE)
    if lost or "lacks an end-of-stream bit" in log:
        raise TruncatedAudio(f"{path} is cut off before its end is marked; copy it again from its source.")


def _truncated(path: Path, decoded: int, declared: int, rate: int) -> str:
    return (
        f"{path} is cut off or damaged: {decoded / rate:.1f} s of {declared / rate:.1f} s can be decoded; "
        "copy it again from its source."
    )


def _too_long(path: Path, seconds: float, limit: float) -> str:
    return f"{path} lasts {seconds:.0f} s or more, over the maximum of {limit:g} s; cut it into its pieces."


def _digest(samples: NDArray[np.float32], rate: int) -> str:
    digest = hashlib.sha256(f"partbook/v1/audio {rate} {samples.shape[1]} ".encode())
    for begin in range(0, len(samples), _BLOCK):
        scaled = np.round(samples[begin : begin + _BLOCK] * 32_768.0)
        digest.update(np.clip(scaled, -32_768, 32_767).astype("<i2").tobytes())
    return digest.hexdigest()


def _ffmpeg(path: Path, max_seconds: float, reason: str) -> bytes:
    """The file as 32-bit WAV bytes, from an ffmpeg on PATH that may open local files and nothing else."""
    program = shutil.which("ffmpeg")
    if program is None:
        raise UnreadableAudio(
            f"{path} is not audio in a format known here "
            f"({reason.split(': ')[-1].strip() or 'unknown format'}); convert it to FLAC or WAV, "
            "or install ffmpeg."
        )
    command = [program, "-nostdin", "-v", "error", "-xerror", "-protocol_whitelist", "file,pipe"]
    command += ["-i", f"file:{path.absolute()}", "-map", "0:a:0", "-t", str(max_seconds + 1)]
    command += ["-c:a", "pcm_f32le", "-f", "wav", "pipe:1"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=max(60.0, max_seconds), check=False)  # noqa: S603
    except (subprocess.TimeoutExpired, OSError) as error:
        raise UnreadableAudio(f"{path} could not be read by {program} ({error}); convert it to FLAC or WAV.") from error
    if done.returncode or len(done.stdout) <= 44:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise UnreadableAudio(
            f"{path} is neither audio that libsndfile knows nor that ffmpeg can decode to its end "
            f"({said[-1] if said else 'it gave no reason'}); convert it to FLAC or WAV, or leave it out."
        )
    return done.stdout
