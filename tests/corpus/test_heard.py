"""Works as a node hears them: kept one by one, so that nothing is heard twice."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from partbook.corpus import heard as module
from partbook.corpus.heard import Heard, Hearing, hear, heard, heard_in, kept, written
from partbook.corpus.library import PublicWork
from partbook.errors import CorruptMessage, NoNotesFound, ScoreError
from partbook.music.notes import Notes
from partbook.music.rendering import default_soundfont, write_flac
from partbook.music.tokens import Tokenizer
from partbook.simulation import labels
from partbook.vault.analysis import analyse
from partbook.vault.transcription import Transcriber

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # workers import everything, where others want the cores


def test_works_are_heard_once_and_damaged_entries_again(
    tunes: list[Path], tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    works = [PublicWork("tunes", f"tunes/{k}.mid", f"Tune {k}", f"tunes/{k}.mid", 6, tunes[k]) for k in (0, 1, 2)]
    tokenizer, cache = tiny_base / "tokenizer.json", tmp_path / "cache"
    told: list[str] = []
    first = heard(works, tokenizer, cache, seconds=15.0, on_work=told.append, workers=1)
    assert sorted(told) == ["Tune 0", "Tune 1", "Tune 2"]
    assert len(list(cache.iterdir())) == 3
    long_enough = [recording.title for recording in first]
    assert long_enough == sorted(long_enough)
    assert "Tune 2" in long_enough
    for recording in first:
        assert 12 < recording.seconds < 20
        assert len(recording.notes) > 10
        assert recording.mel.shape[1] == 128

    files = {path: path.read_bytes() for path in cache.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(module, "ProcessPoolExecutor", None)  # nobody may start a worker
        again = heard(works, tokenizer, cache, seconds=15.0)
    assert [recording.to_bytes() for recording in again] == [recording.to_bytes() for recording in first]

    damaged = next(path for path, data in files.items() if not data.startswith(b"refused"))
    damaged.write_bytes(files[damaged][:200])
    mended = heard(works, tokenizer, cache, seconds=15.0, workers=1)
    assert [recording.to_bytes() for recording in mended] == [recording.to_bytes() for recording in first]
    assert {path: path.read_bytes() for path in cache.iterdir()} == files


def test_a_plain_rendition_is_written_as_the_node_writes_the_demos_recordings(
    tunes: list[Path], tiny_base: Path, tmp_path: Path
) -> None:
    work = PublicWork("tunes", "tunes/2.mid", "Tune 2", "tunes/2.mid", 6, tunes[2])
    (mine,) = heard([work], tiny_base / "tokenizer.json", tmp_path / "cache", seconds=15.0, workers=1)
    sound = labels.played(work.score(), work.key, 15.0)
    assert sound is not None
    write_flac(tmp_path / "Tune 2.flac", sound)
    tokenizer = Tokenizer.load(tiny_base / "tokenizer.json")
    theirs = analyse(tmp_path / "Tune 2.flac", tokenizer, Transcriber(), program=6).recording
    assert mine.to_bytes() == theirs.to_bytes()


def test_takes_differ_are_kept_and_know_what_they_are(tunes: list[Path], tiny_base: Path, tmp_path: Path) -> None:
    work = PublicWork("tunes", "tunes/2.mid", "Tune 2", "tunes/2.mid", 6, tunes[2])
    hearings = [Hearing(work, take, 15.0, (default_soundfont(),)) for take in range(3)]
    paths = hear(hearings, tmp_path / "cache", workers=1)
    found = [each for each in map(kept, paths) if isinstance(each, Heard)]
    assert len({path.name for path in paths}) == 3
    assert len(found) >= 2
    assert len({each.mel.tobytes() for each in found}) == len(found)
    for each in found:
        assert (each.collection, each.key, each.title) == ("tunes", "tunes/2.mid", "Tune 2")
        assert each.rendition["program"] == each.program
        assert each.rendition["soundfont"] == "TimGM6mb.sf2"
        assert len(each.notes) > 10
        recording = written(each, Tokenizer.load(tiny_base / "tokenizer.json"))
        assert recording.title == "Tune 2"
        assert recording.mel is each.mel
    listed = list(heard_in(tmp_path / "cache"))
    assert {each.to_bytes() for each in listed} == {each.to_bytes() for each in found}


def test_a_name_holds_all_that_a_hearing_depends_on(
    tunes: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy.mid"
    copy.write_bytes(tunes[1].read_bytes())
    work = PublicWork("tunes", "tunes/1.mid", "Tune 1", "tunes/1.mid", 6, tunes[1])
    one = Hearing(work)
    others = [
        Hearing(dataclasses.replace(work, program=7)),
        Hearing(dataclasses.replace(work, source=tunes[0])),
        Hearing(work, 0),
        Hearing(work, 1),
        Hearing(work, None, 30.0),
        Hearing(work, None, 45.0, (tunes[0],)),
    ]
    assert len({one.name, *(other.name for other in others)}) == 7
    assert Hearing(dataclasses.replace(work, source=copy)).name == one.name, "the bytes count, not where they are"
    before = one.name
    monkeypatch.setattr(module, "_versions", lambda: "other ears")
    assert one.name != before


def test_what_cannot_be_heard_says_why(tmp_path: Path) -> None:
    (tmp_path / "half.mid").write_bytes(b"MThd")
    work = PublicWork("tunes", "half.mid", "Half", "half.mid", 6, tmp_path / "half.mid")
    (path,) = hear([Hearing(work)], tmp_path / "cache", workers=1)
    assert "half.mid cannot be read" in str(kept(path))
    assert not list(heard_in(tmp_path / "cache"))


def test_bytes_that_are_no_hearing_are_refused() -> None:
    notes = Notes.from_rows([(0.0, 1.0, 60, 80)])
    whole = Heard("a", "a/1", "One", 6, {}, 20.0, notes, np.zeros((4, 128), np.float16)).to_bytes()
    assert Heard.from_bytes(whole).to_bytes() == whole
    for damaged in (b"", whole[:60], whole[:-9]):
        with pytest.raises(CorruptMessage, match="heard again"):
            Heard.from_bytes(damaged)


def test_notes_beyond_the_piano_cannot_be_written_down(tiny_tokenizer: Tokenizer) -> None:
    notes = Notes.from_rows([(0.0, 1.0, 126, 80)])
    with pytest.raises(NoNotesFound, match="no note heard in it"):
        written(Heard("a", "a/1", "One", 6, {}, 20.0, notes, np.zeros((4, 128), np.float16)), tiny_tokenizer)


def test_breaking_off_keeps_what_is_done(tunes: list[Path], tiny_base: Path, tmp_path: Path) -> None:
    works = [PublicWork("tunes", f"tunes/{k}.mid", f"Tune {k}", f"tunes/{k}.mid", 6, tunes[2]) for k in range(40)]

    def stop(title: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        heard(works, tiny_base / "tokenizer.json", tmp_path / "cache", seconds=15.0, on_work=stop, workers=1)
    kept = list((tmp_path / "cache").iterdir())
    assert 1 <= len(kept) < 10
    assert all(path.suffix == ".heard" for path in kept)


def test_a_missing_tokeniser_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScoreError, match=r"missing\.json"):
        heard([], tmp_path / "missing.json", tmp_path)
