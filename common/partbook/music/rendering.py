"""Scores → sound: a SoundFont plays the notes, `mastering` puts them in a room, and a file keeps the result.

The SoundFont is TimGM6mb (Tim Brechbill; GPL-2), read where pretty_midi installs it and never copied;
`PARTBOOK_SOUNDFONT` names another, or several with a colon between them, of which the first is the default. The
player is midirenderer (MIT), a binding of rustysynth: of those that come as a wheel and need no system library, the
one that honours velocity, decay and release. symusic 0.5.9's plays every velocity alike, holds a plucked string like
an organ pipe, and cuts notes off in ten milliseconds.
"""

from __future__ import annotations

import functools
import importlib.util
import io
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from symusic import ControlChange

from partbook.errors import ConfigError, ScoreError
from partbook.music.mastering import Sound, polish

if TYPE_CHECKING:
    from symusic.core import ScoreTick

SOUNDFONT_VARIABLE: Final = "PARTBOOK_SOUNDFONT"
SAMPLE_RATE: Final = 44_100  # Hz
PLAYER_RATE: Final = 48_000  # Hz, the only rate midirenderer plays at
TAIL_SECONDS: Final = 3.0  # how long the last notes may ring
_VOLUME, _EXPRESSION, _REVERB, _CHORUS = 7, 11, 91, 93  # MIDI 1.0 controller numbers
_FULL: Final = 127


def default_soundfont() -> Path:
    """The SoundFont used unless another is given: the first of `PARTBOOK_SOUNDFONT`, else pretty_midi's.

    Raises:
        ConfigError: the variable names no file, or pretty_midi is not installed whole.
    """
    return soundfonts()[0]


def soundfonts() -> tuple[Path, ...]:
    """All SoundFonts that `PARTBOOK_SOUNDFONT` names, else pretty_midi's alone.

    Raises:
        ConfigError: the variable names no file, or pretty_midi is not installed whole.
    """
    if named := os.environ.get(SOUNDFONT_VARIABLE):
        whole = Path(named).expanduser()
        if whole.is_file():  # its path may have a colon in it
            return (whole,)
        paths = tuple(Path(each).expanduser() for each in named.split(os.pathsep))
        for path in paths:
            if not path.is_file():
                which = "which is no file" if len(paths) == 1 else f"of which {str(path)!r} is no file"
                raise ConfigError(f"{SOUNDFONT_VARIABLE} is {named!r}, {which}; name an .sf2 file or unset it.")
        return paths
    return (_own_soundfont(),)


def _own_soundfont() -> Path:
    package = importlib.util.find_spec("pretty_midi")  # found, not imported: importing it costs a second
    if package is None or package.origin is None:
        raise ConfigError(
            f"pretty_midi, whose SoundFont plays scores, is missing; install it or set {SOUNDFONT_VARIABLE}."
        )
    path = Path(package.origin).parent / "TimGM6mb.sf2"
    if not path.is_file():
        raise ConfigError(f"{path} is missing; reinstall pretty_midi or set {SOUNDFONT_VARIABLE} to an .sf2 file.")
    return path


@functools.lru_cache(maxsize=2)
def _bytes_of(soundfont: Path) -> bytes:
    return soundfont.read_bytes()


def synthesise(
    score: ScoreTick,
    *,
    soundfont: Path | None = None,
    sample_rate: int = SAMPLE_RATE,
    tail: float = TAIL_SECONDS,
) -> NDArray[np.float32]:
    """Play a score, dry: no room, no levelling. Deterministic.

    Args:
        score: in ticks; programs, velocities and tempi count; volume, reverb and chorus controllers do not.
        soundfont: an SF2 file; `default_soundfont()` where None.
        sample_rate: Hz.
        tail: seconds for which the last notes may ring.

    Returns:
        (frames, 2), |sample| < 1, from the score's tick 0 until `tail` seconds after its last note ends.

    Raises:
        ScoreError: the score has no notes or cannot be played.
        ConfigError: the SoundFont cannot be used.
    """
    if not any(len(track.notes) for track in score.tracks):
        raise ScoreError("The score has no notes, so there is nothing to play; generate or load another one.")
    path = soundfont or default_soundfont()
    sound = _play(_staged(score, tail, volume=_FULL), path)
    if np.abs(sound).max(initial=0.0) > 0.99:  # many notes at once; the player's 16 bits would clip
        sound = _play(_staged(score, tail, volume=_FULL // 4), path)
    if sample_rate != PLAYER_RATE:
        import soxr

        sound = soxr.resample(sound, PLAYER_RATE, sample_rate, quality="VHQ")
    return np.ascontiguousarray(sound, dtype=np.float32)


def _staged(score: ScoreTick, tail: float, *, volume: int) -> bytes:
    """The score as a MIDI file with dry sends, an even volume, and time for the last notes to ring."""
    staged = score.copy()
    last = max(note.end for track in staged.tracks for note in track.notes)
    pace = max((tempo.qpm for tempo in staged.tempos), default=120.0)
    end = int(last + tail * pace / 60.0 * staged.ticks_per_quarter)
    for track in staged.tracks:
        kept = [c for c in track.controls if c.number not in (_VOLUME, _REVERB, _CHORUS)]
        dry: list[Any] = [
            ControlChange(0, number, value) for number, value in ((_VOLUME, volume), (_REVERB, 0), (_CHORUS, 0))
        ]
        # The player stops at the last event; a controller at its own default changes nothing.
        closing: Any = ControlChange(end, _EXPRESSION, _FULL)
        track.controls = type(track.controls)([*dry, *kept, closing])
    data: bytes = staged.dumps_midi()
    return data


def _play(midi: bytes, soundfont: Path) -> NDArray[np.float32]:
    """Samples at 48 kHz, (frames, 2)."""
    import midirenderer
    import soundfile

    try:
        font = _bytes_of(soundfont)
    except OSError as error:
        raise ConfigError(
            f"The SoundFont {soundfont} cannot be read ({error.strerror}); name another .sf2 file."
        ) from error
    try:
        wav = midirenderer.render_wave_from(font, midi)
    except RuntimeError as error:
        if "SoundFont" in str(error):
            raise ConfigError(f"{soundfont} is not a SoundFont 2 file ({error}); name another .sf2 file.") from error
        raise ScoreError(f"This score cannot be played ({error}); check it in a notation program.") from error
    samples: NDArray[np.float32] = soundfile.read(io.BytesIO(wav), dtype="float32", always_2d=True)[0]
    return samples


def render(score: ScoreTick, *, soundfont: Path | None = None) -> Sound:
    """Play a score and master it: what a listener gets.

    Raises:
        ScoreError: the score has no notes, or none of them sounds.
        ConfigError: the SoundFont cannot be used.
    """
    return polish(Sound(synthesise(score, soundfont=soundfont), SAMPLE_RATE))


def to_pcm16(sound: Sound) -> NDArray[np.int16]:
    """Sixteen-bit samples with triangular dither, (frames, 2).

    The dither (TPDF, two steps wide: Lipshitz, Wannamaker & Vanderkooy 1992, "Quantization and dither") makes
    the rounding error noise rather than distortion; its seed is fixed, so one sound is always the same bytes.
    """
    draw = np.random.default_rng(0x50415254).random((2, *sound.samples.shape), dtype=np.float32)
    steps = np.round(sound.samples * 32767.0 + (draw[0] - draw[1]))
    pcm: NDArray[np.int16] = np.clip(steps, -32768, 32767).astype(np.int16)
    return pcm


def write_wav(path: Path, sound: Sound) -> None:
    """Write 16-bit PCM, dithered; the file appears whole or not at all."""
    _write(path, sound, format="WAV", subtype="PCM_16")


def write_flac(path: Path, sound: Sound) -> None:
    """Write 16-bit FLAC, dithered; the file appears whole or not at all."""
    _write(path, sound, format="FLAC", subtype="PCM_16")


def _write(path: Path, sound: Sound, **how: Any) -> None:
    import soundfile

    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            soundfile.write(file, to_pcm16(sound), sound.sample_rate, **how)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)  # mkstemp's 0600 is for secrets; this is music
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
