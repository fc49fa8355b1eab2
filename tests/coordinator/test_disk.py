"""Files of the coordinator's that are replaced whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from flushes import watched

from partbook.coordinator.disk import replace_file


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(b"before")
    with monkeypatch.context() as patch:
        seen = watched(patch)
        replace_file(path, b"af", b"ter")
    assert seen[:2] == ["5 bytes", "named state.json"]
    assert path.read_bytes() == b"after"


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_refuses_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    path = tmp_path / "state.json"
    replace_file(path, b"before")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(OSError, match="No space left"):
            replace_file(path, b"after")
    assert path.read_bytes() == b"before"
