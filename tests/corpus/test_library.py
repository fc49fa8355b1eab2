"""Pools of joined collections: what anybody plays or measures by stays out of every base."""

from pathlib import Path

import numpy as np
import pytest
from symusic.core import NoteTick, ScoreTick, TempoTick, TrackTick

from partbook.corpus import joining, library
from partbook.corpus.library import AIRS, Library
from partbook.corpus.table import leaks
from partbook.corpus.withheld import MELODIES, SONGS, TRECENTO
from partbook.errors import InputError
from partbook.simulation.collections import COLLECTIONS, Pool, Work, corpus, split

POOLS: tuple[Pool, ...] = ("base", "label", "heldout")


def walk(seed: int, notes: int = 80) -> ScoreTick:
    """A tune of its own."""
    random = np.random.Generator(np.random.Philox(seed))
    pitch = 62 + np.cumsum(random.choice([-4, -2, -1, 1, 2, 3, 5, -5], notes)) % 14
    score, track = ScoreTick(480), TrackTick()
    track.notes.extend([NoteTick(240 * k, 240, int(p), 80) for k, p in enumerate(pitch)])
    score.tracks.append(track)
    score.tempos.append(TempoTick(0, 100.0))
    return score


def moved(work: Work, semitones: int) -> ScoreTick:
    """The same tune in another key."""
    score = work.score()
    for note in score.tracks[0].notes:
        note.pitch += semitones
    return score


@pytest.fixture
def few_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Melodies of a few installed works stand for all: reading every one takes half a minute."""
    keys = [w.key for pool in POOLS for w in split("oneills1850")[pool][:8]]
    monkeypatch.setattr(joining, "installed_keys", lambda: keys)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two folders: one of forty tunes, and one of thirty-odd with copies in it."""
    home = tmp_path / "data"
    for name in ("walks", "copies"):
        (home / name).mkdir(parents=True)
    for seed in range(40):
        walk(seed).dump_midi(home / "walks" / f"{seed:02d}.mid")
    for seed in range(40, 70):
        walk(seed).dump_midi(home / "copies" / f"{seed:02d}.mid")
    for pool in POOLS:
        moved(split("oneills1850")[pool][1], 3).dump_midi(home / "copies" / f"of {pool}.mid")
    walk(7).dump_midi(home / "copies" / "of a walk.mid")
    return home


def titles(opened: Library, collection: str, pool: Pool) -> set[str]:
    return {work.title for work in opened.pool(collection, pool)}


def test_the_installed_collections_come_first_with_their_pools() -> None:
    opened = Library.open()
    assert opened.collections == (*(c.name for c in COLLECTIONS), AIRS, TRECENTO)
    for collection in COLLECTIONS:
        for pool in POOLS:
            assert [w.key for w in opened.pool(collection.name, pool)] == [w.key for w in split(collection.name)[pool]]
    for style, label, heldout in ((AIRS, 800, 200), (TRECENTO, 50, 24)):
        assert len(opened.pool(style, "label")) >= label
        assert len(opened.pool(style, "heldout")) >= heldout
        assert not opened.pool(style, "base")
    assert {opened.rights(name) for name in opened.collections}.isdisjoint({"not stated"})
    everywhere = {p: [w.family for name in opened.collections for w in opened.pool(name, p)] for p in POOLS}
    assert not leaks(everywhere)


def test_a_work_is_scored_on_its_collections_instrument(tmp_path: Path) -> None:
    opened = Library.open(cache=tmp_path)
    own = (*opened.pool("oneills1850", "heldout")[:2], *opened.pool(AIRS, "heldout")[:2])
    told: list[str] = []
    scores = opened.scores(own, told.append)
    assert len(scores) == 4
    assert told == [work.title for work in own]
    assert {track.program for score in scores for track in score.tracks} == {73}
    again = opened.scores(own)
    assert [score.note_num() for score in again] == [score.note_num() for score in scores]


@pytest.mark.usefixtures("few_installed")
def test_joined_collections_share_no_tune_with_what_others_play_or_measure_by(data: Path, tmp_path: Path) -> None:
    opened = Library.open([data], tmp_path / "cache")
    assert opened.collections[-2:] == ("copies", "walks")
    everywhere = {p: [w.family for name in opened.collections for w in opened.pool(name, p)] for p in POOLS}
    assert not leaks(everywhere)
    used = titles(opened, "copies", "base") | titles(opened, "copies", "heldout")
    assert not {"of heldout", "of label"} & used, "somebody plays these, or measures by them"
    assert "of base" in titles(opened, "copies", "base")
    assert len(titles(opened, "walks", "heldout")) >= 24
    assert not titles(opened, "walks", "label")
    walks = titles(opened, "walks", "base") | titles(opened, "walks", "heldout")
    assert ("of a walk" in used) != ("07" in walks), "of two files with the same music one is left out"
    (copy,) = (work for work in opened.pool("copies", "base") if work.title == "of base")
    assert copy.family == opened.pool("oneills1850", "base")[1].family


def test_encodings_with_a_rights_statement_are_left_out() -> None:
    opened = Library.open()
    used = [work for pool in POOLS for work in opened.pool(TRECENTO, pool)]
    assert len(used) > 75
    for work in used:
        data = (corpus() / work.key).read_bytes()
        assert "<rights" not in data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"), work.key


@pytest.mark.usefixtures("few_installed")
def test_melodies_and_songs_of_openscore_are_collections_that_no_base_has(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "openscore-lieder"
    folder.mkdir(parents=True)
    numbers = {MELODIES: [6994174, 5060910, 5079487], SONGS: [6478624, 6620454, 6484163], folder.name: range(40)}
    seed = 0
    for style, of_style in numbers.items():
        for number in of_style:
            walk(seed := seed + 1).dump_midi(folder / f"{style}__lc{number}.mid")
    walk(1).dump_midi(folder / "of a mélodie, twice__lc50.mid")
    (folder / "LICENSE.txt").write_text("Creative Commons Legal Code\n\nCC0 1.0 Universal\n")
    opened = Library.open([tmp_path / "data"], tmp_path / "cache")
    assert opened.collections[-3:] == (folder.name, MELODIES, SONGS)
    for style in (MELODIES, SONGS):
        assert not opened.pool(style, "base")
        used = titles(opened, style, "label") | titles(opened, style, "heldout")
        assert {title.split("__")[0] for title in used} == {style}
        assert opened.rights(style) == "Creative Commons Legal Code; CC0 1.0 Universal"
    lieder = titles(opened, folder.name, "base") | titles(opened, folder.name, "heldout")
    assert {title.split("__")[0] for title in lieder} <= {folder.name, "of a mélodie, twice"}
    everywhere = {p: [w.family for name in opened.collections for w in opened.pool(name, p)] for p in POOLS}
    assert not leaks(everywhere)
    assert sum(len(opened.pool(MELODIES, p)) for p in POOLS) == 3 - ("of a mélodie, twice__lc50" in lieder)


@pytest.mark.usefixtures("few_installed")
def test_opening_again_reads_no_melody_and_gives_the_same(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Library.open([data / "walks"], tmp_path / "cache")

    def refuse(*_: object) -> None:
        raise AssertionError("melodies are read again")

    for name in ("_installed", "_folder"):
        monkeypatch.setattr(joining, name, refuse)
    again = Library.open([data / "walks"], tmp_path / "cache")
    assert all(first.pool(c, p) == again.pool(c, p) for c in first.collections for p in POOLS)
    walk(99).dump_midi(data / "walks" / "99.mid")
    with pytest.raises(AssertionError, match="read again"):
        Library.open([data / "walks"], tmp_path / "cache")


@pytest.mark.usefixtures("few_installed")
def test_a_damaged_cache_is_made_anew(data: Path, tmp_path: Path) -> None:
    first = Library.open([data / "walks"], tmp_path / "cache")
    for path in (tmp_path / "cache").iterdir():
        path.write_bytes(path.read_bytes()[:50])
    again = Library.open([data / "walks"], tmp_path / "cache")
    assert all(first.pool(c, p) == again.pool(c, p) for c in first.collections for p in POOLS)


def test_folders_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder"):
        Library.open([tmp_path / "missing"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no MIDI files"):
        Library.open([tmp_path / "empty"])
    for parent in ("a", "b"):
        (tmp_path / parent / "tunes").mkdir(parents=True)
        walk(1).dump_midi(tmp_path / parent / "tunes" / "1.mid")
    with pytest.raises(InputError, match="one name"):
        Library.open([tmp_path / "a", tmp_path / "b"])
    (tmp_path / "bach").mkdir()
    walk(1).dump_midi(tmp_path / "bach" / "1.mid")
    with pytest.raises(InputError, match="there already"):
        Library.open([tmp_path / "bach"])
    with pytest.raises(InputError, match="no collection 'ravel'"):
        Library.open().pool("ravel", "base")


def test_the_cache_is_where_the_desktop_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert library.default_cache() == Path("/somewhere/partbook/corpus")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert library.default_cache() == Path.home() / ".cache" / "partbook" / "corpus"
