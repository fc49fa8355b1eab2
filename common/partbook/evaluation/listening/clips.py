"""Files → clips that differ in their music and in nothing else: one instrument, length, loudness, bandwidth and width.

A score is played by `partbook.music.rendering`. Every clip of a kit is cut to one length, resampled through the lowest
sample rate among them, mixed to one channel if any of them has only one, and set to one loudness (ITU-R BS.1770-4).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from partbook.errors import AudioTooShort, InputError, SilentAudio, UnreadableAudio
from partbook.evaluation.listening.scores import Playing, played
from partbook.music.decode import PEAK_CEILING, Audio, loudness, read_audio
from partbook.music.encoding import mp3

MIDI_SUFFIXES: Final = frozenset({".mid", ".midi"})
AUDIO_SUFFIXES: Final = frozenset({".wav", ".flac", ".mp3", ".ogg", ".aif", ".aiff"})
RATE: Final = 48_000  # Hz; MP3 frames have one size at it
LOUDEST: Final = -18.0  # LUFS, all clips of a kit; softer where one of them would clip
SOFTEST: Final = -32.0  # LUFS; what must be softer not to clip is left out
LEAD: Final = 0.05  # seconds before the first sound
FADE_IN, FADE_OUT = 0.03, 0.6  # seconds
KBPS: Final = {1: 80, 2: 128}  # by channels
_AUDIBLE: Final = 1e-3  # of the peak; -60 dB

Begin = Literal["start", "anywhere"]


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A cut out of a file, not yet levelled.

    Attributes:
        file: path within its folder.
        sha256: of the file.
        begins: seconds after the first sound.
        samples: float32 (frames, 1 or 2), exactly as long as asked for.
        sample_rate: Hz.
        scored: whether it was played from a score.
    """

    file: str
    sha256: str
    begins: float
    samples: NDArray[np.float32]
    sample_rate: int
    scored: bool


@dataclass(frozen=True, slots=True)
class Gathered:
    """Excerpts of one folder, as many as asked for, and a line for each file that could not be used."""

    excerpts: tuple[Excerpt, ...]
    left_out: tuple[str, ...]


def files_in(folder: Path) -> list[Path]:
    """MIDI and audio files of a folder and of those within it, in a fixed order; hidden ones are left out.

    Raises:
        InputError: it is no folder, or has no such file.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; name a folder of MIDI or audio files.")
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in MIDI_SUFFIXES | AUDIO_SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not found:
        kinds = ", ".join(sorted(suffix[1:] for suffix in MIDI_SUFFIXES | AUDIO_SUFFIXES))
        raise InputError(f"{folder} holds no MIDI and no audio ({kinds}); name another folder.")
    return found


def gather(
    folder: Path,
    count: int,
    *,
    seed: int,
    seconds: float,
    playing: Playing | None = None,
    begin: Begin = "start",
    taken: frozenset[str] = frozenset(),
    on_clip: Callable[[], None] = lambda: None,
) -> Gathered:
    """Excerpts of `count` files, chosen by seed; files that cannot be used are passed over.

    Args:
        folder: see `files_in`.
        count: how many.
        seed: chooses files, and where an excerpt begins.
        seconds: length of each.
        playing: how scores are played.
        begin: at the first sound, or anywhere.
        taken: SHA-256 of files that may not be used: those of the other folder.
        on_clip: called after each excerpt.

    Raises:
        InputError: the folder has too few usable files.
    """
    paths = files_in(folder)
    random = np.random.Generator(np.random.Philox(seed))
    excerpts: list[Excerpt] = []
    left_out: list[str] = []
    seen: dict[str, str] = dict.fromkeys(taken, "a file of the other folder")
    for index in random.permutation(len(paths)):
        if len(excerpts) == count:
            break
        path, name = paths[int(index)], paths[int(index)].relative_to(folder).as_posix()
        try:
            digest = _sha256(path)
            if digest in seen:
                raise InputError(f"{path} is the same as {seen[digest]}.")
            seen[digest] = name
            share = _share(seed, digest) if begin == "anywhere" else 0.0
            excerpts.append(_excerpt(path, name, digest, seconds, playing or Playing(), share))
        except InputError as error:
            left_out.append(str(error) if name in str(error) else f"{name}: {error}")
            continue
        on_clip()
    if len(excerpts) < count:
        raise InputError(_too_few(folder, len(paths), excerpts, count, left_out))
    return Gathered(tuple(excerpts), tuple(left_out))


def _too_few(folder: Path, files: int, excerpts: Sequence[Excerpt], count: int, left_out: Sequence[str]) -> str:
    more = f"\n  … and {len(left_out) - 10} more" if len(left_out) > 10 else ""
    return (
        f"{folder} gives {len(excerpts)} usable clips (files: {files}), and {count} are needed; "
        "ask for fewer --trials or a shorter --seconds, or add files."
        + "".join(f"\n  left out: {line}" for line in left_out[:10])
        + more
    )


def _share(seed: int, digest: str) -> float:
    """Where in a piece its clip begins, from 0 to 1: by the piece, for both folders' files are drawn alike."""
    return float(np.random.Generator(np.random.Philox(int(digest[:16], 16) ^ seed)).random())


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UnreadableAudio(f"{path} cannot be opened ({error.strerror}); check its rights.") from error


def _excerpt(path: Path, name: str, digest: str, seconds: float, playing: Playing, share: float) -> Excerpt:
    scored = path.suffix.lower() in MIDI_SUFFIXES
    if scored:
        samples, rate, begins = played(path, playing, seconds, share)
    else:
        audio = read_audio(path, min_seconds=0.0)
        samples, rate = audio.samples, audio.sample_rate
    samples = _sounding(_narrow(samples), rate, path)
    frames = round(seconds * rate)
    if len(samples) < frames:
        raise AudioTooShort(f"{path} sounds for {len(samples) / rate:.1f} s of the {seconds:g} s a clip lasts.")
    first = 0 if scored else int(share * (len(samples) - frames))
    if not scored:
        begins = first / rate
    cut = np.ascontiguousarray(samples[first : first + frames])
    if _limit(cut, rate) < SOFTEST:
        raise UnreadableAudio(
            f"{path} has single peaks so far above the rest that it cannot be as loud as the others without clipping; "
            "leave it out, or remove the clicks."
        )
    return Excerpt(name, digest, round(begins, 3), cut, rate, scored)


def _narrow(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """At most two channels, and one where both ears hear the same."""
    if samples.shape[1] > 2:
        samples = samples.mean(axis=1, keepdims=True, dtype=np.float32)
    if samples.shape[1] == 2 and np.array_equal(samples[:, 0], samples[:, 1]):
        samples = samples[:, :1]
    return samples


def _sounding(samples: NDArray[np.float32], rate: int, path: Path) -> NDArray[np.float32]:
    """Without what is silent, 60 dB below the peak, at either end; with the same short silence before the first sound.

    However much silence a file begins with, no clip gives itself away by it.
    """
    level = np.abs(samples).max(axis=1)
    if not level.max(initial=0.0):
        raise SilentAudio(f"{path} is silent throughout; leave it out, or find a better copy.")
    audible = np.flatnonzero(level > level.max() * _AUDIBLE)
    lead = np.zeros((round(LEAD * rate), samples.shape[1]), np.float32)
    return np.concatenate([lead, samples[audible[0] : audible[-1] + 1]])


def levelled(excerpts: Sequence[Excerpt], seconds: float) -> Iterator[bytes]:
    """MP3s of one length, loudness, bandwidth, width and size, in the order given."""
    rate = min([RATE, *(excerpt.sample_rate for excerpt in excerpts)])
    channels = min(excerpt.samples.shape[1] for excerpt in excerpts)
    frames = round(seconds * RATE)

    def alike(excerpt: Excerpt) -> NDArray[np.float32]:
        return _alike(excerpt, rate, channels, frames)

    # Twice rather than kept: a kit's clips, decoded and resampled, would fill a gigabyte.
    target = min([LOUDEST, *(_limit(alike(excerpt)) for excerpt in excerpts)])
    for excerpt in excerpts:
        samples = alike(excerpt)
        samples *= np.float32(10.0 ** ((target - _loudness(samples)) / 20.0))
        yield mp3(samples, RATE, kbps=KBPS[channels])


def _alike(excerpt: Excerpt, rate: int, channels: int, frames: int) -> NDArray[np.float32]:
    import soxr

    samples = excerpt.samples
    for before, after in ((excerpt.sample_rate, rate), (rate, RATE)):
        if before != after:
            samples = soxr.resample(samples, before, after, quality="VHQ")
    if samples.shape[1] > channels:
        samples = samples.mean(axis=1, keepdims=True)
    whole = np.zeros((frames, channels), np.float32)  # resampling may be a frame off
    whole[: len(samples)] = samples[:frames]
    rise, fall = min(round(FADE_IN * RATE), frames // 4), min(round(FADE_OUT * RATE), frames // 4)
    whole[:rise] *= _ramp(rise)
    whole[-fall:] *= _ramp(fall)[::-1]
    return whole


def _ramp(frames: int) -> NDArray[np.float32]:
    ramp = 0.5 - 0.5 * np.cos(np.linspace(0.0, np.pi, frames))
    return ramp.astype(np.float32)[:, None]


def _loudness(samples: NDArray[np.float32], rate: int = RATE) -> float:
    return loudness(Audio(samples, rate, ""))


def _limit(samples: NDArray[np.float32], rate: int = RATE) -> float:
    """The loudness in LUFS at which the highest peak reaches the ceiling."""
    return _loudness(samples, rate) + 20.0 * float(np.log10(PEAK_CEILING / np.abs(samples).max()))
