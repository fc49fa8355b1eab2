"""Blobs on the coordinator's disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from partbook.coordinator.shelf import Shelf
from partbook.errors import AlteredFile


@pytest.fixture(params=["files", "memory"])
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "shelf" if request.param == "files" else None)


def test_what_is_put_comes_back_until_it_is_removed(shelf: Shelf) -> None:
    shelf.put("a", b"first")
    shelf.put("b", b"")
    shelf.put("a", b"second")
    assert (shelf.get("a"), shelf.get("b")) == (b"second", b"")
    shelf.remove("a")
    shelf.remove("a")
    assert "a" not in shelf
    assert "b" in shelf
    with pytest.raises(KeyError):
        shelf.get("a")
    shelf.clear()
    shelf.clear()
    assert "b" not in shelf


def test_only_the_owner_may_read_and_clearing_leaves_nothing(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "shelf")
    shelf.put("a", b"x")
    assert (tmp_path / "shelf").stat().st_mode & 0o077 == 0
    assert (tmp_path / "shelf" / "a").stat().st_mode & 0o077 == 0
    (tmp_path / "shelf" / "of a process that was killed").write_bytes(b"y")
    shelf.clear()
    assert list(tmp_path.iterdir()) == []


def test_another_process_goes_on_with_what_was_flushed(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "shelf")
    shelf.put("a", b"x")
    shelf.flush()
    shelf.flush()
    other = Shelf(tmp_path / "shelf")
    assert "a" not in other
    other.restore(shelf.digests)
    assert other.get("a") == b"x"


def test_what_was_altered_or_is_gone_is_named(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "shelf")
    shelf.put("a", b"x")
    (tmp_path / "shelf" / "a").write_bytes(b"y")
    with pytest.raises(AlteredFile, match="is not what the coordinator wrote"):
        shelf.get("a")
    (tmp_path / "shelf" / "a").unlink()
    with pytest.raises(AlteredFile, match="cannot be read"):
        shelf.get("a")
    with pytest.raises(AlteredFile, match="a of the round's sum is gone"):
        Shelf(tmp_path / "shelf").restore(shelf.digests)
