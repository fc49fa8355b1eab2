"""Takes vary as recordings do, and a take's number says how."""

from pathlib import Path

import numpy as np
import pytest
from symusic.core import NoteTick, ScoreTick, TempoTick, TrackTick
from tunes import tune

from partbook.corpus import rendition as module
from partbook.corpus.rendition import INSTALLED_SOUNDFONTS, Rendition, drawn, installed_soundfonts, played
from partbook.errors import ScoreError
from partbook.music.rendering import default_soundfont
from partbook.simulation import labels
from partbook.simulation.performance import INSTRUMENTS


def scale(quarters: int) -> ScoreTick:
    """A note a quarter, sixty quarters a minute."""
    score, track = ScoreTick(480), TrackTick()
    track.notes.extend([NoteTick(480 * k, 480, 60 + k % 12, 80) for k in range(quarters)])
    score.tracks.append(track)
    score.tempos.append(TempoTick(0, 60.0))
    return score


def test_takes_are_drawn_in_the_shares_that_are_stated() -> None:
    score = scale(200)
    takes = [drawn(score, f"work {k}", 40, 0, 45.0) for k in range(600)]
    share = {
        "instrument": np.mean([take.program != 40 for take in takes]),
        "pace": np.mean([take.pace != 1.0 for take in takes]),
        "room": np.mean([take.room for take in takes]),
        "start": np.mean([take.start != 0 for take in takes]),
    }
    expected = {"instrument": 0.5, "pace": 0.5, "room": 0.4, "start": 0.6 * 38 / 39}
    assert share == pytest.approx(expected, abs=0.07)
    paces = np.array([take.pace for take in takes if take.pace != 1.0])
    assert 0.85 <= paces.min() < 0.87 < 1.15 < paces.max() <= 1.18
    assert np.log(paces).mean() == pytest.approx(np.log([0.85, 1.18]).mean(), abs=0.02)
    assert {take.program for take in takes} == {40, *INSTRUMENTS}
    assert {take.start % 4 for take in takes} == {0}
    assert all(take.start < 200 - 45 * take.pace for take in takes)
    assert len({(t.program, t.pace, t.start, t.room) for t in takes}) > 400


def test_a_take_is_the_same_whenever_it_is_drawn_and_another_is_another() -> None:
    score = scale(200)
    assert drawn(score, "a", 0, 3, 45.0) == drawn(score, "a", 0, 3, 45.0)
    assert len({drawn(score, "a", 0, take, 45.0) for take in range(20)}) == 20


def test_short_works_begin_at_their_beginning() -> None:
    assert {drawn(scale(55), "a", 0, take, 45.0).start for take in range(40)} == {0}


def test_each_take_has_one_of_the_soundfonts() -> None:
    fonts = [Path("/a.sf2"), Path("/b.sf2")]
    chosen = [drawn(scale(20), "a", 0, take, 45.0, fonts).soundfont for take in range(60)]
    assert set(chosen) == set(fonts)
    assert drawn(scale(20), "a", 0, 1, 45.0).soundfont is None


def test_the_plain_rendition_is_what_the_demos_labels_play() -> None:
    score = tune(2)
    for track in score.tracks:
        track.program = 6
    mine, theirs = played(tune(2), "key", Rendition(6), 15.0), labels.played(score, "key", 15.0)
    assert mine is not None
    assert theirs is not None
    assert np.array_equal(mine.samples, theirs.samples)


def test_a_rendition_starts_where_it_says_at_its_pace_in_its_room() -> None:
    score = scale(40)
    whole = played(score, "key", Rendition(0, soundfont=default_soundfont(), take=1), 60.0)
    late = played(score, "key", Rendition(0, start=20, take=1), 60.0)
    slow = played(score, "key", Rendition(0, pace=0.5, start=20, take=1), 60.0)
    roomy = played(score, "key", Rendition(0, start=20, room=True, take=1), 60.0)
    assert whole is not None
    assert late is not None
    assert slow is not None
    assert roomy is not None
    assert whole.seconds - late.seconds == pytest.approx(20.0, abs=0.1)
    assert slow.seconds - late.seconds == pytest.approx(20.0, abs=2.0)  # the tail is in seconds of its own
    assert roomy.peak_dbfs == pytest.approx(-1.0, abs=0.1)
    assert score.end() == 40 * 480
    assert played(score, "key", Rendition(0, start=32), 60.0) is None, "eight seconds are too few"
    with pytest.raises(ScoreError, match="no notes"):
        played(score, "key", Rendition(0, start=44), 60.0)


def test_installed_soundfonts_are_found_where_systems_keep_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert all(path.is_absolute() for path in INSTALLED_SOUNDFONTS)
    for name in ("b.sf2", "a.sf2", "c.txt"):
        (tmp_path / name).touch()
    monkeypatch.setattr(module, "INSTALLED_SOUNDFONTS", (tmp_path / "missing", tmp_path))
    assert installed_soundfonts() == (tmp_path / "a.sf2", tmp_path / "b.sf2")
