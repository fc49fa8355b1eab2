"""Sound as bytes for a page."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import soundfile

from partbook.music.encoding import data_address, mp3


def sounds(channels: int) -> list[np.ndarray]:
    random = np.random.default_rng(1)
    loud, soft = random.normal(0, [[0.2], [0.001]], (2, 48_000 * channels)).astype(np.float32)
    return [sound.reshape(-1, channels) for sound in (loud, soft, np.zeros_like(loud))]


@pytest.mark.parametrize(("channels", "kbps"), [(1, 80), (2, 128)])
def test_at_a_constant_rate_whatever_sounds_has_one_size(channels: int, kbps: int) -> None:
    encoded = [mp3(sound, 48_000, kbps=kbps) for sound in sounds(channels)]
    assert len({len(each) for each in encoded}) == 1
    assert len(encoded[0]) == pytest.approx(kbps * 1000 / 8, rel=0.1), "of one second"


def test_what_is_decoded_is_as_long_and_as_wide_as_what_was_encoded() -> None:
    time = np.arange(44_100) / 44_100
    tone = (0.3 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)[:, None]
    decoded, rate = soundfile.read(io.BytesIO(mp3(tone, 44_100)), always_2d=True)
    assert (decoded.shape, rate) == (tone.shape, 44_100)
    assert np.corrcoef(decoded[:, 0], tone[:, 0])[0, 1] > 0.99


def test_an_address_holds_the_bytes() -> None:
    head, _, body = data_address(b"\x00\xff").partition(",")
    assert head == "data:audio/mpeg;base64"
    assert base64.b64decode(body) == b"\x00\xff"
