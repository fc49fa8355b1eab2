"""A score becomes a dry sound that obeys its notes, and files that hold it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from symusic import Note, Score, Tempo, Track

from partbook.errors import ConfigError, ScoreError
from partbook.music.mastering import Sound
from partbook.music.rendering import default_soundfont, render, soundfonts, synthesise, to_pcm16, write_flac, write_wav

PIANO, HARPSICHORD, HARP, FLUTE = 0, 6, 46, 73


def score_of(rows, program=PIANO):
    """Rows of (beat, beats, pitch, velocity) at 120 beats a minute."""
    score = Score(480)
    track = Track(program=program, is_drum=False, name="")
    for beat, beats, pitch, velocity in rows:
        track.notes.append(Note(int(beat * 480), int(beats * 480), pitch, velocity))
    score.tracks.append(track)
    score.tempos.append(Tempo(0, 120))
    return score


def rms(samples, start, stop, rate=44_100):
    return float(np.sqrt(np.mean(samples[int(start * rate) : int(stop * rate)] ** 2)))


SCALE = [(i, 1, 60 + step, 80) for i, step in enumerate((0, 2, 4, 5, 7, 9, 11, 12))]


def test_a_score_sounds_from_its_first_tick_until_the_tail_has_passed():
    sound = synthesise(score_of(SCALE))
    assert sound.dtype == np.float32
    assert sound.shape[1] == 2
    assert len(sound) / 44_100 == pytest.approx(4.0 + 3.0, abs=0.05)
    onset = np.flatnonzero(np.abs(sound).max(axis=1) > 0.01)[0] / 44_100
    assert onset < 0.02
    assert rms(sound, 0.0, 4.0) > 0.005
    assert np.abs(sound).max() < 1.0


def test_pitch_is_what_the_score_says():
    sound = synthesise(score_of([(0, 4, 69, 100)], FLUTE)).sum(axis=1)[8_820:74_356]
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    frequency = np.argmax(spectrum) * 44_100 / len(sound)
    octave = round(np.log2(frequency / 440.0))
    assert 1200 * abs(np.log2(frequency / 440.0) - octave) < 15  # cents


def test_a_harder_stroke_is_louder():
    soft, hard = (np.abs(synthesise(score_of([(0, 2, 60, v)]))).max() for v in (40, 110))
    assert hard > 4 * soft


def test_a_plucked_string_dies_away_while_it_is_held_and_a_flute_does_not():
    for program, shortest, longest in ((HARPSICHORD, 0.0, 0.35), (HARP, 0.0, 0.35), (FLUTE, 0.7, 1.5)):
        sound = synthesise(score_of([(0, 4, 60, 100)], program))
        assert shortest <= rms(sound, 1.7, 1.9) / rms(sound, 0.2, 0.4) <= longest


def test_a_released_note_rings_on_and_then_ends():
    sound = synthesise(score_of([(0, 1, 60, 100)]))
    assert rms(sound, 0.52, 0.6) > 0.05 * rms(sound, 0.3, 0.5)
    assert rms(sound, 2.5, 3.4) < 1e-3 * rms(sound, 0.0, 0.5)


def test_playing_twice_gives_the_same_samples():
    score = score_of(SCALE, HARP)
    np.testing.assert_array_equal(synthesise(score), synthesise(score))
    np.testing.assert_array_equal(to_pcm16(render(score)), to_pcm16(render(score)))


def test_sixty_loud_notes_at_once_do_not_clip():
    sound = synthesise(score_of([(0, 2, 30 + pitch, 127) for pitch in range(60)], HARPSICHORD))
    assert 0.05 < np.abs(sound).max() < 0.99


def test_playing_leaves_the_score_as_it_was():
    score = score_of(SCALE)
    before = score.dumps_midi()
    synthesise(score)
    assert score.dumps_midi() == before


def test_another_rate_and_tail_are_obeyed():
    sound = synthesise(score_of(SCALE), sample_rate=22_050, tail=0.5)
    assert len(sound) / 22_050 == pytest.approx(4.5, abs=0.05)


def test_a_score_without_notes_is_refused():
    with pytest.raises(ScoreError, match="no notes"):
        synthesise(Score(480))


def test_a_missing_or_broken_soundfont_is_named(tmp_path, monkeypatch):
    broken = tmp_path / "broken.sf2"
    broken.write_bytes(b"not a SoundFont")
    with pytest.raises(ConfigError, match=r"broken\.sf2 is not a SoundFont"):
        synthesise(score_of(SCALE), soundfont=broken)
    monkeypatch.setenv("PARTBOOK_SOUNDFONT", str(tmp_path / "absent.sf2"))
    with pytest.raises(ConfigError, match=r"absent\.sf2"):
        default_soundfont()


def test_the_environment_may_name_another_soundfont(tmp_path, monkeypatch):
    other = tmp_path / "other.sf2"
    other.symlink_to(default_soundfont())
    monkeypatch.setenv("PARTBOOK_SOUNDFONT", str(other))
    assert default_soundfont() == other
    assert synthesise(score_of(SCALE[:1])).any()


def test_the_environment_may_name_several_soundfonts(tmp_path, monkeypatch):
    assert soundfonts() == (default_soundfont(),)
    paths = [tmp_path / name for name in ("one.sf2", "two.sf2", "with:colon.sf2")]
    for path in paths:
        path.symlink_to(default_soundfont())
    monkeypatch.setenv("PARTBOOK_SOUNDFONT", f"{paths[0]}:{paths[1]}")
    assert soundfonts() == tuple(paths[:2])
    monkeypatch.setenv("PARTBOOK_SOUNDFONT", str(paths[2]))
    assert soundfonts() == (paths[2],)
    monkeypatch.setenv("PARTBOOK_SOUNDFONT", f"{paths[0]}:{tmp_path}/absent.sf2")
    with pytest.raises(ConfigError, match=r"of which '.*absent\.sf2' is no file"):
        soundfonts()


@pytest.mark.parametrize(("write", "suffix"), [(write_wav, "wav"), (write_flac, "flac")])
def test_files_hold_sixteen_bits_within_one_step_of_the_sound(tmp_path, write, suffix):
    sound = render(score_of(SCALE))
    path = tmp_path / f"pièce 1.{suffix}"
    write(path, sound)
    info = soundfile.info(path)
    assert (info.samplerate, info.channels, info.subtype) == (44_100, 2, "PCM_16")
    read, _ = soundfile.read(path, dtype="int16")
    np.testing.assert_array_equal(read, to_pcm16(sound))
    assert np.abs(read / 32767.0 - sound.samples).max() <= 1.6 / 32767
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_dither_keeps_a_tone_smaller_than_one_step():
    time = np.arange(44_100) / 44_100
    tone = (0.4 / 32767 * np.sin(2 * np.pi * 1000 * time)).astype(np.float32)
    pcm = to_pcm16(Sound(np.stack([tone, tone], axis=1), 44_100)).astype(np.float64)
    spectrum = np.abs(np.fft.rfft(pcm[:, 0])) / 22_050
    assert spectrum[1000] == pytest.approx(0.4, abs=0.05)
    assert np.abs(pcm.mean()) < 0.02


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    folder = tmp_path / "taken.wav"
    folder.mkdir()
    with pytest.raises(OSError, match="taken"):
        write_wav(folder, render(score_of(SCALE[:1])))
    assert list(tmp_path.iterdir()) == [Path(folder)]
