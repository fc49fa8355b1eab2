"""A tree of collected MIDI files: what is damaged, empty, endless or there twice is left out, and counted."""

import json
from pathlib import Path

import numpy as np
import pytest
from symusic.core import NoteTick, ScoreTick, TempoTick, TrackTick

from partbook.corpus import joining
from partbook.corpus.joining import A_COPY, DAMAGED, NO_NOTES, TOO_LONG
from partbook.corpus.library import POOLS, Library


def walk(seed: int, *, drum: bool = False, step: int = 240) -> bytes:
    random = np.random.Generator(np.random.Philox(seed))
    pitch = 62 + np.cumsum(random.choice([-4, -2, -1, 1, 2, 3, 5, -5], 80)) % 14
    score, track = ScoreTick(480), TrackTick("", 0, drum)
    track.notes.extend([NoteTick(step * k, 240, int(p), 80) for k, p in enumerate(pitch)])
    score.tracks.append(track)
    score.tempos.append(TempoTick(0, 100.0))
    data: bytes = score.dumps_midi()
    return data


@pytest.fixture
def lakh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sixty tunes in Lakh's layout, and whatever else such trees hold."""
    monkeypatch.setattr(joining, "installed_keys", list)
    home = tmp_path / "lakh"
    odd = {
        "0/empty.mid": b"",
        "0/page.mid": b"<html>404 Not Found</html>",
        "1/half.mid": walk(1)[:300],
        "1/noise.mid": walk(2)[:40] + bytes(range(256)),
        "2/drums.mid": walk(3, drum=True),
        "2/endless.mid": walk(4, step=480 * 4000),
        "3/again.mid": walk(5),
        "3/RIFF.MID": b"RIFF" + walk(6),
        "3/._5.mid": b"\x00\x05\x16\x07",
        "f/read me.txt": b"no music",
    }
    for number in range(60):
        path = home / f"{number % 16:x}" / f"{number:032x}.mid"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(walk(number))
    for name, data in odd.items():
        (home / name).write_bytes(data)
    (home / "4" / "folder.mid").mkdir()
    (home / "4" / "gone.mid").symlink_to(home / "nowhere.mid")
    (home / "5" / "caf\udce9.mid").write_bytes(walk(100))
    moved = ScoreTick.from_midi(walk(8))
    for note in moved.tracks[0].notes:
        note.pitch += 5
    (home / "6" / "in another key.mid").write_bytes(moved.dumps_midi())
    return home


def test_a_tree_by_hash_is_one_collection_and_what_is_no_work_is_counted(lakh: Path, tmp_path: Path) -> None:
    opened = Library.open([lakh], tmp_path / "cache")
    assert opened.collections[-1] == "lakh"
    assert opened.left_out["lakh"] == {DAMAGED: 6, NO_NOTES: 1, TOO_LONG: 1, A_COPY: 1}
    works = [work for pool in POOLS for work in opened.pool("lakh", pool)]
    assert len(works) == 62
    assert {work.key.split("/")[0] for work in works} == {"lakh"}
    assert all(score is not None for score in opened.each_score(works))
    one_tune = [work for work in works if work.title == "in another key" or work.title == f"{8:032x}"]
    assert len({work.family for work in one_tune}) == 1
    assert len({work.family for work in works}) == 61
    json.dumps([work.title for work in works]).encode()
    assert "caf\\udce9" in {work.title for work in works}


def test_opening_again_leaves_out_the_same_and_reads_nothing(
    lakh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Library.open([lakh], tmp_path / "cache")
    with monkeypatch.context() as patch:
        patch.setattr(joining, "_folder", None)
        again = Library.open([lakh], tmp_path / "cache")
    assert again.left_out == first.left_out
    assert all(again.pool("lakh", pool) == first.pool("lakh", pool) for pool in POOLS)
    for path in (tmp_path / "cache").glob("families-*"):
        path.unlink()
    monkeypatch.setattr(joining, "_read", None)  # melodies and reasons are kept beside each other
    assert Library.open([lakh], tmp_path / "cache").left_out == first.left_out


def test_one_file_in_two_folders_is_the_first_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "installed_keys", list)
    for name in ("first", "second"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "one.mid").write_bytes(walk(1))
        (tmp_path / "data" / name / f"of {name}.mid").write_bytes(walk(len(name)))
    opened = Library.open([tmp_path / "data"], tmp_path / "cache")
    assert opened.left_out == {"first": {}, "second": {A_COPY: 1}}
