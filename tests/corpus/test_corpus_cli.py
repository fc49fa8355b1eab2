import json
from pathlib import Path

import numpy as np
import pytest
from symusic.core import NoteTick, ScoreTick, TempoTick, TimeSignatureTick, TrackTick
from typer.testing import CliRunner

from partbook.corpus import joining
from partbook.corpus.cli import app
from partbook.corpus.heard import heard_in
from partbook.errors import InputError


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of thirty tunes, a minute each; the installed works' melodies are left out for the time."""
    monkeypatch.setattr(joining, "installed_keys", list)
    folder = tmp_path / "walks"
    folder.mkdir()
    for seed in range(30):
        random = np.random.Generator(np.random.Philox(seed))
        score, track = ScoreTick(480), TrackTick()
        track.notes.extend(
            [NoteTick(480 * k, 480, 60 + int(p), 80) for k, p in enumerate(random.integers(0, 12, 60).tolist())]
        )
        score.tracks.append(track)
        score.tempos.append(TempoTick(0, 60.0))
        score.time_signatures.append(TimeSignatureTick(0, 3, 4))
        score.dump_midi(folder / f"{seed:02d} étude.mid")
    (folder / "half.mid").write_bytes((folder / "00 étude.mid").read_bytes()[:100])
    (folder / "LICENSE").write_text("MIT License\n\nCopyright (c) 2020 the tests\n")
    return folder


def test_show_says_what_is_in_each_pool_and_fits_a_terminal(data: Path, tmp_path: Path) -> None:
    call = ["show", "--data", str(data), "--cache", str(tmp_path / "cache"), "--collection", "walks"]
    shown = CliRunner().invoke(app, call, env={"COLUMNS": "80"}, catch_exceptions=False)
    assert shown.exit_code == 0
    lines = shown.stdout.splitlines()
    assert max(len(line) for line in lines) <= 80
    assert [line.split() for line in lines] == [
        ["collection", "pool", "works", "families", "notes", "hours"],
        ["walks", "base", "6", "6", "360", "0.1"],
        ["walks", "heldout", "24", "24", "1,440", "0.4"],
        [],
        ["collection", "rights"],
        ["walks", "MIT", "License;", "Copyright", "(c)", "2020", "the", "tests"],
        [],
        ["walks:", "1", "files", "left", "out", "(1", "damaged)."],
        ["No", "tune", "is", "in", "two", "pools."],
    ]
    told = CliRunner().invoke(app, [*call, "--json"], catch_exceptions=False)
    found = json.loads(told.stdout)
    assert found["shared_families"] == []
    assert found["rights"] == {"walks": "MIT License; Copyright (c) 2020 the tests"}
    assert found["left_out"] == {"walks": {"damaged": 1}}
    assert found["pools"][2] == {
        "collection": "walks", "pool": "heldout", "works": 24, "families": 24, "notes": 1440, "hours": 0.4,
        "unreadable": 0,
    }  # fmt: skip


def test_export_writes_a_pool_as_midi_files(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "reference" / "walks"
    call = ["export", "--collection", "walks", "--out", str(out), "--data", str(data), "--cache", str(tmp_path / "c")]
    done = CliRunner().invoke(app, call, catch_exceptions=False)
    assert done.exit_code == 0
    assert "24 of 24" in done.stdout
    files = sorted(out.iterdir())
    assert len(files) == 24
    assert all(path.suffix == ".mid" for path in files)
    assert ScoreTick(files[0]).note_num() == 60
    before = [path.read_bytes() for path in files]
    CliRunner().invoke(app, call, catch_exceptions=False)
    assert [path.read_bytes() for path in sorted(out.iterdir())] == before


def test_an_unknown_collection_is_named(data: Path, tmp_path: Path) -> None:
    call = ["export", "--collection", "ravel", "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "c")]
    with pytest.raises(InputError, match="no collection 'ravel'"):
        CliRunner().invoke(app, call, catch_exceptions=False)
    with pytest.raises(InputError, match="no collection 'ravel'"):
        CliRunner().invoke(app, ["show", *call[1:3], *call[5:]], catch_exceptions=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.timeout(600)  # a worker imports everything, where others want the cores
def test_hear_makes_takes_and_goes_on_where_it_was(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "heard"
    call = ["hear", "--data", str(data), "--collection", "walks", "--pool", "heldout", "--works", "2", "--takes", "2"]
    call += ["--seconds", "15", "--workers", "1", "--cache", str(tmp_path / "cache"), "--out", str(out)]
    done = CliRunner().invoke(app, [*call, "--json"], catch_exceptions=False)
    (row,) = json.loads(done.stdout)["collections"]
    assert row["collection"] == "walks"
    assert row["takes"] + row["refused"] == 4
    assert row["works"] == 2
    assert row["notes"] > 40
    found = list(heard_in(out))
    assert len(found) == row["takes"]
    assert {each.collection for each in found} == {"walks"}
    assert len({json.dumps(each.rendition) for each in found}) == len(found)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    shown = CliRunner().invoke(app, call, env={"COLUMNS": "80"}, catch_exceptions=False)
    assert shown.stdout.splitlines()[0].split() == ["collection", "works", "takes", "refused", "notes", "hours"]
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before
