import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from symusic.core import ScoreTick

from partbook.corpus.melody import LENGTH, Melody, melodies, melodies_of_musicxml, ngrams, skyline
from partbook.errors import ScoreError
from partbook.simulation.collections import corpus

NOTE = "<note>{}<pitch><step>{}</step>{}<octave>{}</octave></pitch>{}</note>"


def melody(*pitches: int) -> Melody:
    return Melody(np.arange(len(pitches), dtype=np.float64), np.array(pitches, dtype=np.int64))


def test_the_skyline_is_the_highest_note_at_each_onset() -> None:
    line = skyline(np.array([1.0, 0.0, 1.0, 2.0]), np.array([60, 62, 67, 55]))
    assert line.onset.tolist() == [0, 1, 2]
    assert line.pitch.tolist() == [62, 67, 55]


@given(st.lists(st.integers(40, 80), min_size=LENGTH + 1, max_size=40), st.integers(-20, 20), st.sampled_from([0.5, 3]))
def test_a_fingerprint_is_the_same_in_every_key_and_at_every_speed(pitches: list[int], key: int, slower: float) -> None:
    line = melody(*pitches)
    moved = Melody(line.onset * slower + 7, line.pitch + key)
    assert np.array_equal(ngrams(line)[0], ngrams(moved)[0])


@given(st.lists(st.integers(40, 80), max_size=40))
def test_a_fingerprint_says_where_each_of_its_ngrams_begins_first(pitches: list[int]) -> None:
    found, place = ngrams(melody(*pitches))
    assert len(found) == len(np.unique(found)) <= max(len(pitches) - LENGTH, 0)
    for one, start in zip(found.tolist(), place.tolist(), strict=True):
        assert ngrams(melody(*pitches[start : start + LENGTH + 1]))[0].tolist() == [one]
        assert one not in ngrams(melody(*pitches[: start + LENGTH]))[0].tolist()


def test_by_the_beat_passing_notes_and_repeated_notes_are_gone() -> None:
    plain = Melody(np.array([0.0, 1, 2, 3]), np.array([60, 64, 67, 72]))
    ornate = Melody(np.array([0, 0.5, 1, 1.5, 2, 2.5, 3]), np.array([60, 62, 64, 65, 67, 67, 72]))
    repeated = Melody(np.array([0.0, 1, 1.25, 1.5, 2, 3, 4]), np.array([60, 64, 64, 64, 67, 72, 72]))
    for line in (plain, ornate, repeated):
        assert line.by_the_beat().pitch.tolist() == [60, 64, 67, 72]
    assert ornate.by_the_beat(0.5).pitch.tolist() == [62, 65, 67]


def test_a_score_has_one_melody_over_all_and_one_a_track(tunes: list[Path]) -> None:
    score = ScoreTick(tunes[0])
    alone = melodies(score)
    assert len(alone) == 1
    low = score.tracks[0].copy()
    for note in low.notes:
        note.pitch -= 12
    score.tracks.append(low)
    whole, first, second = melodies(score)
    assert whole.pitch.tolist() == first.pitch.tolist() == (second.pitch + 12).tolist() == alone[0].pitch.tolist()
    score.tracks[1].is_drum = True
    assert len(melodies(score)) == 1
    with pytest.raises(ScoreError, match="no pitched notes"):
        melodies(ScoreTick(480))


def test_ties_chords_voices_rests_and_grace_notes_are_read_as_written(tmp_path: Path) -> None:
    def note(step: str, octave: int, length: int, before: str = "", after: str = "", alter: str = "") -> str:
        sign = f"<alter>{alter}</alter>" if alter else ""
        return NOTE.format(before, step, sign, octave, f"<duration>{length}</duration>{after}")

    first = (
        "<measure><attributes><divisions>2</divisions></attributes>"
        + NOTE.format("<grace/>", "B", "", 5, "")
        + note("C", 4, 2)
        + note("E", 4, 2, before="<chord/>")
        + note("F", 4, 2, after='<tie type="start"/>', alter="1")
        + "<backup><duration>4</duration></backup>"
        + note("G", 3, 1)
        + "<note><rest/><duration>1</duration></note>"
        + note("A", 4, 2)
        + "</measure>"
    )
    second = "<measure>" + note("F", 4, 2, after='<tie type="stop"/>', alter="1") + note("D", 5, 2) + "</measure>"
    path = tmp_path / "made.musicxml"
    path.write_text(f"<score-partwise><part>{first}{second}</part></score-partwise>")
    (line,) = melodies_of_musicxml(path)
    assert line.onset.tolist() == [0, 1, 3]
    assert line.pitch.tolist() == [64, 69, 74]


@pytest.mark.parametrize("key", ["bach/bwv66.6.mxl", "bach/bwv190.7-inst.mxl", "monteverdi/madrigal.3.15.mxl"])
def test_the_quick_reader_reads_what_music21_reads(key: str) -> None:
    from music21 import converter

    parsed = converter.parse(corpus() / key, format="musicxml").stripTies()
    quick = melodies_of_musicxml(corpus() / key)[1:]
    slow = []
    for part in parsed.parts:
        rows = [(float(n.offset), p.midi) for n in part.flatten().notes for p in n.pitches if n.quarterLength > 0]
        if rows:
            onset, pitch = zip(*rows, strict=True)
            slow.append(skyline(np.array(onset), np.array(pitch, dtype=np.int64)))
    assert len(quick) == len(slow)
    for mine, theirs in zip(quick, slow, strict=True):
        assert mine.pitch.tolist() == theirs.pitch.tolist()
        assert mine.onset == pytest.approx(theirs.onset)


def test_a_file_that_is_no_musicxml_is_named(tmp_path: Path) -> None:
    path = tmp_path / "odd.mxl"
    path.write_bytes(b"PK not a zip")
    with pytest.raises(ScoreError, match=r"odd\.mxl"):
        melodies_of_musicxml(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("score.xml", "<score-partwise><part></part></score-partwise>")
    with pytest.raises(ScoreError, match="no melody"):
        melodies_of_musicxml(path)
    with pytest.raises(ScoreError, match=r"missing\.mxl"):
        melodies_of_musicxml(tmp_path / "missing.mxl")
