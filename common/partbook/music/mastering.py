"""From a dry rendering to a finished sound: a small hall, gentle equalisation, trimmed ends, an even level.

Everything here is deterministic. The room is computed, so nobody's recording of a hall is needed.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from partbook.errors import ScoreError

PEAK_DBFS: Final = -1.0
WET: Final = 0.13  # share of the room in the sound
REVERB_SECONDS: Final = 1.4  # RT60 of the middle band
LEADING_SILENCE: Final = 0.05  # seconds kept before the first sound
FADE_SECONDS: Final = 0.35
_AUDIBLE_DB: Final = -60.0  # below the peak; what is softer at either end is trimmed

# The room's decay: upper edge of a band in Hz, RT60 as a share of `REVERB_SECONDS`. Highs die first.
_ROOM_BANDS: Final = ((400.0, 1.1), (2500.0, 1.0), (7000.0, 0.6), (0.0, 0.3))
# Early reflections of a hall some 15 m wide: (left ms, right ms, gain).
_EARLY: Final = (
    (11.3, 13.1, 0.42),
    (17.9, 16.4, 0.36),
    (23.2, 25.7, -0.30),
    (31.7, 29.3, 0.25),
    (38.3, 41.9, -0.20),
    (47.1, 45.2, 0.16),
)


@dataclass(frozen=True, slots=True)
class Sound:
    """Stereo sound.

    Attributes:
        samples: float32 (frames, 2); full scale is ±1.
        sample_rate: Hz.
    """

    samples: NDArray[np.float32]
    sample_rate: int

    def __post_init__(self) -> None:
        if self.samples.ndim != 2 or self.samples.shape[1] != 2:
            raise ScoreError(f"Sound is (frames, 2), not {self.samples.shape}; give two channels.")

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.sample_rate

    @property
    def peak_dbfs(self) -> float:
        """Level of the loudest sample, dB below full scale; -inf for silence."""
        peak = float(np.abs(self.samples).max(initial=0.0))
        return 20.0 * float(np.log10(peak)) if peak else float("-inf")

    @property
    def rms_dbfs(self) -> float:
        """Mean level over both channels, dB below full scale; -inf for silence."""
        power = float(np.mean(np.square(self.samples, dtype=np.float64))) if len(self.samples) else 0.0
        return 10.0 * float(np.log10(power)) if power else float("-inf")


def polish(sound: Sound) -> Sound:
    """Master a dry sound: equalise, add the room, trim silent ends, fade out, bring the peak to -1 dBFS.

    Raises:
        ScoreError: the sound is empty, silent, or holds values that are not numbers.
    """
    samples = sound.samples.astype(np.float64)
    if not len(samples) or not np.any(samples):
        raise ScoreError("There is no sound to master; the score is empty or its notes are too soft to sound.")
    if not np.all(np.isfinite(samples)):
        raise ScoreError("The sound holds values that are not numbers; render the score again.")
    samples = _equalise(samples, sound.sample_rate)
    samples = _in_room(samples, sound.sample_rate)
    samples = _trim(samples, sound.sample_rate)
    fade = min(len(samples), int(FADE_SECONDS * sound.sample_rate))
    samples[-fade:] *= (0.5 + 0.5 * np.cos(np.linspace(0.0, np.pi, fade)))[:, None]
    samples *= 10.0 ** (PEAK_DBFS / 20.0) / np.abs(samples).max()
    return Sound(samples.astype(np.float32), sound.sample_rate)


def _equalise(samples: NDArray[np.float64], rate: int) -> NDArray[np.float64]:
    from scipy.signal import sosfilt

    chain = [
        biquad("highpass", 30.0, 0.0, rate),  # rumble and DC, which no instrument here makes
        biquad("lowshelf", 200.0, -1.0, rate),  # small SoundFonts are thick here
        biquad("highshelf", 6000.0, 1.5, rate),  # … and dull here
    ]
    shaped: NDArray[np.float64] = sosfilt(np.array(chain), samples, axis=0)
    return shaped


def biquad(
    kind: Literal["highpass", "lowshelf", "highshelf"], frequency: float, gain: float, rate: int
) -> NDArray[np.float64]:
    """One second-order section (b0, b1, b2, 1, a1, a2).

    Robert Bristow-Johnson, "Cookbook formulae for audio EQ biquad filter coefficients" (W3C note, 2021), with
    Q = 1/√2 for the high-pass and slope S = 1 for the shelves.

    Args:
        kind: which of the cookbook's filters.
        frequency: corner or shelf midpoint, Hz.
        gain: of a shelf, dB.
        rate: sample rate, Hz.
    """
    omega = 2.0 * np.pi * frequency / rate
    cosine, alpha = np.cos(omega), np.sin(omega) / np.sqrt(2.0)  # Q = 1/√2, and what S = 1 comes to
    if kind == "highpass":
        b = [(1 + cosine) / 2, -(1 + cosine), (1 + cosine) / 2]
        a = [1 + alpha, -2 * cosine, 1 - alpha]
    else:
        amplitude = 10.0 ** (gain / 40.0)
        sign = 1.0 if kind == "lowshelf" else -1.0
        plus, minus, root = amplitude + 1, amplitude - 1, 2 * np.sqrt(amplitude) * alpha
        b = [
            amplitude * (plus - sign * minus * cosine + root),
            sign * 2 * amplitude * (minus - sign * plus * cosine),
            amplitude * (plus - sign * minus * cosine - root),
        ]
        a = [
            plus + sign * minus * cosine + root,
            -sign * 2 * (minus + sign * plus * cosine),
            plus + sign * minus * cosine - root,
        ]
    section: NDArray[np.float64] = np.array([*b, *a]) / a[0]
    return section


def _in_room(samples: NDArray[np.float64], rate: int) -> NDArray[np.float64]:
    from scipy.signal import oaconvolve

    wet = oaconvolve(samples, room(rate), axes=0)
    mixed: NDArray[np.float64] = WET * wet
    mixed[: len(samples)] += (1.0 - WET) * samples
    return mixed


@functools.lru_cache(maxsize=2)
def room(rate: int) -> NDArray[np.float64]:
    """Impulse response of a small hall, (frames, 2): unit energy per channel, different noise in each ear.

    Six early reflections, then noise that decays exponentially in four bands (Moorer 1979, "About this
    reverberation business": exponentially decaying noise is what a good hall's tail measures like).
    """
    from scipy.signal import butter, sosfilt

    frames = int(1.5 * REVERB_SECONDS * rate)
    time = np.arange(frames)[:, None] / rate
    rest = np.random.default_rng(1567).standard_normal((frames, 2))  # the year Monteverdi was born
    tail = np.zeros((frames, 2))
    for edge, share in _ROOM_BANDS:
        if edge:
            low = sosfilt(butter(2, edge, fs=rate, output="sos"), rest, axis=0)
            band, rest = low, rest - low
        else:
            band = rest
        tail += band * 10.0 ** (-3.0 * time / (share * REVERB_SECONDS))  # -60 dB at RT60
    tail *= np.clip((time - 0.012) / 0.03, 0.0, 1.0)  # the tail builds up behind the early reflections
    tail /= np.sqrt(np.sum(tail**2, axis=0))
    early = np.zeros((frames, 2))
    for left, right, gain in _EARLY:
        early[int(left * rate / 1000), 0] += gain
        early[int(right * rate / 1000), 1] += gain
    response: NDArray[np.float64] = tail + 0.5 * early
    response /= np.sqrt(np.sum(response**2, axis=0))
    response.setflags(write=False)
    return response


def _trim(samples: NDArray[np.float64], rate: int) -> NDArray[np.float64]:
    """Drop silence over 50 ms at the front, and at the back what is 60 dB below the peak."""
    level = np.abs(samples).max(axis=1)
    audible = np.flatnonzero(level > level.max() * 10.0 ** (_AUDIBLE_DB / 20.0))
    start = max(0, int(audible[0]) - int(LEADING_SILENCE * rate))
    return samples[start : int(audible[-1]) + 1].copy()
