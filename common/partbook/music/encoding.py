"""Sound as bytes that a web page carries: MP3, which every browser plays, and `data:` addresses."""

from __future__ import annotations

import base64
import io
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_LOWEST, _HIGHEST = 32, 320  # kbit a second, between which libsndfile maps its compression level
MEDIA_TYPE: Final = "audio/mpeg"


def mp3(samples: NDArray[np.float32], sample_rate: int, *, kbps: int | None = None) -> bytes:
    """Samples as an MP3 without tags.

    Args:
        samples: (frames, channels), one or two channels, full scale 1.
        sample_rate: Hz; 48,000 makes frames of one size, so that sounds of equal length are files of equal size.
        kbps: constant bit rate; where None, LAME's variable rate at its middle setting, some 120 kbit a second.
    """
    import soundfile

    how: dict[str, Any] = {}
    if kbps is not None:
        level = min(1.0 - (kbps - _LOWEST) / (_HIGHEST - _LOWEST), 0.999)  # libsndfile refuses 1 itself
        how = {"bitrate_mode": "CONSTANT", "compression_level": level}
    encoded = io.BytesIO()
    soundfile.write(encoded, samples, sample_rate, format="MP3", subtype="MPEG_LAYER_III", **how)
    return encoded.getvalue()


def data_address(data: bytes, media_type: str = MEDIA_TYPE) -> str:
    """Bytes as a `data:` address (RFC 2397)."""
    return f"data:{media_type};base64," + base64.b64encode(data).decode("ascii")
