"""Mastering, held to numbers: level, balance, room, onset, ends."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import sosfreqz

from partbook.errors import ScoreError
from partbook.music.mastering import REVERB_SECONDS, Sound, biquad, polish, room

RATE = 44_100


def plucks(lead=0.0, seconds=6.0, offset=0.0):
    """Four decaying tones, both ears alike, `lead` seconds of silence before the first."""
    time = np.arange(int(seconds * RATE)) / RATE
    samples = np.full(len(time), offset)
    for index, frequency in enumerate((220.0, 330.0, 440.0, 660.0)):
        since = time - lead - index * 0.8
        samples += np.where(
            since >= 0, 0.2 * np.exp(-4 * np.maximum(since, 0)) * np.sin(2 * np.pi * frequency * since), 0.0
        )
    return Sound(np.stack([samples, samples], axis=1).astype(np.float32), RATE)


def first_over(samples, share):
    level = np.abs(samples).max(axis=1)
    return np.flatnonzero(level > share * level.max())[0] / RATE


def test_the_peak_is_one_decibel_below_full_scale():
    assert polish(plucks()).peak_dbfs == pytest.approx(-1.0, abs=0.1)
    tiny = Sound(plucks().samples * 1e-3, RATE)
    assert polish(tiny).peak_dbfs == pytest.approx(-1.0, abs=0.1)


def test_the_level_is_that_of_music():
    assert -30.0 < polish(plucks()).rms_dbfs < -8.0


def test_a_constant_offset_is_taken_out():
    done = polish(plucks(offset=0.05)).samples
    assert np.abs(done[RATE:].mean(axis=0)).max() < 2e-3


def test_one_sound_in_both_ears_becomes_stereo_but_stays_in_the_middle():
    done = polish(plucks()).samples
    correlation = np.corrcoef(done.T)[0, 1]
    assert 0.6 < correlation < 0.995
    left, right = np.sqrt(np.mean(done**2, axis=0))
    assert 20 * abs(np.log10(left / right)) < 0.5


def test_the_room_does_not_move_the_first_onset():
    dry, wet = plucks(lead=0.02), polish(plucks(lead=0.02))
    assert abs(first_over(dry.samples, 0.1) - first_over(wet.samples, 0.1)) < 0.005


def test_silence_before_the_music_is_cut_to_fifty_milliseconds():
    late = polish(plucks(lead=1.5))
    assert first_over(late.samples, 0.01) == pytest.approx(0.05, abs=0.005)


def test_the_tail_decays_to_nothing():
    done = polish(plucks()).samples
    level = [
        float(np.sqrt(np.mean(done[i : i + RATE // 10] ** 2))) for i in range(0, len(done) - RATE // 10, RATE // 10)
    ]
    assert level[-1] < 2e-3
    assert level[-1] < level[-5] < max(level)
    assert np.abs(done[-1]).max() < 1e-4


def test_the_room_decays_by_sixty_decibels_in_the_time_it_is_said_to():
    energy = np.cumsum((room(RATE) ** 2)[::-1], axis=0)[::-1]  # Schroeder's backward integral
    decibels = 10 * np.log10(energy / energy[0])
    for ear in (0, 1):
        five, thirty_five = (np.argmax(decibels[:, ear] < level) for level in (-5, -35))
        assert 2 * (thirty_five - five) / RATE == pytest.approx(REVERB_SECONDS, rel=0.15)


def test_high_notes_leave_the_room_first():
    late = np.abs(np.fft.rfft(room(RATE)[int(0.6 * RATE) : int(0.9 * RATE), 0])) ** 2
    frequency = np.fft.rfftfreq(int(0.9 * RATE) - int(0.6 * RATE), 1 / RATE)
    assert late[frequency > 7000].mean() < 0.01 * late[(frequency > 500) & (frequency < 2000)].mean()


@pytest.mark.parametrize(
    ("kind", "frequency", "gain", "bottom", "top"),
    [
        ("highpass", 30.0, 0.0, -71.1, 0.0),  # 12 dB an octave: 40·log10(30 / 0.5) at half a hertz
        ("lowshelf", 200.0, -1.0, -1.0, 0.0),
        ("highshelf", 6000.0, 1.5, 0.0, 1.5),
    ],
)
def test_each_filter_does_what_the_cookbook_says(kind, frequency, gain, bottom, top):
    section = biquad(kind, frequency, gain, RATE)[None, :]
    _, response = sosfreqz(section, worN=[0.5, 0.49 * RATE], fs=RATE)
    low, high = 20 * np.log10(np.abs(response))
    assert low == pytest.approx(bottom, abs=0.1)
    assert high == pytest.approx(top, abs=0.05)


def test_mastering_twice_gives_the_same_samples():
    np.testing.assert_array_equal(polish(plucks()).samples, polish(plucks()).samples)


@pytest.mark.parametrize("samples", [np.zeros((0, 2)), np.zeros((100, 2)), np.full((100, 2), np.nan)])
def test_nothing_silence_and_broken_samples_are_refused(samples):
    with pytest.raises(ScoreError):
        polish(Sound(samples.astype(np.float32), RATE))


def test_a_single_click_survives():
    click = np.zeros((10, 2), np.float32)
    click[3] = 0.5
    assert polish(Sound(click, RATE)).peak_dbfs == pytest.approx(-1.0, abs=0.1)


def test_mono_is_refused_by_name():
    with pytest.raises(ScoreError, match="two channels"):
        Sound(np.zeros((100, 1), np.float32), RATE)
