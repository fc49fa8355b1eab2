import numpy as np
import pytest
import soundfile
from symusic import Note, Tempo, Track
from tests.tunes import tune

from partbook.errors import ScoreError, SilentAudio
from partbook.evaluation import clips
from partbook.evaluation.clips import clip_of_file, clip_of_score, hear, opening
from partbook.music.decode import Audio, loudness
from partbook.music.mel import SAMPLE_RATE
from partbook.music.rendering import synthesise
from partbook.music.tokens import notes_of

pytestmark = pytest.mark.timeout(300)  # torch and librosa are imported, on a busy machine for minutes


@pytest.fixture
def wav(tmp_path):
    path = tmp_path / "tune.wav"
    soundfile.write(path, synthesise(tune(0)) * 0.1, 44_100)
    return path


def test_a_files_clip_is_its_opening_in_mono_at_one_loudness(wav):
    clip = clip_of_file(wav, 5.0)
    assert clip.shape == (5 * SAMPLE_RATE,)
    assert loudness(Audio(clip[:, None], SAMPLE_RATE, "")) == pytest.approx(-23.0, abs=0.5)
    assert len(clip_of_file(wav, 3600.0)) == soundfile.info(wav).frames


def test_a_scores_clip_is_its_opening_at_the_same_loudness():
    clip = clip_of_score(tune(0), 5.0)
    assert clip.shape == (5 * SAMPLE_RATE,)
    assert loudness(Audio(clip[:, None], SAMPLE_RATE, "")) == pytest.approx(-23.0, abs=0.5)


def test_a_score_sounds_the_same_whatever_instrument_it_asks_for():
    flute = tune(1)
    for track in flute.tracks:
        track.program = 73
    assert np.array_equal(clip_of_score(flute, 4.0), clip_of_score(tune(1), 4.0))
    assert not np.array_equal(clip_of_score(flute, 4.0, program=73), clip_of_score(tune(1), 4.0))


def test_an_opening_ends_by_the_clock_through_changes_of_tempo():
    score = tune(0)
    score.tempos = type(score.tempos)([Tempo(0, 60.0), Tempo(480, 240.0)])  # one second, then quick
    cut = opening(score, 2.0, 0)
    assert max(note.time for note in cut.tracks[0].notes) < 480 * 5 <= max(note.time for note in score.tracks[0].notes)
    notes = notes_of(cut)
    assert (notes.onset + notes.duration).max() == pytest.approx(2.0, abs=0.01)


def test_an_opening_holds_no_drums_and_no_note_that_goes_on():
    score = tune(0)
    score.tracks.append(Track("drums", 0, True))
    score.tracks[-1].notes.append(Note(0, 480, 40, 100))
    score.tracks[0].notes.append(Note(0, 480_000, 60, 100))
    cut = opening(score, 3.0, 0)
    assert [track.is_drum for track in cut.tracks] == [False]
    assert max(note.end for note in cut.tracks[0].notes) <= round(3.0 * 112 / 60 * 480) + 1
    assert len(score.tracks) == 2, "the score that was given stays as it was"


def test_a_score_of_drums_alone_has_nothing_to_hear():
    score = tune(0)
    for track in score.tracks:
        track.is_drum = True
    with pytest.raises(ScoreError, match="no notes"):
        clip_of_score(score)


def test_files_and_scores_are_heard_in_order_and_what_cannot_be_heard_is_named(tmp_path, wav):
    silent, text = tmp_path / "silent.wav", tmp_path / "text.wav"
    soundfile.write(silent, np.zeros(5 * 16_000), 16_000)
    text.write_text("not audio")
    done: list[int] = []
    heard = hear([tune(0), silent, wav, text], seconds=7.0, workers=1, on_clip=done.append)
    assert heard.indices == (0, 2)
    assert [refusal.index for refusal in heard.refused] == [1, 3]
    assert "silent" in heard.refused[0].reason
    assert "text.wav" in heard.refused[1].reason
    assert done == [1, 2, 3, 4]
    assert [features.shape for features in heard.features] == [(2, 200)] * 2
    assert [tags.shape for tags in heard.tags] == [(2, 50)] * 2
    # One tune, once played on the piano and once read from a file of the same at another level.
    assert heard.clips[0].tags == pytest.approx(heard.clips[1].tags, abs=0.05)
    with pytest.raises(SilentAudio):
        clip_of_file(silent)


def test_nothing_to_hear_is_nothing_heard():
    assert clips.hear([]).clips == ()


@pytest.mark.slow
def test_two_workers_hear_what_one_hears_to_the_last_digit(wav):
    sources = [tune(1), wav, tune(2)]
    together, alone = (hear(sources, seconds=4.0, workers=workers) for workers in (2, 1))
    assert together.indices == alone.indices == (0, 1, 2)
    for one, other in zip(together.clips, alone.clips, strict=True):
        assert np.array_equal(one.features, other.features)
        assert np.array_equal(one.tags, other.tags)
