"""Log-mel spectrograms in the one format that every party uses.

44.1 kHz mono in, 128 mel bands out (n_fft 2048, hop 512), as decibels below the loudest bin that loudness
normalisation lets through, squeezed into [-1, 1] and kept as float16: about 22 kB a second.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE: Final = 44_100  # Hz
N_FFT: Final = 2048  # samples
HOP: Final = 512  # samples
BANDS: Final = 128
FRAMES_PER_SECOND: Final = SAMPLE_RATE / HOP  # 86.13
FLOOR_DB: Final = -80.0
REFERENCE_DB: Final = 40.0  # power of a full-scale sine's bin in this STFT, rounded up

MEMORY_SECONDS: Final = 8.0
MEMORY_FRAMES: Final = 688  # 7.99 s; a multiple of 16, the encoder's total stride
assert MEMORY_FRAMES % 16 == 0
assert abs(MEMORY_FRAMES / FRAMES_PER_SECOND - MEMORY_SECONDS) < 0.02


def log_mel(audio: NDArray[np.float32]) -> NDArray[np.float16]:
    """Log-mel spectrogram of loudness-normalised mono audio.

    Args:
        audio: samples at 44.1 kHz, (samples,).

    Returns:
        (frames, 128) in [-1, 1]; frame i is centred on second i / 86.13. Silence is -1.
    """
    import librosa

    power = librosa.feature.melspectrogram(y=audio, sr=SAMPLE_RATE, n_fft=N_FFT, hop_length=HOP, n_mels=BANDS)
    decibels = 10.0 * np.log10(np.maximum(power.T, 1e-10)) - REFERENCE_DB
    scaled: NDArray[np.float16] = (np.clip(decibels, FLOOR_DB, 0.0) / (-FLOOR_DB / 2) + 1.0).astype(np.float16)
    return scaled


def memory_before(mel: NDArray[np.float16], second: float) -> NDArray[np.float16] | None:
    """The 8 s of mel that end at `second`, padded with silence in front: (688, 128), or None at the very start.

    Less than a second of past says too little about the music to be worth attending to.
    """
    end = min(round(second * FRAMES_PER_SECOND), len(mel))
    if end < FRAMES_PER_SECOND:
        return None
    window = np.full((MEMORY_FRAMES, BANDS), -1.0, dtype=np.float16)
    past = mel[max(0, end - MEMORY_FRAMES) : end]
    window[MEMORY_FRAMES - len(past) :] = past
    return window
