"""Works on the grid: kept, remade where damaged, and heard with their sound."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from few_works import FewWorks, Onlooking, heard_falsely

from partbook.corpus.heard import Hearing, kept, mapped_mel
from partbook.errors import CorruptMessage
from partbook.music.quantised import Quantised, quantised
from partbook.pretraining.mixture import Piece
from partbook.pretraining.pieces import from_bytes, heard, heard_piece, pooled, to_bytes, written


def same(one: Quantised, other: Quantised) -> bool:
    return all(np.array_equal(getattr(one, f.name), getattr(other, f.name)) for f in fields(Quantised))


def test_written_works_are_read_once_and_come_back_as_they_were(tmp_path: Path) -> None:
    library: Any = FewWorks()
    works = pooled(library, ("bach", "walks"), "base")
    first = written(library, works, tmp_path, Onlooking())
    again = written(library, works, tmp_path, Onlooking())
    assert library.asked == 1
    assert first.sha256 == again.sha256
    assert first.counted == {"bach": 5, "walks": 6}, "one cannot be read"
    scores = [score for score in library.each_score(works) if score is not None]
    for piece, back, score in zip(first.pieces, again.pieces, scores, strict=True):
        assert same(piece.music, back.music)
        assert same(piece.music, quantised(score))
        assert (piece.hand, piece.mel, piece.bar_seconds) == ("score", None, None)
    assert {piece.genre for piece in first.pieces} == {"chorale", None}
    assert first.notes["bach"] == sum(len(p.music.onset) for p in first.pieces if p.collection == "bach")


def test_a_damaged_file_of_pieces_is_made_anew(tmp_path: Path) -> None:
    library: Any = FewWorks()
    works = pooled(library, ("walks",), "base")
    first = written(library, works, tmp_path, Onlooking())
    (path,) = (tmp_path / "pieces").iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert written(library, works, tmp_path, Onlooking()).sha256 == first.sha256
    assert path.read_bytes() == whole


def test_heard_works_have_beats_and_the_sound_of_their_take(tmp_path: Path) -> None:
    library: Any = FewWorks()
    works = pooled(library, ("bach", "walks"), "base")
    found = heard(library, works, (0, 1), tmp_path, Onlooking())
    assert found.counted == {"bach": 12, "walks": 10}, "one is refused, twice"
    for piece in found.pieces:
        assert piece.hand == "heard"
        assert piece.bar_seconds is not None
        assert piece.mel is not None
        assert len(piece.bar_seconds) == len(piece.music)
        assert (np.diff(piece.bar_seconds) > 0).all()
        assert set(piece.music.program.tolist()) == {6}
    take = kept(tmp_path / "heard" / "bach-0-0.heard")
    assert not isinstance(take, str)
    again = heard_piece(take)
    assert same(again.music, found.pieces[0].music)
    assert np.array_equal(take.mel, found.pieces[0].mel)


def test_sound_is_mapped_and_what_is_none_is_named(tmp_path: Path) -> None:
    library: Any = FewWorks()
    works = pooled(library, ("bach", "walks"), "base")
    paths = heard_falsely([Hearing(work, 0) for work in works], tmp_path)
    mel = mapped_mel(paths[0])
    take = kept(paths[0])
    assert not isinstance(take, str)
    assert isinstance(mel, np.memmap)
    assert np.array_equal(mel, take.mel)
    refused = next(path for path in paths if path.name.startswith("walks-1-"))
    with pytest.raises(CorruptMessage, match="walks-1-0"):
        mapped_mel(refused)
    paths[0].write_bytes(paths[0].read_bytes()[:300])
    with pytest.raises(CorruptMessage, match="bach-0-0"):
        mapped_mel(paths[0])


def test_pieces_whose_take_is_gone_are_none(tmp_path: Path, corpus: Any) -> None:
    blob = to_bytes([corpus.heard.pieces[0]], ["nowhere.heard"])
    with pytest.raises(CorruptMessage, match="have them made again"):
        from_bytes(blob, tmp_path)
    with pytest.raises(CorruptMessage):
        from_bytes(blob[:40], tmp_path)


def test_no_pieces_are_pieces_too(tmp_path: Path) -> None:
    nothing: list[Piece] = []
    assert from_bytes(to_bytes(nothing, []), tmp_path) == []


def test_at_most_so_many_works_are_the_same_ones_every_time() -> None:
    library: Any = FewWorks(40)
    some = pooled(library, ("bach", "walks"), "base", 5)
    assert [work.collection for work in some] == ["bach"] * 5 + ["walks"] * 5
    assert some == pooled(library, ("bach", "walks"), "base", 5)
    assert {work.key for work in some} < {work.key for work in pooled(library, ("bach", "walks"), "base", 9)}
