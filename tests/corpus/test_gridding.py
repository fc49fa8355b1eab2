"""Performances are put on a grid, and engraved scores left alone."""

import numpy as np
import pytest
from symusic.core import NoteTick, ScoreTick, TempoTick, TimeSignatureTick, TrackTick

from partbook.corpus.gridding import grid_of, on_grid
from partbook.music.quantised import quantised

QUARTER = 480


def song(
    metre: tuple[int, int], *, late: float = 0.0, beats: int = 4, bars: int = 24, jitter: float = 0.0
) -> ScoreTick:
    """A bass note a bar, chords on the other beats, eighths above; `late` by so many quarters."""
    random = np.random.default_rng(3)
    score, track = ScoreTick(QUARTER), TrackTick("piano", 0)

    def add(beat: float, length: float, pitch: int) -> None:
        at = (beat + late + jitter * random.standard_normal()) * QUARTER
        track.notes.append(NoteTick(max(round(at), 0), round(length * QUARTER), pitch, 80))

    for bar in range(bars):
        add(bar * beats, 2.0, 36 + bar % 5)
        for beat in range(1, beats):
            add(bar * beats + beat, 0.5, 60)
        for eighth in range(2 * beats):
            add(bar * beats + eighth / 2, 0.5, 72 + eighth)
    score.tracks.append(track)
    score.tempos.append(TempoTick(0, 90.0))
    score.time_signatures.append(TimeSignatureTick(0, *metre))
    return score


def test_an_engraved_score_is_left_as_it_is() -> None:
    score = song((4, 4))
    assert on_grid(score) is score


@pytest.mark.parametrize("late", [0.09, 0.21, 1.34, 2.9])
def test_beats_that_lie_off_the_files_come_onto_it_and_bars_begin_where_the_bass_does(late: float) -> None:
    found = quantised(on_grid(song((1, 4), late=late)))
    assert found.metres[0] == (4, 4)
    bass = found.onset[found.pitch < 45]
    assert (bass % 48 == 0).all()
    assert (found.onset % 6 == 0).all()


def test_a_waltz_without_bars_is_in_three() -> None:
    found = quantised(on_grid(song((1, 4), late=0.13, beats=3)))
    assert found.metres[0] == (3, 4)
    assert (found.onset[found.pitch < 45] % 36 == 0).all()


def test_music_that_keeps_to_no_grid_of_the_file_gets_the_beats_that_are_heard_in_it() -> None:
    played = song((1, 4))
    for track in played.tracks:
        for note in track.notes:
            note.time, note.duration = round(note.time * 1.137), round(note.duration * 1.137)
    onset = np.array([n.time for n in played.tracks[0].notes]) / QUARTER
    assert grid_of(onset)[0] < 0.2
    found = quantised(on_grid(played))
    assert grid_of(found.onset / 12)[0] > 0.8


def test_no_note_is_lost_and_none_begins_before_the_piece() -> None:
    before = song((1, 4), late=0.4)
    after = on_grid(before)
    assert after.note_num() == before.note_num()
    assert min(n.time for t in after.tracks for n in t.notes) >= 0


def test_a_grid_is_told_from_noise() -> None:
    random = np.random.default_rng(1)
    assert grid_of(np.arange(200) / 4 + 0.03) == (pytest.approx(1.0), pytest.approx(0.03))
    assert grid_of(random.uniform(0, 320, 4000))[0] < 0.2
