import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from symusic.core import NoteTick, ScoreTick, TempoTick, TimeSignatureTick, TrackTick

from partbook.corpus.midi import fault, score_of_midi, usable_metres
from partbook.errors import ScoreError
from partbook.music.tokens import Tokenizer

walked = ScoreTick(480)
walked.tracks.append(TrackTick("walk", 0))
walked.tracks[0].notes.extend([NoteTick(240 * k, 240, 60 + k % 7, 80) for k in range(20)])
walked.time_signatures.append(TimeSignatureTick(0, 3, 4))
walked.tempos.append(TempoTick(0, 90.0))


@pytest.mark.parametrize(
    ("metres", "expected", "rest"),
    [
        ([], [(0, 4, 4)], 0),
        ([(0, 3, 4), (0, 3, 4), (0, 3, 4)], [(0, 3, 4)], 0),
        ([(0, 4, 8), (960, 7, 8), (2640, 6, 16)], [(0, 4, 8), (960, 7, 8), (2640, 6, 16)], 0),
        ([(0, 8, 8), (1920, 2, 4)], [(0, 4, 4), (1920, 2, 4)], 0),
        ([(0, 12, 16), (1440, 24, 16)], [(0, 12, 16), (1440, 12, 8)], 0),
        ([(0, 1, 8), (240, 4, 4)], [(0, 4, 4)], 1680),
        ([(0, 11, 8), (2640, 3, 4), (4080, 11, 8), (6720, 2, 4)], [(0, 3, 4), (6960, 2, 4)], 240),
        ([(0, 1, 16), (120, 1, 16), (240, 6, 8), (1680, 5, 16), (1980, 6, 8)], [(0, 6, 8)], 1200),
        ([(0, 11, 8)], [(0, 4, 4)], 0),
    ],
)
def test_odd_metres_become_what_the_tokeniser_can_say(
    metres: list[tuple[int, int, int]], expected: list[tuple[int, int, int]], rest: int
) -> None:
    assert usable_metres(metres) == (expected, rest)


def made(tmp_path: Path) -> Path:
    """An eighth's pick-up to a bar of 4/4, on two instruments, with drums."""
    score = ScoreTick(120)
    for program, pitch in ((40, 67), (42, 48)):
        track = TrackTick("part", program)
        track.notes.extend([NoteTick(0, 60, pitch, 80), NoteTick(60, 480, pitch + 5, 80)])
        score.tracks.append(track)
    drums = TrackTick("drums", 0, True)
    drums.notes.append(NoteTick(60, 60, 38, 80))
    score.tracks.append(drums)
    score.tempos.extend([TempoTick(0, 90.0), TempoTick(60, 90.0), TempoTick(300, 60.0)])
    score.time_signatures.extend([TimeSignatureTick(0, 1, 8), TimeSignatureTick(60, 4, 4)])
    path = tmp_path / "pickup.mid"
    score.dump_midi(path)
    return path


def test_a_files_parts_stay_together_on_one_instrument_and_bars_where_they_were(
    tmp_path: Path, tiny_tokenizer: Tokenizer
) -> None:
    score = score_of_midi(made(tmp_path), 6)
    assert score.ticks_per_quarter == 480
    assert [track.program for track in score.tracks] == [6, 6]
    assert [[(n.time, n.duration, n.pitch) for n in t.notes] for t in score.tracks] == [
        [(1680, 240, 67), (1920, 1920, 72)],
        [(1680, 240, 48), (1920, 1920, 53)],
    ]
    assert [(tempo.time, round(tempo.qpm)) for tempo in score.tempos] == [(0, 90), (2880, 60)]
    ids = tiny_tokenizer.encode(score)
    names = tiny_tokenizer.names(list(ids))
    assert sum(name.startswith("Program") for name in names) == 1
    assert {note.time for track in tiny_tokenizer.decode(ids).tracks for note in track.notes} == {1680, 1920}


def test_what_is_no_music_is_named(tmp_path: Path) -> None:
    path = tmp_path / "text.mid"
    path.write_text("not MIDI")
    with pytest.raises(ScoreError, match=r"text\.mid"):
        score_of_midi(path, 0)
    drums = ScoreTick(480)
    drums.tracks.append(TrackTick("drums", 0, True))
    drums.tracks[0].notes.append(NoteTick(0, 60, 38, 80))
    drums.dump_midi(path)
    with pytest.raises(ScoreError, match="no pitched notes"):
        score_of_midi(path, 0)


def test_a_whole_file_has_no_fault(tunes: list[Path]) -> None:
    for path in tunes:
        assert fault(path.read_bytes()) is None


@pytest.mark.parametrize(
    ("altered", "wrong"),
    [
        (b"", "no MIDI header"),
        (b"MThd\0\0\0\6\0\1\0\1\0\0", "header is not one"),
        (b"MThd\0\0\0\6\0\1\0\1\xe7\x28", "header is not one"),
        (b"MThd\0\0\0\6\0\1\0\1\1\xe0", "no tracks"),
        (b"MThd\0\0\0\6\0\1\0\1\1\xe0MTrk\0\0\0\x40\0\x90\x40\x40", "cut off"),
        (b"MThd\0\0\0\6\0\1\0\1\1\xe0MTrk\0\0\0\3\0\x90\x40", "cut off"),
        (b"MThd\0\0\0\6\0\1\0\1\1\xe0MTrk\0\0\0\4\0\x90\x40\xc0", "out of range"),
        (b"MThd\0\0\0\6\0\1\0\1\1\xe0MTrk\0\0\0\3\0\x40\x40", "inside an event"),
        (b"MThd\0\0\0\6\0\1\0\1\1\xe0MTrk\0\0\0\2\0\xf8", "of no kind"),
        (b"MThd\0\0\0\6\0\1\0\1\1\xe0MTrk\0\0\0\5\0\xff\x51\1\0", "wrong length"),
        (b"MThd\0\0\0\6\0\1\0\1\1\xe0MTrk\0\0\0\4\0\xff\1\x7f", "cut off"),
        (b"MThd\0\0\0\6\0\1\0\1\1\xe0MTrk\0\0\0\6\xff\xff\xff\xff\xff\0", "cut off"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_before_anybody_reads_it(altered: bytes, wrong: str, tmp_path: Path) -> None:
    assert wrong in (fault(altered) or "")
    (tmp_path / "altered.mid").write_bytes(altered)
    with pytest.raises(ScoreError, match=r"altered\.mid cannot be read"):
        score_of_midi(tmp_path / "altered.mid", 0)


@settings(max_examples=200)
@given(st.data())
def test_altered_files_are_refused_or_read_and_nothing_worse(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = walked.dumps_midi()
    place = data.draw(st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), max_size=8))
    altered = bytearray(whole)
    for at, value in place:
        altered[at] = value
    path = tmp_path_factory.getbasetemp() / "altered.mid"
    path.write_bytes(bytes(altered[: data.draw(st.integers(1, len(whole)))]))
    with contextlib.suppress(ScoreError):
        assert score_of_midi(path, 0).note_num()
