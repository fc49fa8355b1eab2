from pathlib import Path

import numpy as np
import pytest
from symusic import Score

from partbook.music.rendering import synthesise
from partbook.music.tokens import notes_of
from partbook.vault.transcription import (
    KEPT_FRAMES,
    NETWORK,
    Transcriber,
    frame_seconds,
    notes_from_activations,
)

pytestmark = pytest.mark.timeout(300)  # whoever hears audio first compiles librosa's kernels

RATE = 44_100


def slow_notes(frames: np.ndarray, onsets: np.ndarray) -> list[tuple[int, int, int, float]]:
    """Basic Pitch's `output_to_notes_polyphonic` as published, cell by cell, with its default settings."""
    frames, onsets = frames.copy(), onsets.copy()
    count, tolerance, shortest, threshold = len(frames), 11, 11, 0.3
    diffs = []
    for n in (1, 2):
        padded = np.concatenate([np.zeros((n, 88)), frames])
        diffs.append(padded[n:] - padded[:-n])
    rise = np.min(diffs, axis=0)
    rise[rise < 0] = 0
    rise[:2] = 0
    rise = np.max(onsets) * rise / np.max(rise)
    onsets = np.max([onsets, rise], axis=0)
    peaks = np.zeros(onsets.shape)
    for t in range(1, count - 1):
        for f in range(88):
            if onsets[t, f] > onsets[t - 1, f] and onsets[t, f] > onsets[t + 1, f]:
                peaks[t, f] = onsets[t, f]
    energy = frames.astype(np.float64)
    events = []
    for t, f in list(zip(*np.where(peaks >= 0.5), strict=True))[::-1]:
        if t >= count - 1:
            continue
        i, k = t + 1, 0
        while i < count - 1 and k < tolerance:
            k = k + 1 if energy[i, f] < threshold else 0
            i += 1
        i -= k
        if i - t <= shortest:
            continue
        for g in (f - 1, f, f + 1):
            if 0 <= g < 88:
                energy[t:i, g] = 0
        events.append((int(t), int(i), int(f) + 21, float(np.mean(frames[t:i, f]))))
    while np.max(energy) > threshold:
        middle, f = np.unravel_index(np.argmax(energy), energy.shape)
        energy[middle, f] = 0
        ends = []
        for step, inside in ((1, lambda i: i < count - 1), (-1, lambda i: i > 0)):
            i, k = middle + step, 0
            while inside(i) and k < tolerance:
                k = k + 1 if energy[i, f] < threshold else 0
                for g in (f - 1, f, f + 1):
                    if 0 <= g < 88:
                        energy[i, g] = 0
                i += step
            ends.append(i - step - step * k)
        stop, start = ends
        if stop - start > shortest:
            events.append((int(start), int(stop), int(f) + 21, float(np.mean(frames[start:stop, f]))))
    return events


def fast_notes(frames: np.ndarray, onsets: np.ndarray) -> list[tuple[int, int, int, float]]:
    return [(n.start, n.stop, n.pitch, n.amplitude) for n in notes_from_activations(frames, onsets)]


@pytest.fixture(scope="module")
def piano(tunes: list[Path]) -> tuple[Score, np.ndarray]:
    """Eight seconds or so of three-part piano, and its score."""
    score = Score(tunes[2])
    sound = synthesise(score)
    return score, sound.mean(axis=1)


@pytest.mark.parametrize("seed", range(6))
def test_note_creation_equals_the_published_loops_on_random_activations(seed: int) -> None:
    random = np.random.default_rng(seed)
    count = int(random.integers(3, 260))
    if seed % 2:  # slow swells, as networks give
        walk = np.cumsum(random.random((count, 88)) - 0.5, axis=0) * 0.2 + 0.3
        frames = np.clip(walk, 0, 1).astype(np.float32)
    else:  # coarse steps, so that ties occur
        frames = (np.round(random.random((count, 88)) * 8) / 8).astype(np.float32)
    onsets = (random.random((count, 88)) * 0.7).astype(np.float32)
    assert fast_notes(frames, onsets) == slow_notes(frames, onsets)


def test_note_creation_equals_the_published_loops_on_real_activations(
    piano: tuple[Score, np.ndarray],
) -> None:
    import soxr

    frames, onsets = Transcriber().activations(soxr.resample(piano[1], RATE, 22_050))
    found = fast_notes(frames, onsets)
    assert found == slow_notes(frames, onsets)
    assert len(found) > 15


def test_a_piano_is_transcribed_with_an_f1_of_seven_tenths_or_more(piano: tuple[Score, np.ndarray]) -> None:
    import mir_eval

    truth, heard = notes_of(piano[0]), Transcriber().transcribe(piano[1].astype(np.float32))

    def as_intervals(notes):
        hertz = 440.0 * 2 ** ((notes.pitch.astype(float) - 69) / 12)
        return np.stack([notes.onset, notes.onset + notes.duration], axis=1), hertz

    _, _, f1, _ = mir_eval.transcription.precision_recall_f1_overlap(
        *as_intervals(truth), *as_intervals(heard), onset_tolerance=0.05, offset_ratio=None
    )
    assert f1 >= 0.7
    assert np.all(heard.velocity >= 1)
    assert np.all(np.diff(heard.onset) >= 0)


def test_onsets_do_not_drift_over_a_minute() -> None:
    clicks = np.zeros(60 * RATE, dtype=np.float32)
    at = np.arange(1.0, 59.0, 2.0)
    length = int(0.5 * RATE)
    ring = np.sin(2 * np.pi * 440 * np.arange(length) / RATE) * np.exp(-np.arange(length) / RATE * 6)
    for second in at:
        clicks[int(second * RATE) : int(second * RATE) + length] += 0.5 * ring.astype(np.float32)
    notes = Transcriber().transcribe(clicks)
    tuned = notes.onset[notes.pitch == 69]
    nearest = np.array([tuned[np.argmin(np.abs(tuned - second))] - second for second in at])
    assert np.abs(nearest).max() < 0.05
    assert abs(nearest[-5:].mean() - nearest[:5].mean()) < 0.012  # one frame


def test_the_last_note_of_a_recording_is_heard() -> None:
    sound = np.zeros(20 * RATE, dtype=np.float32)
    tail = np.sin(2 * np.pi * 523.25 * np.arange(RATE // 2) / RATE).astype(np.float32) * 0.4
    sound[-len(tail) - 2000 : -2000] = tail
    notes = Transcriber().transcribe(sound)
    assert 72 in notes.pitch
    assert (notes.onset + notes.duration).max() <= 20.02


def test_silence_and_nothing_give_no_notes() -> None:
    transcriber = Transcriber()
    assert len(transcriber.transcribe(np.zeros(3 * RATE, dtype=np.float32))) == 0
    assert notes_from_activations(np.zeros((0, 88), np.float32), np.zeros((0, 88), np.float32)) == []
    assert notes_from_activations(np.zeros((50, 88), np.float32), np.zeros((50, 88), np.float32)) == []


def test_frames_carry_the_time_they_were_computed_at() -> None:
    seconds = frame_seconds(3 * KEPT_FRAMES)
    assert seconds[0] == 0
    assert seconds[1] == pytest.approx(256 / 22_050)
    assert seconds[KEPT_FRAMES] == pytest.approx(36_164 / 22_050)
    assert np.all(np.diff(seconds) > 0)


def test_the_network_is_kept_with_its_licence_and_notice() -> None:
    assert NETWORK.stat().st_size == 230_444
    assert "Apache License" in (NETWORK.parent / "LICENSE").read_text()
    assert "Spotify" in (NETWORK.parent / "NOTICE").read_text()
